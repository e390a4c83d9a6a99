"""Connections reused, not reused, not to be had."""

from __future__ import annotations

import asyncio
import socket

import pytest

from modelsplit_proxy.http.upstream import Fault, UpstreamError
from modelsplit_proxy.http.upstream_pool import IDLE_S, MAX_IDLE, UpstreamPool
from support.fake_time import passes
from support.pooled import ask, begin, pooled
from support.ports import kept_port
from support.raw import Peer, says
from support.scripted import response
from support.waiting import until


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
        pool = UpstreamPool(*listener.getsockname(), connect_timeout_s=600)
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
            dropped: list[str] = []
            pool.on_dropped(lambda: dropped.append("dropped"))
            other = await pool.acquire()
            assert other is not connection
            assert dropped == ["dropped"]
        pool.close()
        await until(lambda: not pool.open_connections)


async def test_bytes_on_an_idle_connection_close_it() -> None:
    idle = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(response(b"a"))
        await idle.wait()
        peer.send(b"x")
        await peer.gone()

    async with pooled(script) as (pool, _):
        await ask(pool)
        assert pool.open_connections == 1
        idle.set()
        await until(lambda: not pool.open_connections)


async def test_who_wants_to_know_is_told_that_the_other_end_has_closed() -> None:
    dropped: list[str] = []
    idle, answered = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        if answered.is_set():
            return  # closes in the middle of an exchange
        peer.send(response(b"a"))
        await idle.wait()

    async with pooled(script) as (pool, _):
        pool.on_dropped(lambda: dropped.append("dropped"))
        await ask(pool)
        assert dropped == []
        answered.set()
        idle.set()
        await until(lambda: dropped == ["dropped"])
        exchange = await begin(pool)
        with pytest.raises(UpstreamError):
            await exchange.ready()
        assert dropped == ["dropped"] * 2


async def test_what_we_close_ourselves_is_not_told() -> None:
    dropped: list[str] = []
    async with pooled(says(response(b"a"))) as (pool, _):
        pool.on_dropped(lambda: dropped.append("dropped"))
        (await begin(pool)).abort()
        await ask(pool)
        pool.close()
        await until(lambda: not pool.open_connections)
    assert dropped == []


async def test_a_connection_idle_for_too_long_is_not_used() -> None:
    async with pooled(says(response(b"a"))) as (pool, upstream):
        await ask(pool)
        (idle,) = pool._idle
        idle.idle_since -= IDLE_S
        await ask(pool)
        assert len(upstream.peers) == 2


@pytest.mark.fake_time
async def test_what_a_burst_opened_is_closed_again_however_steady_the_traffic_is() -> None:
    async with pooled(says(response(b"a"))) as (pool, _):
        burst = [await pool.acquire() for _ in range(20)]
        for connection in burst:
            pool.give_back(connection)
        for _ in range(3):
            await passes(IDLE_S / 3 - 1)
            await ask(pool)
        assert pool.open_connections == 20
        await passes(4.0)
        # One of them has answered everything, and goes on.
        assert pool.open_connections == 1
        await ask(pool)
        assert pool.open_connections == 1
        await passes(IDLE_S)
        assert pool.open_connections == 0


@pytest.mark.fake_time
async def test_connections_that_came_back_one_after_the_other_leave_so() -> None:
    async with pooled(says(response(b"a"))) as (pool, _):
        first, second = await pool.acquire(), await pool.acquire()
        pool.give_back(first)
        await passes(10.0)
        pool.give_back(second)
        await passes(IDLE_S - 10.0)
        assert (first.open, second.open) == (False, True)
        await passes(9.0)
        assert second.open
        await passes(1.0)
        assert not second.open


async def test_only_so_many_idle_connections_are_kept() -> None:
    async with pooled(says(response(b"a"))) as (pool, _):
        connections = [await pool.acquire() for _ in range(MAX_IDLE + 5)]
        for connection in connections:
            pool.give_back(connection)
        assert len(pool._idle) == MAX_IDLE
        await until(lambda: pool.open_connections == MAX_IDLE)


async def test_no_connection_is_an_error_that_says_which() -> None:
    with kept_port() as port:
        pool = UpstreamPool("127.0.0.1", port, connect_timeout_s=600)
        with pytest.raises(UpstreamError, match="connection refused") as refused:
            await pool.acquire()
    assert refused.value.fault is Fault.REFUSED
    pool = UpstreamPool("no-such-name.invalid", 1, connect_timeout_s=600)
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
        pool = UpstreamPool(*full.getsockname(), connect_timeout_s=0.1)
        with pytest.raises(UpstreamError) as late:
            await pool.acquire()
        assert late.value.fault is Fault.CONNECT_TIMEOUT
        for filler in fillers:
            filler.close()
