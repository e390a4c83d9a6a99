"""The names the policy may use."""

from __future__ import annotations

from modelsplit_policy.config.model import SloPolicy
from modelsplit_policy.slo.names import AT_MOST_ALL, BOUNDS, OBJECTIVES, Unit


def test_every_bound_is_a_key_of_the_policy_and_the_other_way_round() -> None:
    assert {*BOUNDS, "window"} == set(SloPolicy.model_fields)
    assert {bound for _, bounds in OBJECTIVES.values() for bound in bounds} == set(BOUNDS)


def test_what_cannot_be_more_than_one_is_a_share() -> None:
    assert {OBJECTIVES[name][0] for name in AT_MOST_ALL} == {Unit.SHARE}
