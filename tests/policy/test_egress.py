"""Whose calls may leave for a cloud."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_policy.breaker import BreakerKey
from modelsplit_policy.config.model import Policy
from modelsplit_policy.config.parser import parse
from modelsplit_policy.egress import (
    host_of,
    refusal,
    searching,
    stored_here,
    unreadable,
    unserved,
    warnings,
)
from modelsplit_policy.failures import MESSAGE_MAX, ErrorCode, Failure, Reason
from modelsplit_policy.vocabulary import DEFAULT_HOST, Provider, Role
from support.policies import SHIPPED, document

MODEL = "claude-3-opus"


def policy(**cloud: Any) -> Policy:
    return parse(document((("cloud",), {"providers": {"a": {"models": {MODEL: None}}}} | cloud)))


def why(given: Policy, role: Role, client: str | None = None, condition: str = "") -> str | None:
    refused = refusal(given, role, MODEL, client=client, condition=condition)
    if refused is None:
        return None
    assert (refused.code, refused.reason) == (ErrorCode.FORBIDDEN, Reason.EGRESS_DENIED)
    assert len(refused.message) <= 200
    return refused.message


def test_the_role_of_the_cloud_may_and_no_other() -> None:
    assert why(policy(), Role.CLOUD) is None
    assert why(policy(), Role.CLOUD, "kim", "operator") is None
    for role in set(Role) - {Role.CLOUD}:
        assert why(policy(), role) == (
            f"claude-3-opus runs elsewhere, and calls of {role} may not; send X-LLM-Role: CLOUD, "
            f"or list {role} in cloud.allow_from.roles"
        )


def test_clients_may_be_listed() -> None:
    given = policy(allow_from={"clients": ["kim"]})
    assert why(given, Role.CLOUD, "kim") is None
    assert "of lou may not" in (why(given, Role.CLOUD, "lou") or "")
    assert "without a key may not" in (why(given, Role.CLOUD) or "")


def test_conditions_may_be_listed() -> None:
    given = policy(allow_from={"conditions": ["operator"]})
    assert why(given, Role.CLOUD, condition="operator") is None
    assert why(given, Role.CLOUD) is None
    assert "conditions" in (why(given, Role.CLOUD, condition="schema_failed") or "")


@pytest.mark.parametrize("model", [MODEL, "Library/Claude-3-Opus:latest", "glm-4.6:cloud"])
def test_who_is_listed_and_what_ollama_runs_elsewhere_is_served(model: str) -> None:
    assert unserved(policy().cloud, model, Provider.CLOUD) is None


def test_who_is_not_listed_is_refused_with_the_line_to_add() -> None:
    refused = unserved(policy().cloud, "claude-9", Provider.CLOUD)
    assert refused is not None
    assert refused.reason is Reason.NO_PROVIDER
    assert refused.message == (
        'no provider of the policy lists claude-9; add cloud.providers.a.models: "claude-9": null'
    )
    assert unserved(policy().cloud, "claude-9", Provider.LOCAL) is None
    assert unserved(parse(SHIPPED).cloud, "claude-9", Provider.CLOUD) is None


def test_a_body_that_cannot_be_looked_through_stays_here() -> None:
    refused = unreadable("glm-4.6:cloud")
    assert (refused.code, refused.reason) == (ErrorCode.BAD_REQUEST, Reason.UNTRANSLATABLE)
    assert refused.message.startswith("glm-4.6:cloud runs elsewhere")


def test_a_role_that_is_given_a_clouds_model_is_told_that_it_may_not_leave() -> None:
    given = parse(document((("roles", "PLANNER", "fallback"), "glm-4.6:cloud")))
    [said] = warnings(given)
    assert said == (
        "PLANNER: glm-4.6:cloud runs in a cloud, for which its calls may not leave; list PLANNER "
        "in cloud.allow_from.roles"
    )
    roles = {"allow_from": {"roles": ["CLOUD", "PLANNER"]}}
    allowed = document((("roles", "PLANNER", "fallback"), "glm-4.6:cloud"), (("cloud",), roles))
    assert [*warnings(parse(allowed))] == []
    assert [*warnings(parse(SHIPPED))] == []


def test_a_provider_is_no_host_of_ollamas() -> None:
    assert host_of("default") != DEFAULT_HOST
    assert str(BreakerKey(Provider.CLOUD, "m", host_of("a"))) == "CLOUD/m at provider a"


@pytest.mark.parametrize("failure", [searching(Role.EXECUTOR), stored_here("m" * 300)])
def test_what_would_leave_a_machine_unasked_says_how_it_may(failure: Failure) -> None:
    assert (failure.code, failure.reason) == (ErrorCode.FORBIDDEN, Reason.EGRESS_DENIED)
    assert "send X-LLM-Role: CLOUD" in failure.message
    assert len(failure.message) < MESSAGE_MAX
