"""The state file of another process: opened beside it, never mended, and given to its owner."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelsplit_proxy.cli import state_access
from modelsplit_proxy.limits import budget_store
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.storage.state_file import FILE_NAME, StoreError
from support.stores import execute, opened

ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture(name="shared")
def _shared() -> Iterator[Path]:
    """A directory that others can reach; pytest's own cannot be."""
    directory = Path(tempfile.mkdtemp(prefix="modelsplit-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_there_is_nothing_to_read_yet(tmp_path: Path) -> None:
    with state_access.reading(tmp_path / "none") as db:
        assert db is None
    assert not state_access.is_there(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_new_file_is_private_and_whole(tmp_path: Path) -> None:
    with state_access.writing(tmp_path / "new", SystemClock()) as db:
        assert budget_store.changes(db) == ()
    path = tmp_path / "new" / FILE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert state_access.is_there(tmp_path / "new")
    with state_access.reading(tmp_path / "new") as found:
        assert found is not None


def test_a_place_that_cannot_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used: File name too long"):
        state_access.is_there(tmp_path / ("x" * 300))


def fail_half_way(directory: Path) -> None:
    with state_access.writing(directory, SystemClock()) as db:
        db.execute("INSERT INTO facts VALUES ('a', 1)")
        db.execute("INSERT INTO nowhere VALUES (1)")


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such table"):
        fail_half_way(tmp_path)
    assert execute(tmp_path, "SELECT count(*) FROM facts") == [(0,)]


def test_a_file_of_another_version_is_left_to_the_proxy(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    execute(tmp_path, "PRAGMA user_version = 1")
    with (
        pytest.raises(StoreError, match="is of schema 1, this modelsplit reads"),
        state_access.writing(tmp_path, SystemClock()),
    ):
        pytest.fail("opened")
    assert execute(tmp_path, "PRAGMA user_version") == [(1,)]
    execute(tmp_path, "PRAGMA user_version = 99")
    with (
        pytest.raises(StoreError, match="a later modelsplit has written it, use that one"),
        state_access.writing(tmp_path, SystemClock()),
    ):
        pytest.fail("opened")


def test_a_damaged_file_is_not_set_aside_under_a_running_proxy(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 100)
    with (
        pytest.raises(StoreError, match="file is not a database"),
        state_access.reading(tmp_path),
    ):
        pytest.fail("opened")
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.skipif(not ROOT, reason="only root can be another user")
def test_a_file_that_root_makes_belongs_to_the_service(shared: Path) -> None:
    os.chown(shared, NOBODY.pw_uid, NOBODY.pw_gid)
    with state_access.writing(shared, SystemClock()):
        pass
    for path in shared.iterdir():
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)


@pytest.mark.skipif(not ROOT, reason="only root can be another user")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_somebody_elses_file_is_said_to_be(shared: Path, mode: int) -> None:
    """Whether it is the directory or the file that may not be opened."""
    with state_access.writing(shared, SystemClock()):
        pass
    shared.chmod(mode)
    error = _as_nobody(shared)
    assert error == (
        f"the state file {shared / FILE_NAME} may only be opened by the user root, or by root: "
        "repeat it with sudo"
    )


def _as_nobody(directory: Path) -> str:
    """What a user without rights is told."""
    os.seteuid(NOBODY.pw_uid)
    try:
        with state_access.reading(directory):
            pytest.fail("opened")
    except StoreError as error:
        return str(error)
    finally:
        os.seteuid(0)


def test_the_name_of_the_owner_is_told_where_it_helps(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.touch()
    if ROOT:
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
        assert "the user nobody, or by root" in state_access.not_ours(path)
        assert "(or sudo -u nobody)" in state_access.not_ours(path)
    else:
        assert pwd.getpwuid(os.geteuid()).pw_name in state_access.not_ours(path)
    assert "the user of the service" in state_access.not_ours(Path("/nowhere/at/all"))
