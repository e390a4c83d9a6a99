"""How much of a window has records at all."""

from __future__ import annotations

from typing import Final

STEP_US: Final = 900_000_000
"""A quarter of an hour: it counts as covered if there is any record in it, and from the first
record of all on."""


class Coverage:
    """Quarters of an hour, counted from the end of the window backwards.

    ``kept_since_us``: when the first record was made of all that are kept; None: long ago.
    """

    def __init__(self, since_us: int, now_us: int, kept_since_us: int | None = None) -> None:
        self._since_us = since_us
        self._kept_since_us = since_us if kept_since_us is None else kept_since_us
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
        """Covered, never more than the window is long, or than there are records at all."""
        longest_us = max(0, self._now_us - max(self._since_us, self._kept_since_us))
        return min(len(self._steps) * STEP_US, longest_us) // 1_000_000
