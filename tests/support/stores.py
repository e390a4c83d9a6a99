"""State files for tests: stores that are closed again, and ways to damage or block one."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from modelsplit_proxy.records import rows
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.storage.migrations import MIGRATIONS
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_proxy.storage.writer import Store
from support.waiting import blocking_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from modelsplit_proxy.records.record import CallRecord


@contextmanager
def opened(directory: Path, **changes: Any) -> Iterator[Store]:
    """A store on the real clock, with all the time it needs; closed at the end, its thread gone."""
    store = Store(directory, SystemClock(), **({"urgent_s": 3600.0} | changes))
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


@contextmanager
def locked_out(store: Store) -> Iterator[None]:
    """The same, and the writer has come upon it; urgent jobs are soon given up meanwhile."""
    patience_s = store._urgent_s
    with locked(store.path.parent):
        store.submit(lambda db: db.execute("UPDATE facts SET value = value"))
        until_failing(store)
        store._urgent_s = 0.01
        yield
        store._urgent_s = patience_s


def until_failing(store: Store) -> None:
    """Wait until the writer has come upon an error; it tells nobody when."""
    blocking_until(lambda: store.error is not None)


def first_record(request_id: str) -> dict[str, Any]:
    """What the first modelsplit wrote of a call: its log line, as JSON."""
    return {
        "ts": "2026-11-23T00:29:03.500Z",
        "event": "request",
        "request_id": request_id,
        "job_id": "job-1",
        "client": "127.0.0.1",
        "route": "/api/chat",
        "dialect": "ollama",
        "started_at": "2026-11-23T00:29:00.500Z",
        "llm_role": "PLANNER",
        "llm_context": "PLANNER",
        "llm_provider": "LOCAL",
        "requested_model": "planner",
        "llm_model": "qwen3:8b",
        "llm_attempt": 2,
        "fallback_used": True,
        "fallback_cause": "E_UPSTREAM_LOCAL",
        "route_reason": "alias",
        "status": 200,
        "outcome": "ok",
        "state": "completed",
        "stream": True,
        "client_retry": True,
        "applied": ["num_ctx 8192->4096"],
        "schema": None,
        "llm_queue_wait_ms": 500.0,
        "llm_latency_ms": 2000.25,
        "ttfb_ms": 1000.0,
        "job_e2e_latency_ms": 3000.0,
        "planner_latency_ms": 3000.0,
        "load_ms": None,
        "prompt_tokens": 11,
        "output_tokens": 6,
        "finish_reason": "stop",
    }


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
                (name, 1795393743.5 + number, "PLANNER", "ok", json.dumps(first_record(name))),
            )
        db.commit()


def kept(record: CallRecord) -> tuple[rows.Row, list[rows.Row]]:
    """The rows of one call as SQLite gives them back: ``rows.CALL`` and ``rows.ATTEMPT``."""
    with closing(sqlite3.connect(":memory:")) as db:
        for step in MIGRATIONS:
            for statement in step:
                db.execute(statement)
        call_id = db.execute(*rows.insert_call(record)).lastrowid
        assert call_id is not None
        for row in rows.attempt_rows(call_id, record):
            db.execute(*rows.insert_attempt(row))
        [call] = db.execute(f"SELECT {rows.CALL} FROM calls").fetchall()
        attempts = db.execute(f"SELECT {rows.ATTEMPT} FROM attempts ORDER BY number").fetchall()
    return call, attempts
