"""What to change: a search for what meets the goals at the highest load.

Candidates are settings laid over today's policy and host, one each and several together, drawn
by a seed. All are tried on one run each, at a load that today's cannot carry; the better third
goes on to twice as many runs, with every two of the best together, at more load still where most of
them meet the goals, and so on:
successive halving (Jamieson and Talwalkar 2016). It needs no model of how settings and load hang
together, which here has steps (a model fits, or it does not), and half of a budget that is too
small still tells the good from the bad. Runs are paired: whoever is compared meets the same calls.

Of those that are left the one that carries most is taken, of several that carry about as much the
simplest. On top of it settings are tried again, one by one, for as long as that carries more: what
by itself is of no use may be of use there, and so where a search comes to hangs less on what it
drew. What it carries as much without is left out. The runs that it was chosen by do not say
whether it is better: it is judged on the other half of the traffic, at the highest load that it
carries there. It is advised only if today's misses the goals at that load, and by more than it does
itself beyond chance, seed by seed.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.intervals import student

from .capacity import LEVEL, MOST, Runner, Verdict, capacity, goals_of, tried
from .run import Contender, missing_figures
from .settings import Candidate, knobs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.host_shape import HostShape

    from .capacity import Capacity, Goals, Tried
    from .measures import RunFigures
    from .settings import Setting
    from .traffic import Source

    # A policy with these keys laid over today's; None: it would be none that is allowed.
    Overlaid = Callable[[Mapping[str, Any]], Policy | None]

CALLS: Final = 500
# How near a capacity is found while searching.
_ROUGH: Final = 2 ** (1 / 4)
# Within one step of that two are taken to carry the same.
_NEAR: Final = 1.01 * _ROUGH
# Of the search, where nobody says how many.
RUNS: Final = 500
_FINALISTS: Final = 3
_KEEP: Final = 3
# Runs that one candidate costs, with what the better ones cost later.
_RUNS_EACH: Final = 2.5
# The share of the budget for them; the rest finds what today's carries, and builds on the best.
_SHARE: Final = 0.3
# Of so many, those that are tried on top of the best at a time.
_ON_TOP: Final = 2
# So many of the best after the first runs are tried two by two as well.
_PAIRED: Final = 4
# How much more than today's carries the candidates are tried at, and how it grows; where today's
# carries less than this, from here: at nearly no load chance decides.
_HARDER: Final = 1.25
_NOTHING: Final = 0.3
_SETTINGS_MOST: Final = 5
# Seeds of the search and of the judgement; the two halves share no call.
SEARCH_SEEDS: Final = (1, 2, 3, 4, 5, 6)
_FEW_SEEDS: Final = SEARCH_SEEDS[:3]
# One goal missed by so many times its bound is missed no worse by more.
_MISSED_MOST: Final = 10.0
# Fewer seeds tell no difference from chance.
_PAIRS_LEAST: Final = 5


class Judged(NamedTuple):
    """What one carries on traffic that the search has not seen, and what comes at that load.

    ``beside``: at the highest load that the change carries; None: there is no change.
    """

    capacity: Capacity
    beside: Tried | None


@dataclass(frozen=True, slots=True)
class Advice:
    """``best`` None: nothing better beyond chance. ``candidates``: tried. ``runs``: all of them.

    ``promising``: what looked best in the search, and ``after`` what became of it; None: nothing
    did. ``was_cut``: the budget ended the search before its own end. ``better_runs``: of
    ``judged_runs`` of both on the same calls, those in which the change misses the goals by less,
    or has more room; None: there is none.
    """

    best: Candidate | None
    promising: Candidate | None
    before: Judged
    after: Judged | None
    candidates: int
    runs: int
    was_cut: bool
    better_runs: int | None = None
    judged_runs: int = 0


def _never() -> bool:
    return False


def _nobody(text: str) -> None:
    del text


@dataclass(frozen=True, slots=True)
class Limits:
    """``runs``: of the search at most; judging comes on top. ``expired``: asked before each run.

    ``kept``: kinds of settings that are left alone. ``load``: more is not tried.
    ``calls``: of one run, about; of a trace at most what is there.
    """

    runs: int = RUNS
    kept: Sequence[str] = ()
    judge_seeds: int = 10
    load: float = MOST
    calls: int = CALLS
    expired: Callable[[], bool] = _never


class Found(NamedTuple):
    """A candidate, and the load that it carries on the half that is searched."""

    candidate: Candidate
    load: float


class _SpentError(Exception):
    """The search may run no more."""


class Search:
    """``today``: the policy in force, on its host. ``seed``: which candidates are drawn."""

    def __init__(
        self,
        today: Contender,
        host: HostShape,
        source: Source,
        overlaid: Overlaid,
        limits: Limits,
        *,
        seed: int = 1,
        told: Callable[[str], None] = _nobody,
    ) -> None:
        self._today = today
        self._host = host
        self._train, self._held = source.halves(limits.calls)
        self._overlaid = overlaid
        self._limits = limits
        self._told = told
        self._chance = random.Random(f"advise {seed}")
        self._goals = goals_of(today.policy)
        self._runs = 0
        self._searching = True
        self._was_cut = False
        self._tried = 0

    def advise(self) -> Advice:
        """Search, and judge what is found."""
        found = self.find()
        self._searching = False
        return self._judge(found)

    def find(self, now: float | None = None) -> Candidate | None:
        """The most promising candidate of the search, not judged yet; None: nothing is.

        ``now``: the load that today's carries, where that is known.
        """
        try:
            load = self._roughly(Candidate(), 1.0) if now is None else now
        except _SpentError:
            self._was_cut = True
            return None
        self._told(f"today's carries {load:.2f} times the load")
        best: Candidate | None = None
        candidates = self.drawn()
        while candidates:
            self._tried += len(candidates)
            found = self._best(self._halve(candidates, max(load, _NOTHING)), load, best)
            if found is None:
                break
            best, load = found
            may_go_on = load < self._limits.load and not self._was_cut
            candidates = self._on_top_of(best) if may_go_on else []
        return best

    # What is tried.

    def drawn(self) -> list[Candidate]:
        """Each setting by itself, as far as they are half, and several together.

        As many as the budget has runs for; none that is not allowed, or asks for a model without
        figures.
        """
        ways, wanted = self._knobs(), self._at_once()
        single = (Candidate((setting,)) for setting in self._shuffled()[: wanted // 2])
        found = [each for each in single if self._contender(each) is not None]
        for _ in range(20 * wanted):
            if len(found) >= wanted or not ways:
                break
            chosen = self._chance.sample(
                ways, min(len(ways), self._chance.randint(2, _SETTINGS_MOST))
            )
            candidate = Candidate(tuple(self._chance.choice(knob) for knob in chosen))
            if candidate not in found and self._contender(candidate) is not None:
                found.append(candidate)
        return found

    def _on_top_of(self, best: Candidate) -> list[Candidate]:
        """The best with one setting more each, or another value for one that it has."""
        more = [each for each in self._shuffled() if each not in best.settings]
        every = (best.plus(each) for each in more[: max(_FINALISTS, self._at_once() // _ON_TOP)])
        return [each for each in every if self._contender(each) is not None]

    def _at_once(self) -> int:
        """How many candidates the budget has runs for."""
        return max(_FINALISTS, int(_SHARE * self._limits.runs / _RUNS_EACH))

    def _knobs(self) -> list[list[Setting]]:
        return knobs(self._today.policy, self._host, self._limits.kept)

    def _shuffled(self) -> list[Setting]:
        """Every setting; what most often decides comes first, however small the budget."""
        settings = [setting for knob in self._knobs() for setting in knob]
        self._chance.shuffle(settings)
        return sorted(settings, key=lambda setting: not setting.is_wide)

    def _contender(self, candidate: Candidate) -> Contender | None:
        """None: the policy is not allowed, or asks for a model without figures."""
        overlay = candidate.overlay
        policy = self._overlaid(overlay) if overlay else self._today.policy
        if policy is None:
            return None
        contender = Contender("candidate", policy)
        traffic, _ = self._train.drawn(SEARCH_SEEDS[0])
        missing = missing_figures(contender, candidate.host(self._host), traffic.demands)
        return None if missing else contender

    # How the many become few.

    def _halve(self, alive: list[Candidate], now: float) -> list[Candidate]:
        """The few that miss the goals least, best first."""
        load, seeds = min(self._limits.load, now * _HARDER), 1
        while True:
            scored: list[tuple[float, int]] = []
            try:
                for number, candidate in enumerate(alive):
                    scored.append((self._missed(candidate, load, SEARCH_SEEDS[:seeds]), number))
            except _SpentError:
                self._was_cut = True
                return [alive[number] for _, number in sorted(scored)[:_FINALISTS]]
            scored.sort()
            keep = max(_FINALISTS, len(alive) // _KEEP)
            meeting = sum(missed < 1 for missed, _ in scored)
            self._told(f"{len(alive)} candidates at {load:.2f} times the load: {meeting} meet it")
            alive = [alive[number] for _, number in scored[:keep]]
            if len(scored) <= _FINALISTS:
                return alive
            if seeds == 1:
                alive += self._pairs(alive[:_PAIRED])
            if meeting >= keep:
                steps = 4 if 2 * meeting > len(scored) else 2
                load = min(self._limits.load, load * _HARDER**steps)
            seeds = min(len(SEARCH_SEEDS), 2 * seeds)

    def _pairs(self, best: Sequence[Candidate]) -> list[Candidate]:
        """Every two of the best together: what helps in part often helps whole beside another."""
        both = (one.beside(other) for one, other in itertools.combinations(best, 2))
        return [each for each in both if self._contender(each) is not None]

    def _missed(self, candidate: Candidate, load: float, seeds: Sequence[int]) -> float:
        """How far from the goals: below 1 they are met, and the smaller the more room there is."""
        runner = self._runner(candidate, self._train, seeds)
        return _missed(
            tried(load, [self._run(runner, seed, load) for seed in seeds], self._goals), self._goals
        )

    def _best(
        self, finalists: Sequence[Candidate], now: float, before: Candidate | None
    ) -> Found | None:
        """Whoever carries most, less what it does not need; None: nobody carries more than ``now``.

        ``before``: the best so far, which carries that. Where the budget is spent before anybody's
        load is known and nobody was best so far, it is the first of them.
        """
        found: list[Found] = []
        best: Found | None = None
        try:
            for candidate in finalists:
                found.append(Found(candidate, self._roughly(candidate, max(now, _NOTHING))))
                self._told(f"a finalist carries {found[-1].load:.2f}")
            best = simplest(found, now)
            return best and best._replace(candidate=self._needed(*best))
        except _SpentError:
            self._was_cut = True
        if not found and before is None and finalists:
            return Found(finalists[0], now)
        return best or simplest(found, now)

    def _needed(self, candidate: Candidate, load: float) -> Candidate:
        """Without each setting without which the load is carried just the same."""
        for setting in candidate.settings:
            less = candidate.without(setting)
            if not less.settings or self._contender(less) is None:
                continue
            row = self._at(self._runner(less, self._train, _FEW_SEEDS, by_value=True), load)
            if row.verdict is Verdict.HOLDS:
                candidate = less
        return candidate

    # How it is judged.

    def _judge(self, promising: Candidate | None) -> Advice:
        seeds = range(1, self._limits.judge_seeds + 1)
        self._told("judging on traffic that the search has not seen")
        before = self._surely(Candidate(), seeds)
        if promising is None:
            alone = Judged(before, None)
            return Advice(None, None, alone, None, self._tried, self._runs, self._was_cut)
        after = self._surely(promising, seeds)
        load = after.value or _NOTHING
        rows = [self._each(candidate, seeds, load) for candidate in (Candidate(), promising)]
        today, changed = (tried(load, own, self._goals) for own in rows)
        gaps = self._gaps(*rows)
        is_better = changed.meets and not today.meets and _is_surely_more(gaps)
        return Advice(
            promising if is_better else None,
            promising,
            Judged(before, today),
            Judged(after, changed),
            self._tried,
            self._runs,
            self._was_cut,
            sum(gap > 0 for gap in gaps),
            len(gaps),
        )

    def _each(self, candidate: Candidate, seeds: Sequence[int], load: float) -> list[RunFigures]:
        runner = self._runner(candidate, self._held, seeds)
        return [self._run(runner, seed, load) for seed in seeds]

    def _gaps(self, before: Sequence[RunFigures], after: Sequence[RunFigures]) -> list[float]:
        """By how much less the goals are missed after, seed by seed."""
        return [
            _missed(tried(0.0, [one], self._goals), self._goals)
            - _missed(tried(0.0, [other], self._goals), self._goals)
            for one, other in zip(before, after, strict=True)
        ]

    # Runs.

    def _roughly(self, candidate: Candidate, start: float) -> float:
        """What it carries by the figures of a few runs, chance and all."""
        runner = self._runner(candidate, self._train, _FEW_SEEDS, by_value=True)
        found = capacity(
            lambda load: self._at(runner, load),
            self._limits.load,
            start=start,
            fine=_ROUGH,
            careful=False,
        )
        return found.value

    def _surely(self, candidate: Candidate, seeds: Sequence[int]) -> Capacity:
        """What it carries on the traffic that was not searched."""
        runner = self._runner(candidate, self._held, seeds)
        return capacity(lambda load: self._at(runner, load), self._limits.load)

    def _runner(
        self,
        candidate: Candidate,
        source: Source,
        seeds: Sequence[int],
        *,
        by_value: bool = False,
    ) -> Runner:
        contender = self._contender(candidate)
        assert contender is not None, "what is not allowed was left out before"
        host = candidate.host(self._host)
        return Runner(contender, host, source, seeds, by_value=by_value)

    def _at(self, runner: Runner, load: float) -> Tried:
        return runner.at(load, self._run)

    def _run(self, runner: Runner, seed: int, load: float) -> RunFigures:
        spent = self._runs >= self._limits.runs or self._limits.expired()
        if self._searching and spent:
            raise _SpentError
        self._runs += 1
        return runner.run(seed, load)


def simplest(found: Sequence[Found], now: float) -> Found | None:
    """Of those that carry about as much as the one that carries most: the one of fewest settings.

    None: nobody carries more than ``now``.
    """
    better = [each for each in found if each.load > now]
    most = max((each.load for each in better), default=0.0)
    near = (each for each in better if each.load * _NEAR >= most)
    return min(near, key=lambda each: len(each.candidate.settings), default=None)


def _is_surely_more(gaps: Sequence[float]) -> bool:
    """Whether they are more than nothing beyond chance."""
    if len(gaps) < _PAIRS_LEAST:
        return False
    deviation = statistics.stdev(gaps) / math.sqrt(len(gaps))
    return statistics.fmean(gaps) > student(LEVEL, len(gaps) - 1) * deviation


def _missed(row: Tried, goals: Goals) -> float:
    """The worst of the goals in its own measure if one is missed, and a little of all if none."""
    parts = [
        bounds.value / bound
        for bounds, bound in (
            (row.planner_p95_s, goals.planner_p95_s),
            (row.planner_lost, goals.planner_lost),
            (row.others_lost, goals.others_lost),
            (row.worst, goals.others_lost),
        )
        if bounds is not None
    ]
    over = [min(part, _MISSED_MOST) - 1 for part in parts if part > 1]
    if over:
        return 1 + sum(over)
    return sum(parts) / len(parts) if parts else 0.0
