"""One client connection: what is read of it, and back-pressure for what is written.

aiohttp parses requests and cancels a handler when its client leaves. What it is fed is ours:
one request at a time, so that each is judged and answered before the bytes behind it are
looked at, and nothing that is still arriving can fill the memory. What leans on the inside of
aiohttp's ``RequestHandler`` is in this module and, for its two ends, in ``server`` and
``downstream``; the version range is pinned, and ``tests/proxy/http`` holds it in place:

- ``_parser``: fed here, in ``data_received``, which replaces aiohttp's own;
- ``_messages``, ``_request_count`` and ``_waiter``: how a parsed request, or an ``ErrInfo``,
  reaches ``start()``;
- ``start()`` makes requests with ``request_factory``, and calls ``prepare``, ``write_eof`` and
  ``keep_alive`` of what a handler returns;
- ``_task_handler``: what handles requests; cancelling it cancels the handler;
- ``_buffer_paused`` and ``_resume_reading_if_drained``: who may read on, once it was paused;
- ``pause_writing`` and ``resume_writing`` arrive from the transport.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.quantity import in_digits
from modelsplit_proxy.http.aiohttp_server import (
    EMPTY_PAYLOAD,
    ErrInfo,
    HttpProcessingError,
    RawRequestMessage,
    web,
)
from modelsplit_proxy.http.downstream import Downstream, reset_on_close
from modelsplit_proxy.http.framing import Chunks, Framing, FramingError, Length, merged
from modelsplit_proxy.http.keepalive import keep_alive
from modelsplit_proxy.http.read_budget import HeldBytes, ReadBudget, ReadLimits, no_room
from modelsplit_proxy.http.request_head import (
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    NO_VERSION,
    OTHER_VERSION,
    bad_http,
    ends_in_version,
    flaw_of,
    flaw_of_error,
    too_long,
)

if TYPE_CHECKING:
    from aiohttp import StreamReader

    from modelsplit_proxy.http.request import AnswerSource, Request

# Upstream reading pauses while this much of an answer waits for a slow client. Twice the
# transport's default, so that a token burst does not bounce between the two marks.
HIGH_WATER_BYTES: Final = 128 * 1024

# What each connection may hold without asking the budget: usual heads, and nobody is shut out
# by those who fill it.
FREE_BYTES: Final = 8 * 1024
# Further requests that wait behind the one being answered, as bytes; then reading pauses.
HELD_BYTES: Final = 64 * 1024
# Go's server: so much of a body that nobody wants is still read, then the client has this
# long to read why, before a close that may cost it the answer.
DISCARDED_BYTES: Final = 256 * 1024
LINGER_S: Final = 1.0
# Apache's usual rate (mod_reqtimeout): a body that comes more slowly, in bytes a second, beyond a
# first body timeout, holds a connection and what it takes for nothing.
MIN_BODY_RATE: Final = 500
# What a piece of a body costs beside its bytes.
PIECE_BYTES: Final = 64

_HEAD_END: Final = b"\r\n\r\n"


class ErrorPage(Protocol):
    """Answers a request that reaches no handler."""

    def __call__(self, down: Downstream, failure: Failure, path: str) -> None: ...


class Server(Protocol):
    """What a connection asks of the server that accepted it."""

    @property
    def limits(self) -> ReadLimits: ...
    @property
    def error_page(self) -> ErrorPage: ...
    @property
    def send_timeout_s(self) -> float: ...
    def make_room(self) -> bool: ...


class BodyEndedError(web.RequestPayloadError):
    """Nothing more is read of a body. The text says why; ``failure``, where it is no bad HTTP."""

    def __init__(self, message: str, failure: Failure | None = None) -> None:
        super().__init__(message)
        self.failure = failure


class _DeclinedError(Exception):
    """Carries a refusal through aiohttp to ``handle_error``."""

    def __init__(self, failure: Failure, method: str, path: str) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.method = method
        self.path = path


class ClientConnection(web.RequestHandler):
    """One client connection: what is read of it, and back-pressure for what is written.

    ``asked``: a request has come, ever. ``busy``: one has, and its answer has not ended.
    ``last``: none follows it.
    ``collecting``: the body under way is being read whole, and nothing has begun yet.
    ``ending``: why no unfinished body is waited for any more; None while we serve.
    ``stalled``: it has been cut because its client took nothing of its answer.
    """

    _parser: Any  # never None while bytes come

    __slots__ = (
        "_body_at",
        "_body_timer",
        "_discard",
        "_framing",
        "_head_bytes",
        "_head_hold",
        "_head_tail",
        "_head_timer",
        "_held",
        "_past_first_line",
        "_rate_bytes",
        "_rate_from",
        "_receiving",
        "_refused",
        "_send_timer",
        "_server",
        "answer_hold",
        "asked",
        "body_hold",
        "busy",
        "collecting",
        "ending",
        "last",
        "remote",
        "source",
        "stalled",
    )

    def __init__(self, server: Server, **kwargs: Any) -> None:
        super().__init__(cast("web.Server", server), **kwargs)
        self._server = server
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._body_at = 0.0  # when bytes of a body came last
        # Of a body: what came since when, while it was read.
        self._rate_bytes = 0
        self._rate_from = 0.0
        self._head_bytes = 0  # of an unfinished head
        self._head_tail = b""  # its last bytes: its end may be split between two reads
        self._past_first_line = False
        self._head_hold = HeldBytes(server.limits.budget)
        self._held = bytearray()  # what came behind the request being answered
        self._framing: Framing | None = None  # of an unfinished body
        self._receiving: StreamReader = EMPTY_PAYLOAD
        self._refused = False  # nothing more is read
        self._discard = 0
        self.body_hold = HeldBytes(server.limits.budget)
        self.answer_hold = HeldBytes(server.limits.answers)
        self.asked = False
        self.busy = False
        self.last = False
        self.collecting = False
        self.ending: Failure | None = None
        self.stalled = False
        self.source: AnswerSource | None = None
        self.remote = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        keep_alive(transport)
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(high=HIGH_WATER_BYTES)
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0] if isinstance(peer, (list, tuple)) else peer or "")
        if not self._server.make_room():
            self._refuse(_too_many_connections(self._server.limits.max_connections))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._cancel_head_timer()
        self._cancel_send_timer()
        self._cancel_body_timer()
        self._head_hold.set(0)
        self.body_hold.set(0)
        self.answer_hold.set(0)
        self._held = bytearray()
        self.source = None
        super().connection_lost(exc)

    # Reading.

    def data_received(self, data: bytes) -> None:
        """Feed the parser one request; hold, within bounds, what comes behind it."""
        if self.busy or self._refused or self._force_close or not data:
            self._beside_a_head(data)
            return
        head = data
        while data:
            if self._head_tail:
                end = self._end_of_head(data)
            else:
                end = data.find(_HEAD_END) + 4 if _HEAD_END in data else 0
            head = data[:end] if end else data
            self._head_bytes += len(head)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(too_long(in_first_line=self._in_first_line(head)))
                return
            try:
                messages, upgraded, _ = self._parser.feed_data(head)
            except HttpProcessingError as error:
                first = self._in_first_line(head)
                self._refuse(flaw_of_error(error, head, in_first_line=first))
                return
            if upgraded:  # no other protocol is spoken here
                self._parser.set_upgraded(False)
            if messages:
                message, payload = messages[0]
                self._begin(message, payload, data[end:] if end else None)
                return
            if not end:
                break
            if self._past_first_line or head.strip():
                self._refuse(bad_http(OTHER_VERSION, 505))  # the parser wants HTTP/2's preface
                return
            # Empty lines before a head look like its end; they count, and mean nothing.
            behind = data[end:]
            data, self._head_tail = behind.lstrip(b"\r\n"), b""
            self._head_bytes += len(behind) - len(data)
        self._unfinished_head(head)

    def _end_of_head(self, data: bytes) -> int:
        """The place behind the end of a head begun before; 0 where ``data`` has none."""
        place = (self._head_tail + data[:3]).find(_HEAD_END)
        if place >= 0:
            return place + 4 - len(self._head_tail)
        return data.find(_HEAD_END) + 4 if _HEAD_END in data else 0

    def _in_first_line(self, head: bytes) -> bool:
        """Whether what is too long in ``head`` is the request line."""
        before = self._head_bytes - len(head)
        return not self._past_first_line and b"\n" not in head[: MAX_LINE_BYTES - before]

    def _unfinished_head(self, head: bytes) -> None:
        begun = self._head_tail + head
        self._head_tail = begun[-3:]
        if not self._past_first_line and b"\n" in head:
            line, newline, _ = begun.lstrip(b"\r\n").partition(b"\n")
            # The parser says nothing of a line without a version before the next one comes.
            if newline and not ends_in_version(line):
                self._refuse(bad_http(NO_VERSION))
                return
            self._past_first_line = bool(newline)
        if self._head_bytes > FREE_BYTES and not self._head_hold.set(self._head_bytes):
            self._refuse(no_room(self.budget))
        elif self._head_timer is None:
            # A head that comes one byte a minute would hold a connection for ever. The clock
            # starts with its first byte, so that idle pooled connections are left alone.
            timeout_s = self._server.limits.head_timeout_s
            self._head_timer = self._loop.call_later(timeout_s, self.force_close)

    def _begin(self, message: RawRequestMessage, payload: StreamReader, rest: bytes | None) -> None:
        """Hand a request over. ``rest``: what came behind its head; None: it had no end."""
        flaw = flaw_of(message)
        if flaw is None and rest is None:
            flaw = bad_http("malformed request: its lines do not end as HTTP's do")
        if flaw is not None:
            self._refuse(flaw, message.method, message.path)
            return
        if self._head_tail:
            self._forget_head()
        self._head_bytes = 0
        self.asked = self.busy = True
        self._queue(message, payload)
        if message.chunked or payload is not EMPTY_PAYLOAD:
            self._begin_body(message, payload, rest or b"")
        elif rest:
            self._hold(rest)

    def _queue(self, message: RawRequestMessage | ErrInfo, payload: StreamReader) -> None:
        """Give ``start()`` its next request."""
        self._request_count += 1
        self._messages.append((message, payload))
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _forget_head(self) -> None:
        self._cancel_head_timer()
        self._head_hold.set(0)
        self._head_tail = b""
        self._past_first_line = False

    def _refuse(self, failure: Failure, method: str = "", path: str = "/") -> None:
        """Answer in the request's stead, and read nothing more of this client."""
        self._forget_head()
        self._stop_reading()
        self.busy = True
        exc = _DeclinedError(failure, method, path)
        self._queue(ErrInfo(status=failure.status, exc=exc, message=""), EMPTY_PAYLOAD)

    def _stop_reading(self) -> None:
        self._refused = True
        self._discard = 0
        self._pause_reading_for_buffer()

    def _beside_a_head(self, data: bytes) -> None:
        """Bytes that begin no request: of a body, behind one, or not wanted any more."""
        if self._force_close:
            return
        if self._refused:
            self._discard -= len(data)
            if self._discard <= 0:
                self._pause_reading_for_buffer()
            return
        if not data:
            self._parse_on()
            return
        if self._framing is not None:
            data = self._feed_body(self._framing, data)
        if data:
            self._hold(data)

    def _hold(self, data: bytes) -> None:
        """Keep what came behind the request being answered; stop reading when it is enough."""
        self._held += data
        if not self._head_hold.set(len(self._held)):
            # Nobody has been promised an answer to these.
            self._held = bytearray()
            self._head_hold.set(0)
            self.last = True
            self._stop_reading()
        elif len(self._held) > HELD_BYTES:
            self._pause_reading_for_buffer()

    def next_request(self) -> None:
        """The answer has ended and the connection is kept: begin what came meanwhile."""
        self.busy = False
        if self._head_hold.size:
            self._head_hold.set(len(self._held))  # its body has been read
        if not self._held:
            return
        held, self._held = bytes(self._held), bytearray()
        self._head_hold.set(0)
        self.data_received(held)
        if self._buffer_paused:
            self._resume_reading_if_drained()

    def _resume_reading_if_drained(self) -> None:
        """aiohttp asks this too, each time it takes a request."""
        if not self._refused and len(self._held) <= HELD_BYTES:
            self._resume_reading_for_buffer()

    # Bodies.

    def _begin_body(self, message: RawRequestMessage, payload: StreamReader, rest: bytes) -> None:
        self._receiving = payload
        if message.chunked:
            self._framing = Chunks()
        elif "Content-Length" in message.headers:
            size = int(message.headers["Content-Length"])
            if len(rest) == size:  # the usual case: it is all here
                try:
                    _, upgraded, _ = self._parser.feed_data(rest)
                except HttpProcessingError as error:  # CONNECT has no body to the parser
                    self.break_body(BodyEndedError(str(error)))
                    return
                if upgraded:
                    self._parser.set_upgraded(False)
                return
            self._framing = Length(size)
        else:  # CONNECT
            self._hold(rest)
            return
        self._body_at = self._rate_from = self._loop.time()
        self._rate_bytes = 0
        timeout_s = self._server.limits.body_timeout_s
        self._body_timer = self._loop.call_later(timeout_s, self._watch_body)
        if rest:
            self._beside_a_head(rest)

    def _feed_body(self, framing: Framing, data: bytes) -> bytes:
        """Feed what belongs to the body; what is behind it."""
        self._body_at = self._loop.time()
        try:
            taken = framing.take(data)
            self._rate_bytes += taken
            body = merged(data[:taken], framing.runs) if framing.runs else data[:taken]
            _, upgraded, _ = self._parser.feed_data(body)
        except (FramingError, HttpProcessingError) as error:
            self.break_body(BodyEndedError(str(error)))
            return b""
        if upgraded:
            self._parser.set_upgraded(False)
        if framing.ended:
            self._framing = None
            self._cancel_body_timer()
        elif not self._head_hold.set(self._unread_bytes()):
            self.break_body(BodyEndedError("", no_room(self.budget)))
        return data[taken:]

    def _unread_bytes(self) -> int:
        """What the body holds that nobody has read yet; each piece is an object of its own."""
        unread = self._receiving
        return unread._size + PIECE_BYTES * len(unread._buffer)  # noqa: SLF001 - as above

    def forget_body(self) -> None:
        """Nothing is held any more of the body that has come whole."""
        self.body_hold.set(0)
        self._head_hold.set(len(self._held))

    def _parse_on(self) -> None:
        """The parser had been paused, as a body was read too slowly."""
        self._body_at = self._loop.time()
        try:
            self._parser.feed_data(b"")
        except HttpProcessingError as error:
            self.break_body(BodyEndedError(str(error)))

    def _watch_body(self) -> None:
        """Look whether the client still sends, and enough; while we do not read, it is ours."""
        timeout_s = self._server.limits.body_timeout_s
        now = self._loop.time()
        if self._reading_paused:
            left_s, self._rate_from, self._rate_bytes = timeout_s, now, 0
        elif now - self._rate_from > timeout_s + self._rate_bytes / MIN_BODY_RATE:
            self.break_body(BodyEndedError("", _dripping(timeout_s)))
            return
        else:
            left_s = self._body_at + timeout_s - now
        if left_s > 0:
            self._body_timer = self._loop.call_later(left_s, self._watch_body)
        else:
            self.break_body(BodyEndedError("", _silent(timeout_s)))

    def break_body(self, error: BodyEndedError) -> None:
        """Wait for no more of the body under way; whoever reads it is told."""
        self._framing = None
        self._cancel_body_timer()
        self._stop_reading()
        self._receiving.set_exception(error)

    async def linger(self) -> None:
        """Let a client that may still be sending read its answer before the close.

        A close with unread bytes is a reset, which may cost the client what it has not read.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self.busy = True
        self._held = bytearray()
        self._framing = None
        self._cancel_body_timer()
        if self._receiving is not EMPTY_PAYLOAD:
            self._receiving._buffer.clear()  # noqa: SLF001 - aiohttp keeps it until the close
            self._receiving = EMPTY_PAYLOAD
        self._head_hold.set(0)
        if not self._refused:
            self._refused = True
            self._discard = DISCARDED_BYTES
            self._resume_transport_reading()
        transport.write_eof()
        await asyncio.sleep(LINGER_S)

    @property
    def unfinished(self) -> bool:
        """Whether the request under way has not come whole, and may never."""
        return self._refused or self._framing is not None

    @property
    def unread(self) -> bool:
        """Whether the client may be sending what will not be read."""
        return self.unfinished or bool(self._held)

    # Writing.

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()
        if self.source is not None:
            self.source.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_send_timer()
        if self.source is not None:
            self.source.resume()

    def handle_error(
        self,
        request: web.BaseRequest | Request,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what reaches no handler in our own words; aiohttp would send plain text."""
        del status, message
        ours = cast("Request", request)
        if isinstance(exc, _DeclinedError):
            ours.method = exc.method
            down = Downstream(ours)
            self._server.error_page(down, exc.failure, exc.path)
        else:
            # The handler's own last resort has failed; half an answer may be on the wire.
            self.logger.error("a request handler failed", exc_info=exc)
            down = Downstream(ours)
            down.abort()
        return down.answered()

    # The end.

    def stop(self, ending: Failure) -> None:
        """Close now if idle; otherwise after the answer under way, or the one about to be.

        ``ending``: what a call is told whose body has not come whole.
        """
        self.last = True
        self.ending = ending
        if self.busy:
            if self.collecting and self._framing is not None:
                self.break_body(BodyEndedError("", ending))
        elif self._head_timer is None:
            self.force_close()

    def interrupt(self) -> None:
        """Cancel the answer under way: its handler may still say why."""
        if self._task_handler is not None and self.busy:
            self._task_handler.cancel()

    def cut(self) -> None:
        """Close whatever is under way; half an answer never looks whole."""
        if self.transport is None:
            return
        if self.source is not None:
            reset_on_close(self.transport)
        self.transport.abort()

    @property
    def silent(self) -> bool:
        """True while nothing has ever come: whoever connected a moment ago is about to ask."""
        return self.idle and not self.asked and not self._refused and self.transport is not None

    @property
    def idle(self) -> bool:
        """True while the next request is awaited and nothing of it has come."""
        return not self.busy and self._head_bytes == 0

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A malformed body has been answered; only what we did not expect is worth a trace."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    @property
    def budget(self) -> ReadBudget:
        return self._server.limits.budget

    async def taken(self) -> None:
        """Wait while more than the high-water mark waits for this client."""
        await self._drain_helper()

    def _watch_sending(self, waiting: int | None = None) -> None:
        """Look now and then whether less is waiting than before; cut a client that has gone."""
        if self.transport is None:
            return
        size = cast("asyncio.WriteTransport", self.transport).get_write_buffer_size()
        if waiting is not None and size >= waiting:
            self.stalled = True
            self.cut()
            return
        self._send_timer = self._loop.call_later(
            self._server.send_timeout_s, self._watch_sending, size
        )

    def _cancel_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None


def _too_many_connections(limit: int) -> Failure:
    return Failure(
        ErrorCode.OVERLOAD_THROTTLED,
        Reason.CONNECTIONS,
        f"{limit} connections are open and none is idle (--max-connections); retry in 2 s",
        "Too Many Connections",
        retry_after_s=2,
    )


def _silent(timeout_s: float) -> Failure:
    return _too_slow(
        f"nothing more of the request's body came for {in_digits(timeout_s)} s "
        "(--client-body-timeout)"
    )


def _dripping(timeout_s: float) -> Failure:
    return _too_slow(
        f"the request's body comes more slowly than {MIN_BODY_RATE} bytes a second after its "
        f"first {in_digits(timeout_s)} s (--client-body-timeout)"
    )


def _too_slow(message: str) -> Failure:
    return Failure(
        ErrorCode.BAD_REQUEST,
        Reason.BODY_TIMEOUT,
        message,
        "Request Timeout",
        own_status=408,
    )
