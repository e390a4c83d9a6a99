"""When a background task that failed is started again, and whether it is well.

The first time after a second, then after twice as long each time, a minute at most: what fails
at once for ever must not fill the log, and what failed once should not be missed for long. One
that has run for ``WELL_S`` since counts as well again, and begins with a second.

Moments are seconds of one monotonic clock of the caller's.
"""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 1.0
LONGEST_S: Final = 60.0
WELL_S: Final = 120.0
# Enough doublings to reach the longest.
_DOUBLINGS: Final = 10


class Restarts:
    """The failures of one task. ``failures``: all; ``error``: the last one, in words."""

    __slots__ = ("_failed_at", "_row", "error", "failures", "waits")

    def __init__(self) -> None:
        self.failures = 0
        self.error = ""
        self.waits = False
        self._failed_at = 0.0
        self._row = 0

    def __repr__(self) -> str:
        return f"<Restarts {self.failures} failures{self.error and f', last: {self.error}'}>"

    def failed(self, error: str, now: float) -> float:
        """It has failed; in how many seconds to start it again."""
        self._row = 0 if self.is_well(now) else self._row + 1
        self.failures += 1
        self.error = error
        self.waits = True
        self._failed_at = now
        return min(LONGEST_S, FIRST_S * (1 << min(self._row, _DOUBLINGS)))

    def started(self, now: float) -> None:
        """It runs again."""
        self.waits = False
        self._failed_at = now

    def is_well(self, now: float) -> bool:
        """It runs, and has done so for long enough since it last failed."""
        if not self.failures:
            return True
        return not self.waits and now - self._failed_at >= WELL_S
