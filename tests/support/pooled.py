"""A pool of connections to an upstream that does what each test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from modelsplit_proxy.http.upstream import Exchange, UpstreamError, UpstreamHead
from modelsplit_proxy.http.upstream_pool import UpstreamPool
from support.raw import RawUpstream, Script, raw_upstream
from support.waiting import until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Sink:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.end: asyncio.Future[UpstreamError | None] = asyncio.get_running_loop().create_future()

    def data(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def ended(self, error: UpstreamError | None) -> None:
        self.end.set_result(error)

    async def body(self) -> bytes:
        assert await self.end is None
        return b"".join(self.pieces)


@contextlib.asynccontextmanager
async def pooled(script: Script) -> AsyncIterator[tuple[UpstreamPool, RawUpstream]]:
    async with raw_upstream(script) as upstream:
        pool = UpstreamPool("127.0.0.1", upstream.port, connect_timeout_s=600)
        try:
            yield pool, upstream
        finally:
            pool.close()
            await until(lambda: not pool.open_connections)


async def begin(pool: UpstreamPool, *, head_request: bool = False) -> Exchange:
    connection = await pool.acquire()
    exchange = connection.start(head_request=head_request)
    connection.write(GET)
    return exchange


async def ask(pool: UpstreamPool) -> tuple[UpstreamHead, bytes]:
    exchange = await begin(pool)
    head = await exchange.ready()
    sink = Sink()
    exchange.attach(sink)
    return head, await sink.body()
