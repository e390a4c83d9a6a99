"""What to change: a search for what meets the goals at the highest load.

Candidates are changes of the policy (caps, reservations, waits, ageing, models of roles, one
model for several roles) and of two settings of Ollama's own. All are tried on a little of the
traffic at a load that today's policy cannot carry; the better half goes on to more of it, and so
on (successive halving, Jamieson and Talwalkar 2016). The few that are left show what load they
carry, and the best of them is judged, beside today's, on traffic that the search has not seen:
what is only fitted to chance does not survive that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelsplit_policy.vocabulary import Role

from .capacity import at_load, capacity, goals_of
from .run import Contender, missing_figures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.host_shape import HostShape

    from .capacity import Attained
    from .traffic import Source

    # A policy with these keys laid over it; None: it would be none that is allowed.
    Overlaid = Callable[[Mapping[str, Any]], Policy | None]

CANDIDATES: Final = 36
_FINALISTS: Final = 3
# How much more than today's policy carries the candidates are tried at, and what it is taken to
# carry at least: at nearly no load chance decides.
_HARDER: Final = 1.3
_CARRIES_LEAST: Final = 0.4
_LONG_WAITS: Final = (15_000, 30_000)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Changes: keys of the policy, and of the host what Ollama is to be told; None: as it is."""

    overlay: Mapping[str, Any]
    num_parallel: int | None = None
    max_loaded: int | None = None

    def host(self, shape: HostShape) -> HostShape:
        if self.num_parallel is not None:
            shape = replace(shape, num_parallel=self.num_parallel)
        if self.max_loaded is not None:
            shape = replace(shape, max_loaded=self.max_loaded)
        return shape

    @property
    def unit_lines(self) -> list[str]:
        """What to put into Ollama's unit."""
        lines = []
        if self.num_parallel is not None:
            lines.append(f'Environment="OLLAMA_NUM_PARALLEL={self.num_parallel}"')
        if self.max_loaded is not None:
            lines.append(f'Environment="OLLAMA_MAX_LOADED_MODELS={self.max_loaded}"')
        return lines


class Judged(NamedTuple):
    """A candidate on traffic that the search has not seen. ``load``: the most that it carries."""

    load: float
    attained: Attained


@dataclass(frozen=True, slots=True)
class Advice:
    """``best`` None: nothing that was tried carries more than today's policy.

    ``tried``: candidates; ``runs``: simulated runs in all.
    """

    best: Candidate | None
    today: Judged
    advised: Judged | None
    tried: int


class Ground(NamedTuple):
    """What is searched on, and what is judged on: sources, and the seeds of each."""

    train: Source
    train_seeds: Sequence[int]
    held: Source
    held_seeds: Sequence[int]


