"""One connection after another to an upstream that does what each test says."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from modelsplit_proxy.http.upstream import (
    MAX_HEAD_BYTES,
    Exchange,
    Fault,
    UpstreamConnection,
    UpstreamError,
)
from modelsplit_proxy.http.upstream_pool import UpstreamPool
from support.pooled import CHUNKED, GET, Sink, ask, begin, pooled
from support.raw import Peer, chunk, says
from support.scripted import response
from support.waiting import until


async def test_an_answer_is_a_head_and_its_pieces() -> None:
    wire = CHUNKED + chunk(b"one") + chunk(b"two") + b"0\r\n\r\n"
    async with pooled(says(wire)) as (pool, _):
        exchange = await begin(pool)
        head = await exchange.ready()
        assert (head.status, head.phrase, head.length) == (200, b"OK", None)
        assert head.get(b"transfer-encoding") == b"chunked"
        assert head.get(b"nothing") == b""
        sink = Sink()
        exchange.attach(sink)
        await sink.body()
        assert sink.pieces == [b"one", b"two"]
        assert exchange.complete


async def test_ready_waits_for_the_first_body_byte() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(CHUNKED)
        await go.wait()
        peer.send(chunk(b"x"))
        await peer.gone()

    async with pooled(script) as (pool, _):
        exchange = await begin(pool)
        assert await exchange.ready_by(asyncio.get_running_loop().time() + 0.05) is None
        go.set()
        await exchange.ready()
        assert exchange._early == [b"x"]
        exchange.abort()


async def test_what_is_written_does_not_wait_in_the_kernel_for_company() -> None:
    async with pooled(says(response(b"x"))) as (pool, _):
        connection = await pool.acquire()
        assert connection._transport is not None
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_an_answer_before_the_request_is_whole_ends_the_connection() -> None:
    async with pooled(says(response(b"a"))) as (pool, upstream):
        connection = await pool.acquire()
        exchange = connection.start(head_request=False, body_follows=True)
        connection.write(GET)
        await exchange.ready()
        assert not connection.open
        connection = await pool.acquire()
        exchange = connection.start(head_request=False, body_follows=True)
        connection.write(GET)
        connection.sent()
        await exchange.ready()
        assert connection.open
        assert len(upstream.peers) == 2


class SlowSink(Sink):
    """Asks for a pause at every piece, and never to go on: its answer was whole already."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    def data(self, piece: bytes) -> None:
        super().data(piece)
        self._exchange.pause()


async def test_a_paused_connection_reads_again_when_it_is_given_back() -> None:
    async with pooled(says(response(b"a" * 100))) as (pool, upstream):
        for _ in range(3):
            exchange = await begin(pool)
            sink = SlowSink(exchange)
            exchange.attach(sink)
            assert await sink.body() == b"a" * 100
        assert len(upstream.peers) == 1


@pytest.mark.parametrize(
    ("answer", "empty"),
    [(response(b""), True), (CHUNKED + b"0\r\n\r\n", True), (response(b"a"), False)],
)
async def test_an_answer_without_a_body_is_empty(answer: bytes, *, empty: bool) -> None:
    async with pooled(says(answer)) as (pool, _):
        exchange = await begin(pool)
        await exchange.ready()
        assert exchange.is_empty is empty


async def test_whoever_has_a_whole_answer_cannot_pause_the_connection_for_the_next() -> None:
    async with pooled(says(response(b"a"))) as (pool, upstream):
        done = await begin(pool)
        await done.ready()
        assert done.complete
        done.pause()
        assert (await ask(pool))[1] == b"a"
        current = await begin(pool)
        done.pause()
        await current.ready()
        assert len(upstream.peers) == 1


