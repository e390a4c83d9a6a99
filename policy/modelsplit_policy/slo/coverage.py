"""How much of a window has records at all."""

from __future__ import annotations

from typing import Final

STEP_US: Final = 900_000_000
"""A quarter of an hour: it counts as covered if there is any record in it."""


class Coverage:
    """Quarters of an hour, counted from the end of the window backwards."""

    def __init__(self, since_us: int, now_us: int) -> None:
        self._since_us = since_us
        self._now_us = now_us
        self._steps: set[int] = set()
        # Records come by time: most are in the same quarter as the one before.
        self._step_ends_us = self._step_begins_us = 0

    def take(self, at_us: int) -> None:
        """There is a record of this moment; moments outside the window are not looked at."""
        if self._step_begins_us < at_us <= self._step_ends_us:
            return
        if self._since_us <= at_us <= self._now_us:
            step = (self._now_us - at_us) // STEP_US
            self._steps.add(step)
            self._step_ends_us = self._now_us - step * STEP_US
            self._step_begins_us = self._step_ends_us - STEP_US

    @property
    def seconds(self) -> int:
        """Covered, never more than the window is long."""
        window_us = self._now_us - self._since_us
        return min(len(self._steps) * STEP_US, window_us) // 1_000_000
