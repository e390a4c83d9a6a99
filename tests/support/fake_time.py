"""A loop whose time passes only when a test says so. Sockets, files and threads are real.

A test marked ``fake_time`` runs on it. Whatever takes its time from the loop (``sleep``,
``timeout``, ``call_later``, ``loop.time``) then stands still, however busy the machine is: a
bound that is not meant to fire cannot fire, and one that is meant to fires when it is told.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING, TypeVarTuple, Unpack

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

Ts = TypeVarTuple("Ts")

# How often tasks may run after a timer before the next one fires: one that was woken sets its
# next timer within a few turns of the loop.
_TURNS = 10


class FakeTimeLoop(uvloop.Loop):
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
        while (due := self.next_due()) is not None and due <= end:
            self._now = max(self._now, due)
            _fire(heapq.heappop(self._timers)[2])
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        self._now = end


def _fire(timer: asyncio.TimerHandle) -> None:
    if not timer.cancelled():
        timer._run()


def fake_time() -> FakeTimeLoop:
    """The running loop of a test that is marked ``fake_time``."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeTimeLoop), "mark the test: @pytest.mark.fake_time"
    return loop


async def passes(seconds: float) -> None:
    """Let so much time pass; see ``FakeTimeLoop.passes``."""
    await fake_time().passes(seconds)


async def passes_until(holds: Callable[[], object], step_s: float = 0.01) -> None:
    """Let time pass step by step until ``holds()``, for what nobody can say when it is due.

    Between two steps the loop turns often enough for what is on a socket to arrive. How much
    time passes is not exact: to be used where nothing else is due that would change the result.
    """
    while not holds():
        await passes(step_s)
