"""The search for a better policy finds what is plainly better, and says so when nothing is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modelsplit_policy.config.problems import PolicyError
from modelsplit_sim.host_shape import HostShape, ModelShape
from modelsplit_sim.replay.advise import Found, Limits, Search, simplest
from modelsplit_sim.replay.run import Contender
from modelsplit_sim.replay.settings import NUM_PARALLEL, Candidate, Setting
from modelsplit_sim.replay.traffic import DrawnWorkload
from modelsplit_sim.replay.workload import workload_of
from support.replays import rules

if TYPE_CHECKING:
    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.replay.advise import Advice

# Two models that do not fit beside each other: each change of role loads one.
HOST = HostShape(
    "small",
    contention=0.5,
    batching=0.2,
    num_parallel=1,
    vram_gb=8.0,
    models={
        name: ModelShape(10.0, 4000.0, gb=5.0)
        for name in ("qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b")
    },
)
SWAPPING: dict[str, Any] = {
    "about": "planners and executors in turn",
    "seconds": 300,
    "calls": {
        "plan": {"model": "planner", "output": [60, 100], "prompt": [1, 1], "patience_s": 15},
        "do": {"model": "executor", "output": [150, 200], "prompt": [1, 1], "patience_s": 60},
    },
    "streams": [{"call": "plan", "every_s": 6}, {"call": "do", "every_s": 15}],
}
# Few runs, and no load at which there are many calls.
LIMITS = Limits(runs=80, kept=("line", "host"), judge_seeds=5, load=1.0, calls=50)


def overlaid(overlay: Mapping[str, Any]) -> Policy | None:
    roles = {role: dict(keys) for role, keys in overlay.get("roles", {}).items()}
    planner = roles.pop("PLANNER", {})
    try:
        return rules(planner, roles, **{k: v for k, v in overlay.items() if k != "roles"})
    except PolicyError:
        return None


def search(host: HostShape = HOST, limits: Limits = LIMITS, seed: int = 1) -> Search:
    source = DrawnWorkload(workload_of(SWAPPING, "x"))
    return Search(Contender("today", rules()), host, source, overlaid, limits, seed=seed)


def advised(host: HostShape = HOST, limits: Limits = LIMITS, seed: int = 1) -> Advice:
    return search(host, limits, seed).advise()


def test_where_models_do_not_fit_one_for_all_is_found() -> None:
    advice = advised()
    assert advice.best is not None
    assert advice.after is not None
    assert advice.before.beside is not None
    assert advice.after.beside is not None
    primaries = {value for path, value in advice.best.changes.items() if path[-1] == "primary"}
    assert len(primaries) <= 1, "whatever else it is, it is one model"
    assert advice.after.capacity.value > advice.before.capacity.value
    assert advice.after.beside.meets
    assert not advice.before.beside.meets, "at the same load, of the same calls"


def test_what_is_of_no_use_by_itself_is_found_on_top_of_what_is() -> None:
    """More contexts leave less room for two models that take turns, and serve a single one."""
    models = {name: replace(model, slot_gb=0.5) for name, model in HOST.models.items()}
    dense = {"streams": [{"call": "plan", "every_s": 2}, {"call": "do", "every_s": 5}]}
    own = Search(
        Contender("today", rules()),
        replace(HOST, models=models),
        DrawnWorkload(workload_of({**SWAPPING, "seconds": 100, **dense}, "x")),
        overlaid,
        replace(LIMITS, runs=300, kept=("line",), load=3.0),
    )
    found = own.find(0.0)
    assert found is not None
    assert found.changes.get(NUM_PARALLEL, 1) > 1
    assert {value for path, value in found.changes.items() if path[-1] == "primary"}


def test_of_those_that_carry_about_as_much_the_simplest_is_taken() -> None:
    one, other = (Setting("line", {("global", "parallel"): n}) for n in (1, 2))
    both = Candidate((one, other))
    found = [Found(both, 1.0), Found(Candidate((one,)), 0.9), Found(Candidate((other,)), 0.5)]
    assert simplest(found, 0.4) == found[1]
    assert simplest(found, 0.95) == found[0], "whoever carries no more than today's is no choice"
    assert simplest(found, 1.0) is None


def test_where_nothing_is_better_nothing_is_advised() -> None:
    """A host that carries whatever comes: no change can carry more."""
    models = {name: ModelShape(0.001, 1.0) for name in HOST.models}
    host = replace(HOST, models=models, num_parallel=4, max_loaded=4, vram_gb=None)
    advice = advised(host, replace(LIMITS, judge_seeds=1))
    assert advice.best is None
    assert advice.before.capacity.low == LIMITS.load


def test_the_search_is_the_same_each_time_and_another_by_another_seed() -> None:
    first, second, other = (search(seed=seed).drawn() for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_the_budget_ends_the_search_and_not_the_judgement() -> None:
    told: list[str] = []
    limits = replace(LIMITS, runs=4, judge_seeds=1)
    own = Search(
        Contender("today", rules()),
        HOST,
        DrawnWorkload(workload_of(SWAPPING, "x")),
        overlaid,
        limits,
        told=told.append,
    )
    advice = own.advise()
    assert advice.was_cut
    assert advice.best is None
    assert advice.before.capacity.tried, "today's is judged all the same"
    assert told[-1] == "judging on traffic that the search has not seen"


def test_time_that_is_over_ends_the_search() -> None:
    advice = advised(limits=replace(LIMITS, judge_seeds=1, expired=lambda: True))
    assert (advice.was_cut, advice.promising) == (True, None)


def test_what_is_not_allowed_is_not_tried() -> None:
    for candidate in search().drawn():
        assert not candidate.overlay or overlaid(candidate.overlay) is not None


def test_the_half_that_judges_shares_no_call_with_the_other() -> None:
    source = DrawnWorkload(workload_of(SWAPPING, "x"))
    train, held = source.halves(100)
    seen = {demand.at for seed in range(1, 7) for demand in train.drawn(seed)[0].demands}
    judged = {demand.at for seed in range(1, 7) for demand in held.drawn(seed)[0].demands}
    assert seen
    assert not seen & judged
