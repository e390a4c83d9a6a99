"""No spelling of a model's name gets past what is decided by it: cloud, budgets, aliases."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

import pytest

from modelsplit_policy.vocabulary import Role
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import BODIES, DIALECTS, call
from support.clouds import FROM_ALL
from support.harness import Overlay, running

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"
MODEL = "gpt-oss:20b"
LISTED = SimConfig(tokens=4, num_parallel=8, max_loaded=4)
BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"

CLOUD = (
    "gpt-oss:20b-cloud",
    "gpt-oss:20b:cloud",
    "GPT-OSS:20B:Cloud",
    "gpt-oss:20b: cloud",
    "gpt-oss: 20b-cloud",
    "gpt-oss:20b:\u00a0cloud",
    "gpt-oss:cloud",
    "gpt-oss:latest:cloud",
    "gpt-oss:latest-cloud",
    "glm-4.6:cloud",
    "qwen3:8b:cloud",
    "planner:cloud",
    "planner:latest-cloud",
    "library/gpt-oss:20b:cloud",
    "me/gpt-oss:20b:cloud",
    "https://registry.ollama.ai/library/gpt-oss:20b:cloud",
    ":///library/gpt-oss:20b:cloud",
    "e.com:5000/library/gpt-oss:20b:cloud",
    # What the policy gives to CLOUD is the cloud too.
    "claude-3-opus",
    "claude-3-opus:local",
    " library/Claude-3-Opus:latest",
    *(f"gpt-oss:20b:cloud{blank}" for blank in BLANKS),
    *(f"{blank}gpt-oss:20b-cloud" for blank in BLANKS),
)
SAME = (
    MODEL,
    "GPT-OSS:20B",
    "gpt-oss:20b:local",
    "gpt-oss:20b:LOCAL ",
    "gpt-oss:20b: local",
    "library/gpt-oss:20b",
    "registry.ollama.ai/library/gpt-oss:20b",
    "Registry.Ollama.AI/Library/GPT-OSS:20b:local",
    "http://registry.ollama.ai/library/gpt-oss:20b",
    "https://registry.ollama.ai/library/gpt-oss:20b",
    "any thing://registry.ollama.ai/library/gpt-oss:20b",
    "http:///library/gpt-oss:20b",
    ":///library/gpt-oss:20b",
    *(f"gpt-oss:20b{blank}" for blank in BLANKS),
    *(f"{blank}gpt-oss:20b" for blank in BLANKS),
    *(f"gpt-oss:20b:local{blank}" for blank in BLANKS),
)
ALIAS = (
    "planner",
    "PLANNER:Latest",
    "planner:local",
    "planner:latest:local",
    " planner",
    "planner\u00a0",
    "library/planner",
    "registry.ollama.ai/library/planner",
    "https://registry.ollama.ai/library/planner:latest",
    ":///Library/planner",
)
UNREADABLE = (
    " ",
    "\u00a0",
    "a b",
    "gpt-oss: 20b",
    "gpt-oss:20b :cloud",
    "gpt-oss:20b-cloud:local",
    "gpt-oss:20b:cloud:cloud",
    "gpt-oss:20b\u200b",
    "gpt-oss:20b\x1f",
    "gpt-oss@sha256:12",
    "https://gpt-oss:20b",
    "a/b/c/d",
    "gpt-oss:",
    "a" * 81,
)
CHANGES: tuple[tuple[str, str, dict[str, str], str], ...] = (
    ("POST", "/api/pull", {}, "model"),
    ("POST", "/api/pull", {}, "name"),
    ("POST", "/api/push", {}, "model"),
    ("POST", "/api/create", {"from": "qwen3:4b"}, "model"),
    ("POST", "/api/create", {"model": "mine"}, "from"),
    ("POST", "/api/copy", {"source": "qwen3:4b"}, "destination"),
    ("POST", "/api/copy", {"destination": "mine"}, "source"),
    ("DELETE", "/api/delete", {}, "model"),
)


def budget(calls: int) -> Overlay:
    row = {"name": "heavy-20b", "models": [MODEL], "calls": calls, "window": "1h"}
    return {"budgets": [row]}


def told(answer: Any, route: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json if route.startswith("/api/") else answer.json["error"]
    return body


@pytest.mark.parametrize("role", [None, *Role])
async def test_without_approval_no_name_gets_to_the_cloud(role: Role | None) -> None:
    headers = {} if role is None else {"X-LLM-Role": role.value}
    headers["X-LLM-No-Fallback"] = "1"
    async with running(LISTED, FROM_ALL) as up, up.client() as client:
        for name, route in zip(CLOUD, [*DIALECTS] * len(CLOUD), strict=False):
            answer = await client.request("POST", route, call(route, name), headers)
            assert (answer.status, told(answer, route)["error_code"]) == (
                403,
                "E_BUDGET_NOT_APPROVED",
            ), name
        assert up.asked == []


@pytest.mark.parametrize("route", BODIES)
async def test_a_budget_used_up_is_used_up_under_every_spelling(route: str) -> None:
    async with running(LISTED, budget(0)) as up, up.client() as client:
        for name in SAME:
            answer = await client.request("POST", route, call(route, name))
            assert (answer.status, told(answer, route)["reason"]) == (429, "calls"), name
        assert up.asked == []


async def test_what_is_sent_under_one_spelling_counts_for_the_others() -> None:
    async with running(LISTED, budget(3)) as up, up.client() as client:
        spellings = (MODEL, "GPT-OSS:20b", "gpt-oss:20b:local ")
        # The stand-in lacks what is not spelled as in its list, and a 404 would not count.
        up.sim.faults.add(Kind.STATUS, status=500, path=ROUTE)
        for name in spellings:
            await client.request("POST", ROUTE, call(ROUTE, name))
        for name in SAME:
            assert (await client.request("POST", ROUTE, call(ROUTE, name))).status == 429
        # What goes up is what the client wrote.
        assert [request.json["model"] for request in up.asked] == [*spellings]


async def test_a_cap_of_a_model_holds_for_all_its_spellings_together() -> None:
    caps = {"models": {MODEL: {"max_concurrent": 1}}, "roles": {"CHAT": {"max_queue": 0}}}
    async with running(SimConfig(tokens=400), caps) as up:
        first = up.client()
        running_call = asyncio.create_task(
            first.request("POST", ROUTE, call(ROUTE, MODEL, stream=True))
        )
        await up.until(lambda: len(up.asked) == 1)
        async with up.client() as client:
            for name in SAME[1:]:
                answer = await client.request("POST", ROUTE, call(ROUTE, name))
                assert (answer.status, answer.json["reason"]) == (503, "queue_full"), name
        running_call.cancel()
        await first.close()


@pytest.mark.parametrize("name", ALIAS)
async def test_an_alias_is_the_alias_under_every_spelling(name: str) -> None:
    async with running(LISTED) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, call(ROUTE, name))
        assert (answer.status, answer["X-LLM-Role"]) == (200, "PLANNER")
        assert up.asked[-1].json["model"] == "qwen3:4b"
        shown = await client.request("POST", "/api/show", {"model": name})
        assert shown.status == 200


@pytest.mark.parametrize(("method", "target", "body", "key"), CHANGES)
async def test_no_spelling_of_an_alias_is_pulled_made_copied_or_deleted(
    method: str, target: str, body: dict[str, str], key: str
) -> None:
    async with running() as up, up.client() as client:
        for name in ALIAS:
            answer = await client.request(method, target, {**body, key: name})
            assert (answer.status, answer.json["reason"]) == (403, "is_alias"), name
        for name in UNREADABLE:
            answer = await client.request(method, target, {**body, key: name})
            assert answer.status == 400, name
            assert (answer.json["error_code"], answer.json["reason"]) == (
                "E_BAD_REQUEST",
                "bad_model_name",
            )
        assert not any(call.path == target for call in up.sim.calls)


@pytest.mark.parametrize(("route", "role"), [*product(BODIES, [None, "EXECUTOR"])])
async def test_a_name_that_ollama_cannot_read_is_refused_before_anything(
    route: str, role: str | None
) -> None:
    headers = {} if role is None else {"X-LLM-Role": role}
    async with running() as up, up.client() as client:
        for name in UNREADABLE:
            answer = await client.request("POST", route, call(route, name), headers)
            assert (answer.status, answer["X-LLM-Error-Code"]) == (400, "E_BAD_REQUEST"), name
            assert told(answer, route)["reason"] == "bad_model_name"
        assert up.asked == []


async def test_a_missing_model_is_ollamas_to_refuse() -> None:
    async with running() as up, up.client() as client:
        for body in ({"model": "", "prompt": "hi"}, {"prompt": "hi"}):
            answer = await client.request("POST", ROUTE, body)
            assert answer.json.get("error_code") != "E_BAD_REQUEST"
        assert len(up.asked) == 2
