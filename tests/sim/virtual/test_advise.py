"""The search for a better policy finds what is plainly better, and says so when nothing is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modelsplit_policy.config.problems import PolicyError
from modelsplit_sim.host_shape import HostShape, ModelShape
from modelsplit_sim.replay.advise import Candidate, Ground, Search
from modelsplit_sim.replay.run import Contender
from modelsplit_sim.replay.traffic import DrawnWorkload
from modelsplit_sim.replay.workload import workload_of
from support.replays import SHIPPED, rules

if TYPE_CHECKING:
    from modelsplit_policy.config.model import Policy

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
    "seconds": 600,
    "calls": {
        "plan": {"model": "planner", "output": [60, 100], "prompt": [1, 1], "patience_s": 15},
        "do": {"model": "executor", "output": [150, 200], "prompt": [1, 1], "patience_s": 60},
    },
    "streams": [{"call": "plan", "every_s": 6}, {"call": "do", "every_s": 15}],
}


def overlaid(overlay: Mapping[str, Any]) -> Policy | None:
    roles = {role: dict(keys) for role, keys in overlay.get("roles", {}).items()}
    planner = roles.pop("PLANNER", {})
    try:
        return rules(planner, roles, **{k: v for k, v in overlay.items() if k != "roles"})
    except PolicyError:
        return None


def search(host: HostShape = HOST, seconds: int = 600) -> Search:
    source = DrawnWorkload(workload_of(SWAPPING | {"seconds": seconds}, "x"))
    ground = Ground(source, [1, 2], source, [101, 102])
    return Search(Contender("today", rules()), host, ground, overlaid)


def test_where_models_do_not_fit_one_for_all_is_found() -> None:
    advice = search().advise(candidates=12)
    assert advice.tried == 12
    assert advice.best is not None
    assert advice.advised is not None
    assert advice.advised.load > advice.today.load


def test_where_nothing_is_better_nothing_is_advised() -> None:
    """A host that carries whatever comes: no change can carry more."""
    models = {name: ModelShape(0.001, 1.0) for name in HOST.models}
    host = replace(HOST, models=models, num_parallel=4, max_loaded=4, vram_gb=None)
    advice = search(host, seconds=60).advise(candidates=4)
    assert advice.best is None


def test_a_candidate_tells_what_to_put_into_ollamas_unit() -> None:
    candidate = Candidate({}, num_parallel=2, max_loaded=1)
    assert candidate.unit_lines == [
        'Environment="OLLAMA_NUM_PARALLEL=2"',
        'Environment="OLLAMA_MAX_LOADED_MODELS=1"',
    ]
    assert (candidate.host(HOST).num_parallel, candidate.host(HOST).max_loaded) == (2, 1)
    assert Candidate({}).unit_lines == []


def test_the_search_is_the_same_each_time() -> None:
    first, second = (search()._candidates(20) for _ in range(2))
    assert first == second
    assert len(first) == 20


def test_the_shipped_file_is_what_is_changed() -> None:
    assert SHIPPED.is_file()
