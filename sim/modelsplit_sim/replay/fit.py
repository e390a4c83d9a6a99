"""A host's figures from records: Ollama tells of every call how long it loaded, read and wrote.

Speeds come from the calls themselves, so that all of them together take as long as they did. How
calls share the machine comes from how much longer
they took beside others: the work of a call is the time it spent beside each number of others,
divided by how much these slowed it; what fits all calls best, by the sum of absolute errors, is
taken. What records do not determine keeps a stated value, with a warning.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.loaded_models import WARM_LOAD_S
from modelsplit_sim.host_shape import HostShape, ModelShape

from .fit_samples import evidence, most_models
from .recorded import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .fit_samples import Evidence, Sample
    from .recorded import Recorded

# Fewer calls than these say nothing of a model, or of company.
_FEW: Final = 5
# As many calls alone make calls in company unnecessary for their model's speed.
_ENOUGH: Final = 30
# Seconds in company, and which share of its time makes a call one that was in company.
_COMPANY_S: Final = 10.0
_COMPANY_SHARE: Final = 0.2
_ROUNDS: Final = 2
_MOST: Final = 300
_MANY: Final = 1500
_RESAMPLES: Final = 12
_RESAMPLED: Final = 150
_PAIRS: Final = 1500
# A call this far from the middle pace of its model, relative, says nothing of its speed.
_OUTLIER: Final = 0.5
# A host's own speed wanders for a minute or so. Calls of one block share that.
_BLOCKS: Final = 12
_BLOCK: Final = 5
_DRIFTS: Final = 0.05
# An interval that reaches this far to one side, relative, determines nothing.
_VAGUE: Final = 0.5
_LITTLE: Final = 0.2
# No model is faster than a million tokens a second.
_LEAST_MS: Final = 0.001
_SLOPE_SPREAD: Final = 2.0
_MAX_LOADED: Final = 3
# Calls that were loaded for within so long were loaded for once.
_SAME_LOAD_S: Final = 0.5
_GRID: Final = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0)
_BATCHING_GRID: Final = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5)
_EDGES: Final = {"contention": _GRID[-1], "batching": _BATCHING_GRID[-1]}
_GOLDEN: Final = 0.618
_NARROWINGS: Final = 10
_TURNS: Final = 3


class Figure(NamedTuple):
    """One figure, its 95 % interval by resampling (None: too few), and the calls it rests on."""

    name: str
    value: float
    low: float | None
    high: float | None
    calls: int


@dataclass(frozen=True, slots=True)
class Fit:
    """``error_p50``, ``error_p90``: by how much calls' times are missed, relative."""

    shape: HostShape
    figures: Sequence[Figure]
    warnings: Sequence[str]
    calls: int
    error_p50: float
    error_p90: float


class Sharing(NamedTuple):
    """How calls share the machine, as in ``HostShape``."""

    contention: float = 1.0
    free: int = 1
    batching: float = 0.0

    def slowness(self, own: int, models: int) -> float:
        across = 1 + self.contention * max(0, models - self.free)
        return across * (1 + self.batching * (own - 1))

    def alone_share(self, sample: Sample) -> float:
        """Which share of its time the call would have taken alone."""
        return sum(s / self.slowness(*place) for place, s in sample.company.items())


