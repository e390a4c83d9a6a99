"""The state file in use: one writer thread, and readers that never meet it.

Everybody who writes hands in a job, a function of the connection, and gets a future. Jobs
that wait are written together in one transaction, each in a savepoint of its own, so that
one which fails undoes nobody else. There are two lines:

- urgent: what must be on the disk, not in its cache, before a call may go on. Written at
  once, in order, synced; or failed with StoreError after ``urgent_s`` at the latest.
- routine: written five times a second, in order, and again and again while the file is
  locked or the disk is full. An urgent job overtakes them, so it must not build on one.

A job sees the connection inside an open transaction: it executes statements, and leaves
BEGIN, COMMIT and PRAGMA alone. It may be run more than once if the disk failed after it, and
is not run at all if its future was cancelled before.

Nothing here holds up the event loop: ``submit`` takes one short lock. A process killed at
any moment finds the file as the last finished transaction left it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from modelsplit_proxy.storage import state_file
from modelsplit_proxy.storage.state_file import (
    FILE_NAME,
    StateTroubleError,
    StoreError,
    open_state,
    primary_code,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.storage.state_file import StateFile
    from modelsplit_proxy.storage.state_lock import StateLock

logger = logging.getLogger("modelsplit")

T = TypeVar("T")

URGENT_S: Final = 0.3
_ROUTINE_EVERY_S: Final = 0.2
# At most so many routine jobs in one transaction: an urgent one waits for it to end.
_ROUTINE_BATCH: Final = 500
_MAX_ROUTINE: Final = 10_000
_OPEN_EVERY_S: Final = 1.0
# Urgent jobs go first until a routine batch is so late.
_LATE_S: Final = 1.0
# How long one try waits for another process's lock, and the pause before the next one.
_BUSY_MS: Final = 50
_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 1.0
# The writer shows that it lives at least so often, and counts as alive for so long: longer
# than disks stall, because a restart cures a thread that hangs, not a disk that does.
_BEAT_S: Final = 1.0
_ALIVE_S: Final = 60.0
_CLOSE_S: Final = 1.5
_JOIN_S: Final = 3.0
# The write-ahead log is put into the file when it is this long, after a routine batch.
_CHECKPOINT_PAGES: Final = 1000

# What is the disk's fault, or another process's, not the job's: the whole transaction is void.
_TROUBLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
    }
)


@dataclass(slots=True, eq=False)
class _Job:
    """One job in line. ``expires``: monotonic; None for a routine job, which never does."""

    work: Callable[[sqlite3.Connection], Any]
    expires: float | None
    future: Future[Any] = field(default_factory=Future)
    begun: bool = False
    unwanted: bool = False

    def begin(self) -> bool:
        """False: nobody wants it any more."""
        if not self.begun and not self.unwanted:
            self.begun = self.future.set_running_or_notify_cancel()
            self.unwanted = not self.begun
        return self.begun

    def fail(self, error: Exception) -> None:
        if self.begin():
            self.future.set_exception(error)


class _TroubleError(Exception):
    """The transaction came to nothing. ``busy``: because of another process's lock."""

    def __init__(self, text: str, *, busy: bool) -> None:
        super().__init__(text)
        self.busy = busy


