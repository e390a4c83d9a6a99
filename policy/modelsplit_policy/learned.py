"""What was learned of a host and its models, as values that outlive the process.

They are kept by upstream, by Ollama's version and by a model's digest, so what is recalled is
of the same machine and program, and a model that was replaced begins anew. What is old is
worth less: a host's shares lose half of their weight every two days, until they are not
known any more and a probe may look again; after a month nothing is recalled.

Nothing here trusts what it reads: a text that is not as it was written is no knowledge.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NamedTuple

# Seconds after which a host's shares weigh half, and after which nothing is recalled.
HALF_LIFE_S: Final = 2 * 86_400.0
FORGET_S: Final = 30 * 86_400.0
_MOST: Final = 4096


class LearnedHost(NamedTuple):
    """Of ``contention.Shares``: by n, the work done and the time spent, in calls' worth.

    ``quiet_s``: for how long no probe was to hurt anybody again, and ``hurt_s`` for how long
    the next one that does would make it so.
    """

    work: tuple[float, ...]
    time: tuple[float, ...]
    quiet_s: float = 0.0
    hurt_s: float = 0.0

    def aged(self, age_s: float) -> LearnedHost | None:
        """As much of it as is left after so many seconds; None: nothing."""
        if age_s >= FORGET_S:
            return None
        left = 0.5 ** (max(0.0, age_s) / HALF_LIFE_S)
        return LearnedHost(
            tuple(value * left for value in self.work),
            tuple(value * left for value in self.time),
            max(0.0, self.quiet_s - max(0.0, age_s)),
            self.hurt_s,
        )

    def text(self) -> str:
        return json.dumps([list(self.work), list(self.time), self.quiet_s, self.hurt_s])


class LearnedModel(NamedTuple):
    """A model's slots: known, and where a wait was seen (None: nowhere); its pace alone."""

    slots: int
    most: int | None = None
    seconds: float | None = None

    def text(self) -> str:
        return json.dumps(list(self))


def host_of(text: str) -> LearnedHost | None:
    """The reverse of ``LearnedHost.text``; None: it is none."""
    raw = _read(text)
    if len(raw) != 4 or not all(isinstance(part, list) for part in raw[:2]):
        return None
    work, time, quiet_s, hurt_s = raw
    numbers = [*work, *time, quiet_s, hurt_s]
    if len(work) != len(time) or len(work) > _MOST or not all(map(_quantity, numbers)):
        return None
    return LearnedHost(tuple(work), tuple(time), quiet_s, hurt_s)


def model_of(text: str) -> LearnedModel | None:
    """The reverse of ``LearnedModel.text``; None: it is none."""
    raw = _read(text)
    if len(raw) != 3:
        return None
    slots, most, seconds = raw
    if not _count(slots) or not (most is None or _count(most)):
        return None
    if not (seconds is None or (_quantity(seconds) and seconds > 0)):
        return None
    return LearnedModel(slots, most, seconds)


def _read(text: str) -> list[Any]:
    try:
        raw = json.loads(text)
    except ValueError:
        return []
    return raw if isinstance(raw, list) else []


def _quantity(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value < 1e12


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST
