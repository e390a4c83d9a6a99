"""When the next call of a role is likely to come, learned from the gaps between its calls.

Of the gaps seen, those longer than what has passed since the last call say how the next one
will be. Holding a seat free for it costs what others could have done meanwhile, and gains the
wait it would otherwise have had behind a call that is not interrupted. Where calls come at
random this never pays; where they come in step it does.

What is held free is bounded: a small share of the time that has passed, so that the others
keep theirs. Times are monotonic seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from typing import Final

# Gaps that are remembered, how many make a rhythm, and how many of them must be left.
_REMEMBERED: Final = 64
NEEDED: Final = 16
_LEFT: Final = 4
# The longest a seat is ever held free at once; a share of all time; the most saved up.
LONGEST_S: Final = 1.0
SHARE: Final = 0.04
_SAVED_S: Final = 4.0
# A seat is held free only if in so large a share of cases the next call does come meanwhile.
LIKELY: Final = 0.5


class Rhythm:
    """The rhythm of one role's calls, and how long a seat may be held free for it."""

    __slots__ = ("_gaps", "_holding", "_last", "_saved_at", "_saved_s", "_sorted")

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=_REMEMBERED)
        self._sorted: list[float] | None = None
        self._last: float | None = None
        self._saved_s = 0.0
        self._saved_at = 0.0
        self._holding: float | None = None

    def note(self, now: float) -> None:
        """A call has come."""
        if self._last is not None:
            self._gaps.append(now - self._last)
            self._sorted = None
        else:
            self._saved_at = now
        self._last = now

    @property
    def known(self) -> bool:
        """True if calls come at all."""
        return self._last is not None

    @property
    def learned(self) -> bool:
        """True if enough have come to say when the next one may."""
        return len(self._gaps) >= NEEDED

    def chance(self, now: float, within_s: float) -> float:
        """How likely the next one comes within so many seconds; 0 before the second has come."""
        if not self.learned:
            return self._guessed_chance(within_s)
        left, gone_s = self._left(now)
        if not left:
            return 0.0
        return bisect_right(left, gone_s + within_s) / len(left)

    def _guessed_chance(self, within_s: float) -> float:
        """The same while too few gaps are known to say when: as if calls came at random."""
        if not self._gaps:
            return 0.0
        mean_s = sum(self._gaps) / len(self._gaps)
        return 1.0 - math.exp(-within_s / mean_s) if mean_s > 0 else 1.0

    def hold_s(self, now: float, length_s: float) -> float:
        """How long it pays to hold a seat free that a call of ``length_s`` would take; 0: not."""
        left, gone_s = self._left(now)
        if len(left) < _LEFT:
            return 0.0
        longest_s = min(LONGEST_S, length_s, self._allowance(now))
        best_s = best = gained = passed = 0.0
        for number, gap in enumerate(left):
            after_s = gap - gone_s
            if after_s > longest_s:
                break
            gained += length_s - after_s
            passed += after_s
            cost = passed + after_s * (len(left) - number - 1)
            if number + 1 >= LIKELY * len(left) and gained - cost > best:
                best, best_s = gained - cost, after_s
        # A little longer, so that one in step is not missed.
        return min(longest_s, best_s * 1.1 + 0.02) if best_s else 0.0

    def held(self, now: float, *, holding: bool) -> None:
        """From now on a seat is held free, or not any more."""
        if self._holding is not None:
            self._saved_s -= now - self._holding
        self._holding = now if holding else None

    def _allowance(self, now: float) -> float:
        self._saved_s = min(_SAVED_S, self._saved_s + SHARE * (now - self._saved_at))
        self._saved_at = now
        return self._saved_s

    def _left(self, now: float) -> tuple[list[float], float]:
        """The gaps longer than the time since the last call, shortest first; and that time."""
        if self._last is None or len(self._gaps) < NEEDED:
            return [], 0.0
        if self._sorted is None:
            self._sorted = sorted(self._gaps)
        gone_s = now - self._last
        return self._sorted[bisect_right(self._sorted, gone_s) :], gone_s
