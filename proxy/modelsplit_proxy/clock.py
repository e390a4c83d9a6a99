"""The only reader of time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
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

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


def rfc3339(wall: float) -> str:
    """``2026-11-23T01:02:03.456Z`` for seconds since the epoch."""
    moment = datetime.fromtimestamp(wall, UTC)
    return f"{moment.isoformat(timespec='milliseconds')[:23]}Z"
