"""Streams: line by line as they are made, whole only if they say so themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_proxy.config.settings import Address
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import ERROR_FIELDS, STREAMS, call
from support.harness import running
from support.scripted import scripted

if TYPE_CHECKING:
    from support.wire import Answer

pytestmark = pytest.mark.flowing_time

QUICK = SimConfig(tokens=5, num_parallel=8, max_loaded=4)
SLOW = SimConfig(tokens=4, token_rate=20, num_parallel=8, max_loaded=4)
END = {
    "/api/generate": b'"done":true',
    "/api/chat": b'"done":true',
    "/v1/chat/completions": b"data: [DONE]\n\n",
    "/v1/completions": b"data: [DONE]\n\n",
    "/v1/responses": b"event: response.completed\n",
    "/v1/messages": b"event: message_stop\n",
}


@pytest.mark.parametrize("route", STREAMS)
async def test_a_stream_is_the_upstreams_bytes(route: str) -> None:
    async with running(QUICK) as up, up.client() as client:
        answer = await client.request("POST", route, call(route, "planner", stream=True))
        assert (answer.status, answer.whole) == (200, True)
        wanted = "application/x-ndjson" if route.startswith("/api") else "text/event-stream"
        assert answer["Content-Type"] == wanted
        assert answer["Transfer-Encoding"] == "chunked"
        assert END[route] in b"".join(answer.chunks[-2:])
        assert answer["X-LLM-Role"] == "PLANNER"
        assert "total;" not in answer["Server-Timing"]
        assert "ttfb;dur=" in answer["Server-Timing"]
        [record] = await up.calls.wait()
        assert (record.outcome, record.streamed) == ("ok", True)
        assert answer.get("X-LLM-Error-Code") is None


@pytest.mark.parametrize("route", STREAMS)
async def test_a_line_arrives_before_the_next_is_made(route: str) -> None:
    async with running(SLOW) as up, up.client() as client:
        await client.ask("POST", route, call(route, "planner", stream=True))
        answer = await client.head()
        pieces = client.pieces(answer)
        await anext(pieces)
        # The stand-in makes one token each 50 ms and notes it when it is written.
        assert up.asked[-1].tokens <= 1
        assert up.sim.active == 1
        rest = [piece async for piece in pieces]
        assert END[route] in b"".join(rest[-2:])
        assert up.asked[-1].tokens >= 4


async def test_one_line_is_one_chunk() -> None:
    async with running(SLOW) as up, up.client() as client:
        body = call("/api/generate", "planner", stream=True)
        answer = await client.request("POST", "/api/generate", body)
        assert [chunk.count(b"\n") for chunk in answer.chunks] == [1] * 5
        [record] = await up.calls.wait()
        assert (record.usage.output_tokens, record.usage.finish_reason) == (4, "stop")
        assert record.usage.prompt_tokens == answer.lines[-1]["prompt_eval_count"]


REASONS = {
    "/v1/chat/completions": "stop",
    "/v1/completions": "stop",
    "/v1/responses": "completed",
    "/v1/messages": "max_tokens",
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("route", REASONS)
async def test_every_record_says_why_the_model_stopped_and_how_many_tokens_came(
    route: str, *, stream: bool
) -> None:
    async with running(SLOW) as up, up.client() as client:
        body = call(route, "planner", stream=stream)
        if route == "/v1/messages":
            body["max_tokens"] = 4
        answer = await client.request("POST", route, body)
        assert answer.whole
        [line] = await up.logged()
        assert (line["finish_reason"], line["output_tokens"]) == (REASONS[route], 4)
        # Ollama counts chunks for nobody who does not ask for their usage.
        silent = stream and "completions" in route
        assert (line["tokens_estimated"], line["prompt_tokens"] is None) == (silent, silent)


async def test_a_stream_with_its_usage_is_not_counted() -> None:
    route = "/v1/chat/completions"
    async with running(SLOW) as up, up.client() as client:
        body = call(route, "planner", stream=True) | {"stream_options": {"include_usage": True}}
        await client.request("POST", route, body)
        [line] = await up.logged()
        assert (line["finish_reason"], line["output_tokens"]) == ("stop", 4)
        assert (line["tokens_estimated"], line["prompt_tokens"] is None) == (False, False)


def in_band(answer: Answer, route: str) -> dict[str, Any]:
    """The error that ends a stream, as its dialect's clients look for it."""
    text = answer.body.decode()
    if route.startswith("/api/"):
        assert text.endswith("\n")
        found = orjson.loads(text.splitlines()[-1])
        assert isinstance(found["error"], str)
        return dict(found)
    event = text.removesuffix("\n\n").split("\n\n")[-1]
    name, data = event.strip("\n").split("\n")
    assert name == "event: error"
    found = orjson.loads(data.removeprefix("data: "))
    assert found["type"] == "error"
    assert isinstance(found["error"]["message"], str)
    return dict(found["error"])


