"""Made-up traffic: a file that says who calls how often, drawn anew for each seed.

Streams of calls come by themselves (Poisson, some in bursts). Jobs are closed loops: their
steps come one after the other, each a while after the one before has ended. Workers are jobs
without an end. How often calls come may change over the run (``rate``).
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .demand import Demand, Retries, Shares
from .run import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# The 95th percentile of a normal distribution, in standard deviations.
_P95: Final = 1.645


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens, log-normal: the middle, and what one in twenty exceeds."""

    median: float
    p95: float

    def draw(self, chance: random.Random) -> int:
        sigma = math.log(max(1.0, self.p95 / self.median)) / _P95
        return max(1, round(self.median * math.exp(sigma * chance.gauss(0, 1))))


@dataclass(frozen=True, slots=True)
class Template:
    """What the calls of one kind are like. ``known_share``: of a prompt, what is remembered."""

    model: str
    output: Lengths
    prompt: Lengths
    role: str = ""
    patience_s: float = math.inf
    stream: bool = False
    known_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Stream:
    """Calls that come by themselves: one every ``every_s``, ``burst_share`` of them in a burst."""

    call: Template
    every_s: float
    burst_share: float = 0.0
    burst_most: int = 4
    burst_gap_s: float = 0.2


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a job: ``least`` to ``most`` calls of its kind, at once or one after the other.

    ``share``: of the jobs, those that take it. ``think_s``: the mean pause before each.
    """

    call: Template
    think_s: float
    least: int = 1
    most: int = 1
    share: float = 1.0
    together: bool = False


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs: one every ``every_s``, or ``workers`` of them that begin again as they end."""

    steps: tuple[Step, ...]
    every_s: float = 0.0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """``rate``: from which second on, how many times as often calls and jobs come."""

    name: str
    about: str
    seconds: float
    streams: tuple[Stream, ...]
    jobs: tuple[Jobs, ...] = ()
    rate: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    retries: Retries = Retries()  # noqa: RUF009 - an immutable tuple
    shares: Mapping[tuple[str, str], Shares] | None = None
    spread: float = 0.08

    def stretched(self, times: float) -> Workload:
        """The same over so many times as long."""
        rate = tuple((at * times, rate) for at, rate in self.rate)
        return replace(self, seconds=self.seconds * times, rate=rate)

    def drawn(self, seed: int, load: float = 1.0) -> Traffic:
        """The traffic of one seed. ``load``: how many times as often everything comes."""
        drawing = _Drawing(self, seed, load)
        demands = drawing.all()
        return Traffic(demands, self.shares or {}, self.retries, until=self.seconds)


