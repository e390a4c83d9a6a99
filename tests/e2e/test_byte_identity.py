"""What the upstream wrote is what the client reads: every byte, in the same pieces, at once."""

from __future__ import annotations

import asyncio
import gzip
import random
from dataclasses import dataclass

import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import STREAMS, call
from support.harness import in_front_of, running
from support.raw import Peer, chunk, raw_upstream, says
from support.wire import Answer

GENERATE = "/api/generate"
TEXT = "Größe 漢字 🚀 \\u2028 <>& ".encode()
SMALL = 2048


@dataclass(frozen=True)
class Case:
    """One answer: how it is framed, in which pieces it is written."""

    route: str
    content_type: bytes
    pieces: list[bytes]
    framing: str
    extra: bytes = b""

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def head(self) -> bytes:
        lengths = {
            "length": b"Content-Length: %d\r\n" % len(self.body),
            "chunked": b"Transfer-Encoding: chunked\r\n",
            "trailed": b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n",
            "close": b"",
        }
        lines = b"Content-Type: %b\r\n%b%b" % (self.content_type, self.extra, lengths[self.framing])
        return b"HTTP/1.1 200 OK\r\n%b\r\n" % lines

    @property
    def chunked(self) -> bool:
        return self.framing in {"chunked", "trailed"}

    @property
    def wire(self) -> list[bytes]:
        return [chunk(piece) for piece in self.pieces] if self.chunked else self.pieces

    @property
    def end(self) -> bytes:
        return {"chunked": b"0\r\n\r\n", "trailed": b"0\r\nX-Sum: 1\r\n\r\n"}.get(self.framing, b"")


def ndjson(rng: random.Random) -> bytes:
    line = b'{"model":"m:1b","response":"%b","done":false}\n'
    lines = [line % TEXT[: rng.randrange(4, 30)].decode(errors="ignore").encode() for _ in range(9)]
    return b"".join(lines) + b'{"model":"m:1b","response":"","done":true,"eval_count":9}\n'


def sse(rng: random.Random) -> bytes:
    end = rng.choice([b"\n\n", b"\r\n\r\n"])
    events = [b'data: {"choices":[{"delta":{"content":"%b"}}]}' % TEXT for _ in range(9)]
    return end.join([*events, b"data: [DONE]", b""])


def document(rng: random.Random) -> bytes:
    return b'{"response":"%b","done":true}' % (TEXT * rng.randrange(1, 3000))


KINDS = [
    (GENERATE, b"application/x-ndjson", ndjson),
    ("/v1/chat/completions", b"text/event-stream", sse),
    (GENERATE, b"application/json; charset=utf-8", document),
    ("/api/show", b"application/json", document),
    ("/api/pull", b"application/x-ndjson", ndjson),
]


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """In pieces: single bytes, a few, by line, or all at once."""
    how = rng.choice(["bytes", "few", "lines", "whole"])
    if how == "bytes" and len(data) <= SMALL:
        return [data[i : i + 1] for i in range(len(data))]
    if how == "lines":
        return data.splitlines(keepends=True)
    if how == "whole":
        return [data]
    marks = sorted(rng.sample(range(1, len(data)), min(len(data) - 1, rng.randrange(1, 40))))
    return [data[a:b] for a, b in zip([0, *marks], [*marks, len(data)], strict=True)]


def case(seed: int) -> Case:
    rng = random.Random(seed)
    route, content_type, make = rng.choice(KINDS)
    data = make(rng)
    framing = rng.choice(["length", "chunked", "chunked", "trailed", "close"])
    if rng.random() < 0.25:
        packed = gzip.compress(data)
        return Case(route, content_type, cut(rng, packed), framing, b"Content-Encoding: gzip\r\n")
    return Case(route, content_type, cut(rng, data), framing)


@pytest.mark.parametrize("seed", range(60))
async def test_the_client_reads_what_the_upstream_wrote(seed: int) -> None:
    """Each seed is another framing, another cutting; the connection serves on afterwards."""
    told = case(seed)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.send(told.head)
            for number, piece in enumerate(told.wire):
                peer.send(piece)
                if number % 3 == 0:
                    await asyncio.sleep(0)
            peer.send(told.end)
            if told.framing == "close":
                peer.finish()
                return

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
        asyncio.timeout(10),
    ):
        for _ in range(3):
            answer = await client.request("POST", told.route, call(GENERATE, "m:1b", stream=True))
            assert answer.status == 200
            assert answer.whole
            assert answer.body == told.body
            encodings = ["gzip"] if told.extra else []
            assert answer.all("Content-Encoding") == encodings
            assert answer["Content-Type"].encode() == told.content_type
            if told.chunked and answer.get("Transfer-Encoding") == "chunked":
                assert answer.chunks == told.pieces
        assert len(upstream.peers) == (3 if told.framing == "close" else 1)


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
        asyncio.timeout(5),
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
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
        asyncio.timeout(10),
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
            in_front_of(upstream.port) as proxy,
            proxy.client() as client,
            asyncio.timeout(10),
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
