"""Which recorded attempts were at the host at once, and from when on each of them computed."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelsplit_policy.model_names import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .recorded import Recorded, RecordedAttempt


@dataclass(slots=True, eq=False)
class Stay:
    """An attempt that was sent. ``sent`` and ``ended``: seconds since 1970.

    ``began``: when it had a slot, as far as can be told: nobody of its model was before it by
    then, and its load was over. ``company``: seconds from then on, by how many computed at once,
    itself included; of those, ``own`` counts calls of its own model, ``models`` models.
    """

    call: Recorded
    attempt: RecordedAttempt
    model: str
    sent: float
    ended: float
    began: float = 0.0
    company: dict[tuple[int, int], float] | None = None

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def stays(calls: Iterable[Recorded], num_parallel: int) -> list[Stay]:
    """Every attempt that was sent and whose end is known, in the order of sending."""
    found = [
        Stay(call, attempt, canonical(attempt.model), sent, call.arrived + attempt.ended_ms / 1000)
        for call in calls
        for attempt in call.attempts
        if attempt.dispatched_ms is not None and attempt.ended_ms is not None
        for sent in (call.arrived + attempt.dispatched_ms / 1000,)
    ]
    found.sort(key=_sent)
    _seat(found, num_parallel)
    accompany(found)
    return found


def _sent(stay: Stay) -> float:
    return stay.sent


def _seat(found: Sequence[Stay], num_parallel: int) -> None:
    """First come, first served, in so many slots of each model."""
    slots: dict[str, list[float]] = {}
    for stay in found:
        ends = slots.setdefault(stay.model, [])
        began = stay.sent + (stay.attempt.load_ms or 0.0) / 1000
        if len(ends) >= num_parallel:
            began = max(began, heapq.heappop(ends))
        stay.began = min(began, stay.ended)
        heapq.heappush(ends, stay.ended)


def accompany(found: Sequence[Stay]) -> None:
    """Say of each who computed beside it, by when they began and ended; what was said is void."""
    for stay in found:
        stay.company = None
    moments = [(stay.began, 1, number) for number, stay in enumerate(found)]
    moments += [(stay.ended, 0, number) for number, stay in enumerate(found)]
    moments.sort()
    here: dict[int, Stay] = {}
    by_model: dict[str, int] = {}
    before = 0.0
    for at, begins, number in moments:
        for stay in here.values():
            if stay.company is None:
                stay.company = {}
            place = by_model[stay.model], len(by_model)
            stay.company[place] = stay.company.get(place, 0.0) + at - before
        before = at
        stay = found[number]
        if begins:
            here[number] = stay
            by_model[stay.model] = by_model.get(stay.model, 0) + 1
        elif here.pop(number, None) is not None:
            by_model[stay.model] -= 1
            if not by_model[stay.model]:
                del by_model[stay.model]
