"""Finished calls in one SQLite file: private, versioned, and never in a call's way."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy import ledger as module
from modelsplit_proxy.ledger import FILE_NAME, SCHEMA_VERSION, Ledger, LedgerError
from support.records import answered, begun, fallen_back, turned_away

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def opened(directory: Path) -> Iterator[Ledger]:
    ledger = Ledger(directory)
    try:
        yield ledger
    finally:
        ledger.close()
        assert not ledger._writer.is_alive()


def execute(directory: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(directory / FILE_NAME)) as db, db:
        return db.execute(statement).fetchall()


# --- Written and read back --------------------------------------------------------------------


def test_close_writes_what_is_left_and_the_next_process_reads_it(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.note(answered(request_id="a"))
        ledger.note(turned_away(request_id="b", started_wall=1795393800.0))
    with opened(tmp_path) as ledger:
        found = ledger.find("a")
        assert found is not None
        assert (found["llm_model"], found["outcome"]) == ("qwen3:4b", "ok")
        assert [record["request_id"] for record in ledger.latest(10)] == ["b", "a"]


def test_a_call_that_has_been_noted_is_found_at_once(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.note(fallen_back(request_id="now"))
        found = ledger.find("now")
        assert found is not None
        assert found["fallback_cause"] == "E_UNREACHABLE_LOCAL"
        assert repr(ledger) == f"<Ledger {tmp_path / FILE_NAME} 0 waiting, 0 dropped>"


def test_an_id_used_twice_finds_the_later_call(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.note(answered(started_wall=2000.0, client="later"))
        ledger.note(answered(started_wall=1000.0, client="earlier"))
        found = ledger.find("req-1")
        assert found is not None
        assert found["client"] == "later"


def test_latest_is_as_many_as_asked_and_an_unknown_id_is_none(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        for number in range(5):
            ledger.note(answered(request_id=f"r{number}", started_wall=1000.0 + number))
        assert [record["request_id"] for record in ledger.latest(2)] == ["r4", "r3"]
        assert ledger.find("' OR 1=1 --") is None


def test_a_call_without_a_role_is_kept_too(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.note(begun(request_id="early"))
    rows = execute(tmp_path, "SELECT request_id, role, ended_at FROM calls")
    assert rows == [("early", None, 1795393743.25)]


# --- The file ---------------------------------------------------------------------------------


def test_the_file_and_its_directory_are_the_owners_alone(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "state"
    with opened(directory) as ledger:
        ledger.note(answered())
        ledger.find("req-1")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
        assert modes[FILE_NAME] == 0o600
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_the_schema_has_a_version(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert execute(tmp_path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
        assert execute(tmp_path, "PRAGMA journal_mode") == [("wal",)]


def test_a_file_of_a_later_modelsplit_is_left_alone(tmp_path: Path) -> None:
    execute(tmp_path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(LedgerError, match="written by a later modelsplit") as refused:
        Ledger(tmp_path)
    assert str(tmp_path / FILE_NAME) in str(refused.value)
    assert "upgrade or use another --state" in str(refused.value)
    assert execute(tmp_path, "SELECT name FROM sqlite_master") == []


def test_a_file_that_is_no_database_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"my shopping list, which is not a database" * 100)
    with pytest.raises(LedgerError, match="give another directory with --state or move"):
        Ledger(tmp_path)


def test_a_state_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(tmp_path / "state")


# --- A disk that fails ------------------------------------------------------------------------


def test_records_wait_while_the_disk_fails_and_are_written_when_it_is_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as ledger:
        execute(tmp_path, "ALTER TABLE calls RENAME TO away")
        ledger.close()  # from here this test is the writer
        ledger.note(answered(request_id="kept"))
        with closing(ledger._connect()) as db:
            ledger._write_batch(db)
            ledger._write_batch(db)
            assert ledger.error == "no such table: calls"
            assert caplog.text.count("records cannot be written") == 1
            execute(tmp_path, "ALTER TABLE away RENAME TO calls")
            ledger._write_batch(db)
        assert [ledger.error, ledger.dropped] == [None, 0]
        assert ledger.find("kept") is not None


def test_records_beyond_what_can_wait_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 3)
    with opened(tmp_path) as ledger:
        ledger.close()
        for number in range(5):
            ledger.note(answered(request_id=f"r{number}"))
        assert ledger.dropped == 2
        with closing(ledger._connect()) as db:
            execute(tmp_path, "ALTER TABLE calls RENAME TO away")
            ledger._write_batch(db)
            assert repr(ledger).endswith("3 waiting, 2 dropped>")
            execute(tmp_path, "ALTER TABLE away RENAME TO calls")
            ledger._write_batch(db)
        assert {record["request_id"] for record in ledger.latest(9)} == {"r0", "r1", "r2"}


def test_closing_on_a_broken_disk_ends_all_the_same(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        execute(tmp_path, "DROP TABLE calls")
        ledger.note(answered())
    assert ledger.error == "no such table: calls"
