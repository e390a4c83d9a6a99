"""Finished calls on disk: written a moment later by the store's thread, read back for people.

Records wait in a bounded line. A disk that is slow, full or locked delays records and may in
the end lose some; that is counted and shown, and calls go on. A record that cannot be written
by its own fault, whatever that is, is set aside, counted and told, and the others are written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.records import rows
from modelsplit_proxy.records.reader import RecordReader, newest
from modelsplit_proxy.records.values import log_fields
from modelsplit_proxy.storage.state_file import StoreError
from modelsplit_proxy.storage.writer import is_trouble

if TYPE_CHECKING:
    import sqlite3
    from concurrent.futures import Future

    from modelsplit_proxy.records.query import Query
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.storage.writer import Store

logger = logging.getLogger("modelsplit")

_MAX_WAITING: Final = 20_000
# Rows in one transaction, unless somebody urgent waits for it to end.
_BATCH: Final = 200
# After so many rows, a tenth of a millisecond of work, the event loop gets the interpreter if
# it wants it. Without this sleep the writer would nearly always have it back before the loop
# has woken up, for 5 ms on end. A shorter ``sys.setswitchinterval`` is no way around it.
_YIELD_EVERY: Final = 8
_YIELD_S: Final = 0.00002
# The longest a reader waits for records that the writer still holds.
_CATCH_UP_S: Final = 1.0
_CATCH_UP_TRIES: Final = _MAX_WAITING // _BATCH + 2


class Recorder:
    """Takes in finished calls; ``reader`` finds them again. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[CallRecord] = deque()
        # Held for moments only: rows come from the loop, and go in the writer's thread.
        self._lock = threading.Lock()
        self._writing = False
        self._careful = False
        self._noted = 0
        self._settled = 0
        self.dropped = 0
        # A call that has been noted is found there, even if it is not on disk yet.
        self.reader = RecordReader(self.read)

    def __repr__(self) -> str:
        return f"<Recorder {len(self._waiting)} waiting, {self.dropped} dropped>"

    @property
    def waiting(self) -> int:
        """Records that are not on disk yet."""
        return len(self._waiting)

    def latest(self, query: Query, limit: int) -> list[dict[str, Any]]:
        """The last calls to come, newest first: on disk or waiting for it. Blocks; StoreError."""
        kept = self.reader.latest(query, limit)
        waiting = (log_fields(record) for record in self._unwritten())
        return newest([*kept, *filter(query.fits, waiting)], limit)

    def find(self, request_id: str) -> dict[str, Any] | None:
        """As the reader's, among those that wait for the disk too. Blocks."""
        found = self.reader.find(request_id)
        if found is not None:
            return found
        for record in reversed(self._unwritten()):
            if record.request_id == request_id:
                return log_fields(record) | {"attempts": rows.attempts_fields(record)}
        return None

    def _unwritten(self) -> list[CallRecord]:
        with self._lock:
            return list(self._waiting)

    def call_ended(self, record: CallRecord) -> None:
        """Queue a finished call; never blocks."""
        with self._lock:
            if len(self._waiting) >= _MAX_WAITING:
                self.dropped += 1
                return
            self._noted += 1
            self._waiting.append(record)
            begin = not self._writing
            self._writing = True
        if begin:
            self._have_written()

    def _have_written(self) -> None:
        work = self._write_one_by_one if self._careful else self._write
        self._store.submit(work).add_done_callback(self._written)

    def _write(self, db: sqlite3.Connection) -> tuple[int, int]:
        """In the writer's thread: what waits stays in line until it is committed.

        How many rows are done with, and how many of them are lost.
        """
        count, cursor = 0, db.cursor()
        for record in self._batch():
            _insert(cursor, record)
            count += 1
            if self._store.urgent_waiting:
                break  # the others go with the next transaction
            if count % _YIELD_EVERY == 0:
                time.sleep(_YIELD_S)
        return count, 0

    def _batch(self) -> list[CallRecord]:
        with self._lock:
            return list(islice(self._waiting, _BATCH))

    def _write_one_by_one(self, db: sqlite3.Connection) -> tuple[int, int]:
        """The same after a failure: a record that cannot be written takes no other along."""
        batch = self._batch()
        lost, cursor = 0, db.cursor()
        for record in batch:
            db.execute("SAVEPOINT record")
            error = _try_insert(cursor, record)
            if error is not None:
                _tell_lost(record, error)
                lost += 1
                db.execute("ROLLBACK TO record")
            db.execute("RELEASE record")
        return len(batch), lost

    def _written(self, done: Future[tuple[int, int]]) -> None:
        """In the writer's thread, or in ours if the store is closed."""
        error = done.exception()
        with self._lock:
            if isinstance(error, StoreError):
                self._writing = False  # the next call tries again
                return
            count, lost = (0, 0) if error is not None else done.result()
            if error is not None and self._careful:
                # Not even one by one: the first must go, or nothing would ever be written again.
                count = lost = 1
                _tell_lost(self._waiting[0], error)
            for _ in range(count):
                self._waiting.popleft()
            self._settled += count
            self.dropped += lost
            self._careful = error is not None
            self._writing = bool(self._waiting)
            more = self._writing
        if more:
            self._have_written()
            if len(self._waiting) >= _BATCH:
                self._store.hurry()

    def catch_up(self) -> None:
        """Block until everything noted so far is on disk, or ``_CATCH_UP_S`` have passed."""
        noted = self._noted
        # What is noted while a batch is being written goes with the next one.
        for _ in range(_CATCH_UP_TRIES):
            if self._settled >= noted or not self._store.catch_up(_CATCH_UP_S):
                return

    def read(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        self.catch_up()
        return self._store.read(query, values)


def _insert(db: sqlite3.Cursor, record: CallRecord) -> None:
    call_id = db.execute(*rows.insert_call(record)).lastrowid
    assert call_id is not None
    for row in rows.attempt_rows(call_id, record):
        db.execute(*rows.insert_attempt(row))
    if record.job_id is not None:
        db.execute(rows.UPSERT_JOB, rows.job_row(record))


def _try_insert(db: sqlite3.Cursor, record: CallRecord) -> Exception | None:
    """What is wrong with the record itself, if anything is."""
    try:
        _insert(db, record)
    except Exception as error:
        if is_trouble(error):
            raise
        return error
    return None


def _tell_lost(record: CallRecord, error: BaseException) -> None:
    why = f"{type(error).__name__}: {error}"
    logger.error("the record of %s is lost: %s", record.request_id, why)
