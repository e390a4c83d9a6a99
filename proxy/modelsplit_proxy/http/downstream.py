"""The answer to a request, written in our own bytes past aiohttp's writer.

A streamed token goes from the upstream's parser to the client's socket in one step
(ARCHITECTURE.md says why). aiohttp is given an ``Answered``, of which it asks what it asks of
any response: to prepare, to end, and whether the connection is kept.
"""

from __future__ import annotations

import socket
import struct
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.http.aiohttp_server import web

if TYPE_CHECKING:
    import asyncio

    from aiohttp.abc import AbstractStreamWriter

    from modelsplit_proxy.http.read_budget import HeldBytes
    from modelsplit_proxy.http.request import AnswerSource, Connection, Request

_NO_BODY_STATUS: Final = frozenset({204, 304})


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
        return self._answered_keep_alive and not self._connection.last

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        del request
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """The next request waits until the client has taken most of this answer.

        Otherwise one that asks and asks and never reads would fill our memory.
        """
        del data
        connection = self._connection
        if connection.body_hold.size:
            connection.forget_body()
        if not self._answered_keep_alive or connection.last or connection.unfinished:
            if connection.unread:
                await connection.linger()
            self._answered_keep_alive = False
            return
        if connection.writing_paused:
            await connection.taken()
        if connection.answer_hold.size:
            connection.answer_hold.set(0)
        connection.next_request()


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

    @property
    def is_head_request(self) -> bool:
        """Whether the client wants no body."""
        return self._head_request

    @property
    def client_stalled(self) -> bool:
        """Whether the client has been cut because it took nothing of its answer."""
        return self._connection.stalled

    @property
    def hold(self) -> HeldBytes:
        """What is held of the answer, until the client has taken most of it."""
        return self._connection.answer_hold

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


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Make a close an RST: a FIN would say that a close-delimited body is whole."""
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def date_line() -> bytes:
    """The ``Date`` line for an answer of our own; relayed answers keep the upstream's."""
    return b"Date: %b\r\n" % formatdate(usegmt=True).encode("ascii")
