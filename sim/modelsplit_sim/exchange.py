"""One request and the writing of its answer, good or deliberately bad."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from .clock import http_date
from .faults import AROUND, Kind
from .reply import GO_BUFFER, Headers, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from .faults import Fault
    from .journal import Call

_HIGH_WATER = 256 * 1024
# Go reads this much of an unread body before it gives the connection up (observed: 851916 bytes
# of a chunked upload had left curl when the early 200 came).
_DISCARD_LIMIT = 256 * 1024
# Anthropic's own status.
_OVERLOADED = 529


class DroppedError(Exception):
    """The connection is finished by intent; nothing more is to be written."""


class AnsweredError(Exception):
    """The answer is out, by a fault but cleanly framed; the connection goes on.

    whole: nothing of it is missing, as with a refusal.
    """

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.whole = whole


class Wire:
    """What an exchange needs of its connection; implemented by wire.Connection."""

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    async def drain(self) -> None:
        """Return when the socket takes more."""
        raise NotImplementedError

    def reset(self) -> None:
        """RST."""
        raise NotImplementedError

    def finish(self, *, linger: bool = False) -> None:
        """FIN after what was written; linger: close later, the client may still upload."""
        raise NotImplementedError


@dataclass(slots=True)
class Request:
    """The head as it arrived; header names and values as sent, decoded as Latin-1."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    keep_alive: bool
    body: Body

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    @property
    def expects_continue(self) -> bool:
        return (self.header("expect") or "").lower() == "100-continue"


@dataclass(slots=True)
class Body:
    """The request body as it comes in; the reader sets the pace.

    flow is told True when enough is buffered and False when more is wanted.
    """

    flow: Callable[[bool], None]
    keep: int
    size: int = 0
    complete: bool = False
    head: bytes = b""
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    _chunks: deque[bytes] = field(default_factory=deque)
    _buffered: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        self._digest.update(data)
        if len(self.head) < self.keep:
            self.head += data[: self.keep - len(self.head)]
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > _HIGH_WATER:
            self.flow(True)
        self._wake.set()

    def end(self) -> None:
        self.complete = True
        self._wake.set()

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        while not self._chunks:
            if self.complete:
                return b""
            self._wake.clear()
            await self._wake.wait()
        data = self._chunks.popleft()
        self._buffered -= len(data)
        self.flow(False)
        return data

    async def read_all(self) -> bytes:
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def discard(self, limit: int) -> bool:
        """Read on until the end; False when more than `limit` bytes came."""
        seen = 0
        while seen <= limit:
            piece = await self.read()
            if not piece:
                return True
            seen += len(piece)
        return False


