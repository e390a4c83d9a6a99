"""One connection after another to an upstream that does what each test says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from modelsplit_proxy.upstream import (
    IDLE_S,
    MAX_IDLE,
    Exchange,
    Fault,
    Pool,
    UpstreamError,
    UpstreamHead,
)
from support.raw import Peer, RawUpstream, Script, chunk, raw_upstream, says
from support.scripted import response
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
        async with asyncio.timeout(5):
            assert await self.end is None
        return b"".join(self.pieces)


@contextlib.asynccontextmanager
async def pooled(script: Script) -> AsyncIterator[tuple[Pool, RawUpstream]]:
    async with raw_upstream(script) as upstream, asyncio.timeout(10):
        pool = Pool("127.0.0.1", upstream.port, connect_timeout_s=1.0)
        try:
            yield pool, upstream
        finally:
            pool.close()
            await until(lambda: not pool.open_connections)


async def begin(pool: Pool, *, head_request: bool = False) -> Exchange:
    connection = await pool.acquire()
    exchange = connection.start(head_request=head_request)
    connection.write(GET)
    return exchange


async def ask(pool: Pool) -> tuple[UpstreamHead, bytes]:
    exchange = await begin(pool)
    head = await exchange.ready()
    sink = Sink()
    exchange.attach(sink)
    return head, await sink.body()


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


async def test_connections_are_reused_and_told_apart() -> None:
    async with pooled(says(response(b"a"))) as (pool, upstream):
        for _ in range(3):
            assert (await ask(pool))[1] == b"a"
        assert len(upstream.peers) == 1
        first, second = await begin(pool), await begin(pool)
        await first.ready()
        await second.ready()
        assert (len(upstream.peers), pool.open_connections) == (2, 2)
        assert "2 open" in repr(pool)


@pytest.mark.parametrize(
    "answer",
    [
        response(b"a", "Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
        response(b"a") + b"surplus",
        response(b"a") + response(b"poison"),
        b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody",
    ],
)
async def test_what_cannot_be_reused_is_not(answer: bytes) -> None:
    async with pooled(says(answer)) as (pool, upstream):
        for number in (1, 2, 3):
            head, body = await ask(pool)
            assert body == (b"" if head.status == 204 else b"a")
            assert len(upstream.peers) == number


@pytest.mark.parametrize("late", [b"late bytes", b"", response(b"poison")])
async def test_an_idle_connection_with_something_to_say_is_not_used(late: bytes) -> None:
    """What the kernel has, and the loop has not seen yet, counts."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        pool = Pool(*listener.getsockname(), connect_timeout_s=1.0)
        connection = await pool.acquire()
        peer, _ = listener.accept()
        with peer:
            pool.give_back(connection)
            assert connection.quiet()
            if late:
                peer.sendall(late)
            else:
                peer.shutdown(socket.SHUT_WR)
            # No await since: the loop cannot know.
            assert connection.open
            assert not connection.quiet()
            other = await pool.acquire()
            assert other is not connection
        pool.close()
        await until(lambda: not pool.open_connections)


async def test_bytes_on_an_idle_connection_close_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(response(b"a"))
        await peer.flush()
        await asyncio.sleep(0.02)
        peer.send(b"x")
        await peer.gone()

    async with pooled(script) as (pool, _):
        await ask(pool)
        await until(lambda: not pool.open_connections)


async def test_a_connection_idle_for_too_long_is_not_used() -> None:
    async with pooled(says(response(b"a"))) as (pool, upstream):
        await ask(pool)
        (idle,) = pool._idle
        idle.idle_since -= IDLE_S
        await ask(pool)
        assert len(upstream.peers) == 2


async def test_only_so_many_idle_connections_are_kept() -> None:
    async with pooled(says(response(b"a"))) as (pool, _):
        connections = [await pool.acquire() for _ in range(MAX_IDLE + 5)]
        for connection in connections:
            pool.give_back(connection)
        assert len(pool._idle) == MAX_IDLE
        await until(lambda: pool.open_connections == MAX_IDLE)


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


async def test_no_connection_is_an_error_that_says_which() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    pool = Pool("127.0.0.1", port, connect_timeout_s=1.0)
    with pytest.raises(UpstreamError, match="connection refused") as refused:
        await pool.acquire()
    assert refused.value.fault is Fault.REFUSED
    pool = Pool("no-such-name.invalid", 1, connect_timeout_s=5.0)
    with pytest.raises(UpstreamError, match="does not resolve") as unknown:
        await pool.acquire()
    assert unknown.value.fault is Fault.DNS


@pytest.mark.parametrize("turns", range(8))
async def test_a_connect_that_is_cancelled_leaves_no_socket_behind(turns: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.gone()

    async with pooled(script) as (pool, upstream):
        for _ in range(20):
            connecting = asyncio.get_running_loop().create_task(pool.acquire())
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            await asyncio.wait([connecting])
            if not connecting.cancelled():
                connecting.result().abort()
        await until(lambda: not pool.open_connections)
        await until(lambda: not upstream._tasks)  # it has seen the end of every connection


async def test_a_connect_that_hangs_is_bounded() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):  # the backlog is full when the kernel drops the next SYN
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        pool = Pool(*full.getsockname(), connect_timeout_s=0.1)
        with pytest.raises(UpstreamError) as late:
            await pool.acquire()
        assert late.value.fault is Fault.CONNECT_TIMEOUT
        for filler in fillers:
            filler.close()
