"""A dry run refuses what a call is refused, in its words, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from support.clouds import CHAT, approve, cloud_policy
from support.harness import running

if TYPE_CHECKING:
    from pathlib import Path

    from support.harness import Running

OLLAMAS = "gpt-oss:120b-cloud"
FREE = {"models": {OLLAMAS: {"price": {"input": 0, "output": 0}}}}
KEYLESS = cloud_policy("http://127.0.0.1:1")
FULL = FREE | {"budgets": [{"name": "none", "calls": 0, "window": "1h", "provider": "CLOUD"}]}


def none_of(model: str, **more: Any) -> dict[str, Any]:
    """A policy whose budget has no room for one of this machine's models."""
    return {"budgets": [{"name": "none", "calls": 0, "window": "1h", "models": [model]} | more]}


async def both(up: Running, model: str, role: str) -> tuple[Any, Any]:
    """What the dry run says, and what a call is told."""
    query = urlencode({"model": model, "role": role})
    async with up.admin() as admin, up.client() as client:
        foreseen = (await admin.request("GET", f"/route?{query}")).json["refused"]
        body = CHAT | {"model": model, "stream": False}
        answer = await client.request("POST", "/api/chat", body, {"X-LLM-Role": role})
    fields = {name: answer.json.get(name) for name in ("error_code", "reason", "error")}
    return foreseen, {"status": answer.status, **fields}


@pytest.mark.parametrize(
    ("model", "role", "overlay", "approved", "reason"),
    [
        ("cloud", "", {}, False, "no_approval"),
        (OLLAMAS, "CLOUD", {}, True, "price_unknown"),
        (OLLAMAS, "CLOUD", FREE, False, "no_approval"),
        (OLLAMAS, "CLOUD", FULL, True, "calls"),
        (OLLAMAS, "CHAT", FREE, True, "egress_denied"),
        ("cloud", "", KEYLESS, True, "provider_credential"),
        ("other", "CLOUD", KEYLESS, True, "no_provider"),
        ("cloud", "", {}, True, "not_installed"),
        # Its fallback has room, and is not asked for want of it.
        ("planner", "", none_of("qwen3:4b"), False, "calls"),
        ("qwen3:4b", "", none_of("qwen3:4b"), False, "calls"),
    ],
)
async def test_a_call_is_told_what_was_foreseen(
    tmp_path: Path, model: str, role: str, overlay: dict[str, Any], approved: bool, reason: str
) -> None:
    async with running(overlay=overlay, state=tmp_path) as up:
        if approved:
            approve(tmp_path)
        foreseen, told = await both(up, model, role)
    assert foreseen["reason"] == reason
    assert foreseen == told


@pytest.mark.parametrize("overlay", [none_of("qwen3:8b"), none_of("qwen3:4b", shadow=True)])
async def test_a_budget_that_refuses_nothing_of_it_is_not_told(
    tmp_path: Path, overlay: dict[str, Any]
) -> None:
    """It is its fallback's, or a shadow."""
    async with running(overlay=overlay, state=tmp_path) as up:
        foreseen, told = await both(up, "planner", "")
    assert foreseen is None
    assert told["status"] == 200


async def test_one_that_is_sent_is_not_refused_and_the_question_costs_nothing(
    tmp_path: Path,
) -> None:
    async with running(overlay=FREE, state=tmp_path) as up:
        approve(tmp_path)
        async with up.admin() as admin:
            for _ in range(2):
                shown = (await admin.request("GET", f"/route?model={OLLAMAS}&role=CLOUD")).json
                assert shown["refused"] is None
            [budget] = [
                row
                for row in (await admin.request("GET", "/stats")).json["spending"]["budgets"]
                if row["name"] == "cloud"
            ]
            assert (budget["calls"], up.asked) == (0, [])


async def test_the_role_tells_what_no_approval_mends(tmp_path: Path) -> None:
    async with running(overlay=KEYLESS, state=tmp_path) as up, up.admin() as admin:
        spending = (await admin.request("GET", "/stats")).json["spending"]
        assert spending["cloud_refused"].startswith("the key of anthropic is missing: ")
    named = FREE | {"roles": {"CLOUD": {"primary": OLLAMAS}}}
    async with running(overlay=named) as up, up.admin() as admin:
        assert (await admin.request("GET", "/stats")).json["spending"]["cloud_refused"] is None
