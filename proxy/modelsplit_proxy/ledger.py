"""Finished calls on disk: one SQLite file, one writer thread, the loop never waits.

Records are queued and written in batches. A disk that is slow, full or locked delays
records and may in the end lose some; that is counted and shown, and calls go on. The
schema is versioned with ``user_version`` so that a later release can move it forward.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from pathlib import Path

    from modelsplit_proxy.record import CallRecord

logger = logging.getLogger("modelsplit")

SCHEMA_VERSION: Final = 1
FILE_NAME: Final = "modelsplit.sqlite3"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS calls (
    request_id TEXT NOT NULL,
    ended_at REAL NOT NULL,
    role TEXT,
    outcome TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS calls_by_id ON calls (request_id);
CREATE INDEX IF NOT EXISTS calls_by_time ON calls (ended_at);
"""
_MAX_WAITING: Final = 20_000
_BATCH_EVERY_S: Final = 0.2
# The longest a reader waits for records that the writer still holds.
_CATCH_UP_S: Final = 1.0

_Row = tuple[str, float, str | None, str, str]


class LedgerError(Exception):
    """The state file cannot be used. The text says which file, why, and what to do."""


class Ledger:
    """Writes finished calls; reads them back. Thread-safe; ``close`` writes what is left."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._waiting: deque[_Row] = deque()
        self._closing = threading.Event()
        self._noted = 0
        self._settled = 0
        self._progress = threading.Condition()
        self.dropped = 0
        self.error: str | None = None
        self._prepare(directory)
        self._writer = threading.Thread(target=self._write_until_closed, name="ledger", daemon=True)
        self._writer.start()

    def __repr__(self) -> str:
        return f"<Ledger {self._path} {len(self._waiting)} waiting, {self.dropped} dropped>"

    def note(self, record: CallRecord) -> None:
        """Queue a finished call; never blocks."""
        if len(self._waiting) >= _MAX_WAITING:
            self.dropped += 1
            return
        text = orjson.dumps(record.log_fields()).decode()
        ended_at = record.started_wall + record.total_s
        self._noted += 1
        self._waiting.append((record.request_id, ended_at, record.role, record.outcome, text))

    def find(self, request_id: str) -> dict[str, Any] | None:
        """The record of the latest call with this id. Blocks on disk: call from a thread.

        A call that has been noted is found, even if it is not on disk yet.
        """
        self._catch_up()
        query = "SELECT record FROM calls WHERE request_id = ? ORDER BY ended_at DESC LIMIT 1"
        rows = self._read(query, (request_id,))
        return rows[0] if rows else None

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """The last finished calls, newest first. Blocks on disk: call from a thread."""
        self._catch_up()
        return self._read("SELECT record FROM calls ORDER BY ended_at DESC LIMIT ?", (limit,))

    def close(self) -> None:
        self._closing.set()
        self._writer.join(timeout=5.0)

    def _prepare(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
            with closing(self._connect()) as db:
                self._migrate(db)
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(
                f"the state file {self._path} cannot be used: {error}; give another directory "
                "with --state or move the file away"
            ) from error

    def _migrate(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise LedgerError(
                f"the state file {self._path} was written by a later modelsplit (schema "
                f"{version}, this one knows {SCHEMA_VERSION}); upgrade or use another --state"
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.commit()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=2.0)
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    def _write_until_closed(self) -> None:
        with closing(self._connect()) as db:
            while not self._closing.wait(_BATCH_EVERY_S):
                self._write_batch(db)
            self._write_batch(db)

    def _write_batch(self, db: sqlite3.Connection) -> None:
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not batch:
            return
        try:
            with db:
                db.executemany("INSERT INTO calls VALUES (?, ?, ?, ?, ?)", batch)
        except sqlite3.Error as error:
            self._failed(batch, str(error))
        else:
            self.error = None
            self._settle(len(batch))

    def _settle(self, count: int) -> None:
        with self._progress:
            self._settled += count
            self._progress.notify_all()

    def _catch_up(self) -> None:
        """Wait until everything noted so far is on disk, or ``_CATCH_UP_S`` have passed."""
        noted = self._noted
        with self._progress:
            self._progress.wait_for(lambda: self._settled >= noted, timeout=_CATCH_UP_S)

    def _failed(self, batch: list[_Row], error: str) -> None:
        if self.error is None:
            logger.error("records cannot be written to %s: %s", self._path, error)
        self.error = error
        room = max(0, _MAX_WAITING - len(self._waiting))
        lost = max(0, len(batch) - room)
        self.dropped += lost
        self._settle(lost)
        self._waiting.extendleft(reversed(batch[:room]))

    def _read(self, query: str, values: tuple[object, ...]) -> list[dict[str, Any]]:
        with closing(self._connect()) as db:
            rows = db.execute(query, values).fetchall()
        return [orjson.loads(text) for (text,) in rows]
