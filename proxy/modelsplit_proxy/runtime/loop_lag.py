"""How late the event loop is, measured by the loop itself.

A timer asks to be called every ``TICK_S`` and notes by how much it was late against
``loop.time()``. Whatever holds the loop up, our code or the machine, shows here and
nowhere else: it is no part of queue wait or of a model's latency.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

TICK_S: Final = 0.1
WINDOW_S: Final = 60.0


class LoopLag:
    """Samples lag at a fixed tick; answers quantiles over a sliding window. Seconds."""

    def __init__(self, *, tick_s: float = TICK_S, window_s: float = WINDOW_S) -> None:
        self._tick_s = tick_s
        self._samples: deque[float] = deque(maxlen=max(1, round(window_s / tick_s)))
        self._listeners: list[Callable[[float], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<LoopLag p99 {self.quantile(0.99) * 1000:.1f} ms of {len(self._samples)}>"

    def listen(self, listener: Callable[[float], None]) -> None:
        self._listeners.append(listener)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._schedule(loop, loop.time() + self._tick_s)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def observe(self, lag_s: float) -> None:
        self._samples.append(lag_s)
        for listener in self._listeners:
            listener(lag_s)

    @property
    def samples(self) -> int:
        """How many there are in the window."""
        return len(self._samples)

    def quantile(self, q: float) -> float:
        """The ``q`` quantile of the window, nearest rank; 0 before the first tick."""
        if not self._samples:
            return 0.0
        ordered = sorted(self._samples)
        return ordered[max(0, math.ceil(q * len(ordered)) - 1)]

    def _schedule(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._timer = loop.call_at(due, self._tick, loop, due)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        # From now, not from when it was due: after a stall one late tick tells the whole
        # story, and no burst of catch-up ticks waters it down. Before anybody is told, so that
        # a listener that raises does not end the measuring.
        self._schedule(loop, now + self._tick_s)
        self.observe(max(0.0, now - due))
