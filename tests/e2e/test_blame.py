"""Whose fault a failure is, over the wire: a bad client beside good ones, and a bad model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import DEFAULT_MODELS
from support.calls import call
from support.faults import CHAT
from support.harness import in_front_of, running, warm
from support.scripted import response, scripted

if TYPE_CHECKING:
    from support.harness import Running
    from support.wire import Answer

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/chat"

SIM = SimConfig(tokens=2, max_loaded=5, num_parallel=4, models=(*DEFAULT_MODELS, CHAT))
ALONE = {"fallback": None, "fallback_timeout_ms": None}
WRONG: dict[str, dict[str, Any]] = {
    "option": {"options": {"num_predict": "many"}},
    "format": {"format": "xml"},
}


async def ask(up: Running, body: dict[str, Any], route: str = ROUTE) -> Answer:
    async with up.client() as client:
        return await client.request("POST", route, body)


def question(number: int, model: str = "planner", **more: Any) -> dict[str, Any]:
    """A call like no other."""
    return call(ROUTE, model) | {"messages": [{"role": "user", "content": f"{number}"}]} | more


async def breakers(up: Running) -> list[dict[str, Any]]:
    async with up.admin() as admin:
        found: list[dict[str, Any]] = (await admin.request("GET", "/stats")).json["breakers"]
        return found


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_a_request_does_counts_against_nobody_and_no_other_model_is_asked(
    wrong: str,
) -> None:
    async with running(SIM) as up:
        await warm(up, "qwen3:4b", "qwen3:8b")
        for number in range(8):
            answer = await ask(up, question(number, **WRONG[wrong]))
            assert answer.status == 500
            assert answer["X-LLM-Error-Code"] == "E_UPSTREAM_LOCAL"
            assert (answer["X-LLM-Attempt"], answer["X-LLM-Fallback-Used"]) == ("1", "false")
            assert answer["x-should-retry"] == "false"
        assert len(up.asked) == 8 + 2
        assert await breakers(up) == []
        assert (await ask(up, question(0))).status == 200


async def test_embeddings_of_a_model_that_has_none_shut_nothing() -> None:
    async with running(SIM) as up:
        await warm(up, "qwen3:8b")
        for number in range(8):
            body = {"model": "executor", "input": f"{number}"}
            assert (await ask(up, body, "/api/embed")).status == 501
        assert await breakers(up) == []
        assert (await ask(up, question(0, "executor"))).status == 200


async def test_one_client_that_breaks_a_model_again_and_again_shuts_it_off_for_nobody() -> None:
    """A 500 that says nothing known: it may be the request, for all that anybody can tell."""
    async with running(SIM) as up:
        await warm(up, CHAT)
        for _ in range(9):
            up.sim.faults.add(Kind.STATUS, status=500, body='{"error":"boom"}', times=1)
            assert (await ask(up, question(0, CHAT))).status == 500
        assert (await breakers(up))[0]["state"] == "closed"
        assert (await ask(up, question(1, CHAT))).status == 200


async def test_five_failures_of_several_open_it_and_the_trial_is_somebody_elses() -> None:
    async with running(SIM) as up:
        await warm(up, CHAT)
        up.sim.faults.add(Kind.STATUS, status=500, body='{"error":"boom"}', path=ROUTE)
        for number in (0, 0, 0, 0, 1):
            assert (await ask(up, question(number, CHAT))).status == 500
        assert (await ask(up, question(2, CHAT))).json["reason"] == "breaker_open"
        up.sim.faults.clear()
        (view,) = up.app.breakers.snapshot()
        kept = up.app.breakers._breakers._kept[view.key]
        kept.trial_at = up.app.clock.now()
        kept.open_s = 3600.0
        assert (await ask(up, question(0, CHAT))).json["reason"] == "breaker_open"
        assert (await ask(up, question(2, CHAT))).status == 200
        assert (await ask(up, question(0, CHAT))).status == 200


async def test_a_runner_that_dies_needs_no_second_client() -> None:
    said = orjson.dumps({"error": "llama-server process has terminated: signal: killed"})
    crash = response(said, status="500 Internal Server Error")
    async with scripted(crash) as upstream, in_front_of(upstream.port) as up:
        for _ in range(5):
            answer = await ask(up, question(0, CHAT))
            assert (answer.status, answer.json) == (500, orjson.loads(said))
        refused = await ask(up, question(1, CHAT))
        assert refused.json["reason"] == "breaker_open"
        assert "E_UPSTREAM_LOCAL runner_failed" in refused.json["error"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_tool_call_that_ollama_cannot_read_is_that_answers_fault(*, stream: bool) -> None:
    said = orjson.dumps({"error": "error parsing tool call: raw='{', err=unexpected end"}) + b"\n"
    whole = response(said, status="500 Internal Server Error")
    line = response(said, content_type="application/x-ndjson")
    async with scripted(line if stream else whole) as upstream, in_front_of(upstream.port) as up:
        for number in range(8):
            answer = await ask(up, question(number, stream=stream))
            assert answer.body == said
        assert len(upstream.asked) == 8
        assert await breakers(up) == []
        records = await up.calls.wait(8)
        assert {record.failure.reason for record in records if record.failure is not None} == {
            "unreadable_answer"
        }


async def test_a_trial_that_was_answered_and_did_not_fit_its_schema_closes_the_breaker() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    async with running(SIM, {"roles": {"PLANNER": ALONE}}) as up:
        await warm(up, "qwen3:4b")
        up.sim.faults.add(Kind.STATUS, status=500, body='{"error":"boom"}', path=ROUTE)
        for number in range(5):
            assert (await ask(up, question(number))).status == 500
        up.sim.faults.clear()
        up.sim.faults.add(Kind.BAD_SCHEMA, text="no", path=ROUTE)
        (view,) = up.app.breakers.snapshot()
        up.app.breakers._breakers._kept[view.key].trial_at = up.app.clock.now()
        unfit = await ask(up, question(9, format=schema))
        assert unfit.json["error_code"] == "E_SCHEMA_INVALID"
        assert await breakers(up) == []


async def test_silence_while_an_answer_is_held_back_is_nobodys_failure() -> None:
    async with running(SIM, {"silent_parse_timeout_ms": 1000}, stall_timeout_s=0.05) as up:
        await warm(up, CHAT)
        up.sim.faults.add(Kind.STALL, after=1, path=ROUTE)
        for number in range(6):
            body = question(number, CHAT, stream=True, format="json")
            assert b"E_TIMEOUT_LOCAL" in (await ask(up, body)).body
        assert await breakers(up) == []
        assert up.app.monitor.timeouts.count(up.app.clock.now()) == 0
        for number in range(5):
            assert b"E_TIMEOUT_LOCAL" in (await ask(up, question(number, CHAT, stream=True))).body
        assert (await breakers(up))[0]["state"] == "open"
        assert up.app.monitor.timeouts.count(up.app.clock.now()) == 5


async def test_a_timeout_behind_an_early_head_counts_once() -> None:
    early = ALONE | {"timeout_ms": 300, "early_headers_after_ms": 10}
    async with running(SIM, {"roles": {"PLANNER": early}}) as up:
        await warm(up, "qwen3:4b")
        up.sim.faults.add(Kind.HANG, path=ROUTE)
        answer = await ask(up, question(0, stream=True))
        assert answer.status == 200
        assert b"role_timeout" in answer.body
        await up.calls.wait(1)
        assert up.app.monitor.timeouts.count(up.app.clock.now()) == 1
