"""Random answers of an upstream, told byte by byte, and what a client reads of them.

One generator for the property test and for the measured run: an answer has a route, a body,
pieces, a framing, and a way to be written. Told step by step, the upstream writes a piece only
once the client has read everything before it; an answer that is held back anywhere on the
way then never ends.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

from support.calls import call
from support.raw import chunk

if TYPE_CHECKING:
    from support.raw import Peer
    from support.wire import Answer, Client

# Characters of one to four bytes, and what JSON escapes.
WORDS = ("Größe ", "漢字", "🚀", "\\u2028", '\\"done\\":true', " <>& ", "a")
MODEL = "m:1b"
# Answers told step by step cost a round trip a piece, so they have not many.
_MOST_STEPS = 120
_MOST_BYTES_ALONE = 600

NDJSON, SSE, JSON = b"application/x-ndjson", b"text/event-stream", b"application/json"
LENGTH, CHUNKED, TRAILED, CLOSE = "length", "chunked", "trailed", "close"


@dataclass(frozen=True)
class Told:
    """One answer. ``held``: the proxy looks at it whole before the client sees any of it."""

    route: str
    kind: bytes
    body: bytes
    pieces: tuple[bytes, ...]
    framing: str
    encoding: bytes = b""
    held: bool = False
    stepwise: bool = False
    # Every how many bytes of the wire there is a new write; 0: one per piece.
    write_bytes: int = 0

    def __repr__(self) -> str:
        lengths = [len(piece) for piece in self.pieces[:20]]
        how = "step by step" if self.stepwise else f"writes of {self.write_bytes}"
        return (
            f"<Told {self.route} {self.framing} {self.encoding!r} {how}, "
            f"pieces {lengths} of {len(self.pieces)}, body {self.body[:200]!r}>"
        )

    @property
    def head(self) -> bytes:
        lines = [b"HTTP/1.1 200 OK", b"Content-Type: %b" % self.kind]
        if self.encoding:
            lines.append(b"Content-Encoding: %b" % self.encoding)
        lines += {
            LENGTH: [b"Content-Length: %d" % len(self.body)],
            CHUNKED: [b"Transfer-Encoding: chunked"],
            TRAILED: [b"Transfer-Encoding: chunked", b"Trailer: X-Sum"],
            CLOSE: [],
        }[self.framing]
        return b"\r\n".join([*lines, b"", b""])

    @property
    def steps(self) -> list[bytes]:
        """Each piece as it stands on the wire."""
        if self.framing in {CHUNKED, TRAILED}:
            return [chunk(piece) for piece in self.pieces]
        return list(self.pieces)

    @property
    def end(self) -> bytes:
        return {CHUNKED: b"0\r\n\r\n", TRAILED: b"0\r\nX-Sum: 1\r\n\r\n"}.get(self.framing, b"")


# --- Bodies -------------------------------------------------------------------------------------


def _words(rng: Random) -> bytes:
    return "".join(rng.choices(WORDS, k=rng.randrange(1, 12))).encode()


def _ndjson(rng: Random) -> bytes:
    token = b'{"model":"m:1b","response":"%b","done":false}\n'
    odd = [b"\n", b" \r\n", b'{"a": [1, 2e5, {"done":true}]}\n', b"\xff\xfe not JSON\n"]
    lines = [token % _words(rng) for _ in range(rng.randrange(1, 12))]
    if rng.random() < 0.2:
        lines.insert(rng.randrange(len(lines)), rng.choice(odd))
    return b"".join(lines) + b'{"model":"m:1b","response":"","done":true,"eval_count":9}\n'


def _events(rng: Random, token: bytes, last: bytes) -> bytes:
    ending = rng.choice([b"\n\n", b"\n\n", b"\r\n\r\n"])
    events = [token % _words(rng) for _ in range(rng.randrange(1, 9))]
    if rng.random() < 0.3:
        events.insert(rng.randrange(len(events)), b": a comment, or: \xe6\xbc")
    return ending.join([*events, last, b""])


def _openai(rng: Random) -> bytes:
    token = b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":null}]}'
    end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]'
    return _events(rng, token, end)


def _responses(rng: Random) -> bytes:
    token = b'event: response.output_text.delta\ndata: {"delta":"%b"}'
    end = b'event: response.completed\ndata: {"response":{},"type":"response.completed"}'
    return _events(rng, token, end)


def _messages(rng: Random) -> bytes:
    token = b'event: content_block_delta\ndata: {"delta":{"text":"%b"}}'
    return _events(rng, token, b'event: message_stop\ndata: {"type":"message_stop"}')


def _document(rng: Random) -> bytes:
    words = _words(rng) * rng.choice([1, 1, 1, 50, 2000])
    space = rng.choice([b"", b"\n", b" \r\n"])
    return b'{"response":"%b","done":true}%b' % (words, space)


def _vectors(rng: Random) -> bytes:
    numbers = b",".join(b"%.6f" % rng.random() for _ in range(rng.choice([1, 300, 40_000])))
    return b'{"model":"m:1b","embeddings":[[%b]]}' % numbers


def _bytes(rng: Random) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 2, 300, 300, 5000, 200_000]))


Make = Callable[[Random], bytes]
STREAMED: tuple[tuple[str, bytes, Make], ...] = (
    ("/api/generate", NDJSON, _ndjson),
    ("/api/chat", NDJSON, _ndjson),
    ("/v1/chat/completions", SSE, _openai),
    ("/v1/responses", SSE, _responses),
    ("/v1/messages", SSE, _messages),
)
HELD: tuple[tuple[str, bytes, Make], ...] = (
    ("/api/generate", JSON, _document),
    ("/api/embed", JSON, _vectors),
)
PASSED: tuple[tuple[str, bytes, Make], ...] = (
    ("/api/pull", NDJSON, _ndjson),
    ("/not/yet/known", b"application/octet-stream", _bytes),
    ("/v1/not/yet/known", JSON, _document),
)


# --- One answer ---------------------------------------------------------------------------------


def told(rng: Random) -> Told:
    """A random answer."""
    table = rng.choice([STREAMED, STREAMED, HELD, PASSED])
    route, kind, make = rng.choice(table)
    body, encoding = _encoded(rng, make(rng))
    held = table is HELD
    pieces = _cut(rng, body)
    stepwise = not held and len(pieces) <= _MOST_STEPS and rng.random() < 0.5
    return Told(
        route,
        kind,
        body,
        tuple(pieces),
        rng.choice([LENGTH, CHUNKED, CHUNKED, TRAILED, CLOSE]),
        encoding,
        held=held,
        stepwise=stepwise,
        write_bytes=rng.choice([0, 0, 1, 7, 1000]) if len(body) < 5000 else 0,
    )


def _encoded(rng: Random, body: bytes) -> tuple[bytes, bytes]:
    """Packed or not, and how; what says that it is packed need not be, to a proxy."""
    how = rng.choice([b"", b"", b"", b"", b"gzip", b"deflate", b"br"])
    if how == b"gzip":
        return gzip.compress(body), how
    return (zlib.compress(body), how) if how == b"deflate" else (body, how)


def _cut(rng: Random, data: bytes) -> list[bytes]:
    """In pieces: single bytes, a few anywhere, by line, or all at once. None is empty."""
    how = rng.choice(["bytes", "few", "few", "lines", "whole"])
    if how == "bytes" and len(data) <= _MOST_BYTES_ALONE:
        return [data[i : i + 1] for i in range(len(data))]
    if how == "lines":
        return data.splitlines(keepends=True)
    if how == "whole" or len(data) < 2:
        return [data] if data else []
    marks = sorted(rng.sample(range(1, len(data)), min(len(data) - 1, rng.randrange(1, 40))))
    return [data[a:b] for a, b in pairwise([0, *marks, len(data)])]


# --- Telling and reading ------------------------------------------------------------------------


@dataclass
class Exchange:
    """One answer on its way. ``steps``: how many were read before the next was written."""

    told: Told
    read: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    steps: int = 0

    async def reached(self, count: int) -> None:
        while self.read < count:
            self.moved.clear()
            await self.moved.wait()


class Teller:
    """Both ends: the upstream's script, and a client that reads what it tells.

    ``make``: of an answer, what follows it on its way.
    """

    def __init__(self, make: Callable[[Told], Exchange] = Exchange) -> None:
        self._make = make
        self._running: dict[str, Exchange] = {}
        self._count = 0

    async def script(self, peer: Peer) -> None:
        while True:
            head, _ = await peer.request()
            target = head.split(b" ", 2)[1].decode()
            exchange = self._running[target.partition("?case=")[2]]
            await self._tell(peer, exchange)
            if exchange.told.framing == CLOSE:
                peer.finish()
                return

    async def _tell(self, peer: Peer, exchange: Exchange) -> None:
        answer = exchange.told
        peer.send(answer.head)
        sent = 0
        for number, (piece, step) in enumerate(zip(answer.pieces, answer.steps, strict=True)):
            for write in _writes(step, answer.write_bytes):
                peer.send(write)
            sent += len(piece)
            if answer.stepwise:
                await exchange.reached(sent)
                exchange.steps += 1
            elif number % 3 == 0:
                await peer.flush()
        peer.send(answer.end)

    async def ask(self, client: Client, answer: Told) -> tuple[Answer, Exchange]:
        """Ask for ``answer`` and read it, as it comes, to its end."""
        self._count += 1
        case = str(self._count)
        exchange = self._running[case] = self._make(answer)
        try:
            # What is pulled is another model afterwards: of that Ollama is asked.
            model = f"other-{MODEL}" if answer.route == "/api/pull" else MODEL
            body = call("/api/generate", model, stream=True)
            headers = {"X-LLM-Role": "PLANNER"}
            await client.ask("POST", f"{answer.route}?case={case}", body, headers)
            read = await client.head()
            async for piece in _as_it_comes(client, read):
                read.chunks.append(piece)
                exchange.read += len(piece)
                exchange.moved.set()
            read.body = b"".join(read.chunks)
        finally:
            del self._running[case]
        return read, exchange


def _writes(step: bytes, size: int) -> list[bytes]:
    return [step[i : i + size] for i in range(0, len(step), size)] if size else [step]


async def _as_it_comes(client: Client, answer: Answer) -> AsyncIterator[bytes]:
    """The body; where it has a length, not only once it is whole."""
    length = answer.get("Content-Length")
    if length is None:
        async for piece in client.pieces(answer):
            yield piece
        return
    assert client.reader is not None
    left = int(length)
    while left:
        piece = await client.reader.read(left)
        if not piece:
            answer.whole = False
            return
        left -= len(piece)
        yield piece


def problem(answer: Told, read: Answer) -> str | None:
    """What is wrong with what a client read; None: it is what the upstream wrote."""
    if read.status != 200:
        return f"status {read.status}: {read.body[:200]!r}"
    if not read.whole:
        return "cut off"
    if read.body != answer.body:
        at = next(
            (i for i, (a, b) in enumerate(zip(read.body, answer.body, strict=False)) if a != b),
            min(len(read.body), len(answer.body)),
        )
        return (
            f"differs at byte {at}: {read.body[at : at + 80]!r} for {answer.body[at : at + 80]!r}"
        )
    if read.get("Content-Type") != answer.kind.decode():
        return f"type {read.get('Content-Type')}"
    if (read.get("Content-Encoding") or "") != answer.encoding.decode():
        return f"encoding {read.get('Content-Encoding')}"
    return None
