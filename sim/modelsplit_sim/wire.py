"""HTTP/1.1 on one connection: bytes in, requests out, and every way to hang up."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from .exchange import Body, DroppedError, Exchange, Request, Wire

if TYPE_CHECKING:
    from .tasks import Tasks

_LOG = logging.getLogger(__name__)
# Go sends this to what is not HTTP, an HTTP/2 preface included, and closes.
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\n400 Bad Request"
)
# Go waits this long between FIN and close, so that the answer outlives an unread upload.
_LINGER_S = 0.5
_MAX_PIPELINED = 64


class Host(Protocol):
    """The server as a connection sees it."""

    tasks: Tasks
    log_body_bytes: int

    def opened(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...
    def exchange(self, connection: Connection, request: Request) -> Exchange: ...
    async def handle(self, exchange: Exchange) -> None: ...
    def left(self, exchange: Exchange) -> None: ...
    def keeps(self, exchange: Exchange) -> bool: ...


class Connection(asyncio.Protocol, Wire):
    """One client's connection. Requests are answered one after the other."""

    def __init__(self, host: Host, number: int) -> None:
        self.number = number
        self.leaked = False
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._body: Body | None = None
        self._ready: deque[Request] = deque()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._finished = False
        self._guarded = False

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._task = self._host.tasks.start(self._guard())
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._finished:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Observed: Upgrade: h2c is ignored, the request is answered as usual.
            self._parser = httptools.HttpRequestParser(self)
            rest = data[upgrade.args[0] :]
            if rest:
                self.data_received(rest)
        except httptools.HttpParserError:
            self.write(_BAD_REQUEST)
            self.finish()

    def eof_received(self) -> bool:
        """Observed: a half-close counts as leaving."""
        self._leave()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._writable.set()
        self._leave()
        self._host.closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- httptools callbacks

    def on_message_begin(self) -> None:
        self._target, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self._body = Body(self._flow, self._host.log_body_bytes)
        request = Request(
            method=self._parser.get_method().decode(),
            target=self._target.decode("latin-1"),
            version=self._parser.get_http_version(),
            headers=self._headers,
            keep_alive=self._parser.should_keep_alive(),
            body=self._body,
        )
        self._ready.append(request)
        self._arrived.set()
        if len(self._ready) > _MAX_PIPELINED:
            self._flow(full=True)

    def on_body(self, data: bytes) -> None:
        if self._body is not None:
            self._body.feed(data)

    def on_message_complete(self) -> None:
        if self._body is not None:
            self._body.end()

    # -- Wire

    def write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    async def drain(self) -> None:
        await self._writable.wait()

    def reset(self) -> None:
        self._finished = True
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def finish(self, *, linger: bool = False) -> None:
        self._finished = True
        transport = self._transport
        if transport is None:
            return
        if linger and transport.can_write_eof():
            transport.write_eof()
            asyncio.get_running_loop().call_later(_LINGER_S, transport.abort)
        else:
            transport.close()

    def shut(self) -> None:
        """The server process ends. Observed: FIN without a final chunk or an error line."""
        self._exchange = None
        self._finished = True
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            # A process that ends loses what it had not yet handed to the kernel.
            self._transport.abort()

    # -- the connection's life

    async def _guard(self) -> None:
        """The process boundary: no connection's failure reaches another."""
        self._guarded = True
        try:
            await self._serve()
        except DroppedError:
            pass
        except asyncio.CancelledError:
            self._say_goodbye()
            raise
        except Exception:  # noqa: BLE001 - logged, and this connection only
            _LOG.exception("connection %d failed", self.number)
            self.reset()

    async def _serve(self) -> None:
        while not self._finished:
            while not self._ready:
                self._arrived.clear()
                await self._arrived.wait()
            request = self._ready.popleft()
            self._flow(full=False)
            self._exchange = self._host.exchange(self, request)
            await self._host.handle(self._exchange)
            self._exchange = None

    def _leave(self) -> None:
        """The client will send no more: end what runs for it, at once."""
        if self._exchange is not None:
            self._host.left(self._exchange)
        if self._task is not None:
            self._task.cancel()
        if not self._guarded:
            # Gone in the moment it came: a task that has not begun says no goodbye.
            self.finish()

    def _say_goodbye(self) -> None:
        exchange = self._exchange
        if exchange is not None and self._host.keeps(exchange):
            self.leaked = True
            return
        if exchange is not None:
            exchange.farewell()
        self.finish()

    def _flow(self, full: bool) -> None:
        transport = self._transport
        if transport is None or self._finished or transport.is_closing():
            return
        if full and transport.is_reading():
            transport.pause_reading()
        elif not full and not transport.is_reading():
            transport.resume_reading()
