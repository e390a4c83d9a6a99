"""The upstream side of the wire: pooled connections that hand bytes on as they arrive.

One request at a time on a connection, no pipelining, never half-closed (Ollama takes a
half-close for a client that left). llhttp, through httptools, judges every byte before it
is passed on, so what the client gets is well-formed whatever the upstream sent. An answer
goes through three moments that callers can await or be told of:

- ``ready()``: the head is complete and there is a first body byte, or the body is empty.
  Until then nothing has been shown to the client, and a second model may still be asked.
  ``ready_by(until)`` is the same wait with an end; it may be taken up again. ``Pool.look_again``
  ends all such waits early, so that whoever waits looks at what has changed.
- ``attach(sink)``: from here body pieces go to ``sink`` as the parser accepts them.
- ``sink.ended(error)``: the answer is complete (None), or how it broke.
"""

from __future__ import annotations

import asyncio
import re
import select
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, cast

import httptools

from modelsplit_policy.hints import OllamaSteps, ollama_steps
from modelsplit_proxy.http.keepalive import keep_alive
from modelsplit_proxy.http.origin_guard import is_loopback
from modelsplit_proxy.http.upstream_state import (
    ENDED,
    RECEIVING,
    TRANSITIONS,
    ConnectionEvent,
    ConnectionState,
)

if TYPE_CHECKING:
    from modelsplit_policy.failures import Failure


@dataclass(frozen=True, slots=True)
class UpstreamTarget:
    """Where Ollama is: ``host`` and ``port`` to connect to, ``authority`` for ``Host``.

    ``host_line``: that header line, as every request carries it. ``has_unit``: systemd runs it
    here, as far as anybody can tell; ``steps``: so people are told to type this about it.
    """

    host: str
    port: int
    authority: str
    has_unit: bool = field(default=False, repr=False)
    steps: OllamaSteps = field(init=False, repr=False)
    host_line: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        line = b"Host: %b\r\n" % self.authority.encode("ascii")
        object.__setattr__(self, "host_line", line)
        is_here = is_loopback(self.host)
        steps = ollama_steps(self.authority, is_here=is_here, has_unit=self.has_unit)
        object.__setattr__(self, "steps", steps)


# Bounds on what an upstream may put into a head: far above anything Ollama sends, far
# below what would hurt us.
MAX_HEAD_BYTES: Final = 256 * 1024
MAX_HEADERS: Final = 256
# A piece of a head counts as so many bytes at least: the parser copies what it has of a line
# at each piece, so a head in too many of them would take seconds.
_PIECE_MIN_BYTES: Final = 64

# RFC 9112 §4: a reason phrase holds tabs, spaces and what can be seen.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Fault(Enum):
    """How the upstream failed us, below HTTP."""

    REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    DNS = "dns"
    RESET = "reset"
    TRUNCATED = "truncated"
    PROTOCOL = "protocol"


class UpstreamError(Exception):
    """The exchange failed. ``fault`` says how; the text says what was seen.

    ``failure``: what that amounts to, where whoever was asked has its own words for it.
    """

    def __init__(self, fault: Fault, detail: str, failure: Failure | None = None) -> None:
        super().__init__(detail)
        self.fault = fault
        self.failure = failure


@dataclass(slots=True)
class UpstreamHead:
    """A response head: status, reason phrase and raw header pairs in order.

    ``length`` is the body's size in bytes where the head says it, else None.
    """

    status: int
    phrase: bytes
    headers: list[tuple[bytes, bytes]]
    length: int | None

    def get(self, name: bytes) -> bytes:
        """The first value of ``name`` (lower case), or empty."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return b""


class BodySink(Protocol):
    """Receives one answer's body. Called from the loop's read callback: must not block."""

    def data(self, piece: bytes) -> None: ...
    def ended(self, error: UpstreamError | None) -> None: ...


class Carrier(Protocol):
    """What an exchange runs over."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def abandon(self, exchange: Exchange) -> None: ...


