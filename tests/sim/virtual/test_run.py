"""Whole runs: repeatable, paired, with and without a proxy."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_sim import shipped
from modelsplit_sim.host_shape import ModelShape
from modelsplit_sim.replay.demand import Demand
from modelsplit_sim.replay.run import Contender, Traffic, missing_figures, models_needed, play
from support.replays import PLAIN, fates, one_at_a_time, plan, replayed, rules

if TYPE_CHECKING:
    from modelsplit_policy.config.model import Policy


def test_the_same_seed_gives_the_same_run() -> None:
    workload, host = shipped.workload("swap")
    contender = Contender("x", rules())
    first, second = (fates(play(contender, host, workload.drawn(3, 0.3), 3)) for _ in range(2))
    assert first == second
    assert first != fates(play(contender, host, workload.drawn(4, 0.3), 4))


def test_without_a_proxy_calls_go_to_their_roles_models_or_to_one() -> None:
    demands = [plan(0.0), Demand(0.0, "heavy", 200), Demand(3.0, "mine:1b", 50)]
    for direct, models in (
        ("", ["qwen3:4b", "gemma3:12b", "mine:1b"]),
        ("qwen3:4b", ["qwen3:4b"] * 3),
    ):
        played = replayed(rules(), demands, direct=direct)
        assert fates(played) == ["1.00 ok", "2.00 ok", "3.50 ok"]
        assert [call.attempts[0].model for call in played.calls] == models


def test_a_client_without_a_proxy_leaves_as_well() -> None:
    assert fates(replayed(rules(), [plan(0.0, 2000, patience_s=5.0)], direct="")) == ["5.00 left"]


def test_every_model_that_may_be_asked_for_is_needed() -> None:
    demands = [plan(0.0), plan(1.0), Demand(0.0, "mine:1b", 10), Demand(0.0, "cloud", 10)]
    needed = models_needed(Contender("x", rules()), demands)
    assert needed == {"qwen3:4b": 2, "qwen3:8b": 0, "mine:1b": 1}
    assert models_needed(Contender("x", rules(), "one:1b"), demands) == {"one:1b": 4}


def test_a_host_that_has_figures_of_some_models_needs_those_of_all() -> None:
    contender, demands = Contender("x", rules()), [plan(0.0)]
    assert missing_figures(contender, PLAIN, demands) == []
    one = {"qwen3:4b": ModelShape(10.0, 2000.0)}
    host = type(PLAIN)("some", models=one)
    assert missing_figures(contender, host, demands) == ["qwen3:8b"]


def test_a_long_run_tells_how_far_it_has_come() -> None:
    moments: list[float] = []
    demands = [plan(0.5 * n, 30) for n in range(8000)]
    play(Contender("x", rules()), PLAIN, Traffic(demands), 1, moments.append)
    assert moments == sorted(moments)
    assert moments[0] > 0
    assert moments[-1] == pytest.approx(4000, rel=0.5)


def two_hosts(**planner: Any) -> Policy:
    """Each with one seat."""
    rows = {name: {"url": f"http://{name}:11434", "parallel": 1} for name in ("left", "right")}
    return rules({"reserved": 0, **planner}, hosts=rows, **{"global": {"max_concurrent": 2}})


def test_what_a_policy_of_several_hosts_carries_is_carried_by_them_side_by_side() -> None:
    demands = [plan(0.0), plan(0.0), plan(0.0), plan(0.0)]
    played = replayed(two_hosts(), demands)
    assert fates(played) == ["1.00 ok", "1.00 ok", "2.00 ok", "2.00 ok"]
    assert [call.attempts[0].host for call in played.calls[:2]] == ["left", "right"]
    assert fates(replayed(one_at_a_time(), demands)) == [f"{end}.00 ok" for end in (1, 2, 3, 4)]
    # Each computed for half of the calls.
    assert played.busy_s == pytest.approx(2.0)


def test_each_host_loads_what_it_is_asked_for() -> None:
    small = dataclasses.replace(PLAIN, max_loaded=1)
    demands = [plan(0.0), Demand(0.0, "executor", 100), plan(5.0), Demand(5.0, "executor", 100)]
    played = replayed(two_hosts(), demands, small)
    # One of both is loaded at first, on each.
    assert sum(played.loads.values()) == 1
    assert len({call.attempts[0].host for call in played.calls[2:]}) == 2
    alone = replayed(one_at_a_time(), demands, small)
    assert sum(alone.loads.values()) > 1


def test_without_a_proxy_there_is_one_host() -> None:
    demands = [plan(0.0), plan(0.0)]
    assert fates(replayed(two_hosts(), demands, direct="")) == fates(
        replayed(rules(), demands, direct="")
    )
