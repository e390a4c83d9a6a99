"""The kernel asks whether a peer is still there: clients and the upstream."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from modelsplit_proxy.http.keepalive import EVERY_S, IDLE_S, QUESTIONS, keep_alive
from support.pooled import pooled
from support.raw import says
from support.scripted import response
from support.serving import serving
from support.waiting import until

if TYPE_CHECKING:
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import Request

linux = pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="the names are Linux's")


def asked(transport: Any) -> tuple[int, ...]:
    """Whether the kernel asks; after how long; how often; how many times."""
    sock = transport.get_extra_info("socket")
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        *(
            sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        ),
    )


@linux
async def test_the_upstream() -> None:
    async with pooled(says(response(b"{}"))) as (pool, _):
        connection = await pool.acquire()
        assert asked(connection._transport) == (1, IDLE_S, EVERY_S, QUESTIONS) == (1, 60, 15, 4)


@linux
async def test_clients() -> None:
    async def serve(request: Request, down: Downstream) -> None:
        del request, down

    async with serving(serve) as up, up.client() as client:
        await client.open()
        await until(lambda: len(up.edge.connections) == 1)
        [connection] = up.edge.connections
        assert asked(connection.transport) == (1, IDLE_S, EVERY_S, QUESTIONS)


def test_what_is_no_tcp_is_left_alone() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        for sock in (ours, None):
            transport = SimpleNamespace(get_extra_info=lambda _name, sock=sock: sock)
            keep_alive(cast("asyncio.BaseTransport", transport))
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
