"""The edge alone, with a handler of the test's own behind it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_proxy.handler import refused_request
from modelsplit_proxy.http.client_connection import ClientConnection
from modelsplit_proxy.http.downstream import Downstream
from modelsplit_proxy.http.read_budget import ReadBudget, ReadLimits
from modelsplit_proxy.http.request import Request
from modelsplit_proxy.http.server import Edge, EdgeServer
from support.wire import Client

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
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


async def hello(request: Request, down: Downstream) -> None:
    await request.content.read()
    say(down, b"hello", length=5)


def only(up: Serving) -> ClientConnection:
    (connection,) = up.edge.connections
    return connection


class Recorder:
    """A Source that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.changed = asyncio.Event()

    def pause(self) -> None:
        self.told.append("pause")
        self.changed.set()

    def resume(self) -> None:
        self.told.append("resume")
        self.changed.set()
