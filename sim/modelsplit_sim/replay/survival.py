"""What a quantity is like, learned from values of which some were cut off before their end.

A length of an answer that was not awaited is at least what was seen of it; the patience of a
client that was served is at least how long that took. Leaving such values out, or taking them
as they are, makes everything look shorter than it is. Kaplan and Meier's estimator takes them
for what they say (1958): at each value that was seen whole, the share that ends there is one
over the number that had not ended or been cut off before.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Survival:
    """``whole``: values seen to their end; ``cut``: values that would have been greater.

    ``beyond``: what is drawn above the greatest whole value, where cut ones lie there; None: the
    greatest whole value, since nothing is known of more.
    """

    def __init__(
        self, whole: Sequence[float], cut: Sequence[float], beyond: float | None = None
    ) -> None:
        self._values: list[float] = []
        # The share of all that is greater than the value at the same place.
        self._greater: list[float] = []
        self._beyond = beyond
        self.count = len(whole)
        ordered_cut = sorted(cut)
        at_risk, greater = len(whole) + len(cut), 1.0
        taken = 0
        for value in sorted(whole):
            gone = bisect_right(ordered_cut, value - 1e-12)
            at_risk -= gone - taken
            taken = gone
            greater *= 1 - 1 / at_risk
            at_risk -= 1
            self._values.append(value)
            self._greater.append(greater)

    def __repr__(self) -> str:
        return f"<Survival of {self.count} whole values>"

    def draw(self, chance: float, least: float = -math.inf) -> float | None:
        """A value above ``least``; ``chance``: from 0 up to 1. None: nothing is known.

        Where no whole value lies above ``least`` and there is nothing ``beyond``, it is
        ``least``.
        """
        if not self._values:
            return self._beyond
        first = bisect_right(self._values, least)
        left = 1.0 if first == 0 else self._greater[first - 1]
        wanted = left * (1 - chance)
        place = bisect_right(self._greater, -wanted, lo=first, key=operator.neg)
        if place < len(self._values):
            return self._values[place]
        if self._beyond is not None:
            return self._beyond
        return max(self._values[-1], least)
