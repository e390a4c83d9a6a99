"""How fast calls run beside others: for each number at once that has been seen, and no other.

A call alone needs a certain time a token. With n at once each runs at a share r(n) of its
speed alone, and the host's output is T(n) = n r(n), in calls' worth. A finished call says
how much work it was (its tokens, at its model's pace alone) and how long it ran beside how
many others: its work is the sum of r(n) times the time at n, which is linear in what is
looked for. So each finished call corrects the shares of the numbers it met, and those alone.
Nothing is drawn beyond them: two may be free and three share.

A call that spent half of its time in company shows what that cost with twice the error of one
that spent all of it there, so a sample weighs the square of that part.

A model's pace alone is the mean of its better calls and of those like them, not of all: a
neighbour that takes the machine now and then makes calls slow, and what is slow alone must not
make company look cheap. Nor may calls that merely differ make it look dear: what one of them
alone needs is not what the best of them needed.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# What the n-th call at once must add, in calls' worth of output. A third: below it, each
# of two calls would run at less than two thirds of its speed alone.
WORTH: Final = 0.33
# A number already in use is kept until it is clearly not worth it.
WORTH_TO_KEEP: Final = 0.25
# One more takes nothing from the host as long as it loses no more than this share of its output.
LOSS: Final = 0.1
# What a share still weighs after the next sample of it: about the last ten count.
MEMORY: Final = 0.9
# What samples of a number must weigh together before its share is believed: as much as one call
# that spent a third of its time there.
NEEDED: Final = 0.1
# And before it is not doubted any more that one more is not worth it: one that spent all of it.
SURE: Final = 1.0
# How far off the share is then: calls differ in pace by about so much.
NOISE: Final = 0.1
# A sample says something of company only if this share of its time was in company; and of the
# pace alone only if no more than a twentieth was.
COMPANY: Final = 0.2
LEAST: Final = 0.1
ALONE: Final = 0.95
# Paces alone that are remembered. The third best of ten counts, and all that are no slower than
# that by a quarter: more than calls differ that nobody disturbs.
_PACES: Final = 16
_BETTER: Final = 0.3
_ALIKE: Final = 1.25
_SLOWEST: Final = 0.02


class Shares:
    """r(n) for the numbers seen. ``most``: no greater number is ever asked for."""

    __slots__ = ("_time", "_work", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._work = [0.0] * (most + 1)
        self._time = [0.0] * (most + 1)

    def share(self, n: int) -> float | None:
        """r(n), or None where it is not known."""
        if n <= 1:
            return 1.0
        if n > self.most or self._time[n] < NEEDED:
            return None
        share = self._work[n] / self._time[n]
        return min(1.0, max(_SLOWEST, share))

    def output(self, n: int) -> float | None:
        """T(n), or None where it is not known."""
        share = self.share(n)
        return None if share is None else n * share

    def learn(self, work_s: float, times: Sequence[float]) -> None:
        """A call of ``work_s`` seconds alone ran ``times[n]`` seconds with n at once."""
        span_s = sum(times)
        company = [(n, times[n]) for n in range(2, len(times)) if times[n] and n <= self.most]
        if sum(time_s for _, time_s in company) < COMPANY * span_s:
            return
        left_s = work_s - times[0] - times[1]
        known = {n: time_s * share for n, time_s in company if (share := self.share(n)) is not None}
        unknown = [(n, time_s) for n, time_s in company if n not in known]
        known_s = sum(known.values())
        if unknown:
            unknown_s = sum(time_s for _, time_s in unknown)
            pace = max(_SLOWEST, (left_s - known_s) / unknown_s)
            for n, time_s in unknown:
                self._add(n, pace, time_s / span_s, unknown_s / span_s)
            return
        pace = max(_SLOWEST, left_s / known_s)
        company_s = sum(time_s for _, time_s in company)
        for n, time_s in company:
            self._add(n, pace * known[n] / time_s, time_s / span_s, company_s / span_s)

    def learned(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """By n: the work done and the time spent, in calls' worth, weighed."""
        return tuple(self._work), tuple(self._time)

    def recall(self, work: Sequence[float], time: Sequence[float]) -> None:
        """What was learned before, for the numbers of which nothing is known yet."""
        for n in range(2, min(len(work), self.most + 1)):
            if not self._time[n]:
                self._work[n], self._time[n] = work[n], time[n]

    def _add(self, n: int, share: float, part: float, company: float) -> None:
        """A call that spent ``part`` of its time at n and ``company`` in any; little says nothing.

        What was found of all its company is shared out among the numbers it met.
        """
        if part < LEAST:
            return
        weight = part * company
        keep = 1 - (1 - MEMORY) * weight
        self._work[n] = self._work[n] * keep + share * weight
        self._time[n] = self._time[n] * keep + weight

    def worth(self, used: int) -> int:
        """The number of calls at once beyond which one more is not worth it, or not known.

        ``used``: the number in use.
        """
        before = 1.0
        for n in range(2, self.most + 1):
            output = self.output(n)
            if output is None or output - before < (WORTH_TO_KEEP if n <= used else WORTH):
                return n - 1
            before = output
        return max(1, self.most)

    def harms(self, n: int) -> bool | None:
        """Whether the host does less with n at once than with one fewer; None: not known."""
        before, output = self.output(n - 1), self.output(n)
        if before is None or output is None:
            return None
        limit, noise = (1 - LOSS) * before, n * NOISE / math.sqrt(self._time[n])
        if output + noise < limit:
            return True
        if self._time[n] < SURE or output < limit:
            return None
        return False

    def contention(self) -> float | None:
        """By how much each call more slows the others, on average over what is known."""
        slopes = [
            (1 / share - 1) / (n - 1)
            for n in range(2, self.most + 1)
            if (share := self.share(n)) is not None
        ]
        return sum(slopes) / len(slopes) if slopes else None


class PaceAlone:
    """Seconds a token of one model's calls that had no company."""

    __slots__ = ("_best", "_paces")

    def __init__(self) -> None:
        self._paces: deque[float] = deque(maxlen=_PACES)
        self._best: float | None = None

    @property
    def seconds(self) -> float | None:
        """The better calls' pace; None: none is known."""
        return self._best

    def learn(self, seconds: float) -> None:
        self._paces.append(seconds)
        better = sorted(self._paces)[int(len(self._paces) * _BETTER)]
        alike = [pace for pace in self._paces if pace <= better * _ALIKE]
        self._best = sum(alike) / len(alike)
