"""The edge alone, with a handler of the test's own behind it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_proxy.handler import refused_request
from modelsplit_proxy.http.read_budget import ReadBudget
from modelsplit_proxy.http.request import Request
from modelsplit_proxy.http.server import Downstream, Edge, EdgeServer, ReadLimits
from support.wire import Client

DRAINING = Failure(ErrorCode.OVERLOAD_THROTTLED, Reason.DRAINING, "the server stops", "Draining", 2)
Serve = Callable[[Request, Downstream], Awaitable[None]]


@dataclass
class Serving:
    edge: Edge
    port: int

    def client(self) -> Client:
        return Client(self.port)


@contextlib.asynccontextmanager
async def serving(
    serve: Serve,
    *,
    head_timeout_s: float = 600.0,
    send_timeout_s: float = 600.0,
    body_timeout_s: float = 600.0,
    budget: int = 2**24,
    max_connections: int = 2048,
) -> AsyncIterator[Serving]:
    """Every request goes to ``serve``, which answers on the Downstream it is given."""

    async def handler(request: Request) -> web.StreamResponse:
        down = Downstream(request)
        await serve(request, down)
        return down.answered()

    server = EdgeServer(
        handler,
        limits=ReadLimits(ReadBudget(budget), head_timeout_s, body_timeout_s, max_connections),
        error_page=refused_request,
        send_timeout_s=send_timeout_s,
    )
    edge = Edge(server)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    await edge.listen(sock)
    try:
        yield Serving(edge, sock.getsockname()[1])
    finally:
        edge.stop_accepting(DRAINING)
        await edge.close()


def say(down: Downstream, body: bytes, *, length: int | None = None, close: bool = False) -> None:
    """A whole answer in one piece."""
    down.head(200, "OK", [], length=length, close=close)
    down.write(body)
    down.end()
