"""What the upstream wrote is what the client reads: every byte, in the same pieces, at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
import uvloop
from hypothesis import given, note, settings
from hypothesis import strategies as st

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import STREAMS, call
from support.hanging import guarded
from support.harness import Running, in_front_of, running
from support.raw import Peer, chunk, raw_upstream, says
from support.told import (
    CHUNKED,
    CLOSE,
    JSON,
    LENGTH,
    NDJSON,
    SSE,
    TRAILED,
    Exchange,
    Teller,
    Told,
    problem,
    told,
)
from support.wire import Answer

pytestmark = pytest.mark.flowing_time

GENERATE = "/api/generate"


class Conversation:
    """Answers asked for one after the other, through one proxy and mostly on one connection."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._stack = contextlib.AsyncExitStack()
        self._teller = Teller()
        self._proxy = runner.run(self._begin())
        self._client = self._proxy.client()

    def ask(self, answer: Told) -> tuple[Answer, Exchange]:
        return self._runner.run(guarded(self._ask)(answer))

    def end(self) -> None:
        self._runner.run(self._client.close())
        self._runner.run(self._stack.aclose())

    async def _begin(self) -> Running:
        upstream = await self._stack.enter_async_context(raw_upstream(self._teller.script))
        return await self._stack.enter_async_context(in_front_of(upstream.port))

    async def _ask(self, answer: Told) -> tuple[Answer, Exchange]:
        try:
            return await self._teller.ask(self._client, answer)
        except BaseException:
            # What failed once must fail again by itself, not for what was left on the wire.
            self._client.reset()
            self._client = self._proxy.client()
            raise


@pytest.fixture
def conversation() -> Iterator[Conversation]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        conversation = Conversation(runner)
        yield conversation
        conversation.end()


def test_the_client_reads_what_the_upstream_wrote_when_it_is_written(
    conversation: Conversation,
) -> None:
    """Streams, held answers and what passes through, in any framing, cutting and encoding.

    Half of those that are not held are told step by step: the next piece is written once the
    client has read all before it. That would never end if a byte waited for another.
    """
    seen: Counter[object] = Counter()

    @settings(max_examples=300)
    @given(rng=st.randoms(use_true_random=False))
    def check(rng: Random) -> None:
        answer = told(rng)
        note(repr(answer))
        read, exchange = conversation.ask(answer)
        assert problem(answer, read) is None
        assert read.trailers == []
        if answer.stepwise:
            assert exchange.steps == len(answer.pieces)
            if answer.framing in {CHUNKED, TRAILED} and not answer.write_bytes:
                assert read.chunks == list(answer.pieces)
        how = "step by step" if answer.stepwise else "held" if answer.held else "as it comes"
        seen.update([answer.framing, answer.encoding, answer.kind, how])

    check()
    assert {LENGTH, CHUNKED, TRAILED, CLOSE, b"", b"gzip", NDJSON, SSE, JSON} <= set(seen)
    assert {"step by step", "held", "as it comes"} <= set(seen)


@pytest.mark.parametrize("route", [GENERATE, "/api/pull"])
async def test_each_line_arrives_before_the_next_is_written(route: str) -> None:
    lines = [b'{"status":"%d"}\n' % n for n in range(5)] + [b'{"done":true}\n']
    turn = asyncio.Semaphore(1)

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n")
        peer.send(b"Transfer-Encoding: chunked\r\n\r\n")
        for line in lines:
            await turn.acquire()
            peer.send(chunk(line))
        peer.send(b"0\r\n\r\n")
        await peer.gone()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        await client.ask("POST", route, {"model": "m:1b"})
        answer = await client.head()
        read = []
        async for piece in client.pieces(answer):
            read.append(piece)
            turn.release()
        assert read == lines


async def test_a_megabyte_chunk_arrives_whole() -> None:
    body = random.Random(1).randbytes(3_000_000)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with (
        raw_upstream(says(head + chunk(body) + b"0\r\n\r\n")) as upstream,
        in_front_of(upstream.port, curious=False) as proxy,
        proxy.client() as client,
    ):
        for _ in range(2):
            assert (await client.request("GET", "/x")).body == body
        assert len(upstream.peers) == 1


async def test_an_answer_too_large_to_hold_is_passed_on_whole() -> None:
    body = b'{"embeddings":[[' + b"0.123456789," * 1_200_000 + b"1]]}"
    for head in (b"Content-Length: %d\r\n\r\n" % len(body), b"Transfer-Encoding: chunked\r\n\r\n"):
        wire = body if b"Length" in head else chunk(body) + b"0\r\n\r\n"
        first = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        async with (
            raw_upstream(says(first + head + wire)) as upstream,
            in_front_of(upstream.port, curious=False) as proxy,
            proxy.client() as client,
        ):
            for _ in range(2):
                answer = await client.request("POST", "/api/embed", {"model": "m:1b"})
                assert answer.whole
                assert answer.body == body
            assert len(upstream.peers) == 1
            assert proxy.seats() == (0, 0)


@pytest.mark.parametrize("route", STREAMS)
async def test_a_stream_of_the_stand_in_is_the_same_with_and_without_us(route: str) -> None:
    async with running(SimConfig(tokens=6)) as up, up.client() as client:
        answer = await client.request("POST", route, call(route, "qwen3:4b", stream=True))
        assert answer.whole
        shapes = [_shape(piece) for piece in answer.chunks]
        direct = await _direct(up.sim.port, route)
        assert shapes == [_shape(piece) for piece in direct.chunks]
        assert answer["Content-Type"] == direct["Content-Type"]


def _shape(piece: bytes) -> tuple[int, bytes]:
    """Times and identifiers differ from run to run; lines and their beginnings do not."""
    return piece.count(b"\n"), piece[:12]


async def _direct(port: int, route: str) -> Answer:
    async with in_front_of(port) as proxy:
        client = proxy.client()
        client._port = port
        async with client:
            return await client.request("POST", route, call(route, "qwen3:4b", stream=True))


async def test_a_close_delimited_stream_of_the_stand_in_is_whole() -> None:
    async with running(SimConfig(tokens=6)) as up, up.client() as client:
        up.sim.faults.add(Kind.CLOSE_DELIMITED)
        for _ in range(2):
            body = call(GENERATE, "qwen3:4b", stream=True)
            answer = await client.request("POST", GENERATE, body)
            assert answer.whole
            assert answer.lines[-1]["done"] is True