class Search:
    """``overlaid``: makes a policy of changes. ``today``: the one in force, on its host."""

    def __init__(
        self,
        today: Contender,
        host: HostShape,
        ground: Ground,
        overlaid: Overlaid,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self._today = today
        self._host = host
        self._ground = ground
        self._overlaid = overlaid
        self._told = told or _nobody
        self._chance = random.Random("advise")

    def advise(self, candidates: int = CANDIDATES) -> Advice:
        """Search, and judge what is found."""
        ground, today = self._ground, Candidate({})
        now = self._capacity(today, ground.train, ground.train_seeds[:2])
        self._told(f"today's policy carries {now:.2f} times the load")
        alive = self._candidates(candidates)
        tried = len(alive)
        finalists = self._halve(alive, max(now, _CARRIES_LEAST) * _HARDER)
        best, best_load = None, now
        for candidate in finalists:
            load = self._capacity(candidate, ground.train, ground.train_seeds[:2])
            self._told(f"a finalist carries {load:.2f}")
            if load > best_load:
                best, best_load = candidate, load
        before = self._judged(today)
        if best is None:
            return Advice(None, before, None, tried)
        after = self._judged(best)
        return Advice(best if after.load > before.load else None, before, after, tried)

    def _halve(self, alive: list[Candidate], load: float) -> list[Candidate]:
        seeds = 1
        while len(alive) > _FINALISTS:
            scored = sorted(
                (self._excess(candidate, load, seeds), number)
                for number, candidate in enumerate(alive)
            )
            keep = max(_FINALISTS, len(alive) // 3)
            self._told(f"{len(alive)} candidates on {seeds} runs each; {keep} go on")
            alive = [alive[number] for _, number in scored[:keep]]
            seeds = min(len(self._ground.train_seeds), seeds * 2)
        return alive

    def _excess(self, candidate: Candidate, load: float, seeds: int) -> float:
        contender = self._contender(candidate)
        if contender is None:
            return float("inf")
        found = at_load(
            contender,
            candidate.host(self._host),
            self._ground.train,
            self._ground.train_seeds[:seeds],
            load,
        )
        return found.excess(goals_of(contender.policy))

    def _capacity(self, candidate: Candidate, source: Source, seeds: Sequence[int]) -> float:
        contender = self._contender(candidate)
        if contender is None:
            return 0.0
        return capacity(contender, candidate.host(self._host), source, seeds)

    def _judged(self, candidate: Candidate) -> Judged:
        ground = self._ground
        load = self._capacity(candidate, ground.held, ground.held_seeds)
        contender = self._contender(candidate)
        assert contender is not None
        host = candidate.host(self._host)
        return Judged(load, at_load(contender, host, ground.held, ground.held_seeds, 1.0))

    def _contender(self, candidate: Candidate) -> Contender | None:
        """None: the policy would not be allowed, or ask for a model without figures."""
        policy = self._overlaid(candidate.overlay) if candidate.overlay else self._today.policy
        if policy is None:
            return None
        contender = Contender("candidate", policy)
        traffic, _ = self._ground.train.drawn(self._ground.train_seeds[0], 1.0)
        missing = missing_figures(contender, self._host, traffic.demands)
        return None if missing else contender

    # What is tried.

    def _candidates(self, count: int) -> list[Candidate]:
        """Each change by itself, then several at once, drawn."""
        knobs = self._knobs()
        found = [change for changes in knobs for change in changes]
        self._chance.shuffle(found)
        found = found[: count // 2]
        while len(found) < count:
            chosen = self._chance.sample(knobs, self._chance.randint(2, min(5, len(knobs))))
            found.append(_together([self._chance.choice(changes) for changes in chosen]))
        return found

    def _knobs(self) -> list[list[Candidate]]:
        """For each thing that can be changed, how."""
        policy = self._today.policy
        knobs = [
            [Candidate({"global": {"max_concurrent": n}}) for n in (2, 4, 8)],
            [_role(Role.PLANNER, reserved=n) for n in (0, 1, 2)],
            [_role(Role.PLANNER, max_concurrent=n) for n in (1, 2, 4)],
            [_role(Role.EXECUTOR, max_concurrent=n) for n in (1, 2, 4)],
            [_waits(n) for n in _LONG_WAITS],
            [_role(Role.EXECUTOR, ageing_ms=n) for n in (0, 8000, 20_000)],
            [Candidate({}, num_parallel=n) for n in (1, 2, 4) if n != self._host.num_parallel],
            [Candidate({}, max_loaded=n) for n in (1, 2, 3) if n != self._host.max_loaded],
            *self._models(policy),
        ]
        return [changes for changes in knobs if changes]

    def _models(self, policy: Policy) -> list[list[Candidate]]:
        """Other models for a role, and one for all of them."""
        known = sorted(self._host.models)
        knobs = []
        for role in (Role.PLANNER, Role.EXECUTOR, Role.HEAVY):
            own = policy.roles[role].primary
            others = [model for model in known if model != own]
            knobs.append([_role(role, primary=model, fallback=None) for model in others])
        knobs.append([_one_model(model) for model in known])
        return knobs


def _nobody(text: str) -> None:
    del text


def _role(role: Role, **keys: Any) -> Candidate:
    if "fallback" in keys:
        keys["fallback_timeout_ms"] = None
    return Candidate({"roles": {str(role): keys}})


def _waits(wait_ms: int) -> Candidate:
    """Everyone but planners may wait longer before being turned away."""
    keys = {"max_wait_ms": wait_ms, "allow_long_wait": True}
    roles = (Role.EXECUTOR, Role.HEAVY, Role.CHAT)
    return Candidate({"roles": {str(role): dict(keys) for role in roles}})


def _one_model(model: str) -> Candidate:
    keys = {"primary": model, "fallback": None, "fallback_timeout_ms": None}
    roles = (Role.PLANNER, Role.EXECUTOR, Role.HEAVY)
    return Candidate({"roles": {str(role): dict(keys) for role in roles}})


def _together(changes: Sequence[Candidate]) -> Candidate:
    overlay: dict[str, Any] = {}
    num_parallel = max_loaded = None
    for change in changes:
        overlay = _merged(overlay, change.overlay)
        num_parallel = change.num_parallel or num_parallel
        max_loaded = change.max_loaded or max_loaded
    return Candidate(overlay, num_parallel, max_loaded)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = base.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merged(below, value) if both and below is not None else value
    return merged
