"""``X-LLM-Telemetry: body``: one key more at the end of an answer, in every dialect."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import orjson
import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import DEFAULT_MODELS
from support.calls import BODIES, DIALECTS, STREAMS, call
from support.harness import in_front_of, running
from support.raw import Peer, chunk, raw_upstream, says
from support.scripted import response
from support.wire import Answer

pytestmark = pytest.mark.flowing_time

GENERATE = "/api/generate"
BODY = {"X-LLM-Telemetry": "body"}
KEYS = [
    "request_id",
    "role",
    "context",
    "provider",
    "requested_model",
    "model",
    "attempt",
    "fallback_used",
    "route_reason",
    "variant",
    "queue_wait_ms",
    "upstream_wait_ms",
    "ttfb_ms",
    "llm_latency_ms",
    "total_ms",
    "load_ms",
    "prompt_tokens",
    "output_tokens",
    "tokens_per_second",
    "cost_usd",
]


def objects(route: str, answer: Answer) -> list[dict[str, Any]]:
    """Every object of a stream, in order."""
    lines = answer.body.splitlines()
    if not route.startswith("/api/"):
        lines = [line[6:] for line in lines if line.startswith(b"data: {")]
    return [orjson.loads(line) for line in lines if line]


def agrees(llm: dict[str, Any], answer: Answer) -> None:
    """The body says what the headers say."""
    assert list(llm) == KEYS
    assert llm["request_id"] == answer["X-Request-Id"]
    assert llm["role"] == answer["X-LLM-Role"]
    assert llm["model"] == answer["X-LLM-Model"]
    assert llm["requested_model"] == answer["X-LLM-Requested-Model"]
    assert str(llm["attempt"]) == answer["X-LLM-Attempt"]
    assert llm["fallback_used"] is (answer["X-LLM-Fallback-Used"] == "true")
    assert llm["route_reason"] == answer["X-LLM-Route-Reason"]
    assert llm["queue_wait_ms"] <= llm["ttfb_ms"] <= llm["total_ms"]
    assert llm["llm_latency_ms"] <= llm["total_ms"]


@pytest.mark.parametrize("route", STREAMS)
async def test_the_last_object_of_a_stream_tells_all(route: str) -> None:
    paced = SimConfig(tokens=6, token_rate=500)
    async with running(paced) as up, up.client() as client:
        answer = await client.request("POST", route, call(route, "planner", stream=True), BODY)
        assert answer.whole
        *before, last = objects(route, answer)
        assert not any("llm" in one for one in before)
        llm = last["llm"]
        agrees(llm, answer)
        (record,) = await up.calls.wait()
        assert record.outcome == "ok"
        # What the upstream does not say is counted for the record, when the stream has ended.
        counted = record.usage.output_tokens if not record.usage.estimated else None
        assert (llm["prompt_tokens"], llm["output_tokens"]) == (record.usage.prompt_tokens, counted)
        assert llm["cost_usd"] == 0.0
        if route.startswith("/api/"):
            assert llm["output_tokens"] == last["eval_count"]
            assert llm["load_ms"] == round(last["load_duration"] / 1e6, 1)
            speed = last["eval_count"] / (last["eval_duration"] / 1e9)
            assert llm["tokens_per_second"] == pytest.approx(speed, abs=0.01)


@pytest.mark.parametrize("route", BODIES)
async def test_a_whole_answer_tells_all(route: str) -> None:
    async with (
        running(SimConfig(models=(*DEFAULT_MODELS, "embed:1b"))) as up,
        up.client() as client,
    ):
        for _ in range(2):  # its length is right: the connection goes on
            model = "embed:1b" if "embed" in route else "executor"
            answer = await client.request("POST", route, call(route, model), BODY)
            assert answer.status == 200
            assert list(answer.json)[-1] == "llm"
            agrees(answer.json["llm"], answer)


@pytest.mark.parametrize("route", STREAMS)
async def test_but_for_the_key_nothing_is_changed(route: str) -> None:
    """The same bytes of an upstream with and without it."""
    async with running(SimConfig(tokens=6)) as up:
        async with up.client() as client:
            client._port = up.sim.port
            body = call(route, "qwen3:4b", stream=True)
            told = (await client.request("POST", route, body)).body
        kind = "application/x-ndjson" if route.startswith("/api/") else "text/event-stream"
    async with (
        raw_upstream(says(response(told, content_type=kind))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        plain = await client.request("POST", route, body)
        spliced = await client.request("POST", route, body, BODY)
        assert plain.body == told
        added = len(spliced.body) - len(told)
        start = next(i for i, (a, b) in enumerate(zip(told, spliced.body, strict=False)) if a != b)
        # The closing brace and the key begin with different bytes, so that is where it starts.
        assert spliced.body[start : start + 8] == b',"llm":{'
        assert spliced.body[:start] + spliced.body[start + added :] == told


async def test_nothing_is_added_unasked() -> None:
    async with running() as up, up.client() as client:
        for stream in (True, False):
            body = call(GENERATE, "planner") | {"stream": stream}
            answer = await client.request("POST", GENERATE, body)
            assert b'"llm"' not in answer.body


@pytest.mark.parametrize("said", ["", "header", "yes", "body, x"])
async def test_another_value_is_refused(said: str) -> None:
    async with running() as up, up.client() as client:
        headers = {"X-LLM-Telemetry": said}
        answer = await client.request("POST", GENERATE, call(GENERATE, "planner"), headers)
        assert (answer.status, answer.json["reason"]) == (400, "bad_header")
        assert answer.json["error"] == f'X-LLM-Telemetry "{said}" cannot be read; send body'


async def test_a_fallback_tells_of_itself() -> None:
    async with running() as up, up.client() as client:
        up.sim.faults.add(Kind.STATUS, model="qwen3:4b")
        body = call(GENERATE, "planner", stream=True)
        answer = await client.request("POST", GENERATE, body, BODY)
        llm = answer.lines[-1]["llm"]
        agrees(llm, answer)
        assert (llm["attempt"], llm["fallback_used"], llm["route_reason"]) == (2, True, "fallback")
        assert llm["model"] == "qwen3:8b"


@pytest.mark.parametrize("route", DIALECTS)
async def test_an_error_is_as_it_always_is(route: str) -> None:
    async with running() as up, up.client() as client:
        answer = await client.request("POST", route, call(route, "nobody:1b"), BODY)
        assert answer.status == 404
        assert b'"llm":' not in answer.body


async def test_a_stream_that_breaks_ends_with_its_error_and_without_the_key() -> None:
    token = b'{"response":"a","done":false}\n'

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n")
        peer.send(b"Transfer-Encoding: chunked\r\n\r\n" + chunk(token) + b"0\r\n\r\n")

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", GENERATE, call(GENERATE, "m", stream=True), BODY)
        first, last = answer.lines
        assert first == orjson.loads(token)
        assert last["error_code"] == "E_STREAM_BROKEN_LOCAL"
        assert "llm" not in last


@pytest.mark.parametrize("stream", [True, False])
async def test_a_compressed_answer_passes_untouched(*, stream: bool) -> None:
    packed = gzip.compress(b'{"response":"a","done":true}\n')
    kind = "application/x-ndjson" if stream else "application/json"
    told = response(packed, "Content-Encoding: gzip", content_type=kind)
    async with (
        raw_upstream(says(told)) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("POST", GENERATE, call(GENERATE, "m"), BODY)
        assert answer.body == packed


async def test_a_stream_that_was_held_until_valid_tells_too() -> None:
    overlay = {"roles": {"PLANNER": {"validate": True, "validate_streams": "hold"}}}
    async with running(SimConfig(tokens=6), overlay) as up, up.client() as client:
        body = call(GENERATE, "planner", stream=True, format="json")
        answer = await client.request("POST", GENERATE, body, BODY)
        assert answer.status == 200
        agrees(answer.lines[-1]["llm"], answer)


async def test_a_stream_that_began_early_tells_too() -> None:
    overlay = {"roles": {"PLANNER": {"early_headers_after_ms": 1}}}
    async with running(SimConfig(tokens=6, load_ms=200), overlay) as up, up.client() as client:
        body = call(GENERATE, "planner", stream=True)
        answer = await client.request("POST", GENERATE, body, BODY)
        assert answer.lines[0]["done"] is False
        assert answer.lines[-1]["llm"]["load_ms"] >= 0


async def test_each_token_is_out_before_the_next_is_written() -> None:
    lines = [b'{"response":"%d","done":false}\n' % n for n in range(5)]
    turn = asyncio.Semaphore(1)

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n")
        peer.send(b"Transfer-Encoding: chunked\r\n\r\n")
        for line in lines:
            await turn.acquire()
            peer.send(chunk(line))
        await turn.acquire()
        peer.send(chunk(b'{"response":"","done":true}\n') + b"0\r\n\r\n")
        await peer.gone()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        await client.ask("POST", GENERATE, call(GENERATE, "m", stream=True), BODY)
        answer = await client.head()
        read = []
        async for piece in client.pieces(answer):
            read.append(piece)
            turn.release()
        assert read[:-1] == lines
        assert b'"llm":{' in read[-1]
