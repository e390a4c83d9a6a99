"""Each reason why a file cannot be had comes with what is to be done about that very reason."""

from __future__ import annotations

import errno
import os
import pwd
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.runtime import disk_trouble
from modelsplit_proxy.runtime.disk_trouble import (
    drop_begun,
    explained,
    hindrance,
    is_read_only,
    nearest,
)

if TYPE_CHECKING:
    from pathlib import Path


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EROFS, "Read-only file system; see `findmnt -T {}`"),
        (errno.ENOSPC, "No space left on device; see `df -h {}`"),
        (errno.EDQUOT, "Disk quota exceeded; see `quota -s`"),
        (errno.EACCES, "Permission denied: {} is {me}'s, and this is {me}; see `ls -ld {}`"),
        (errno.ENAMETOOLONG, "File name too long"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_is_to_be_done_is_of_that_error(number: int, told: str, tmp_path: Path) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    said = explained(failure(number), tmp_path / "none" / "file")
    assert said == told.format(tmp_path, tmp_path, me=me)


def test_what_is_missing_or_no_directory_is_named(tmp_path: Path) -> None:
    assert explained(failure(errno.ENOENT), tmp_path / "a" / "b") == (
        f"No such file or directory: {tmp_path / 'a'}"
    )
    file = tmp_path / "file"
    file.touch()
    for number in (errno.ENOTDIR, errno.EEXIST):
        assert explained(failure(number), file / "x") == f"{file} is a file, not a directory"
    assert nearest(file / "x" / "y") == file


def test_what_would_hinder_is_seen_without_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hindrance(tmp_path / "new") is None
    file = tmp_path / "file"
    file.touch()
    found = hindrance(file / "x")
    assert found is not None
    assert found.errno == errno.ENOTDIR
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    for read_only, number in ((False, errno.EACCES), (True, errno.EROFS)):
        monkeypatch.setattr(disk_trouble, "is_read_only", lambda _, answer=read_only: answer)
        found = hindrance(tmp_path / "new")
        assert found is not None
        assert found.errno == number


def test_a_file_system_that_cannot_be_seen_is_not_called_read_only(tmp_path: Path) -> None:
    assert not is_read_only(tmp_path)
    assert not is_read_only(tmp_path / "none")


def test_a_file_that_found_no_room_is_taken_away_and_no_other(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.touch()
    drop_begun(begun, failure(errno.EACCES))
    assert begun.exists()
    drop_begun(begun, failure(errno.ENOSPC))
    assert not begun.exists()
    drop_begun(begun, failure(errno.ENOSPC))
