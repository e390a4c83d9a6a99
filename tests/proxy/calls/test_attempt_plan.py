"""What depends on role and model alone is worked out once, and is what the policy says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from modelsplit_policy.prices import Price, Prices
from modelsplit_policy.roles import Candidate
from modelsplit_policy.shaping import NOTHING
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.calls.attempt_plan import AttemptPlans
from support.budget_keepers import without_a_file
from support.harness import policy

PLANNER = Candidate("Qwen3:4b", 15.0)


def attempt_plans(**overlay: Any) -> AttemptPlans:
    rules = policy(overlay).policy
    return AttemptPlans(rules, Prices(rules), without_a_file(rules), 5.0)


def test_a_lane_says_what_the_policy_says_of_a_role_and_a_model() -> None:
    plan = attempt_plans(models={"qwen3:4b": {"price": {"input": 2, "output": 4}}}).of(
        Role.PLANNER, PLANNER
    )
    assert (plan.model, plan.provider) == ("qwen3:4b", Provider.LOCAL)
    assert plan.price == Price(2.0, 4.0)
    assert (plan.limits.role_s, plan.limits.load_s, plan.limits.stall_s) == (15.0, 3.0, 5.0)
    assert plan.limits.total_at is None
    assert (plan.max_wait_s, plan.max_hold_s) == (8.0, 0.3)
    assert (plan.shape, plan.chosen) == (NOTHING, NOTHING)
    assert not plan.counted


def test_a_whole_calls_bound_is_one_on_its_wait_too() -> None:
    plan = attempt_plans(roles={"CHAT": {"total_timeout_ms": 4000}}).of(
        Role.CHAT, Candidate("x", None)
    )
    assert (plan.max_wait_s, plan.max_hold_s) == (4.0, math.inf)


def test_a_model_that_the_policy_chose_gets_the_policys_options_and_the_arms() -> None:
    pinned = {"qwen3:4b": {"options": {"num_ctx": 4096}}}
    arm = Candidate("qwen3:4b", 15.0, (("temperature", 0),))
    plan = attempt_plans(models=pinned).of(Role.PLANNER, arm)
    assert plan.chosen.pinned == (("num_ctx", 4096), ("temperature", 0))
    assert plan.shape.pinned == ()


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
    assert attempt_plans().of(role, Candidate(model, None)).counted is counted


def test_the_same_lane_is_not_made_twice_nor_are_all_names_remembered() -> None:
    known = attempt_plans()
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
