"""The state file at start: private, whole, of a schema we know; else set aside or refused."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.runtime import disk_trouble
from modelsplit_proxy.storage import state_file
from modelsplit_proxy.storage.migrations import SCHEMA_VERSION
from modelsplit_proxy.storage.state_file import (
    FILE_NAME,
    StateTroubleError,
    StoreError,
    open_state,
    what_hinders,
)
from support.stores import execute, locked, make_first_version, opened

if TYPE_CHECKING:
    from pathlib import Path

WALL = 1795393743.25  # 2026-11-23T00:29:03Z


class Clock:
    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return WALL


def damage(directory: Path) -> bytes:
    """Overwrite the second page of a well-filled file; returns the whole file as it is then."""
    with opened(directory):
        pass
    execute(directory, "CREATE TABLE ballast (text)")
    execute(directory, f"INSERT INTO ballast VALUES ('{'x' * 40_000}')")
    path = directory / FILE_NAME
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(data)
    return bytes(data)


def modes(directory: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


# --- Private ----------------------------------------------------------------------------------


def test_the_file_its_log_and_its_directory_are_the_owners_alone(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "state"
    with opened(directory) as store:
        store.submit(lambda db: db.execute("INSERT INTO facts VALUES ('a', 1)")).result()
        names = {path.name for path in directory.iterdir()}
        assert names == {FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"}
        assert modes(directory) == {0o600}
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    make_first_version(tmp_path, rows=1)
    (tmp_path / FILE_NAME).chmod(0o644)
    with opened(tmp_path):
        assert modes(tmp_path) == {0o600}


# --- Ours -------------------------------------------------------------------------------------


def test_the_schema_has_a_version(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert execute(tmp_path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
        assert execute(tmp_path, "PRAGMA journal_mode") == [("wal",)]


def copies(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.schema-*"))


def test_a_file_is_copied_before_it_is_brought_forward(tmp_path: Path) -> None:
    make_first_version(tmp_path, rows=3)
    (tmp_path / f"{FILE_NAME}.schema-0").write_bytes(b"of the upgrade before")
    with opened(tmp_path):
        pass
    assert copies(tmp_path) == [f"{FILE_NAME}.schema-1"]
    assert modes(tmp_path) == {0o600}
    (tmp_path / "back").mkdir()
    (tmp_path / f"{FILE_NAME}.schema-1").rename(tmp_path / "back" / FILE_NAME)
    assert execute(tmp_path / "back", "PRAGMA user_version") == [(1,)]
    assert execute(tmp_path / "back", "SELECT count(*) FROM calls") == [(3,)]
    # What the copy holds can be brought forward as well.
    with opened(tmp_path / "back"):
        pass


def test_neither_a_new_file_nor_one_of_today_is_copied(tmp_path: Path) -> None:
    for _ in range(2):
        with opened(tmp_path):
            pass
    assert copies(tmp_path) == []


def test_without_a_copy_nothing_is_brought_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_first_version(tmp_path, rows=3)

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state_file, "_keep_copy", full)
    with pytest.raises(StateTroubleError, match="No space left"):
        open_state(tmp_path, Clock())
    assert execute(tmp_path, "PRAGMA user_version") == [(1,)]


def test_an_older_modelsplit_names_the_copy_that_it_can_use(tmp_path: Path) -> None:
    execute(tmp_path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    copy = state_file.copy_of(tmp_path / FILE_NAME, SCHEMA_VERSION)
    copy.touch()
    with pytest.raises(StoreError) as refused:
        open_state(tmp_path, Clock())
    assert str(refused.value).endswith(
        f"; upgrade or use another --state, or go back to how it was before the upgrade: {copy} in "
        "its place"
    )


def test_a_file_of_a_later_modelsplit_is_left_alone(tmp_path: Path) -> None:
    execute(tmp_path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match="written by a later modelsplit") as refused:
        open_state(tmp_path, Clock())
    assert str(tmp_path / FILE_NAME) in str(refused.value)
    assert "upgrade or use another --state" in str(refused.value)
    assert execute(tmp_path, "SELECT name FROM sqlite_master") == []


def test_a_state_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError) as refused:
        open_state(tmp_path / "state", Clock())
    assert str(refused.value) == (
        f"the state file {tmp_path / 'state' / FILE_NAME} cannot be used: {tmp_path / 'state'} is "
        "a file, not a directory; give another directory with --state"
    )


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        (errno.EROFS, StoreError, "; see `findmnt -T {}`; give another directory with --state"),
        (errno.EACCES, StoreError, "; see `ls -ld {}`; give another directory with --state"),
        (errno.ENOSPC, StateTroubleError, "; see `df -h {}`"),
        (errno.EDQUOT, StateTroubleError, "; see `quota -s`"),
    ],
)
def test_why_no_file_can_be_made_comes_with_what_to_do_about_that(
    number: int,
    kind: type[StoreError],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def create(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(state_file, "_create", create)
    with pytest.raises(kind) as refused:
        open_state(tmp_path, Clock())
    assert str(refused.value).endswith(told.format(tmp_path))
    assert os.strerror(number) in str(refused.value)


def test_what_sqlite_may_not_write_is_told_as_the_machine_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = sqlite3.OperationalError("attempt to write a readonly database")
    error.sqlite_errorcode = sqlite3.SQLITE_READONLY
    assert what_hinders(error, tmp_path / FILE_NAME) == ""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(disk_trouble, "is_read_only", lambda _: True)
    assert what_hinders(error, tmp_path / FILE_NAME) == (
        f"Read-only file system; see `findmnt -T {tmp_path}`"
    )
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert what_hinders(error, tmp_path / FILE_NAME) == (
        f"No space left on device; see `df -h {tmp_path}`"
    )


def test_a_file_that_another_process_keeps_locked_is_refused_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_file, "_START_BUSY_MS", 1)
    make_first_version(tmp_path, rows=1)
    with locked(tmp_path), pytest.raises(StoreError, match="database is locked"):
        open_state(tmp_path, Clock())
    assert [path.name for path in tmp_path.glob("*corrupt*")] == []


# --- Whole ------------------------------------------------------------------------------------


def test_what_is_no_database_is_set_aside_byte_for_byte_and_said_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = b"my shopping list, which is not a database" * 100
    (tmp_path / FILE_NAME).write_bytes(text)
    file = open_state(tmp_path, Clock())
    file.db.close()
    assert file.set_aside == tmp_path / f"{FILE_NAME}.corrupt-20261123T002903Z"
    assert file.set_aside.read_bytes() == text
    assert (file.lost_at, file.checked) == (WALL, True)
    assert "IS DAMAGED (file is not a database): it is kept as modelsplit.sqlite3.c" in caplog.text
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_torn_page_is_found_and_the_file_kept(tmp_path: Path) -> None:
    data = damage(tmp_path)
    file = open_state(tmp_path, Clock())
    file.db.close()
    assert file.set_aside is not None
    assert file.set_aside.read_bytes() == data
    assert execute(tmp_path, "PRAGMA quick_check") == [("ok",)]
    assert execute(tmp_path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_the_log_goes_with_its_file(tmp_path: Path) -> None:
    """A log left beside a new file would be read into it."""
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    (tmp_path / f"{FILE_NAME}-wal").write_bytes(b"its log")
    file = open_state(tmp_path, Clock())
    assert file.set_aside is not None
    log = file.set_aside.with_name(f"{file.set_aside.name}-wal")
    assert log.read_bytes() == b"its log"
    file.db.close()


def test_an_emptied_file_is_damage_too(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    (tmp_path / FILE_NAME).write_bytes(b"")
    file = open_state(tmp_path, Clock())
    file.db.close()
    assert file.set_aside is not None
    assert file.lost_at == WALL


def test_a_new_file_appears_whole(tmp_path: Path) -> None:
    """What a start that was killed half-way left behind is nobody's state file."""
    (tmp_path / f"{FILE_NAME}.new-1").write_bytes(b"half")
    file = open_state(tmp_path, Clock())
    file.db.close()
    assert (file.set_aside, file.lost_at) == (None, None)


def test_two_damaged_files_in_one_second_are_both_kept(tmp_path: Path) -> None:
    for text in (b"first" * 1000, b"second" * 1000):
        (tmp_path / FILE_NAME).write_bytes(text)
        open_state(tmp_path, Clock()).db.close()
    kept = sorted(path.read_bytes()[:5] for path in tmp_path.glob("*corrupt*Z*"))
    assert kept == [b"first", b"secon"]


def test_later_starts_still_know_of_the_loss(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    open_state(tmp_path, Clock()).db.close()
    again = open_state(tmp_path, Clock())
    again.db.close()
    assert (again.set_aside, again.lost_at) == (None, WALL)


def test_a_check_that_takes_too_long_is_given_up_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    monkeypatch.setattr(state_file, "_CHECK", endless)
    monkeypatch.setattr(state_file, "_CHECK_S", 0.0)
    file = open_state(tmp_path, Clock())
    assert (file.checked, file.set_aside) == (False, None)
    # Whatever runs later on this connection runs to its end.
    assert file.db.execute("SELECT count(*) FROM calls").fetchone() == (0,)
    file.db.close()
