"""The only reader of time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Seconds. ``now`` never goes back; ``wall`` is what people call the time."""

    def now(self) -> float: ...
    def wall(self) -> float: ...


class SystemClock:
    """The machine's clocks.

    ``now`` is monotonic with sub-microsecond resolution: uvloop's own ``loop.time()`` counts
    whole milliseconds, too coarse for what we report.
    """

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


def rfc3339(wall: float) -> str:
    """``2026-11-23T01:02:03.456Z`` for seconds since the epoch."""
    second, microseconds = divmod(round(wall * 1_000_000), 1_000_000)
    return f"{_second(second)}.{microseconds // 1000:03}Z"


@lru_cache(maxsize=16)
def _second(second: int) -> str:
    """Nearly every moment that is written down belongs to a second that has been before."""
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]