class _Drawing:
    def __init__(self, workload: Workload, seed: int, load: float) -> None:
        self._workload = workload
        self._seed = seed
        self._load = load
        self._demands: list[Demand] = []

    def all(self) -> list[Demand]:
        for number, stream in enumerate(self._workload.streams):
            self._stream(stream, random.Random(f"stream {number} of {self._seed}"))
        for number, jobs in enumerate(self._workload.jobs):
            self._jobs(jobs, number, random.Random(f"jobs {number} of {self._seed}"))
        return self._demands

    def _stream(self, stream: Stream, chance: random.Random) -> None:
        for at in self._arrivals(stream.every_s, chance):
            single = chance.random() >= stream.burst_share
            for number in range(1 if single else chance.randint(2, stream.burst_most)):
                self._call(stream.call, at + number * stream.burst_gap_s, chance)

    def _jobs(self, jobs: Jobs, kind: int, chance: random.Random) -> None:
        if jobs.workers:
            for worker in range(round(jobs.workers * self._load)):
                self._worker(jobs, f"worker-{kind}-{worker}", chance)
            return
        for number, at in enumerate(self._arrivals(jobs.every_s, chance)):
            self._job(jobs, f"job-{kind}-{number}", at, None, chance)

    def _worker(self, jobs: Jobs, name: str, chance: random.Random) -> None:
        """As many jobs as could come in the time; the run sends none after its end."""
        pause_s = max(0.1, sum(step.think_s for step in jobs.steps))
        last: int | None = None
        for number in range(math.ceil(2 * self._workload.seconds / pause_s)):
            last = self._job(jobs, f"{name}-{number}", chance.uniform(0, pause_s), last, chance)

    def _job(
        self, jobs: Jobs, name: str, at: float, after: int | None, chance: random.Random
    ) -> int | None:
        """The steps of one job; the number of its last call."""
        last = after
        for step in jobs.steps:
            if chance.random() >= step.share:
                continue
            before = last
            for _ in range(chance.randint(step.least, step.most)):
                follows = before if step.together else last
                think_s = chance.expovariate(1 / step.think_s) if step.think_s else 0.0
                last = self._call(step.call, at, chance, name, follows, think_s)
        return last

    def _call(
        self,
        call: Template,
        at: float,
        chance: random.Random,
        job: str = "",
        after: int | None = None,
        think_s: float = 0.0,
    ) -> int:
        prompt = call.prompt.draw(chance)
        self._demands.append(
            Demand(
                at=at,
                model=call.model,
                output_tokens=call.output.draw(chance),
                prompt_tokens=prompt,
                role=call.role,
                patience_s=call.patience_s,
                job=job,
                stream=call.stream,
                known_tokens=round(prompt * call.known_share),
                pace=max(0.5, 1 + chance.gauss(0, 1) * self._workload.spread),
                unfit=(chance.random(), chance.random()),
                failing=(chance.random(), chance.random()),
                after=after,
                think_s=think_s,
            )
        )
        return len(self._demands) - 1

    def _arrivals(self, every_s: float, chance: random.Random) -> Iterator[float]:
        """Moments of a Poisson process whose rate changes as the workload says."""
        edges = [*self._workload.rate, (self._workload.seconds, 0.0)]
        owed = chance.expovariate(1.0)
        for (begins, rate), (ends, _) in itertools.pairwise(edges):
            per_s = rate * self._load / every_s
            at = begins
            while per_s and at + owed / per_s < ends:
                at += owed / per_s
                yield at
                owed = chance.expovariate(1.0)
            owed -= (ends - at) * per_s


def workload_of(raw: Mapping[str, Any], name: str) -> Workload:
    """The workload that a JSON object describes; ValueError says what is wrong with it."""
    try:
        calls = {key: _template(row) for key, row in raw["calls"].items()}
        return Workload(
            name=name,
            about=raw["about"],
            seconds=float(raw["seconds"]),
            streams=tuple(_stream(row, calls) for row in raw.get("streams", ())),
            jobs=tuple(_jobs(row, calls) for row in raw.get("jobs", ())),
            rate=tuple((float(at), float(rate)) for at, rate in raw.get("rate", [[0, 1]])),
            retries=Retries(**raw.get("retries", {})),
            shares={
                (role, model): Shares(**row)
                for role, models in raw.get("shares", {}).items()
                for model, row in models.items()
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is no workload: {error!r}") from None


def _template(raw: Mapping[str, Any]) -> Template:
    lengths = {key: Lengths(*raw[key]) for key in ("output", "prompt")}
    return Template(**{**raw, **lengths})


def _stream(raw: Mapping[str, Any], calls: Mapping[str, Template]) -> Stream:
    return Stream(**{**raw, "call": calls[raw["call"]]})


def _jobs(raw: Mapping[str, Any], calls: Mapping[str, Template]) -> Jobs:
    steps = tuple(Step(**{**step, "call": calls[step["call"]]}) for step in raw["steps"])
    return Jobs(**{**raw, "steps": steps})


def roles_of(workload: Workload) -> Sequence[str]:
    """Every kind of call in it, by the name or the role it asks for."""
    calls = [stream.call for stream in workload.streams]
    calls += [step.call for jobs in workload.jobs for step in jobs.steps]
    return sorted({call.role or call.model for call in calls})
