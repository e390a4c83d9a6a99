"""Old records go, a few at a time, so that nobody ever waits for it.

Calls and heartbeats older than ``keep_s`` go first, then the oldest calls while the file is
larger than ``max_bytes``. Each step is one routine job of the store: a few hundred rows, or a few
hundred pages given back to the disk; urgent writes come between any two. Whatever else the
file holds (budgets, approvals) is counted for its size and never touched. Jobs that have ended, and
what tools they ran, go with the calls of their time; an open job stays.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    import sqlite3

    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.storage.writer import Store

_EVERY_S: Final = 60.0
_CALLS_AT_ONCE: Final = 500
_PAGES_AT_ONCE: Final = 256
# The file is brought below its limit by so much, so that it is not at it again at once.
_ROOM: Final = 0.95
# Free pages are kept for the rows to come: this share of the file, and a few.
_SPARE: Final = 0.05
_SPARE_PAGES: Final = 64

_OLDER: Final = "SELECT id FROM calls WHERE started_us < ? ORDER BY started_us LIMIT ?"
_OLD_BEATS: Final = """
DELETE FROM heartbeats
WHERE minute IN (SELECT minute FROM heartbeats WHERE minute < ? LIMIT ?)
"""
_FIRST: Final = "SELECT id FROM calls ORDER BY id LIMIT ?"
_OLD_JOBS: Final = """
DELETE FROM jobs WHERE job_id IN (
    SELECT job_id FROM jobs WHERE last_us < ? AND state != 'open' LIMIT ?
)
"""
_OLD_TOOLS: Final = """
DELETE FROM job_tools WHERE id IN (SELECT id FROM job_tools WHERE at_us < ? LIMIT ?)
"""
# Later than anything.
_NEVER_US: Final = 2**62


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """How long records are kept, and how large the file may grow. Seconds, bytes."""

    keep_s: float
    max_bytes: int


class Step(NamedTuple):
    """What one step did: whether there is more to do, and how many calls it dropped."""

    more: bool
    calls: int = 0


@dataclass(frozen=True, slots=True)
class _Size:
    """The file in pages."""

    pages: int
    free: int
    page_bytes: int

    @property
    def used_bytes(self) -> int:
        return (self.pages - self.free) * self.page_bytes


class Retention:
    """Prunes the state file."""

    def __init__(self, store: Store, clock: Clock, limits: RetentionLimits) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits
        self._shrinking = False
        # Calls dropped so far, counted once that is on the disk: a step may be run again.
        self.pruned = 0

    def __repr__(self) -> str:
        return f"<Retention {self._limits}, {self.pruned} calls pruned>"

    async def watch(self) -> None:
        """Prune for ever; a task of the process."""
        while True:
            await self.prune()
            await asyncio.sleep(_EVERY_S)

    async def prune(self) -> None:
        """Step until there is nothing to do; a disk that fails ends it until the next time."""
        try:
            while (done := await asyncio.wrap_future(self._store.submit(self.step))).more:
                self.pruned += done.calls
        except StoreError:
            return

    def step(self, db: sqlite3.Connection) -> Step:
        """One small step, as a job of the store."""
        dropped = self._drop_old(db)
        if not dropped.more:
            dropped = self._drop_first(db)
        return dropped if dropped.more else Step(self._give_back(db))

    def _drop_old(self, db: sqlite3.Connection) -> Step:
        before_us = round((self._clock.wall() - self._limits.keep_s) * 1e6)
        more = _drop_jobs(db, before_us)
        beats = db.execute(_OLD_BEATS, (before_us // 60_000_000, _CALLS_AT_ONCE)).rowcount
        calls = _drop(db, _OLDER, (before_us, _CALLS_AT_ONCE))
        return Step(calls > 0 or more or beats == _CALLS_AT_ONCE, calls)

    def _drop_first(self, db: sqlite3.Connection) -> Step:
        """Drop the oldest of a file that is too large, until it is well below its limit."""
        used, most = _size(db).used_bytes, self._limits.max_bytes
        self._shrinking = used > (most * _ROOM if self._shrinking else most)
        if not self._shrinking:
            return Step(more=False)
        calls = _drop(db, _FIRST, (_CALLS_AT_ONCE,))
        oldest = db.execute("SELECT started_us FROM calls ORDER BY id LIMIT 1").fetchone()
        more = _drop_jobs(db, _NEVER_US if oldest is None else oldest[0])
        return Step(calls > 0 or more, calls)

    def _give_back(self, db: sqlite3.Connection) -> bool:
        """Shorten the file by some of its free pages."""
        size = _size(db)
        spare = max(_SPARE_PAGES, round(size.pages * _SPARE))
        if size.free <= spare:
            return False
        for _ in range(min(_PAGES_AT_ONCE, size.free - spare)):
            # One page a statement: the module steps a statement without rows only once.
            db.execute("PRAGMA incremental_vacuum(1)")
        return True


def _drop(db: sqlite3.Connection, query: str, values: tuple[int, ...]) -> int:
    """Drop the calls that ``query`` names, with their attempts; how many there were."""
    ids = db.execute(query, values).fetchall()
    db.executemany("DELETE FROM attempts WHERE call_id = ?", ids)
    db.executemany("DELETE FROM calls WHERE id = ?", ids)
    return len(ids)


def _drop_jobs(db: sqlite3.Connection, before_us: int) -> bool:
    """Drop some ended jobs, and runs of tools, of before; whether there may be more."""
    counts = [
        db.execute(query, (before_us, _CALLS_AT_ONCE)).rowcount for query in (_OLD_JOBS, _OLD_TOOLS)
    ]
    return _CALLS_AT_ONCE in counts


def _size(db: sqlite3.Connection) -> _Size:
    names = ("page_count", "freelist_count", "page_size")
    return _Size(*(db.execute(f"PRAGMA {name}").fetchone()[0] for name in names))
