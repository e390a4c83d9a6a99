"""Answers that Ollama holds back while it parses them: silence in a stream that is no stall."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy import deadlines
from modelsplit_proxy.watch import upstream_probe
from support.calls import call
from support.harness import in_front_of
from support.raw import Peer, chunk, raw_upstream

if TYPE_CHECKING:
    from support.harness import Overlay

pytestmark = pytest.mark.flowing_time

GENERATE, CHAT, OPENAI, ANTHROPIC = (
    "/api/generate",
    "/api/chat",
    "/v1/chat/completions",
    "/v1/messages",
)
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
NDJSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
STALL_S = 0.1

FIRST = {
    GENERATE: NDJSON + CHUNKED + chunk(b'{"response":"a","done":false}\n'),
    CHAT: NDJSON + CHUNKED + chunk(b'{"message":{"content":"a"},"done":false}\n'),
    OPENAI: SSE + CHUNKED + chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'),
    ANTHROPIC: SSE + CHUNKED + chunk(b'event: message_start\ndata: {"type":"message_start"}\n\n'),
}
LAST = {
    GENERATE: chunk(b'{"response":"","done":true}\n'),
    CHAT: chunk(b'{"message":{"content":""},"done":true}\n'),
    OPENAI: chunk(b'data: {"choices":[{"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n'),
    ANTHROPIC: chunk(b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
}
PING = {
    OPENAI: b": ping\n\n",
    ANTHROPIC: b'event: ping\ndata: {"type": "ping"}\n\n',
}


@pytest.fixture(autouse=True)
def soon_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "PING_S", 0.05)


def silent_for(seconds: float, route: str, first: bytes | None = None) -> Any:
    """An upstream that is silent for so long in the middle of its answer."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(FIRST[route] if first is None else first)
        await peer.flush()
        await asyncio.wait([asyncio.ensure_future(peer.gone())], timeout=seconds)
        peer.send(LAST[route] + b"0\r\n\r\n")
        await peer.flush()

    return script


@pytest.mark.parametrize("asked", [{"tools": TOOLS}, {"think": True}])
async def test_the_bound_of_an_answer_with_tools_is_that_of_parsing(asked: dict[str, Any]) -> None:
    overlay: Overlay = {"silent_parse_timeout_ms": 300}
    async with (
        raw_upstream(silent_for(60, CHAT)) as upstream,
        in_front_of(upstream.port, overlay, stall_timeout_s=STALL_S) as up,
        up.client() as client,
    ):
        answer = await client.request("POST", CHAT, call(CHAT, "m:1b", stream=True, **asked))
        error = answer.lines[-1]
        assert (error["error_code"], error["reason"]) == ("E_TIMEOUT_LOCAL", "stall")
        assert "silent for 0.3 s" in error["error"]
        assert up.app.breakers.snapshot() == (), "nobody's failure"


async def test_without_tools_silence_is_a_stall() -> None:
    async with (
        raw_upstream(silent_for(60, CHAT)) as upstream,
        in_front_of(upstream.port, stall_timeout_s=STALL_S) as up,
        up.client() as client,
    ):
        answer = await client.request("POST", CHAT, call(CHAT, "m:1b", stream=True))
        assert "silent for 0.1 s" in answer.lines[-1]["error"]
        assert len(up.app.breakers.snapshot()) == 1


@pytest.mark.parametrize("route", [GENERATE, CHAT, OPENAI, ANTHROPIC])
async def test_a_long_silence_ends_well_and_events_have_pings_meanwhile(route: str) -> None:
    asked = {"format": {"type": "object"}} if route == GENERATE else {"tools": TOOLS}
    async with (
        raw_upstream(silent_for(4 * STALL_S, route)) as upstream,
        in_front_of(upstream.port, stall_timeout_s=STALL_S) as up,
        up.client() as client,
    ):
        answer = await client.request("POST", route, call(route, "m:1b", stream=True, **asked))
        assert (answer.status, answer.whole) == (200, True)
        [record] = await up.calls.wait()
        assert record.outcome == "ok"
        ping = PING.get(route)
        if ping is None:
            assert b"ping" not in answer.body
        else:
            assert answer.body.count(ping) >= 2
            assert answer.body.replace(ping, b"") == _whole(route)


async def test_in_the_middle_of_an_event_nothing_is_said() -> None:
    half = SSE + CHUNKED + chunk(b'data: {"choices":[{"delta":{"content":"a"}}')
    rest = chunk(b"]}\n\n")

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(half)
        await peer.flush()
        await asyncio.wait([asyncio.ensure_future(peer.gone())], timeout=4 * STALL_S)
        peer.send(rest + LAST[OPENAI] + b"0\r\n\r\n")
        await peer.flush()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port, stall_timeout_s=STALL_S) as up,
        up.client() as client,
    ):
        asked = call(OPENAI, "m:1b", stream=True, tools=TOOLS)
        answer = await client.request("POST", OPENAI, asked)
        assert answer.whole
        assert b"ping" not in answer.body


async def test_an_ollama_that_hangs_meanwhile_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadlines, "MUTE_S", 0.2)
    monkeypatch.setattr(upstream_probe, "_TIMEOUT_S", 0.05)
    hangs = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(FIRST[CHAT])
        await peer.flush()
        hangs.set()
        await peer.gone()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port, stall_timeout_s=STALL_S) as up,
        up.client() as client,
    ):
        await client.ask("POST", CHAT, call(CHAT, "m:1b", stream=True, tools=TOOLS))
        await hangs.wait()

        monkeypatch.setattr(up.app.probe, "_version", asyncio.Event().wait)
        await up.app.probe.ask()
        error = (await client.answer()).lines[-1]
        assert (error["error_code"], error["reason"]) == ("E_TIMEOUT_LOCAL", "upstream_mute")
        assert up.seats() == (0, 0)


def _whole(route: str) -> bytes:
    """What the upstream sends, without its head and its chunks."""
    framed = FIRST[route].partition(b"\r\n\r\n")[2] + LAST[route]
    return b"".join(framed.split(b"\r\n")[1::2])