@pytest.mark.parametrize("route", STREAMS)
@pytest.mark.parametrize(
    ("kind", "code", "reasons"),
    [
        (Kind.CUT_FIN, "E_STREAM_BROKEN_LOCAL", {"truncated"}),
        (Kind.CUT_RST, "E_STREAM_BROKEN_LOCAL", {"truncated", "reset"}),
        (Kind.CUT_CLEAN, "E_STREAM_BROKEN_LOCAL", {"unterminated"}),
        (Kind.STALL, "E_TIMEOUT_LOCAL", {"stall"}),
    ],
)
async def test_a_stream_that_breaks_says_so(
    route: str, kind: Kind, code: str, reasons: set[str]
) -> None:
    async with running(QUICK, stall_timeout_s=0.1) as up, up.client() as client:
        up.sim.faults.add(kind, path=route, after=2)
        answer = await client.request("POST", route, call(route, "planner", stream=True))
        assert answer.status == 200
        [record] = await up.calls.wait()
        assert record.failure is not None
        assert (record.call.state, record.failure.code) == ("truncated", code)
        assert record.failure.reason in reasons
        assert END[route] not in answer.body
        if answer.whole:
            error = in_band(answer, route)
            assert error.keys() >= ERROR_FIELDS
            assert (error["error_code"], error["request_id"]) == (code, answer["X-Request-Id"])
        else:
            assert await client.at_eof()
        assert up.seats() == (0, 0)
        await up.sim.wait_for(lambda sim: sim.active == 0)


@pytest.mark.parametrize("route", STREAMS)
async def test_a_model_that_dies_mid_stream(route: str) -> None:
    """Ollama ends such a stream cleanly; only its own dialect's clients are told why."""
    async with running(QUICK) as up, up.client() as client:
        up.sim.faults.add(Kind.RUNNER_DIES, path=route, after=2)
        answer = await client.request("POST", route, call(route, "planner", stream=True))
        assert (answer.status, answer.whole) == (200, True)
        [record] = await up.calls.wait()
        assert record.failure is not None
        assert record.failure.code == "E_STREAM_BROKEN_LOCAL"
        assert record.failure.reason in {"runner_failed", "unterminated"}
        if route.startswith("/api/"):
            # The line that Ollama wrote is the last one; ours would be one too many.
            assert answer.lines[-1].keys() == {"error"}
        else:
            assert in_band(answer, route)["error_code"] == "E_STREAM_BROKEN_LOCAL"


async def test_a_model_that_repeats_itself_did_not_finish() -> None:
    route = "/api/chat"
    async with running(QUICK) as up, up.client() as client:
        up.sim.faults.add(Kind.REPEAT_CUTOFF)
        answer = await client.request("POST", route, call(route, "llama3.2:1b", stream=True))
        assert answer.status == 404
        answer = await client.request("POST", route, call(route, "qwen3:4b", stream=True))
        assert in_band(answer, route)["reason"] == "unterminated"


async def test_a_role_timeout_inside_a_stream() -> None:
    route = "/api/generate"
    async with running(SimConfig(tokens=1000, token_rate=50)) as up, up.client() as client:
        answer = await client.request(
            "POST", route, call(route, "planner", stream=True), {"X-LLM-Timeout-Ms": "150"}
        )
        assert (answer.status, answer["X-LLM-Attempt"]) == (200, "1")
        error = in_band(answer, route)
        assert (error["error_code"], error["reason"]) == ("E_TIMEOUT_LOCAL", "role_timeout")
        await up.sim.wait_for(lambda sim: sim.active == 0)


async def test_chat_streams_for_as_long_as_it_likes() -> None:
    route = "/api/generate"
    async with running(SimConfig(tokens=40, token_rate=100)) as up, up.client() as client:
        answer = await client.request("POST", route, call(route, "qwen3:4b", stream=True))
        assert answer.lines[-1]["done"] is True
        assert answer["X-LLM-Role"] == "CHAT"


@pytest.mark.parametrize("framing", ["Content-Length: 400", "Connection: close", "short"])
async def test_a_broken_stream_never_looks_whole_however_it_was_framed(framing: str) -> None:
    """A stream with a length cannot be added to; the client must still be told."""
    line = b'{"model":"qwen3:4b","response":"a","done":false}\n'
    if framing == "short":
        framing = f"Content-Length: {len(line)}"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n{framing}\r\n\r\n"
    async with scripted(head.encode() + line, hang_up=True) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up, up.client() as client:
            route = "/api/generate"
            answer = await client.request("POST", route, call(route, "planner", stream=True))
            assert answer.body.startswith(line)
            assert answer.get("Content-Length") is None
            assert in_band(answer, route)["error_code"] == "E_STREAM_BROKEN_LOCAL"
            again = await client.request("POST", route, b"{")
            assert again.status == 400


async def test_half_a_line_is_not_continued() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
    async with scripted(head + b'{"model":"qwen3:4b","resp', hang_up=True) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up, up.client() as client:
            route = "/api/generate"
            answer = await client.request("POST", route, call(route, "planner", stream=True))
            assert not answer.whole
            [record] = await up.calls.wait()
            assert record.call.state == "truncated"