class Exchange:
    """One request and its answer on one connection."""

    __slots__ = (
        "_begun",
        "_connection",
        "_early",
        "_error",
        "_loop",
        "_waiter",
        "complete",
        "head",
        "sink",
    )

    def __init__(self, connection: Carrier, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._early: list[bytes] = []
        self._begun = False
        self._error: UpstreamError | None = None
        self.sink: BodySink | None = None
        self.head: UpstreamHead | None = None
        self.complete = False

    async def ready(self) -> UpstreamHead:
        """Wait for the head and the first body byte; raise UpstreamError if it broke before."""
        while (head := await self.ready_by(None)) is None:
            pass
        return head

    async def ready_by(self, until: float | None) -> UpstreamHead | None:
        """The same wait until a moment in loop time.

        None: that moment, or ``look_again``, came first.
        """
        if not self._begun and self._error is None:
            self._waiter = self._loop.create_future()
            timer = None if until is None else self._loop.call_at(until, self._wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        if self._begun:
            return self.head
        if self._error is not None:
            raise self._error
        return None

    @property
    def has_begun(self) -> bool:
        """Whether there is a first body byte, or the answer is whole without one."""
        return self._begun

    @property
    def is_empty(self) -> bool:
        """True if the answer is whole and has no body. Asked before a sink is attached."""
        return self.complete and not self._early

    def attach(self, sink: BodySink) -> None:
        """Send the body to ``sink``: first what is here already, then what comes."""
        self.sink = sink
        early, self._early = self._early, []
        for piece in early:
            sink.data(piece)
        if self.complete or self._error is not None:
            sink.ended(self._error)

    def pause(self) -> None:
        # A connection whose answer is complete is somebody else's.
        if not self.complete:
            self._connection.pause()

    def resume(self) -> None:
        if not self.complete:
            self._connection.resume()

    def abort(self) -> None:
        """Stop caring. An unfinished upstream is cut off, which makes Ollama stop."""
        self.sink = None
        if self._waiter is not None:
            self._waiter.cancel()
        if not self.complete:
            self._connection.abandon(self)

    def look_again(self) -> None:
        """End the wait for the answer to begin, if there is one; it may be taken up again."""
        self._wake()

    # What the connection calls.

    def on_early(self, piece: bytes) -> None:
        """A piece of the body while nobody has attached a sink for it."""
        self._early.append(piece)
        if not self._begun:
            self._begun = True
            self._wake()

    def on_complete(self) -> None:
        self.complete = True
        if not self._begun:
            self._begun = True
            self._wake()
        if self.sink is not None:
            self.sink.ended(None)

    def on_error(self, error: UpstreamError) -> None:
        if self.complete or self._error is not None:
            return
        self._error = error
        self._wake()
        if self.sink is not None:
            self.sink.ended(error)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Owner(Protocol):
    """Who keeps a connection between two exchanges (``upstream_pool``)."""

    def give_back(self, connection: UpstreamConnection) -> None: ...
    def forget(self, connection: UpstreamConnection, *, unfinished: bool) -> None:
        """It is closed; ``unfinished``: by the other end, in the middle of an exchange."""


class UpstreamConnection(asyncio.Protocol):
    """One TCP connection to the upstream; parses answers, knows when it may be reused.

    What it may do next is in ``upstream_state``; there is an exchange in HEAD and RECEIVING.
    """

    __slots__ = (
        "_exchange",
        "_framing_bytes",
        "_got_body",
        "_head_request",
        "_headers",
        "_loop",
        "_owner",
        "_parser",
        "_paused",
        "_phrase",
        "_poll",
        "_sending",
        "_state",
        "_transport",
        "_writable",
        "idle_since",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        # Made when the connection is reused for the first time.
        self._poll: select.poll | None = None
        self._exchange: Exchange | None = None
        # Made while the upstream takes no more, for whoever waits until it does.
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self._state = ConnectionState.IDLE
        self.idle_since = 0.0
        # The message being received; ``start`` begins the next one.
        self._phrase = b""
        self._headers: list[tuple[bytes, bytes]] = []
        # What has come since the last byte of a body: a head, chunk sizes, trailers.
        self._framing_bytes = 0
        self._got_body = False
        self._head_request = False
        self._sending = False

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self._state}>"

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def look_again(self) -> None:
        """As ``Exchange.look_again``, of the one under way."""
        if self._exchange is not None:
            self._exchange.look_again()

    def quiet(self) -> bool:
        """True if an idle connection has nothing to say: no late bytes, no FIN.

        Asked before reuse. The loop may not have seen a close that the kernel already
        has; a request sent into it would fail, and a POST must not be sent twice.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def start(self, *, head_request: bool, body_follows: bool = False) -> Exchange:
        """Begin an exchange; the caller then writes the request.

        ``body_follows``: the request is written piece by piece, up to ``sent``.
        """
        self._state = TRANSITIONS[self._state, ConnectionEvent.START]
        self._phrase, self._headers, self._framing_bytes = b"", [], 0
        self._head_request, self._sending = head_request, body_follows
        exchange = self._exchange = Exchange(self, self._loop)
        return exchange

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def sent(self) -> None:
        """The request is whole. Until then an answer ends the connection."""
        self._sending = False

    async def drain(self) -> None:
        """Wait until the upstream has taken enough of what was written."""
        if self._writable is not None:
            await asyncio.wait([self._writable])

    def pause(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._paused = True
            transport.pause_reading()

    def resume(self) -> None:
        transport = self._transport
        if self._paused and transport is not None and not transport.is_closing():
            self._paused = False
            transport.resume_reading()

    def abandon(self, exchange: Exchange) -> None:
        """``exchange`` is over for us; cut the line if its answer is not complete."""
        if self._exchange is exchange:
            self._exchange = None
            self.abort()

    def abort(self) -> None:
        """Close at once; what was not sent is lost."""
        self._cut()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close when what was written is sent."""
        self._cut()
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        keep_alive(transport)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # Bytes nobody asked for: whatever they are, they must not become the
            # beginning of the next answer.
            self.abort()
            return
        self._got_body = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(Fault.PROTOCOL, "it switched protocols unasked")
            return
        except httptools.HttpParserError as error:
            if self._state not in ENDED:
                self._fail(Fault.PROTOCOL, f"it sent malformed HTTP ({_parser_words(error)})")
                return
            # The answer is whole. What follows it would have been dropped unread, had it
            # come a moment later.
            self._surplus()
        if self._state in ENDED:
            if self._head_request and not data.endswith(b"\r\n\r\n"):
                self._surplus()  # something follows the head that answers a HEAD
            self._finish(exchange)
        elif not self._got_body:
            self._count_framing(data, exchange)

    def eof_received(self) -> bool:
        exchange = self._exchange
        if exchange is not None and self._state is ConnectionState.BODY_TO_EOF:
            self._state = TRANSITIONS[self._state, ConnectionEvent.END_CLOSING]
            self._finish(exchange)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # how the line broke changes nothing about what was missing
        self._transport = None
        self._cut()
        self.resume_writing()
        exchange, self._exchange = self._exchange, None
        self._owner.forget(self, unfinished=exchange is not None)
        if exchange is None:
            return
        if exchange.head is None:
            exchange.on_error(UpstreamError(Fault.RESET, "it closed the connection unanswered"))
        else:
            exchange.on_error(UpstreamError(Fault.TRUNCATED, "it closed the connection mid-answer"))

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set_result(None)

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._state in ENDED:
            self._surplus()

    def on_status(self, status: bytes) -> None:
        self._phrase += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._state is not ConnectionState.HEAD:
            # A trailer, or the head of an answer nobody asked for: neither belongs to
            # the head that has been handed on.
            return
        if len(self._headers) >= MAX_HEADERS:
            raise ValueError(f"more than {MAX_HEADERS} header lines")
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._state is not ConnectionState.HEAD:
            return
        status = self._parser.get_status_code()
        _check_first_line(self._parser.get_http_version(), status, self._phrase)
        if status < 200:
            self._informational(status)
            return
        length, chunked = _framing(self._headers)
        bodiless = self._head_request or status in {204, 304}
        unsized = length is None and not chunked and not bodiless
        assert self._exchange is not None
        self._exchange.head = UpstreamHead(status, self._phrase, self._headers, length)
        self._state = TRANSITIONS[
            self._state, ConnectionEvent.UNSIZED if unsized else ConnectionEvent.SIZED
        ]
        if self._head_request:
            # llhttp cannot know that this answers a HEAD and would wait for the body.
            self.on_message_complete()

    def on_body(self, piece: bytes) -> None:
        exchange = self._exchange
        self._got_body = True
        self._framing_bytes = 0
        if self._state not in RECEIVING:
            if self._state in ENDED:
                self._surplus()
        elif exchange is not None and exchange.sink is not None:
            exchange.sink.data(piece)
        elif exchange is not None:
            exchange.on_early(piece)

    def on_message_complete(self) -> None:
        if self._state is not ConnectionState.BODY:
            return
        # llhttp clears its keep-alive flag after this callback.
        fit = self._parser.should_keep_alive() and not self._sending
        self._state = TRANSITIONS[
            self._state, ConnectionEvent.END if fit else ConnectionEvent.END_CLOSING
        ]

    # inside

    def _count_framing(self, data: bytes, exchange: Exchange) -> None:
        """Bound what is no body, so that a head or a trailer without an end is not kept."""
        self._framing_bytes += max(len(data), _PIECE_MIN_BYTES)
        if self._framing_bytes > MAX_HEAD_BYTES:
            what = "response head" if exchange.head is None else "trailer or chunk extension"
            self._fail(Fault.PROTOCOL, f"its {what} exceeds {MAX_HEAD_BYTES} bytes")

    def _informational(self, status: int) -> None:
        """1xx: 100 and 103 come before the real head. 101 was never asked for."""
        if status == 101:
            raise ValueError("it switched protocols unasked")
        self._phrase, self._headers = b"", []

    def _finish(self, exchange: Exchange) -> None:
        self._exchange = None
        if self._head_request:
            self._parser = httptools.HttpResponseParser(self)
        if self._state is ConnectionState.WHOLE and self.open:
            if self._paused:  # by a slow client; nobody but the next answer would notice
                self.resume()
            self._state = TRANSITIONS[self._state, ConnectionEvent.REST]
            self._owner.give_back(self)
        else:
            self.close()
        exchange.on_complete()

    def _surplus(self) -> None:
        """Bytes have come that belong to no answer: they must not begin the next one."""
        self._state = TRANSITIONS[self._state, ConnectionEvent.SURPLUS]

    def _cut(self) -> None:
        if self._state is not ConnectionState.CLOSED:
            self._state = TRANSITIONS[self._state, ConnectionEvent.CUT]

    def _fail(self, fault: Fault, detail: str) -> None:
        exchange, self._exchange = self._exchange, None
        self.abort()
        if exchange is not None:
            exchange.on_error(UpstreamError(fault, detail))


def _parser_words(error: httptools.HttpParserError) -> str:
    """llhttp's own fixed words, or those of the callback that refused."""
    refused = error.__context__
    return str(refused if isinstance(refused, ValueError) else error)


def _check_first_line(version: str, status: int, phrase: bytes) -> None:
    """What llhttp lets through and no client should see; ValueError if there is any."""
    if version not in {"1.0", "1.1"}:
        raise ValueError(f"HTTP/{version} was not asked for")
    if status < 100:
        raise ValueError(f"{status} is no status")
    if _CONTROL.search(phrase) is not None:
        raise ValueError("control characters in the reason phrase")


def _framing(headers: list[tuple[bytes, bytes]]) -> tuple[int | None, bool]:
    """Content-Length and whether the body is chunked; llhttp has refused contradictions."""
    length: int | None = None
    chunked = False
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"content-length":
            length = int(value)
        elif lowered == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                # Framing ends here: a coding that stayed in the body would be unreadable.
                raise ValueError("a transfer coding other than chunked")
            chunked = True
    return length, chunked