class Store:
    """The state file, open. Thread-safe; ``close`` writes what is left."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        urgent_s: float = URGENT_S,
        lock: StateLock | None = None,
    ) -> None:
        """Open it; raises StoreError if that is impossible.

        ``lock``: held while the file is open, and let go behind it. A file that cannot be
        opened now (locked, the disk is full) is opened later: until then it is as one that
        cannot be written.
        """
        self._directory = directory
        self._lock = lock
        self._file: StateFile | None = None
        self._open_due = 0.0
        # How the connection is set; None: not known.
        self._durable: bool | None = None
        self._clock = clock
        self._urgent_s = urgent_s
        self._urgent: deque[_Job] = deque()
        self._routine: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._hurry = False
        self._routine_due = 0.0
        self._urgent_due = 0.0
        self._pause_s = _PAUSE_S
        self._beat = clock.now()
        self.error: str | None = None
        self.commits = 0
        self._locked_out = False
        try:
            self._open(open_state(directory, clock, before=self._take_lock))
        except StateTroubleError as error:
            self._failed(_why(error))
        except StoreError:
            self._unlock()
            raise
        self._writer = threading.Thread(target=self._write_until_closed, name="store", daemon=True)
        self._writer.start()

    def __repr__(self) -> str:
        waiting = f"{len(self._urgent)} urgent and {len(self._routine)} routine jobs waiting"
        return f"<Store {self.path} {waiting}>"

    @property
    def path(self) -> Path:
        return self._directory / FILE_NAME

    @property
    def waiting(self) -> int:
        """Jobs not written yet."""
        return len(self._urgent) + len(self._routine)

    @property
    def urgent_waiting(self) -> bool:
        """Whether somebody urgent waits: a long routine job should come to an end."""
        return bool(self._urgent)

    @property
    def fresh_after_corruption(self) -> bool:
        """Whether this start found a damaged file, set it aside and began a new one."""
        return self.set_aside is not None

    @property
    def set_aside(self) -> Path | None:
        """Where the damaged file of this start is kept."""
        return None if self._file is None else self._file.set_aside

    @property
    def lost_at(self) -> float | None:
        """Wall time of the last start, this or an earlier one, that lost a damaged file.

        Known once the file is open, so inside any job.
        """
        return None if self._file is None else self._file.lost_at

    @property
    def checked(self) -> bool:
        """Whether the check for damage at the start got through the whole file."""
        return self._file is not None and self._file.checked

    @property
    def alive(self) -> bool:
        """Whether the writer thread lives and moves."""
        return self._writer.is_alive() and self._clock.now() - self._beat < _ALIVE_S

    # 1. Any thread.

    def submit(self, work: Callable[[sqlite3.Connection], T], *, urgent: bool = False) -> Future[T]:
        """Have ``work`` run inside a transaction; its result comes when that is committed.

        The future fails with what ``work`` raised; with StoreError if the file could not be
        written: an urgent job's after ``urgent_s``, a routine one's when the store closes, or
        at once while 10 000 others wait. An urgent job that is already being synced when its
        time is over may still be written.
        """
        now = self._clock.now()
        job = _Job(work, now + self._urgent_s if urgent else None)
        with self._changed:
            full = not urgent and len(self._routine) >= _MAX_ROUTINE
            if self._closing or full:
                why = f"{_MAX_ROUTINE} writes wait for it" if full else "it is closed"
                job.fail(self._unwritten(why))
                return job.future
            line = self._urgent if urgent else self._routine
            line.append(job)
            if not urgent and len(line) == 1:
                self._routine_due = max(self._routine_due, now)
            if urgent or len(line) == 1:
                self._changed.notify()
        return job.future

    async def commit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have ``work`` written durably, now; StoreError if that takes longer than ``urgent_s``.

        The bound holds even while the disk does not answer at all.
        """
        future = self.submit(work, urgent=True)
        try:
            async with asyncio.timeout(self._urgent_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()  # the loop was late, not the disk
            raise self._unwritten(self.error or "the disk does not answer") from None

    def hurry(self) -> None:
        """Have the routine jobs that wait written now, not a moment later."""
        with self._changed:
            self._hurry = True
            self._changed.notify()

    def catch_up(self, timeout_s: float) -> bool:
        """Block until every routine job submitted so far is on disk; False: it is not yet."""
        future = self.submit(_nothing)
        self.hurry()
        try:
            future.result(timeout_s)
        except (TimeoutError, StoreError):
            future.cancel()
            return False
        return True

    def read(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows of one query on a connection of its own. Blocks on disk: use a thread.

        Raises StoreError if the file cannot be read or that takes more than 10 s.
        """
        return state_file.read(self.path, self._clock, query, values)

    def close(self) -> None:
        """Write what is left, as far as that works within a moment."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join(timeout=_JOIN_S)

    # 2. The writer thread.

    def _open(self, file: StateFile) -> StateFile:
        file.db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        file.db.execute("PRAGMA journal_size_limit = 67108864")
        self._file = file
        return file

    def _write_until_closed(self) -> None:
        try:
            while not self._closing:
                self._turn()
            self._write_rest()
        finally:
            if self._file is not None:
                self._file.db.close()
            self._unlock()

    def _take_lock(self) -> None:
        if self._lock is not None:
            self._lock.take()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _connected(self) -> sqlite3.Connection:
        """The connection; _TroubleError if the file still cannot be opened."""
        file = self._file
        if file is None:
            now = self._clock.now()
            if now < self._open_due:
                raise _TroubleError(self.error or "", busy=False)
            self._open_due = now + _OPEN_EVERY_S
            try:
                opened = open_state(
                    self._directory, self._clock, busy_ms=_BUSY_MS, before=self._take_lock
                )
                file = self._open(opened)
            except StoreError as error:
                raise _TroubleError(_why(error), busy=False) from error
        return file.db

    def _turn(self) -> None:
        """Wait for something to write and write it."""
        with self._changed:
            self._beat = self._clock.now()
            rest = self._rest_s(self._beat)
            if rest > 0 and not self._closing:
                self._changed.wait(min(rest, _BEAT_S))
        now = self._clock.now()
        if self._urgent and now >= self._urgent_due:
            self._write_urgent(now)
        late = now - self._routine_due
        if self._routine and (self._hurry or late >= 0):
            if self._urgent and late < _LATE_S:
                return
            self._write_routine(now)

    def _rest_s(self, now: float) -> float:
        """How long nothing is due."""
        if self._urgent:
            return self._urgent_due - now
        if self._routine:
            return 0.0 if self._hurry else self._routine_due - now
        return _BEAT_S

    def _write_urgent(self, now: float) -> None:
        jobs = [self._urgent.popleft() for _ in range(len(self._urgent))]
        wanted = []
        for job in jobs:
            if job.expires is not None and now >= job.expires:
                job.fail(self._unwritten(self.error or "it took too long"))
            else:
                wanted.append(job)
        if not wanted:
            return
        try:
            self._transaction(wanted, durable=True)
        except _TroubleError as trouble:
            self._failed(str(trouble), locked_out=trouble.busy)
            self._urgent_due = self._clock.now() + _PAUSE_S
            if trouble.busy and not any(job.begun for job in wanted):
                self._urgent.extendleft(reversed(wanted))
                return
            for job in wanted:
                job.fail(self._unwritten(str(trouble)))

    def _write_routine(self, now: float) -> None:
        count = min(len(self._routine), _ROUTINE_BATCH)
        jobs = [self._routine.popleft() for _ in range(count)]
        try:
            self._transaction(jobs, durable=False)
        except _TroubleError as trouble:
            self._failed(str(trouble), locked_out=trouble.busy)
            self._routine.extendleft(reversed(jobs))
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._routine_due = self._clock.now() + self._pause_s
            self._hurry = False
        else:
            self._pause_s = _PAUSE_S
            self._hurry = self._hurry and bool(self._routine)
            self._routine_due = now + (0.0 if count == _ROUTINE_BATCH else _ROUTINE_EVERY_S)

    def _transaction(self, jobs: list[_Job], *, durable: bool) -> None:
        """Run the jobs and commit, then resolve their futures; _TroubleError: none is written."""
        db = self._connected()
        try:
            self._set_durable(db, durable)
            db.execute("BEGIN IMMEDIATE")
            changed = db.total_changes
            done = [(job, _run(db, job)) for job in jobs if job.begin()]
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(db)
            busy = primary_code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
            raise _TroubleError(str(error), busy=busy) from error
        self.commits += 1
        # A transaction that only read says nothing of whether the disk takes what is written.
        if self._locked_out or db.total_changes != changed:
            self._well_again()
        for job, (value, failure) in done:
            if failure is not None:
                job.future.set_exception(failure)
            else:
                job.future.set_result(value)

    def _set_durable(self, db: sqlite3.Connection, durable: bool) -> None:
        """Only where it changes: SQLite reads such a statement anew each time."""
        if durable == self._durable:
            return
        self._durable = None
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        # Nobody urgent waits for a checkpoint, two more syncs at least.
        db.execute(f"PRAGMA wal_autocheckpoint = {0 if durable else _CHECKPOINT_PAGES}")
        self._durable = durable

    def _roll_back(self, db: sqlite3.Connection) -> None:
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            # The next BEGIN fails then, and says so to whoever waits.
            logger.warning("the state file %s: %s", self.path, error)

    def _write_rest(self) -> None:
        """Nobody hands in any more: write until all is written or the time is over."""
        end = self._clock.now() + _CLOSE_S
        while self.waiting and self._clock.now() < end:
            with self._changed:
                self._hurry = True
                self._changed.wait(_PAUSE_S if self.error else 0.0)
            now = self._clock.now()
            if self._urgent:
                self._write_urgent(now)
            if self._routine:
                self._write_routine(now)
        left = [*self._urgent, *self._routine]
        if left:
            logger.error("%d writes to %s are lost: %s", len(left), self.path, self.error)
        for job in left:
            job.fail(self._unwritten(self.error or "it is closed"))

    def _failed(self, why: str, *, locked_out: bool = False) -> None:
        if self.error is None:
            logger.error("the state file %s cannot be written: %s", self.path, why)
        self.error, self._locked_out = why, locked_out

    def _well_again(self) -> None:
        if self.error is not None:
            logger.warning("the state file %s is written again", self.path)
        self.error = None

    def _unwritten(self, why: str) -> StoreError:
        return StoreError(f"the state file {self.path} cannot be written: {why}")


def _run(db: sqlite3.Connection, job: _Job) -> tuple[Any, Exception | None]:
    """One job in its savepoint; raises sqlite3.Error only for the disk's sake."""
    db.execute("SAVEPOINT job")
    try:
        value = job.work(db)
    except Exception as error:
        if is_trouble(error):
            raise
        db.execute("ROLLBACK TO job")
        db.execute("RELEASE job")
        return None, error
    db.execute("RELEASE job")
    return value, None


def _why(error: StoreError) -> str:
    """Without the name of the file: clients may be told."""
    return str(error.__cause__ or "it cannot be used")


def is_trouble(error: Exception) -> bool:
    """Whether it is the disk's fault, or another process's, and a job must let it pass."""
    return isinstance(error, sqlite3.Error) and primary_code(error) in _TROUBLE


def _nothing(db: sqlite3.Connection) -> None:
    """A job that only marks a place in the line."""
    del db
