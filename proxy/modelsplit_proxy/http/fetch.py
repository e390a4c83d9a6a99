"""A question of our own to the upstream: one small request, its whole answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.deadlines import Bounds
from modelsplit_proxy.http.collect import Collector
from modelsplit_proxy.http.upstream import Fault, UpstreamError

if TYPE_CHECKING:
    from modelsplit_proxy.http.upstream_pool import UpstreamPool


async def fetch(
    pool: UpstreamPool, authority: str, path: str, limit: int, body: bytes = b""
) -> tuple[int, bytes]:
    """Status and body of ``GET path``, or of a POST if there is a body to send.

    UpstreamError if it breaks or exceeds ``limit`` bytes.
    """
    connection = await pool.acquire()
    exchange = connection.start(head_request=False)
    try:
        method, length = b"GET", b""
        if body:
            method, length = b"POST", b"Content-Length: %d\r\n" % len(body)
        line = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n"
        names = (method, path.encode("ascii"), authority.encode("ascii"), length)
        connection.write(line % names + body)
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
