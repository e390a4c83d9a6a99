"""State files for tests: stores that are closed again, and ways to damage or block one."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from modelsplit_proxy.clock import SystemClock
from modelsplit_proxy.statefile import FILE_NAME
from modelsplit_proxy.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def opened(directory: Path, **changes: Any) -> Iterator[Store]:
    """A store on the real clock; closed at the end, its thread gone."""
    store = Store(directory, SystemClock(), **changes)
    try:
        yield store
    finally:
        store.close()
        assert not store._writer.is_alive()


def execute(directory: Path, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement as another process would, and commit."""
    with closing(sqlite3.connect(directory / FILE_NAME)) as db, db:
        return db.execute(statement).fetchall()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Somebody else holds the file's write lock."""
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


def until_failing(store: Store) -> None:
    """Wait until the writer has come upon an error; it tells nobody when."""
    for _ in range(5000):
        if store.error is not None:
            return
        threading.Event().wait(0.001)
    raise TimeoutError("the writer has met no error")


def make_first_version(directory: Path, rows: int) -> None:
    """A file as the first modelsplit wrote it, with calls ``old-0`` …"""
    directory.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(directory / FILE_NAME)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(
            "CREATE TABLE calls (request_id TEXT NOT NULL, ended_at REAL NOT NULL, role TEXT, "
            "outcome TEXT NOT NULL, record TEXT NOT NULL);"
            "CREATE INDEX calls_by_id ON calls (request_id);"
            "CREATE INDEX calls_by_time ON calls (ended_at);"
            "PRAGMA user_version = 1;"
        )
        for number in range(rows):
            name = f"old-{number}"
            db.execute(
                "INSERT INTO calls VALUES (?, ?, ?, ?, ?)",
                (name, 1795393743.0 + number, "PLANNER", "ok", f'{{"request_id":"{name}"}}'),
            )
        db.commit()
