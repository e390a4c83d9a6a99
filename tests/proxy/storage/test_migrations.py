"""Files of any age are led to today's schema, with what is in them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.records.query import Query
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.storage import migrations, state_file
from modelsplit_proxy.storage.migrations import MIGRATIONS, SCHEMA_VERSION
from modelsplit_proxy.storage.state_file import FILE_NAME
from support.stores import execute, first_record, make_first_version, opened

if TYPE_CHECKING:
    from pathlib import Path


def tables(directory: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every table and index with its columns."""
    names = [name for (name,) in execute(directory, "SELECT name FROM sqlite_master")]
    return {
        name: execute(directory, f"PRAGMA table_xinfo({name})")
        or execute(directory, f"PRAGMA index_xinfo({name})")
        for name in names
    }


def test_a_file_of_the_first_version_keeps_its_calls(tmp_path: Path) -> None:
    make_first_version(tmp_path, rows=25)
    with opened(tmp_path) as store:
        reader = Recorder(store).reader
        found = reader.find("old-7")
        assert found is not None
        assert found.pop("attempts") == []
        then = {"ts": "2026-11-23T00:29:10.500Z", "started_at": "2026-11-23T00:29:07.500Z"}
        since: dict[str, object] = {
            "cost_usd": None,
            "loading": None,
            "budgets": (),
            "budget_refused": None,
        }
        since |= {"upstream_wait_ms": None, "purpose": None, "tokens_estimated": False}
        since |= {"schema_asked": None, "untranslated": (), "redacted": None}
        expected = first_record("old-7") | then | since
        expected["call_e2e_latency_ms"] = expected.pop("job_e2e_latency_ms")
        assert found == expected
        assert [call["request_id"] for call in reader.latest(Query(), 2)] == ["old-24", "old-23"]
    assert execute(tmp_path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert execute(tmp_path, "PRAGMA auto_vacuum") == [(2,)]


def test_an_old_file_and_a_new_one_end_up_the_same(tmp_path: Path) -> None:
    make_first_version(tmp_path / "old", rows=1)
    with opened(tmp_path / "old"), opened(tmp_path / "new"):
        pass
    assert tables(tmp_path / "old") == tables(tmp_path / "new")


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_step_that_fails_leaves_the_version_before_it(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process killed in the middle of a step would: the next start does it again."""
    broken = (*MIGRATIONS[:version], (*MIGRATIONS[version], "SELECT * FROM nowhere"))
    make_first_version(tmp_path, rows=3)
    monkeypatch.setattr(state_file, "MIGRATIONS", broken)
    monkeypatch.setattr(state_file, "SCHEMA_VERSION", version + 1)
    with pytest.raises(state_file.StoreError, match="no such table: nowhere"):
        state_file.open_state(tmp_path, SystemClock())
    assert execute(tmp_path, "PRAGMA user_version") == [(version,)]
    monkeypatch.undo()
    with opened(tmp_path) as store:
        assert len(Recorder(store).reader.latest(Query(), 10)) == 3


def test_versions_are_counted_by_steps() -> None:
    assert len(MIGRATIONS) == migrations.SCHEMA_VERSION
    with closing(sqlite3.connect(":memory:")) as db:
        for step in MIGRATIONS:
            for statement in step:
                db.execute(statement)


def test_a_file_that_is_up_to_date_is_not_written_at_the_start(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    before = (tmp_path / FILE_NAME).read_bytes()
    state_file.open_state(tmp_path, SystemClock()).db.close()
    assert (tmp_path / FILE_NAME).read_bytes() == before
