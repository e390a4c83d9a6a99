"""The listening sockets and all connections behind them, from first accept to drained.

aiohttp's low-level server (no router, no middleware) makes the connections; what each of them
reads is in ``client_connection``, what it is answered in ``downstream``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from modelsplit_proxy.http.aiohttp_server import web
from modelsplit_proxy.http.client_connection import ClientConnection, ErrorPage
from modelsplit_proxy.http.request import Request
from modelsplit_proxy.http.request_head import MAX_HEADERS, MAX_LINE_BYTES

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import RawRequestMessage

    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.http.read_budget import ReadLimits

# Idle connections live as long as nginx's default keepalive_timeout.
KEEPALIVE_S: Final = 75.0
# A client that takes nothing for so long while much waits for it must not hold a seat any
# longer. nginx waits for a minute; a terminal that somebody has paused, for longer.
SEND_TIMEOUT_S: Final = 300.0
# Of a body that is read slowly, so much is taken ahead, or twice that.
READ_AHEAD_BYTES: Final = 64 * 1024
# Between two looks at whether those who were accepted have asked.
_LOOK_AGAIN_S: Final = 0.01


class EdgeServer(web.Server):
    """aiohttp's low-level server (no router, no middleware) with our connections."""

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[web.StreamResponse]],
        *,
        limits: ReadLimits,
        error_page: ErrorPage,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        # Without handler_cancellation a client that leaves keeps the GPU busy to the end.
        super().__init__(
            cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", handler),
            handler_cancellation=True,
            request_factory=cast("Callable[..., web.BaseRequest]", _request),
        )
        self.limits = limits
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
            read_bufsize=READ_AHEAD_BYTES,
            lingering_time=0,  # ``linger`` does it
            access_log=None,
            # Bodies pass as they came; Ollama itself decodes none but one.
            auto_decompress=False,
        )

    def make_room(self) -> bool:
        """Whether there is room for the connection just made; the one idle longest makes it."""
        connections = cast("list[ClientConnection]", self.connections)
        if len(connections) <= self.limits.max_connections:
            return True
        for connection in connections[:-1]:
            if connection.idle and connection.transport is not None:
                connection.force_close()
                return True
        return False


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

    async def hear_out(self, patience_s: float) -> None:
        """Accept nobody more; wait for what those have to ask who were accepted a moment ago.

        Their requests are under way: to close now would lose them. ``patience_s``: at most so long.
        """
        for listener in self._listeners:
            listener.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + patience_s
        # Nobody tells when a first byte comes: that would be paid by every request.
        while loop.time() < end and any(  # noqa: ASYNC110
            connection.silent for connection in self.connections
        ):
            await asyncio.sleep(_LOOK_AGAIN_S)

    def stop_accepting(self, ending: Failure) -> None:
        """Leave new connections to the kernel's backlog, where a successor finds them.

        ``ending``: what calls are told whose bodies are still coming.
        """
        for listener in self._listeners:
            listener.close()
        for connection in self.connections:
            connection.stop(ending)

    def interrupt(self) -> None:
        """Cancel all answers under way: their handlers may still say why."""
        for connection in self.connections:
            connection.interrupt()

    async def close(self) -> None:
        """Cut what is still open, visibly: no stream ends as if it were whole."""
        for connection in self.connections:
            connection.cut()
        await self._server.shutdown(timeout=1.0)


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
