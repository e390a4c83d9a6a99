"""The client side of the wire: aiohttp's server for requests, our own bytes for answers.

aiohttp parses and bounds requests, keeps connections alive and cancels a handler when its
client leaves. Answers bypass aiohttp's writer: a streamed token goes from the upstream's
parser to the client's socket in one step (ARCHITECTURE.md says why). Everything that leans
on the inside of aiohttp's ``RequestHandler`` is in this module, the version range is
pinned, and ``tests/proxy/test_edge.py`` holds it in place:

- ``_waiter``: set while a connection waits for the next request (idle or mid-head);
- ``_messages`` and ``_request_count``: what is parsed and not yet handled; malformed bytes
  are a message of another type than ``RawRequestMessage``;
- ``start()`` makes requests with ``request_factory``, and calls ``prepare``, ``write_eof`` and
  ``keep_alive`` of what a handler returns;
- ``_task_handler``: what handles requests; cancelling it cancels the handler;
- ``pause_writing`` and ``resume_writing`` arrive from the transport.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage

from modelsplit_proxy.http.request import AnswerSource, Connection, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter

# Upstream reading pauses while this much of an answer waits for a slow client. Twice the
# transport's default, so that a token burst does not bounce between the two marks.
HIGH_WATER_BYTES: Final = 128 * 1024
# Head bounds. nginx and Go's server allow 8 KiB a line or 1 MiB in all; Ollama takes a
# 60 KB header without complaint, so ours must too.
MAX_LINE_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 128
# Idle connections live as long as nginx's default keepalive_timeout.
KEEPALIVE_S: Final = 75.0

# nginx's send_timeout: a client that takes nothing for so long while much waits for it has
# gone, whatever TCP says, and must not hold a seat.
SEND_TIMEOUT_S: Final = 60.0

_NO_BODY_STATUS: Final = frozenset({204, 304})


class ErrorPage(Protocol):
    """Answers a request that could not even be parsed."""

    def __call__(self, down: Downstream, message: str) -> None: ...


class ClientConnection(web.RequestHandler):
    """One client connection: a head deadline and back-pressure on top of aiohttp's."""

    __slots__ = ("_edge", "_head_timer", "_receiving", "_send_timer", "remote", "source")

    def __init__(self, manager: EdgeServer, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._edge = manager
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._receiving: StreamReader | None = None
        self.source: AnswerSource | None = None
        self.remote = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(high=HIGH_WATER_BYTES)
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0] if isinstance(peer, (list, tuple)) else peer or "")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._cancel_head_timer()
        self._cancel_send_timer()
        self.source = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        parsed = self._request_count
        super().data_received(data)
        if self._request_count != parsed:
            self._note_body(*self._messages[-1])
            self._cancel_head_timer()
        # aiohttp waits for a request head without any bound: one byte a minute would hold
        # a connection for ever. The clock starts with a head's first byte, not with the
        # connection, so that idle pooled connections are left alone.
        elif self._head_timer is None and self.idle:
            self._head_timer = self._loop.call_later(self._edge.head_timeout_s, self.force_close)

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
        """Answer what could not be parsed in our own words; aiohttp would send plain text."""
        down = Downstream(cast("Request", request))
        if status < 500:
            self._edge.error_page(down, message or "not HTTP")
        else:
            # The handler's own last resort has failed; half an answer may be on the wire.
            self.logger.error("a request handler failed", exc_info=exc)
            down.abort()
        return down.answered()

    def stop(self) -> None:
        """Close now if idle; otherwise after the answer under way, or the one about to be."""
        if not self.idle:
            self.close()
        elif self._head_timer is None:
            self.force_close()

    def interrupt(self) -> None:
        """Cancel the answer under way: its handler may still say why."""
        if self._task_handler is not None and not self.idle:
            self._task_handler.cancel()

    def cut(self) -> None:
        """Close whatever is under way; half an answer never looks whole."""
        if self.transport is None:
            return
        if self.source is not None:
            reset_on_close(self.transport)
        self.transport.abort()

    @property
    def idle(self) -> bool:
        """True while the next request is awaited: none is handled, none is complete."""
        waiting = self._waiter is not None or self._request_count == 0
        return waiting and not self._messages

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A malformed body has been answered; only what we did not expect is worth a trace."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def _note_body(self, message: object, payload: StreamReader) -> None:
        """Break the body that malformed bytes belong to.

        aiohttp's C parser answers them with a 400 of their own, after the request under
        way; whoever reads that request's body would wait for it until the client leaves.
        """
        if isinstance(message, RawRequestMessage):
            self._receiving = payload
        elif self._receiving is not None and not self._receiving.is_eof():
            self._receiving.set_exception(web.RequestPayloadError("malformed chunk"))

    async def taken(self) -> None:
        """Wait while more than the high-water mark waits for this client."""
        await self._drain_helper()

    def _watch_sending(self, waiting: int | None = None) -> None:
        """Look now and then whether less is waiting than before; cut a client that has gone."""
        if self.transport is None:
            return
        size = cast("asyncio.WriteTransport", self.transport).get_write_buffer_size()
        if waiting is not None and size >= waiting:
            self.cut()
            return
        self._send_timer = self._loop.call_later(
            self._edge.send_timeout_s, self._watch_sending, size
        )

    def _cancel_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class EdgeServer(web.Server):
    """aiohttp's low-level server (no router, no middleware) with our connections."""

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[web.StreamResponse]],
        *,
        head_timeout_s: float,
        error_page: ErrorPage,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        # Without handler_cancellation a client that leaves keeps the GPU busy to the end.
        super().__init__(
            cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", handler),
            handler_cancellation=True,
            request_factory=cast("Callable[..., web.BaseRequest]", _request),
        )
        self.head_timeout_s = head_timeout_s
        self.error_page = error_page
        self.send_timeout_s = send_timeout_s

    def __call__(self) -> ClientConnection:
        return ClientConnection(
            self,
            loop=self._loop,
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            access_log=None,
            # Bodies pass as they came; Ollama itself decodes none but one.
            auto_decompress=False,
        )


