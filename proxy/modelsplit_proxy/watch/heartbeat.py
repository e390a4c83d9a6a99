"""Once a minute the process says that it is there, and what it holds.

A row a minute of the wall clock, the first at once. So a minute without one is a minute
without a process, or with one that hung. The last row of a process that drained says so.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelsplit_policy.slo.heartbeat import Heartbeat
from modelsplit_proxy.records import slo_store

if TYPE_CHECKING:
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.loop_lag import LoopLag
    from modelsplit_proxy.storage.writer import Store

_MINUTE_S: Final = 60.0
# So far into a minute that a clock which is a little off does not come twice to the same one.
_INTO_S: Final = 1.0
_PROC: Final = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds; None: the system does not say."""

    rss_bytes: int | None
    descriptors: int | None
    state_bytes: int | None


def held(state_file: Path, proc: Path = _PROC) -> Held:
    """Look at the process and at its state file. Reads files: a millisecond at most."""
    return Held(_rss_bytes(proc), _descriptors(proc), _bytes_of(state_file))


def _rss_bytes(proc: Path) -> int | None:
    try:
        pages = int((proc / "statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _descriptors(proc: Path) -> int | None:
    try:
        return sum(1 for _ in (proc / "fd").iterdir())
    except OSError:
        return None


def _bytes_of(state_file: Path) -> int | None:
    """With its log."""
    size = 0
    try:
        size = state_file.stat().st_size
        size += state_file.with_name(f"{state_file.name}-wal").stat().st_size
    except OSError:
        return size or None
    return size


class HeartbeatKeeper:
    """Writes the rows. ``run``: the name of this process among all that wrote here."""

    def __init__(
        self, store: Store, lag: LoopLag, clock: Clock, state_limit_bytes: int, run: str
    ) -> None:
        self._store = store
        self._lag = lag
        self._clock = clock
        self._state_limit_bytes = state_limit_bytes
        self._run = run

    def __repr__(self) -> str:
        return f"<HeartbeatKeeper {self._run}>"

    async def watch(self) -> None:
        """Beat for ever; a task of the process."""
        while True:
            looked = await asyncio.to_thread(held, self._store.path)
            self._keep(looked, drained=False)
            await asyncio.sleep(_MINUTE_S - (self._clock.wall() - _INTO_S) % _MINUTE_S)

    def drained(self) -> None:
        """The process ends in good order. The store writes it when it is closed."""
        self._keep(Held(None, None, None), drained=True)

    def _keep(self, looked: Held, *, drained: bool) -> None:
        beat = Heartbeat(
            at_us=round(self._clock.wall() * 1e6),
            run=self._run,
            drained=drained,
            rss_bytes=looked.rss_bytes,
            descriptors=looked.descriptors,
            tasks=None if drained else len(asyncio.all_tasks()),
            state_bytes=looked.state_bytes,
            state_limit_bytes=self._state_limit_bytes,
            lag_p99_us=round(self._lag.quantile(0.99) * 1e6) if self._lag.samples else None,
        )
        done = self._store.submit(lambda db: slo_store.keep_heartbeat(db, beat))
        # Whatever becomes of it, nobody waits; what is wrong with the file is told elsewhere.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