async def test_aborting_cuts_the_line_unless_the_answer_is_whole() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(CHUNKED + chunk(b"x"))
        await peer.gone()
        gone.set()

    async with pooled(script) as (pool, _):
        exchange = await begin(pool)
        await exchange.ready()
        exchange.abort()
        exchange.abort()
        await gone.wait()
    async with pooled(says(response(b"a"))) as (pool, _):
        exchange = await begin(pool)
        await exchange.ready()
        exchange.abort()
        assert len(pool._idle) == 1


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        (b"", Fault.RESET),
        (b"HTTP/1.1 200", Fault.RESET),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", Fault.TRUNCATED),
        (CHUNKED + chunk(b"x"), Fault.TRUNCATED),
        (b"nonsense\r\n\r\n", Fault.PROTOCOL),
        (b"HTTP/1.1 101 Switching\r\n\r\n", Fault.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n", Fault.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000, Fault.PROTOCOL),
    ],
)
async def test_how_an_exchange_breaks(wire: bytes, fault: Fault) -> None:
    async with pooled(says(wire, close=True)) as (pool, _):
        exchange = await begin(pool)
        sink = Sink()
        try:
            await exchange.ready()
            exchange.attach(sink)
            error = await sink.end
        except UpstreamError as raised:
            error = raised
        assert error is not None
        assert error.fault is fault
        await until(lambda: not pool.open_connections)


async def test_a_break_between_ready_and_attach_is_not_lost() -> None:
    async with pooled(says(CHUNKED + chunk(b"x") + b"zz\r\n")) as (pool, _):
        exchange = await begin(pool)
        with contextlib.suppress(UpstreamError):
            await exchange.ready()
        await until(lambda: exchange._error is not None)
        sink = Sink()
        exchange.attach(sink)
        error = await sink.end
        assert error is not None
        assert error.fault is Fault.PROTOCOL
        assert sink.pieces == [b"x"]


# --- What is no body is bounded, and in how many pieces it comes ------------------------------


def by_hand() -> tuple[UpstreamConnection, Exchange]:
    """A connection that is fed without a socket, where the pieces are the test's."""
    pool = UpstreamPool("127.0.0.1", 1, connect_timeout_s=1.0)
    connection = UpstreamConnection(pool, asyncio.get_running_loop())
    return connection, connection.start(head_request=False)


ENDLESS = {
    "a phrase": (b"HTTP/1.1 200 ", b"x"),
    "a header": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "a trailer": (CHUNKED + b"2\r\n{}\r\n0\r\nX: ", b"x"),
    "many trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
    "a chunk extension": (CHUNKED + b"2\r\n{}\r\n2;", b"x"),
    "heads that are none": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("size", [1, 16, 1000])
@pytest.mark.parametrize("name", ENDLESS)
async def test_what_has_no_end_and_is_no_body_is_cut(name: str, size: int) -> None:
    begun, more = ENDLESS[name]
    connection, exchange = by_hand()
    connection.data_received(begun)
    fed = pieces = 0
    wire = more * 1000
    while exchange._error is None and fed < 3 * MAX_HEAD_BYTES:
        at = fed % len(wire)
        piece = (wire + wire)[at : at + size]
        connection.data_received(piece)
        fed, pieces = fed + len(piece), pieces + 1
    with pytest.raises(UpstreamError, match="exceeds 262144 bytes") as raised:
        await exchange.ready() if exchange.head is None else _failed(exchange)
    assert raised.value.fault is Fault.PROTOCOL
    assert fed <= MAX_HEAD_BYTES + 1000
    assert pieces <= MAX_HEAD_BYTES / 64 + 1


def _failed(exchange: Exchange) -> None:
    assert exchange._error is not None
    raise exchange._error


async def test_a_body_in_small_pieces_is_no_head_however_long_it_is() -> None:
    connection, exchange = by_hand()
    connection.data_received(CHUNKED)
    for _ in range(10_000):
        for piece in (b"1", b"\r\n", b"x", b"\r\n"):
            connection.data_received(piece)
    connection.data_received(b"0\r\n\r\n")
    sink = Sink()
    exchange.attach(sink)
    assert await sink.body() == b"x" * 10_000