class Edge:
    """A listening socket and its connections, from first accept to drained."""

    def __init__(self, server: EdgeServer) -> None:
        self._server = server
        self._listeners: list[asyncio.Server] = []

    @property
    def connections(self) -> list[ClientConnection]:
        return cast("list[ClientConnection]", self._server.connections)

    async def listen(self, sock: socket.socket, backlog: int = 4096) -> None:
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(self._server, sock=sock, backlog=backlog)
        self._listeners.append(listener)

    def stop_accepting(self) -> None:
        """Leave new connections to the kernel's backlog, where a successor finds them."""
        for listener in self._listeners:
            listener.close()
        for connection in self.connections:
            connection.stop()

    def interrupt(self) -> None:
        """Cancel all answers under way: their handlers may still say why."""
        for connection in self.connections:
            connection.interrupt()

    async def close(self) -> None:
        """Cut what is still open, visibly: no stream ends as if it were whole."""
        for connection in self.connections:
            connection.cut()
        await self._server.shutdown(timeout=1.0)


class Answered(web.StreamResponse):
    """What a handler returns when its answer is already on the wire.

    aiohttp asks it to prepare and to end itself, and whether to keep the connection.
    """

    def __init__(
        self, connection: Connection, *, keep_alive: bool
    ) -> None:  # super's state is never used
        self._connection = connection
        self._answered_keep_alive = keep_alive

    @property
    def keep_alive(self) -> bool | None:
        return self._answered_keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        del request
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """The next request waits until the client has taken most of this answer.

        Otherwise one that asks and asks and never reads would fill our memory.
        """
        del data
        if self._answered_keep_alive and self._connection.writing_paused:
            await self._connection.taken()


class Downstream:
    """The answer to one request: a head, a body in the right framing, an end.

    The head leaves together with the first body bytes, in one write. Nothing here raises
    when the client has gone; aiohttp cancels the handler then.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_close_delimited",
        "_connection",
        "_head",
        "_head_request",
        "_http11",
        "_keep_alive",
        "_transport",
        "ended",
        "started",
        "status",
    )

    def __init__(self, request: Request) -> None:
        connection = self._connection = request.connection
        self._transport = connection.transport
        self._http11 = request.http11
        self._head_request = request.method == "HEAD"
        self._keep_alive = request.http11 and request.keep_alive
        self._head = b""
        self._chunked = False
        self._close_delimited = False
        self._bodiless = False
        self.started = False
        self.ended = False
        self.status = 0

    @property
    def writing_paused(self) -> bool:
        return self._connection.writing_paused

    def feed_from(self, source: AnswerSource | None) -> None:
        """Let ``source`` know when the client is slow (None: nobody)."""
        self._connection.source = source

    def continue_(self) -> None:
        """``100 Continue``: the client may send its body."""
        if self._transport is not None and self._http11:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def head(
        self, status: int, phrase: str, lines: list[bytes], *, length: int | None, close: bool
    ) -> None:
        """Set the head; framing and ``Connection`` are added here.

        ``lines`` are whole header lines with their CRLF. ``length`` None: unknown yet.
        """
        self.started = True
        self.status = status
        out = [b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode("latin-1")), *lines]
        self._bodiless = self._head_request or status in _NO_BODY_STATUS
        if length is not None:
            if status != 204:
                out.append(b"Content-Length: %d\r\n" % length)
        elif not self._bodiless:
            if self._http11:
                self._chunked = True
                out.append(b"Transfer-Encoding: chunked\r\n")
            else:
                self._keep_alive = False
                self._close_delimited = True
        if close or not self._keep_alive:
            self._keep_alive = False
            out.append(b"Connection: close\r\n")
        out.append(b"\r\n")
        self._head = b"".join(out)

    def write(self, data: bytes) -> None:
        """One piece of the body: one chunk, one write."""
        if self._transport is None or self._bodiless or not data:
            return
        if self._chunked:
            data = b"%b%x\r\n%b\r\n" % (self._head, len(data), data)
        elif self._head:
            data = self._head + data
        self._head = b""
        self._transport.write(data)

    def end(self) -> None:
        """A clean end; what is not called never looks whole."""
        self.ended = True
        if self._transport is None:
            return
        tail = b"%b0\r\n\r\n" % self._head if self._chunked else self._head
        self._head = b""
        if tail:
            self._transport.write(tail)

    def abort(self) -> None:
        """A visible end: the connection breaks and no framing says the body is whole."""
        self._keep_alive = False
        if self._transport is not None:
            if self._close_delimited:
                reset_on_close(self._transport)
            self._transport.abort()
            self._transport = None

    def answered(self) -> Answered:
        return Answered(self._connection, keep_alive=self._keep_alive and self.ended)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    connection: ClientConnection,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> Request:
    """aiohttp's ``request_factory``; its writer has nothing to do here."""
    del writer
    return Request(message, payload, connection, task)


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Make a close an RST: a FIN would say that a close-delimited body is whole."""
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def date_line() -> bytes:
    """The ``Date`` line for an answer of our own; relayed answers keep the upstream's."""
    return b"Date: %b\r\n" % formatdate(usegmt=True).encode("ascii")
