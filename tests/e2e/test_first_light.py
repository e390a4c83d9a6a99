"""The main job, seen from outside."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.config.settings import Address
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import BODIES, call
from support.harness import running
from support.scripted import response, scripted

if TYPE_CHECKING:
    from support.wire import Answer

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"
QUICK = SimConfig(tokens=3, num_parallel=8, max_loaded=4)
# On every answer of an inference route whose role is known.
TAGS = (
    "X-Request-Id",
    "request-id",
    "X-LLM-Role",
    "X-LLM-Context",
    "X-LLM-Provider",
    "X-LLM-Model",
    "X-LLM-Requested-Model",
    "X-LLM-Attempt",
    "X-LLM-Fallback-Used",
    "X-LLM-Queue-Wait-Ms",
    "X-LLM-Route-Reason",
    "Server-Timing",
)
MAYBE = ("X-LLM-Variant", "X-LLM-Error-Code", "RateLimit", "RateLimit-Policy", "Retry-After")
TIMING = re.compile(
    r"queue;dur=[0-9.]+(, load;dur=[0-9.]+)?(, upstream_wait;dur=[0-9.]+)?"
    r"(, ttfb;dur=[0-9.]+)?(, total;dur=[0-9.]+)?"
)


async def test_a_planner_call_is_routed_to_the_primary_model_and_tagged() -> None:
    async with running(SimConfig(tokens=4)) as up, up.client() as client:
        answer = await client.request(
            "POST", "/api/generate", {"model": "planner", "prompt": "hi", "stream": False}
        )
        assert answer.status == 200
        assert answer.json["model"] == "qwen3:4b"
        assert answer["X-LLM-Role"] == "PLANNER"
        assert answer["X-LLM-Context"] == "PLANNER"
        assert answer["X-LLM-Provider"] == "LOCAL"
        assert answer["X-LLM-Model"] == "qwen3:4b"
        assert answer["X-LLM-Requested-Model"] == "planner"
        assert answer["X-LLM-Attempt"] == "1"
        assert answer["X-LLM-Fallback-Used"] == "false"
        assert answer["X-LLM-Route-Reason"] == "alias"
        assert answer["X-Request-Id"] == answer["request-id"]
        assert answer["Via"] == "1.1 modelsplit"
        assert answer.get("X-LLM-Error-Code") is None
        assert answer["Server-Timing"].startswith("queue;dur=")


def check_tags(answer: Answer, *, failed: bool) -> None:
    for name in TAGS:
        assert answer[name] not in {"", "None"}, name
    assert answer["Via"] == "1.1 modelsplit"
    assert (answer.get("X-LLM-Error-Code") is not None) is failed
    assert TIMING.fullmatch(answer["Server-Timing"])


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("status", [None, 400, 404, 500, 503])
async def test_every_answer_of_every_inference_route_is_tagged(
    route: str, status: int | None
) -> None:
    async with running(QUICK) as up, up.client() as client:
        if status is not None:
            up.sim.faults.add(Kind.STATUS, status=status, path=route)
        answer = await client.request("POST", route, call(route, "planner"))
        # A model that cannot embed says so with 500 or 501; that too is tagged.
        wanted = {500, 501} if "embed" in route else {200}
        assert answer.status in ({status} if status is not None else wanted)
        check_tags(answer, failed=answer.status >= 400)
        assert "total;dur=" in answer["Server-Timing"]


async def test_a_stream_is_tagged_before_its_first_byte() -> None:
    async with running(QUICK) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner", stream=True))
        check_tags(answer, failed=False)
        assert "total" not in answer["Server-Timing"]


async def test_load_is_told_where_it_is_known() -> None:
    async with running(SimConfig(tokens=2, load_ms=120)) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        loaded = re.search(r"load;dur=([0-9.]+)", answer["Server-Timing"])
        assert loaded is not None
        assert 100 < float(loaded[1]) < 3000


async def test_what_the_upstream_says_in_our_name_is_overwritten() -> None:
    forged = [f"{name}: forged" for name in (*TAGS, *MAYBE)]
    forged += ["Access-Control-Expose-Headers: Forged", "x-should-retry: true"]
    said = response(b'{"done":true}', *forged, "X-Other: kept")
    async with scripted(said) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up, up.client() as client:
            answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
            check_tags(answer, failed=False)
            assert answer["X-Other"] == "kept"
            assert [pair for pair in answer.headers if "orged" in pair[1]] == []
            for name in (*MAYBE, "Access-Control-Expose-Headers", "x-should-retry"):
                assert answer.all(name) == [], name
            assert answer.body == b'{"done":true}'


async def test_a_browser_may_read_the_tags() -> None:
    async with running(QUICK) as up, up.client() as client:
        origin = {"Origin": "http://localhost:3000"}
        for body in (call(ROUTE, "planner"), call(ROUTE, "planner", stream=True)):
            answer = await client.request("POST", ROUTE, body, origin)
            exposed = {n.strip() for n in answer["Access-Control-Expose-Headers"].split(",")}
            assert exposed >= {*TAGS, *MAYBE, "Via"}
            assert answer["Access-Control-Allow-Origin"] == origin["Origin"]
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert answer.get("Access-Control-Expose-Headers") is None


async def test_a_name_that_no_header_can_carry_is_encoded() -> None:
    name = "qwen\r\nX-Injected: 1 \u00e9"
    async with running(QUICK) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, call(ROUTE, name))
        assert answer.get("X-Injected") is None
        assert answer["X-LLM-Requested-Model"] == "qwen%0D%0AX-Injected: 1 %C3%A9"


async def test_other_routes_are_not_tagged() -> None:
    async with running(QUICK) as up, up.client() as client:
        for target in ("/api/tags", "/v1/models", "/nowhere"):
            answer = await client.request("GET", target)
            assert [name for name, _ in answer.headers if name.lower().startswith("x-llm")] == []
            assert answer["Via"] == "1.1 modelsplit"
