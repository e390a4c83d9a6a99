"""A question of our own to the upstream: one small GET, its whole answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.deadlines import Bounds
from modelsplit_proxy.http.collect import Collector
from modelsplit_proxy.http.upstream import Fault, UpstreamError

if TYPE_CHECKING:
    from modelsplit_proxy.http.upstream_pool import Pool


async def fetch(pool: Pool, authority: str, path: str, limit: int) -> tuple[int, bytes]:
    """Status and body of ``GET path``; UpstreamError if it breaks or exceeds ``limit`` bytes."""
    connection = await pool.acquire()
    exchange = connection.start(head_request=False)
    try:
        host = authority.encode("ascii")
        connection.write(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path.encode("ascii"), host))
        head = await exchange.ready()
        collector = Collector(exchange, limit)
        result = await collector.run(Bounds)
    finally:
        exchange.abort()
    if isinstance(result, UpstreamError):
        raise result
    if collector.overflowed:
        raise UpstreamError(Fault.PROTOCOL, f"{path} answered more than {limit} bytes")
    return head.status, collector.body
