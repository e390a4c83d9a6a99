"""What records say of how fast a host is: each answer's durations, and who computed beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .overlap import accompany, stays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .overlap import Stay
    from .recorded import Recorded

# Fewer tokens than these say nothing of speed.
_TOKENS: Final = 8
# A call was alone if so much of its time was.
_ALONE: Final = 0.95
# A wait inside Ollama is one: longer than this.
_WAIT_S: Final = 0.15
# So many of a model computed at once if they did for so long.
_AT_ONCE_S: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An answer that was whole. Milliseconds; ``company``: as in ``Stay``, as shares of its time.

    ``span_ms``: prompt and answer together. ``rest_ms``: from sending to the end, all that Ollama
    does not tell: the way there and back, and what it does besides; None: it waited inside.
    """

    model: str
    tokens: int
    prompt_tokens: int
    eval_ms: float
    prompt_ms: float
    span_ms: float
    rest_ms: float | None
    company: Mapping[tuple[int, int], float]

    @property
    def is_alone(self) -> bool:
        return self.company.get((1, 1), 0.0) >= _ALONE


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it. ``num_parallel``: calls of one model that computed at once.

    ``waited``: somebody waited inside Ollama beside so many, so that there are no more slots.
    """

    stays: Sequence[Stay]
    samples: Sequence[Sample]
    num_parallel: int
    waited: bool


def evidence(calls: Sequence[Recorded]) -> Evidence:
    """What the calls say."""
    found = _accompanied(calls, 1)
    num_parallel = _most_of_one(found)
    if num_parallel > 1:
        found = _accompanied(calls, num_parallel)
    samples = [sample for stay in found if (sample := _sample(stay)) is not None]
    waited = any(_waited_s(stay) > _WAIT_S for stay in found)
    return Evidence(found, samples, num_parallel, waited)


def most_models(found: Sequence[Stay]) -> int:
    """How many models were asked within the time in which one stays loaded: at least one."""
    return max((place[1] for stay in found for place in (stay.company or {})), default=1)


def _accompanied(calls: Sequence[Recorded], num_parallel: int) -> list[Stay]:
    """A call that ended says itself how long it computed; then who was beside whom is known."""
    found = stays(calls, num_parallel)
    for stay in found:
        computed_s = _computed_s(stay)
        if computed_s is not None:
            stay.began = max(stay.sent, stay.ended - computed_s)
    accompany(found)
    return found


def _computed_s(stay: Stay) -> float | None:
    attempt = stay.attempt
    if not attempt.ok or attempt.eval_ms is None or attempt.prompt_ms is None:
        return None
    return (attempt.eval_ms + attempt.prompt_ms) / 1000


def _waited_s(stay: Stay) -> float:
    """How long an answered call waited inside Ollama for a slot."""
    computed_s = _computed_s(stay)
    if computed_s is None:
        return 0.0
    load_s = (stay.attempt.load_ms or 0.0) / 1000
    return stay.ended - stay.sent - computed_s - load_s


def _most_of_one(found: Sequence[Stay]) -> int:
    times: dict[int, float] = {}
    for stay in found:
        if _computed_s(stay) is not None:
            for (own, _), seconds in (stay.company or {}).items():
                times[own] = times.get(own, 0.0) + seconds
    return max((own for own, seconds in times.items() if seconds >= own * _AT_ONCE_S), default=1)


def _sample(stay: Stay) -> Sample | None:
    attempt = stay.attempt
    if _computed_s(stay) is None:
        return None
    tokens, eval_ms, prompt_ms = attempt.output_tokens, attempt.eval_ms, attempt.prompt_ms
    assert eval_ms is not None
    assert prompt_ms is not None
    if tokens is None or tokens < _TOKENS or eval_ms <= 0 or stay.seconds <= 0:
        return None
    prompt_tokens = attempt.prompt_tokens or 0
    company = stay.company or {(1, 1): 1.0}
    whole_s = sum(company.values())
    shares = {place: seconds / whole_s for place, seconds in company.items() if seconds > 0}
    span_ms = eval_ms + prompt_ms
    rest_s = _waited_s(stay)
    rest_ms = max(0.0, 1000 * rest_s) if rest_s <= _WAIT_S else None
    return Sample(stay.model, tokens, prompt_tokens, eval_ms, prompt_ms, span_ms, rest_ms, shares)
