"""The edge alone, with a handler of the test's own behind it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from modelsplit_proxy.handler import unparsed_request
from modelsplit_proxy.http.request import Request
from modelsplit_proxy.http.server import Downstream, Edge, EdgeServer
from support.wire import Client

Serve = Callable[[Request, Downstream], Awaitable[None]]


@dataclass
class Serving:
    edge: Edge
    port: int

    def client(self) -> Client:
        return Client(self.port)


@contextlib.asynccontextmanager
async def serving(
    serve: Serve, *, head_timeout_s: float = 600, send_timeout_s: float = 600
) -> AsyncIterator[Serving]:
    """Every request goes to ``serve``, which answers on the Downstream it is given."""

    async def handler(request: Request) -> web.StreamResponse:
        down = Downstream(request)
        await serve(request, down)
        return down.answered()

    server = EdgeServer(
        handler,
        head_timeout_s=head_timeout_s,
        error_page=unparsed_request,
        send_timeout_s=send_timeout_s,
    )
    edge = Edge(server)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    await edge.listen(sock)
    try:
        yield Serving(edge, sock.getsockname()[1])
    finally:
        edge.stop_accepting()
        await edge.close()


def say(down: Downstream, body: bytes, *, length: int | None = None, close: bool = False) -> None:
    """A whole answer in one piece."""
    down.head(200, "OK", [], length=length, close=close)
    down.write(body)
    down.end()
