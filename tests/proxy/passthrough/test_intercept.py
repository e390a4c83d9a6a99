"""Which requests are touched at all."""

from __future__ import annotations

from typing import Any, cast

import pytest

from modelsplit_policy.catalogue import Catalogue
from modelsplit_policy.failures import Failure
from modelsplit_proxy.passthrough.intercept import Intercept, Plan, Question
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.routes import Routes
from support.harness import policy

NO_ALIASES: dict[str, Any] = {
    role: {"aliases": []} for role in ("PLANNER", "EXECUTOR", "HEAVY", "CLOUD")
}


async def planned(method: str, target: str, overlay: dict[str, Any] | None = None) -> Plan:
    """The plan for a request whose body is of no interest: nothing may ask for it."""
    rules = policy({"roles": overlay or {}, "management": {"deny": ["pull", "blobs"]}}).policy
    intercept = Intercept(Catalogue(rules), rules.management, 1024)
    nothing = cast("Any", None)
    return await intercept.plan(
        Routes(ENDPOINTS).classify(method, target), target, nothing, nothing
    )


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/api/version"),
        ("GET", "/api/ps"),
        ("GET", "/v1/models/qwen3:4b"),
        ("POST", "/api/tags"),
        ("HEAD", "/v1/models"),
        ("GET", "/api/show"),
        ("HEAD", "/api/blobs/sha256:1"),
        ("POST", "/api/signout"),
        ("DELETE", "/api/user/keys/x"),
        ("POST", "/api/tomorrow"),
    ],
)
async def test_these_pass_untouched_and_unread(method: str, target: str) -> None:
    assert await planned(method, target) == b""


async def test_without_aliases_lists_pass_too() -> None:
    for target in ("/api/tags", "/v1/models", "/v1/models/planner"):
        assert await planned("GET", target, NO_ALIASES) == b""


async def test_a_list_is_asked_for_as_it_was_and_an_alias_by_its_models() -> None:
    plan = await planned("HEAD", "/api/tags?x")
    assert isinstance(plan, Question)
    assert [(w.method, w.target) for w in plan.wordings] == [("GET", "/api/tags?x")]
    assert plan.keep_as == "/api/tags"
    plan = await planned("GET", "/v1/models/heavy?x")
    assert isinstance(plan, Question)
    assert [w.target for w in plan.wordings] == ["/v1/models/gemma3:12b", "/v1/models/gpt-oss:20b"]
    assert plan.missing is not None


@pytest.mark.parametrize("target", ["/api/pull", "/api/blobs/sha256:1"])
async def test_what_is_denied_is_refused_unread(target: str) -> None:
    plan = await planned("POST", target)
    assert isinstance(plan, Failure)
    assert (plan.status, plan.reason) == (403, "management_denied")