class Exchange:
    """Writes one answer. `call_fault` is the fault that struck the request, of any kind."""

    def __init__(self, wire: Wire, request: Request, call: Call) -> None:
        self.request = request
        self.call = call
        self.call_fault: Fault | None = None
        self.extra_headers: Headers = ()
        self.tail: Callable[[], bytes] = bytes  # what a half-closing client gets mid-stream
        self.streaming = False
        self.last = False  # the connection ends with this answer
        self.done = False
        self.was_queued = False  # for a load, when its client left
        self._wire = wire
        self._raw = False  # neither chunked nor bodiless: bytes as they are
        self._linger = False
        self._continued = False

    async def read_body(self) -> bytes:
        self.send_continue()
        return await self.request.body.read_all()

    def send_continue(self) -> None:
        """Observed: 100 Continue goes out when, and only when, the body is wanted."""
        if self.request.expects_continue and not self._continued:
            self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._continued = True

    async def send(self, reply: Reply) -> None:
        """A whole answer, with Content-Length unless it is long."""
        if reply.chunked or len(reply.body) > GO_BUFFER:
            await self.begin(reply.headers, reply.status)
            await self.chunk(reply.body)
            await self.end()
            return
        framing: Headers = ()
        if not reply.bare:
            framing = (("Content-Length", str(self._length(len(reply.body)))),)
        await self._send_head(reply.status, reply.headers, framing)
        body = b"" if self.request.method == "HEAD" or reply.bare else reply.body
        self._wire.write(body)
        await self._close_answer()

    async def begin(self, headers: Headers, status: int = 200) -> None:
        """The head of a streamed answer."""
        framing: Headers = (("Transfer-Encoding", "chunked"),)
        if self._is(Kind.LENGTH_SHORT, Kind.LENGTH_LONG):
            framing = (("Content-Length", str(self._length(4096))),)
            self._raw = True
        elif self._is(Kind.CLOSE_DELIMITED) or self.request.version == "1.0":
            framing = ()
            self._raw = self.last = True
        await self._send_head(status, headers, framing)
        self.streaming = True

    async def chunk(self, data: bytes) -> None:
        """One piece, flushed alone; waits while the socket is full."""
        if data and self.request.method != "HEAD":
            self._wire.write(data if self._raw else frame(data))
            await self._wire.drain()

    async def end(self) -> None:
        """The clean end of a streamed answer."""
        if not self._raw and self.request.method != "HEAD":
            self._wire.write(b"0\r\n\r\n")
        await self._close_answer()

    def farewell(self) -> None:
        """Observed: a client that half-closed gets the error line and a proper end."""
        if self.streaming and not self.done and not self._raw:
            tail = self.tail()
            self._wire.write((frame(tail) if tail else b"") + b"0\r\n\r\n")

    @property
    def fault(self) -> Fault | None:
        """The fault in how this answer is written, if that is its kind."""
        fault = self.call_fault
        return fault if fault is not None and fault.kind in AROUND else None

    def ended(self, *, whole: bool = False) -> AnsweredError:
        """Raise this after a clean end that leaves the connection usable."""
        return AnsweredError(whole=whole)

    def drop(self, *, reset: bool = False) -> DroppedError:
        """End the connection here; raise what this returns."""
        if reset:
            self._wire.reset()
        else:
            self._wire.finish()
        return DroppedError()

    def raw(self, data: bytes) -> None:
        """Bytes as they are, for faults."""
        self._wire.write(data)

    async def _send_head(self, status: int, headers: Headers, framing: Headers) -> None:
        self.last = self.last or not self.request.keep_alive
        if not await self._settle_body():
            self.last = self._linger = True
        if self._is(Kind.CLOSE_DELIMITED):
            framing = ()
            self.last = True
        if self._is(Kind.LENGTH_LONG):
            self.last = True
        head = self._head(status, headers, framing)
        self.call.status = status
        if self._is(Kind.DRIP):
            await self._drip(head)
        else:
            self._wire.write(head)
        self.call.first_byte_at = self.call.first_byte_at or asyncio.get_running_loop().time()

    def _head(self, status: int, headers: Headers, framing: Headers) -> bytes:
        """Go's order: the handler's headers by name, then Date, length, Connection, encoding."""
        named = sorted((*headers, *self.extra_headers, *self._fault_headers()), key=_sort_key)
        lines = [*named, ("Date", http_date())]
        length = [line for line in framing if line[0] == "Content-Length"]
        lines += length
        if self.last and self.request.version != "1.0":
            lines = [line for line in lines if line[0] != "Connection"]
            lines.append(("Connection", "close"))
        lines += [line for line in framing if line not in length]
        phrase = "Overloaded" if status == _OVERLOADED else HTTPStatus(status).phrase
        first = f"HTTP/{self.request.version} {status} {phrase}"
        text = "\r\n".join([first, *(f"{name}: {value}" for name, value in lines)])
        return text.encode("latin-1") + b"\r\n\r\n"

    def _fault_headers(self) -> Headers:
        fault = self.fault
        if fault is not None and fault.kind is Kind.MANY_HEADERS:
            return tuple((f"X-Filler-{index}", "x") for index in range(fault.count))
        if fault is not None and fault.kind is Kind.BIG_HEADER:
            return (("X-Filler", "x" * fault.count),)
        return ()

    async def _drip(self, head: bytes) -> None:
        pause = self.fault.seconds if self.fault else 0.0
        for index in range(len(head)):
            self._wire.write(head[index : index + 1])
            await asyncio.sleep(pause)

    async def _settle_body(self) -> bool:
        """What Go does with an unread body before it answers; False: the connection must end."""
        body = self.request.body
        if body.complete:
            return True
        if self.request.expects_continue and not self._continued:
            return False
        length = self.request.header("content-length")
        if length is not None and int(length) - body.size > _DISCARD_LIMIT:
            return False
        return await body.discard(_DISCARD_LIMIT)

    async def _close_answer(self) -> None:
        if self._is(Kind.EXTRA_BYTES) and self.fault:
            self._wire.write(self.fault.text.encode())
        self.streaming, self.done = False, True
        await self._wire.drain()
        if self.last:
            self._wire.finish(linger=self._linger)

    def _is(self, *kinds: Kind) -> bool:
        return self.fault is not None and self.fault.kind in kinds

    def _length(self, true_length: int) -> int:
        if self._is(Kind.LENGTH_SHORT):
            return true_length // 2
        return true_length * 2 + 1 if self._is(Kind.LENGTH_LONG) else true_length


def frame(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _sort_key(header: tuple[str, str]) -> str:
    return header[0]
