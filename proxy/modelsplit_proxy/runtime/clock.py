"""The only reader of time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from modelsplit_policy.budget_clock import Anchor, ClockReading

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# How a moment ends. Two are written for every call, and to format a number takes longer.
_MILLISECONDS: Final = tuple(f".{number:03}Z" for number in range(1000))


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


def boot_id(raw: str = "") -> str | None:
    """Which boot of the machine this is; None where nobody says and the system hides it."""
    if not raw:
        try:
            raw = _BOOT_ID.read_text(encoding="ascii")
        except OSError:
            return None
    # systemd writes it without the dashes.
    return raw.strip().replace("-", "").lower() or None


def machine_clocks(boot: str | None) -> Callable[[], ClockReading]:
    """What reads the clocks of this machine, in this boot."""
    # The monotonic clock stands still while the machine sleeps; this one does not.
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return lambda: ClockReading(boot, time.clock_gettime(clock), time.time())


class BudgetClock:
    """Budget time in this process, from the moment it is told what time it is."""

    def __init__(self, read: Callable[[], ClockReading]) -> None:
        self.read = read
        self._began = Anchor(read(), 0.0)

    def begin(self, anchor: Anchor) -> None:
        """It was so late when the clocks read so."""
        self._began = anchor

    def now(self) -> float:
        return self.anchor().budget_time

    def anchor(self) -> Anchor:
        """What the clocks read, and how late that makes it."""
        reading, began = self.read(), self._began
        passed_s = reading.since_boot - began.reading.since_boot
        return Anchor(reading, began.budget_time + max(0.0, passed_s))


def rfc3339(wall: float) -> str:
    """``2026-11-23T01:02:03.456Z`` for seconds since the epoch."""
    return rfc3339_us(round(wall * 1_000_000))


def rfc3339_us(wall_us: int) -> str:
    """The same for microseconds since the epoch."""
    second, microseconds = divmod(wall_us, 1_000_000)
    return _second(second) + _MILLISECONDS[microseconds // 1000]


@lru_cache(maxsize=16)
def _second(second: int) -> str:
    """Nearly every moment that is written down belongs to a second that has been before."""
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]
