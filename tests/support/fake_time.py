"""A loop whose time passes only when a test says so. Sockets, files and threads are real.

Whatever takes its time from the loop (``sleep``, ``timeout``, ``call_later``, ``loop.time``,
the clock of a proxy that ``support.harness`` starts) tells this time. Two markers choose it:

- ``fake_time``: it stands still until the test lets it pass. For what has no socket: a bound
  that is not meant to fire cannot fire, and one that is meant to fires when it is told.
- ``flowing_time``: it passes by itself, 10 ms whenever the loop has turned a few times. For
  whole calls over real sockets: a busy machine makes the loop turn more slowly, and this time
  with it, so that a bound of 150 ms is never shorter than a hundred turns of the loop. It knows
  nothing of other threads: no bound in it may span a wait for the disk.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import TYPE_CHECKING, TypeVarTuple, Unpack

import uvloop

from support.hanging import Loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

Ts = TypeVarTuple("Ts")

# Between two steps of a time that flows by itself: for the kernel to deliver what was sent, and
# for the loop to hand it on.
_STEP_S = 0.01
_PAUSE_S = 0.003
# How often tasks may run after a timer before the next one fires: one that was woken sets its
# next timer within a few turns of the loop.
_TURNS = 10


class FakeTimeLoop(Loop):
    """uvloop with timers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self._numbers = itertools.count()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []

    def time(self) -> float:
        return self._now

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if when <= self._now:
            self.call_soon(_fire, handle)
        else:
            heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """What ``TimerHandle.cancel`` tells its loop: it leaves the heap when it is due."""

    def next_due(self) -> float | None:
        """When the next timer is due; None: there is none."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    async def passes(self, seconds: float) -> None:
        """Let so much time pass. Every timer on the way fires at its own moment, in order."""
        end = self._now + seconds
        while self._fires_by(end):
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        self._now = max(self._now, end)

    def _fires_by(self, end: float) -> bool:
        """Fire the next timer that is due by then; False: there is none."""
        due = self.next_due()
        if due is None or due > end:
            return False
        self._now = max(self._now, due)
        _fire(heapq.heappop(self._timers)[2])
        return True


class FlowingTimeLoop(FakeTimeLoop):
    """Its time passes by itself, step by step, only ever as fast as the loop turns."""

    def __init__(self) -> None:
        super().__init__()
        self._pause()

    def _pause(self) -> None:
        # uvloop's own timer: this one is real.
        uvloop.Loop.call_later(self, _PAUSE_S, self._turn, _TURNS)

    def _turn(self, left: int) -> None:
        if left:
            self.call_soon(self._turn, left - 1)
            return
        end = self._now + _STEP_S
        while self._fires_by(end):
            pass
        self._now = end
        self._pause()


def _fire(timer: asyncio.TimerHandle) -> None:
    if not timer.cancelled():
        timer._run()


def fake_time() -> FakeTimeLoop:
    """The running loop of a test that is marked ``fake_time``."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeTimeLoop), "mark the test: @pytest.mark.fake_time"
    return loop


async def turns() -> None:
    """Let tasks that were just started come to what they wait for."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def passes(seconds: float) -> None:
    """Let so much time pass; see ``FakeTimeLoop.passes``."""
    await fake_time().passes(seconds)


class LoopClock:
    """The clock of a proxy on such a loop: see ``modelsplit_proxy.runtime.clock.Clock``."""

    def __init__(self, loop: FakeTimeLoop) -> None:
        self.now = loop.time
        self.wall = time.time


def clock() -> LoopClock | None:
    """The clock that goes with the running loop; None: the machine's."""
    loop = asyncio.get_running_loop()
    return LoopClock(loop) if isinstance(loop, FakeTimeLoop) else None