def fit(calls: Iterable[Recorded], name: str = "fitted") -> Fit:
    """The host that these calls were served by. TraceError: they say too little of any model."""
    found = evidence(list(calls))
    by_model = _by_model(found.samples)
    if all(len(own) < _FEW for own in by_model.values()):
        raise TraceError(
            f"no model has {_FEW} answers whose durations are known, so the host's figures cannot "
            "be found; replay more calls, or give figures (--host-model gpu-12gb, which is shipped)"
        )
    warnings = [
        f"{model} has only {len(own)} answers with durations: its figures are rough"
        for model, own in by_model.items()
        if len(own) < _FEW
    ]
    search = _Search([sample for own in by_model.values() for sample in own])
    _, rough = search.solve()
    models, sharing = search.solve(search.many(), rough.free)
    warnings += search.warnings()
    loads = _loads(found, models, warnings)
    loaded = {model: replace(own, load_ms=loads[model]) for model, own in models.items()}
    shape = _shape(name, found, loaded, sharing)
    warnings += _undetermined(found, shape)
    figures = search.figures(models, sharing)
    warnings += _vague(figures)
    drift = _drift(_parts(search.samples), models, sharing)
    if drift > _DRIFTS:
        warnings.append(_drifting(drift))
    misses = sorted(_miss(sample, models, sharing) for sample in search.samples)
    spread = statistics.median(misses) * 1.4826
    return Fit(
        replace(shape, spread=round(min(0.5, spread), 4), drift=round(drift, 4)),
        figures,
        warnings,
        len(search.samples),
        misses[len(misses) // 2],
        misses[int(0.9 * len(misses))],
    )


def _by_model(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    by_model: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_model[sample.model].append(sample)
    return by_model


class _Search:
    """The search for what fits all samples best."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self._chance = random.Random("fit")
        self._used = [
            sample
            for own in _by_model(samples).values()
            for sample in _some(own, _MOST, self._chance)
        ]
        # Beside calls of other models, and of their own.
        self._beside = _in_company(samples, 1)
        self._batched = _in_company(samples, 0)

    def solve(
        self, samples: Sequence[Sample] | None = None, free: int | None = None
    ) -> tuple[dict[str, ModelShape], Sharing]:
        """Speeds and sharing. ``free``: known already; None: to be found."""
        by_model = _by_model(self._used if samples is None else samples)
        sharing = Sharing() if free is None else Sharing(free=free)
        for _ in range(_ROUNDS):
            prompts = {name: _prompt(own, sharing) for name, own in by_model.items()}
            sharing = self._share(_Speeds(by_model, prompts), sharing, free)
        speeds = _Speeds(by_model, {name: _prompt(own, sharing) for name, own in by_model.items()})
        return speeds.models(sharing), sharing

    def many(self) -> list[Sample]:
        """Nearly all of them, for a last and finer search."""
        by_model = _by_model(self.samples)
        return [s for own in by_model.values() for s in _some(own, _MANY, self._chance)]

    def figures(self, models: Mapping[str, ModelShape], sharing: Sharing) -> list[Figure]:
        """Every figure with its interval.

        Calls are drawn in blocks that follow one another: what slows one down slows the next.
        """
        drawn: dict[str, list[float]] = defaultdict(list)
        parts = _parts(self.samples)
        size = min(_RESAMPLED, len(self._used))
        for _ in range(_RESAMPLES):
            again: list[Sample] = []
            while len(again) < size:
                again += self._chance.choice(parts)
            some, shared = self.solve(again, sharing.free)
            for name, value in _named(some, shared):
                drawn[name].append(value)
        # A sample of fewer calls than there are spreads wider.
        shrink = (min(_RESAMPLED, len(self._used)) / len(self.samples)) ** 0.5
        return [
            self._figure(name, value, drawn[name], shrink)
            for name, value in _named(models, sharing)
            if self._knows(name)
        ]

    def warnings(self) -> list[str]:
        """What the samples do not determine of how calls share the machine."""
        said = []
        if not self._knows("contention"):
            said.append("no two models computed at once for long: contention 1 is assumed")
        if not self._knows("batching"):
            said.append("no model computed two calls at once for long: batching 0 is assumed")
        return said

    def _figure(self, name: str, value: float, drawn: list[float], shrink: float) -> Figure:
        model = name.partition(" ")[0]
        calls = sum(sample.model == model for sample in self.samples)
        if name == "contention":
            calls = self._beside[0]
        elif name == "batching":
            calls = self._batched[0]
        if len(drawn) < 2:
            return Figure(name, value, None, None, calls)
        reach = 1.96 * statistics.stdev(drawn) * shrink
        return Figure(name, value, max(0.0, value - reach), value + reach, calls)

    def _knows(self, name: str) -> bool:
        known = {"contention": self._beside, "batching": self._batched}.get(name)
        return known is None or (known[0] >= _FEW and known[1] >= _COMPANY_S)

    def _share(self, speeds: _Speeds, before: Sharing, free: int | None) -> Sharing:
        """For each number of runners that may be free: the best contention and batching."""
        tried = (free,) if free is not None else (1, 2, 3)
        if not self._knows("contention"):
            tried = (1,)
        found = [self._best(speeds, before._replace(free=number)) for number in tried]
        return min(found, key=lambda sharing: (speeds.misses(sharing), sharing.free))

    def _best(self, speeds: _Speeds, sharing: Sharing) -> Sharing:
        """Along one of the two, then along the other, until both stand."""
        for _ in range(_TURNS):
            for name, grid in (("contention", _GRID), ("batching", _BATCHING_GRID)):
                if self._knows(name):
                    value = _lowest(_along(speeds, sharing, name), grid)
                    sharing = _with(sharing, name, value)
        return sharing


class _Speeds:
    """The speeds that go best with a way of sharing.

    ``prompts``: by model, what ``_prompt`` says.
    """

    def __init__(
        self, by_model: Mapping[str, Sequence[Sample]], prompts: Mapping[str, tuple[float, float]]
    ) -> None:
        self._by_model = by_model
        self._prompts = prompts
        # What each prompt takes alone.
        self._prompt_ms = {
            name: [prompts[name][0] + prompts[name][1] * s.prompt_tokens for s in own]
            for name, own in by_model.items()
        }

    def models(self, sharing: Sharing) -> dict[str, ModelShape]:
        models = {}
        for name in self._by_model:
            fixed_ms, token_ms = self._prompts[name]
            pace_ms = self._whole_pace_ms(name, sharing)
            models[name] = ModelShape(pace_ms, 0.0, token_ms, fixed_ms + self._rest_ms(name))
        return models

    def _rest_ms(self, name: str) -> float:
        """What a call takes besides its prompt and its answer.

        The mean: whoever stands behind waits for the slow ones' too. None is long: a wait is none.
        """
        rests = [s.rest_ms for s in self._by_model[name] if s.is_alone and s.rest_ms is not None]
        return statistics.fmean(rests) if rests else 0.0

    def misses(self, sharing: Sharing) -> float:
        """By how much the calls' times are missed, in logarithms: twice as long is half."""
        missed = 0.0
        for name, own in self._by_model.items():
            pace_ms = self._pace_ms(name, sharing)
            for sample, prompt_ms in zip(own, self._prompt_ms[name], strict=True):
                expected_ms = sample.tokens * pace_ms + prompt_ms
                alone_ms = sample.span_ms * sharing.alone_share(sample)
                missed += abs(math.log(alone_ms / expected_ms))
        return missed

    def _pace_ms(self, name: str, sharing: Sharing) -> float:
        """Milliseconds a token: the middle of what is left of each call beside its prompt."""
        paces = (took_ms / tokens for took_ms, tokens in self._answers(name, sharing))
        return max(_LEAST_MS, statistics.median(paces))

    def _whole_pace_ms(self, name: str, sharing: Sharing) -> float:
        """The same of all tokens together: the machine is busy for as long as it was.

        The middle of the calls would lose what the slow ones took longer.
        """
        middle_ms = self._pace_ms(name, sharing)
        usual = [
            (took_ms, tokens)
            for took_ms, tokens in self._answers(name, sharing)
            if abs(took_ms / tokens - middle_ms) <= _OUTLIER * middle_ms
        ]
        return sum(took_ms for took_ms, _ in usual) / sum(tokens for _, tokens in usual)

    def _answers(self, name: str, sharing: Sharing) -> Iterator[tuple[float, int]]:
        """Of each call: what its answer would have taken alone, and its tokens."""
        for sample, prompt_ms in zip(self._by_model[name], self._prompt_ms[name], strict=True):
            yield sample.span_ms * sharing.alone_share(sample) - prompt_ms, sample.tokens


def _along(speeds: _Speeds, sharing: Sharing, name: str) -> Callable[[float], float]:
    return lambda value: speeds.misses(_with(sharing, name, value))


def _with(sharing: Sharing, name: str, value: float) -> Sharing:
    if name == "contention":
        return sharing._replace(contention=value)
    return sharing._replace(batching=value)


def _lowest(of: Callable[[float], float], grid: Sequence[float]) -> float:
    """Where a function of one valley is least: by a grid, then by the golden section."""
    values = [of(value) for value in grid]
    place = values.index(min(values))
    low, high = grid[max(0, place - 1)], grid[min(len(grid) - 1, place + 1)]
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = of(left), of(right)
    for _ in range(_NARROWINGS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = of(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = of(right)
    value, at_value = (left, at_left) if at_left <= at_right else (right, at_right)
    return grid[place] if values[place] <= at_value else value


def _miss(sample: Sample, models: Mapping[str, ModelShape], sharing: Sharing) -> float:
    """By how much the time that the call needs alone is missed, relative."""
    return abs(_times(sample, models, sharing) - 1)


def _times(sample: Sample, models: Mapping[str, ModelShape], sharing: Sharing) -> float:
    """How many times as long as expected the call took, had it been alone."""
    model = models[sample.model]
    expected_ms = sample.tokens * model.ms_per_token + model.prompt_ms
    expected_ms += sample.prompt_tokens * model.prompt_ms_per_token
    took_ms = sample.span_ms * sharing.alone_share(sample) + (sample.rest_ms or 0.0)
    return took_ms / expected_ms


def _prompt(samples: Sequence[Sample], sharing: Sharing) -> tuple[float, float]:
    """Milliseconds of any prompt, and of each token: the middle of the slopes of many pairs.

    From calls alone where there are enough: who was beside a call changes while it lasts, and
    what of that fell on its prompt is not known.
    """
    alone = [sample for sample in samples if sample.is_alone]
    samples = alone if len(alone) >= _ENOUGH else samples
    points = [(s.prompt_tokens, s.prompt_ms * sharing.alone_share(s)) for s in samples]
    lengths = sorted(tokens for tokens, _ in points)
    middle_ms = statistics.median(ms for _, ms in points)
    few, many = lengths[len(lengths) // 10], lengths[(9 * len(lengths)) // 10]
    if many < _SLOPE_SPREAD * max(1, few):
        return middle_ms, 0.0
    chance = random.Random(len(points))
    pairs = (chance.sample(points, 2) for _ in range(_PAIRS))
    # Two prompts of nearly one length say little of what a token takes.
    far = (many - few) / 4
    slopes = [(y - b) / (x - a) for (a, b), (x, y) in pairs if abs(x - a) >= far]
    token_ms = max(0.0, statistics.median(slopes)) if slopes else 0.0
    return max(0.0, statistics.median(ms - token_ms * tokens for tokens, ms in points)), token_ms


def _some(samples: Sequence[Sample], most: int, chance: random.Random) -> Sequence[Sample]:
    return samples if len(samples) <= most else chance.sample(list(samples), most)


def _in_company(samples: Iterable[Sample], of: int) -> tuple[int, float]:
    """Calls that were in company for a good part of their time, and for how many seconds in all.

    ``of``: 0: of calls of their own model; 1: of other models.
    """
    calls, seconds = 0, 0.0
    for sample in samples:
        part = sum(share for place, share in sample.company.items() if place[of] > 1)
        seconds += part * sample.span_ms / 1000
        calls += part >= _COMPANY_SHARE
    return calls, seconds


def _named(models: Mapping[str, ModelShape], sharing: Sharing) -> list[tuple[str, float]]:
    figures = [("contention", sharing.contention), ("batching", sharing.batching)]
    for name, model in models.items():
        figures.append((f"{name} ms_per_token", model.ms_per_token))
        figures.append((f"{name} prompt_ms", model.prompt_ms))
        figures.append((f"{name} prompt_ms_per_token", model.prompt_ms_per_token))
    return figures


def _loads(
    found: Evidence, models: Mapping[str, ModelShape], warnings: list[str]
) -> dict[str, float]:
    """Milliseconds to load each model: of all its loads the shortest.

    Ollama counts the wait for room, and for others' loads, as loading; and whoever comes while
    the model is being loaded waits for the rest alone. So of those who began at once it is the
    first whose time holds the load, and of all loads the one that had to wait for nothing else.
    """
    known: dict[str, float] = {}
    for model in models:
        ends: dict[int, float] = {}
        for stay in found.stays:
            load_ms = stay.attempt.load_ms
            if stay.model == model and load_ms is not None and load_ms > 1000 * WARM_LOAD_S:
                ready = round((stay.sent + load_ms / 1000) / _SAME_LOAD_S)
                ends[ready] = max(ends.get(ready, 0.0), load_ms)
        if ends:
            known[model] = min(ends.values())
    usual = statistics.median(known.values()) if known else HostShape("").load_ms
    warnings += [
        f"{model} was never loaded: {usual:.0f} ms are assumed"
        for model in models
        if model not in known
    ]
    return {model: round(known.get(model, usual), 1) for model in models}


def _shape(
    name: str, found: Evidence, models: Mapping[str, ModelShape], sharing: Sharing
) -> HostShape:
    rounded = {
        model: replace(
            own,
            ms_per_token=round(own.ms_per_token, 4),
            prompt_ms=round(own.prompt_ms, 3),
            prompt_ms_per_token=round(own.prompt_ms_per_token, 5),
        )
        for model, own in models.items()
    }
    return HostShape(
        name,
        contention=round(sharing.contention, 4),
        free=sharing.free,
        batching=round(sharing.batching, 4),
        num_parallel=found.num_parallel,
        max_loaded=max(_MAX_LOADED, most_models(found.stays)),
        models=rounded,
    )


def _parts(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    """The calls, in the order in which they were sent, in blocks."""
    size = max(_BLOCK, len(samples) // _BLOCKS)
    parts = [samples[at : at + size] for at in range(0, len(samples), size)]
    if len(parts) > 1 and len(parts[-1]) < _BLOCK:
        parts[-2:] = [samples[-size - len(parts[-1]) :]]
    return parts


def _vague(figures: Iterable[Figure]) -> Iterator[str]:
    for figure in figures:
        low, high = figure.low, figure.high
        edge = _EDGES.get(figure.name)
        if edge is None or low is None or high is None:
            continue
        if figure.value >= edge:
            yield f"{figure.name} is {edge:g} or more, by few calls beside others"
        elif figure.value - low > max(_VAGUE * figure.value, _LITTLE):
            yield (
                f"{figure.name} {figure.value:.2g} is hardly determined: {low:.2g} to {high:.2g}, "
                "by few calls beside others"
            )


def _drift(
    parts: Sequence[Sequence[Sample]], models: Mapping[str, ModelShape], sharing: Sharing
) -> float:
    """By how much the machine itself was faster at times, relative: a standard deviation.

    Then another hour may be another host. 0: no more than chance has it, or too few parts to tell.
    """
    own = [[_times(sample, models, sharing) for sample in part] for part in parts]
    usual = [[pace for pace in part if abs(pace - 1) <= _OUTLIER] for part in own]
    paces = [part for part in usual if len(part) >= 2]
    if len(paces) < 3:
        return 0.0
    # What calls differ from each other, their means differ too, by so much less.
    by_chance = statistics.fmean(statistics.variance(part) / len(part) for part in paces)
    between = statistics.variance(map(statistics.fmean, paces))
    drift: float = max(0.0, between - by_chance) ** 0.5
    return drift


def _drifting(drift: float) -> str:
    return (
        f"how fast the machine is changed by {100 * drift:.0f} % from one part of the record "
        "to the next: of another hour no figure is surer than that, and a wait in line, which "
        "grows with it, by twice as much; so each run draws its own (`drift`)"
    )


def _undetermined(found: Evidence, shape: HostShape) -> list[str]:
    said = []
    if not found.waited:
        said.append(
            f"nobody waited inside Ollama for a slot: num_parallel is {shape.num_parallel} or more"
        )
    said.append(
        "records do not say how much memory models take: without gb and vram_gb any "
        f"{shape.max_loaded} of them fit; add them, and max_loaded if Ollama has another"
    )
    return said
