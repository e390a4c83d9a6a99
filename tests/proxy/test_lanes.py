"""What depends on role and model alone is worked out once, and is what the policy says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from modelsplit_policy.facts import Provider, Role
from modelsplit_policy.prices import Price, Prices
from modelsplit_policy.roles import Candidate
from modelsplit_policy.shaping import NOTHING
from modelsplit_proxy.lanes import Lanes
from support.harness import policy
from support.purses import without_a_file

PLANNER = Candidate("Qwen3:4b", 15.0)


def lanes(**overlay: Any) -> Lanes:
    rules = policy(overlay).policy
    return Lanes(rules, Prices(rules), without_a_file(rules), 5.0)


def test_a_lane_says_what_the_policy_says_of_a_role_and_a_model() -> None:
    lane = lanes(models={"qwen3:4b": {"price": {"input": 2, "output": 4}}}).of(
        Role.PLANNER, PLANNER
    )
    assert (lane.model, lane.provider) == ("qwen3:4b", Provider.LOCAL)
    assert lane.price == Price(2.0, 4.0)
    assert (lane.limits.role_s, lane.limits.load_s, lane.limits.stall_s) == (15.0, 3.0, 5.0)
    assert lane.limits.total_at is None
    assert (lane.max_wait_s, lane.max_hold_s) == (8.0, 1.0)
    assert (lane.shape, lane.chosen) == (NOTHING, NOTHING)
    assert not lane.counted


def test_a_whole_calls_bound_is_one_on_its_wait_too() -> None:
    lane = lanes(roles={"CHAT": {"total_timeout_ms": 4000}}).of(Role.CHAT, Candidate("x", None))
    assert (lane.max_wait_s, lane.max_hold_s) == (4.0, math.inf)


def test_a_model_that_the_policy_chose_gets_the_policys_options_and_the_arms() -> None:
    pinned = {"qwen3:4b": {"options": {"num_ctx": 4096}}}
    arm = Candidate("qwen3:4b", 15.0, (("temperature", 0),))
    lane = lanes(models=pinned).of(Role.PLANNER, arm)
    assert lane.chosen.pinned == (("num_ctx", 4096), ("temperature", 0))
    assert lane.shape.pinned == ()


@pytest.mark.parametrize(
    ("role", "model", "counted"),
    [
        (Role.HEAVY, "gpt-oss:20b", True),
        (Role.CHAT, "GPT-OSS:20b", True),
        (Role.CHAT, "glm-4.6:cloud", True),
        (Role.CLOUD, "claude-3-opus", True),
        (Role.PLANNER, "qwen3:4b", False),
    ],
)
def test_it_knows_whether_a_budget_looks_at_its_calls(
    role: Role, model: str, counted: bool
) -> None:
    assert lanes().of(role, Candidate(model, None)).counted is counted


def test_the_same_lane_is_not_made_twice_nor_are_all_names_remembered() -> None:
    known = lanes()
    first = known.of(Role.PLANNER, PLANNER)
    assert known.of(Role.PLANNER, Candidate("Qwen3:4b", 15.0)) is first
    assert known.of(Role.EXECUTOR, PLANNER) is not first
    for number in range(1000):
        known.of(Role.CHAT, Candidate(f"made-up-{number}", None))
    before = int(repr(known).split()[1])
    assert before <= 256
    assert known.of(Role.CHAT, Candidate("x" * 257, None)).model == "x" * 257
    assert int(repr(known).split()[1]) == before, "an endless name is not kept"
    assert known.of(Role.PLANNER, PLANNER) == first
