"""Which steps of a breaker an operator is told of.

A breaker that stands open lets a trial through every few seconds, and each is two steps: in an
outage these would be all that a log holds. So each breaker's opening and closing is told, once;
the steps between are counted, and the count is told once a minute while it stands open, and
with the next step that is told. One that opens again within the minute is counted too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from modelsplit_policy.breaker import MODELS_MAX, BreakerState

if TYPE_CHECKING:
    from modelsplit_policy.breaker import BreakerKey, BreakerTransition

EVERY_S: Final = 60.0


@dataclass(slots=True)
class _Told:
    """What was told last of one breaker, and how many steps were not told since."""

    state: BreakerState
    at: float
    untold: int = 0


class BreakerNews:
    """Keeps what was told. ``now`` is seconds of one monotonic clock throughout."""

    def __init__(self) -> None:
        # In the order in which they were told first; there are as many as breakers are kept.
        self._told: dict[BreakerKey, _Told] = {}

    def __repr__(self) -> str:
        return f"<BreakerNews of {len(self._told)}>"

    def of(self, step: BreakerTransition, now: float) -> str | None:
        """What to say of a step, without whose breaker it is; None: nothing."""
        last = self._told.get(step.key)
        if not _is_news(step, last, now):
            if last is not None and step.new is not BreakerState.HALF_OPEN:
                last.untold += 1
            return None
        more = 0 if last is None else last.untold
        self._keep(step.key, _Told(step.new, now))
        steps = f"{more} more step{'' if more == 1 else 's'} since it was last told"
        text = f"{step.old} -> {step.new}: {step.why}"
        return f"{text} ({steps})" if more else text

    def _keep(self, key: BreakerKey, last: _Told) -> None:
        self._told.pop(key, None)
        if len(self._told) > MODELS_MAX:
            del self._told[next(iter(self._told))]
        self._told[key] = last


def _is_news(step: BreakerTransition, last: _Told | None, now: float) -> bool:
    if step.new is BreakerState.HALF_OPEN:
        return False
    if step.new is BreakerState.CLOSED:
        return last is not None and last.state is BreakerState.OPEN
    return last is None or now - last.at >= EVERY_S
