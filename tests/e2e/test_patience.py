"""An early head and harmless pieces while nothing comes, where a role asks for them."""

from __future__ import annotations

import pytest

from modelsplit_sim.config import SimConfig
from support.harness import running

pytestmark = pytest.mark.flowing_time

PATIENT = {"roles": {"PLANNER": {"early_headers_after_ms": 100}}}
SLOW = SimConfig(load_ms=400, tokens=3)


@pytest.mark.parametrize(
    ("route", "body", "kind"),
    [
        ("/api/generate", {"prompt": "hi"}, "application/x-ndjson"),
        ("/api/chat", {"messages": [{"role": "user", "content": "hi"}]}, "application/x-ndjson"),
    ],
)
async def test_a_slow_stream_begins_early_with_tokens_that_say_nothing(
    route: str, body: dict[str, object], kind: str
) -> None:
    async with running(SLOW, PATIENT) as up, up.client() as client:
        await client.ask("POST", route, {"model": "planner", **body})
        head = await client.head()
        assert head.status == 200
        assert head["Content-Type"] == kind
        assert head["X-LLM-Role"] == "PLANNER"
        assert head["X-LLM-Queue-Position"] == "0", "its turn has come"
        pieces = [piece async for piece in client.pieces(head)]
    lines = [line for piece in pieces for line in piece.splitlines()]
    assert head.whole
    assert len(lines) >= 3 + 4
    empty = b'"response":""' if route == "/api/generate" else b'"content":""'
    assert empty in lines[0]
    assert b'"done":false' in lines[0]
    assert b'"done":true' in lines[-1]


async def test_in_sse_it_is_a_comment() -> None:
    body = {"model": "planner", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with running(SLOW, PATIENT) as up, up.client() as client:
        answer = await client.request("POST", "/v1/chat/completions", body)
    assert answer["Content-Type"] == "text/event-stream"
    assert answer.body.startswith(b": waiting for the model\n\n")
    assert answer.body.rstrip().endswith(b"data: [DONE]")


async def test_a_failure_after_the_early_head_is_told_inside_and_no_second_model_is_asked() -> None:
    async with running(SLOW, PATIENT) as up, up.client() as client:
        up.sim.faults.add("cut_rst", after=0, model="qwen3:4b")
        answer = await client.request("POST", "/api/generate", {"model": "planner", "prompt": "x"})
        models = [call.model for call in up.sim.calls if call.path == "/api/generate"]
    assert answer.status == 200
    assert answer.lines[-1]["error_code"] in {"E_UNREACHABLE_LOCAL", "E_STREAM_BROKEN_LOCAL"}
    assert answer.whole
    assert models == ["qwen3:4b"]


async def test_whoever_wants_no_stream_waits_for_the_answer() -> None:
    async with running(SLOW, PATIENT) as up, up.client() as client:
        answer = await client.request(
            "POST", "/api/generate", {"model": "planner", "prompt": "hi", "stream": False}
        )
    assert answer["Content-Type"].startswith("application/json")
    assert answer.json["done"] is True


async def test_it_is_off_by_default() -> None:
    async with running(SLOW) as up, up.client() as client:
        answer = await client.request("POST", "/api/generate", {"model": "planner", "prompt": "hi"})
    assert len(answer.lines) == 4


async def test_the_total_bound_covers_waiting_and_both_attempts() -> None:
    overlay = {"roles": {"PLANNER": {"total_timeout_ms": 300}}, "load_timeout_ms": 5000}
    async with running(SimConfig(), overlay) as up, up.client() as client:
        up.sim.faults.add("hang")
        answer = await client.request("POST", "/api/generate", {"model": "planner", "prompt": "x"})
    assert answer.status == 504
    assert answer.json["reason"] == "total_timeout"
    assert "0.3 s" in answer.json["error"]


async def test_the_resident_fallback_may_be_preferred_to_a_cold_start() -> None:
    overlay = {"roles": {"PLANNER": {"prefer_resident_fallback": True}}}
    async with running(SimConfig(tokens=2), overlay) as up, up.client() as client:
        await client.request("POST", "/api/generate", {"model": "qwen3:8b", "prompt": "warm it"})
        await up.app.loaded_models.ask()
        answer = await client.request("POST", "/api/generate", {"model": "planner", "prompt": "x"})
    assert answer["X-LLM-Model"] == "qwen3:8b"
    assert answer["X-LLM-Route-Reason"] == "fallback"
    assert answer["X-LLM-Fallback-Used"] == "true"
    assert answer["X-LLM-Attempt"] == "1"


async def test_pinned_options_and_clamps_reach_the_upstream_and_the_record() -> None:
    overlay = {
        "models": {"qwen3:4b": {"options": {"num_gpu": 20}}},
        "roles": {"PLANNER": {"max_num_ctx": 4096, "max_keep_alive": "5m"}},
    }
    async with running(SimConfig(tokens=2), overlay) as up, up.client() as client:
        body = {"model": "planner", "prompt": "x", "keep_alive": -1, "options": {"num_ctx": 8192}}
        answer = await client.request("POST", "/api/generate", body)
        sent = up.passed_on[-1].json
        [record] = await up.calls.wait()
    assert answer.status == 200
    assert sent["options"] == {"num_ctx": 4096, "num_gpu": 20}
    assert sent["keep_alive"] == "5m"
    assert sent["model"] == "qwen3:4b"
    assert any("num_ctx 8192->4096" in word for word in record.applied)
