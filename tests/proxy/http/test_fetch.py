"""A question of our own: its answer whole, or the reason why there is none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from modelsplit_proxy.http.fetch import fetch
from modelsplit_proxy.http.upstream import Fault, UpstreamError
from modelsplit_proxy.http.upstream_pool import UpstreamPool
from support.scripted import Scripted, response, scripted

CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


@contextlib.asynccontextmanager
async def asking(
    *answers: bytes, hang_up: bool = False
) -> AsyncIterator[tuple[UpstreamPool, Scripted]]:
    async with scripted(*answers, hang_up=hang_up) as upstream:
        pool = UpstreamPool("127.0.0.1", upstream.port, connect_timeout_s=600)
        try:
            yield pool, upstream
        finally:
            pool.close()
            while pool.open_connections:  # noqa: ASYNC110 - nobody sets an event
                await asyncio.sleep(0)


async def test_status_and_body_come_back_and_the_request_is_a_plain_one() -> None:
    async with asking(response(b"hello", status="418 Teapot")) as (pool, upstream):
        assert await fetch(pool, "ollama.test:11434", "/x", 100) == (418, b"hello")
        assert upstream.asked == [b"GET /x HTTP/1.1\r\nHost: ollama.test:11434\r\n\r\n"]


@pytest.mark.parametrize(("answer", "body"), [(CHUNKS, b"abcde"), (response(b""), b"")])
async def test_any_framing_will_do(answer: bytes, body: bytes) -> None:
    async with asking(answer) as (pool, _):
        assert await fetch(pool, "x", "/x", 100) == (200, body)


async def test_the_connection_is_used_again() -> None:
    async with asking(response(b"1"), response(b"2")) as (pool, _):
        assert [(await fetch(pool, "x", "/x", 100))[1] for _ in range(2)] == [b"1", b"2"]
        assert pool.open_connections == 1


@pytest.mark.parametrize(("size", "fits"), [(99, True), (100, True), (101, False)])
async def test_an_answer_is_bounded(size: int, fits: bool) -> None:
    async with asking(response(b"x" * size)) as (pool, _):
        if fits:
            assert (await fetch(pool, "x", "/x", 100))[1] == b"x" * size
            return
        with pytest.raises(UpstreamError, match="/x answered more than 100 bytes") as raised:
            await fetch(pool, "x", "/x", 100)
        assert raised.value.fault is Fault.PROTOCOL


async def test_an_endless_answer_is_cut_off() -> None:
    async with asking(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000) as (pool, _):
        with pytest.raises(UpstreamError, match="more than 100 bytes"):
            await fetch(pool, "x", "/x", 100)
        while pool.open_connections:  # noqa: ASYNC110 - the transport closes in its own time
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/9.9 banana\r\n\r\n", Fault.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Fault.TRUNCATED),
        (b"", Fault.RESET),
    ],
    ids=["garbage", "half", "nothing"],
)
async def test_an_answer_that_breaks_says_how(answer: bytes, fault: Fault) -> None:
    async with asking(answer, hang_up=True) as (pool, _):
        with pytest.raises(UpstreamError) as raised:
            await fetch(pool, "x", "/x", 100)
        assert raised.value.fault is fault


async def test_nobody_there() -> None:
    async with scripted() as upstream:
        port = upstream.port
    with pytest.raises(UpstreamError) as raised:
        await fetch(UpstreamPool("127.0.0.1", port, connect_timeout_s=600), "x", "/x", 100)
    assert raised.value.fault is Fault.REFUSED


async def test_who_stops_waiting_leaves_no_connection_behind() -> None:
    async with asking(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n") as (pool, upstream):
        task = asyncio.create_task(fetch(pool, "x", "/x", 100))
        while not upstream.asked:  # noqa: ASYNC110 - the script tells nobody
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while pool.open_connections:  # noqa: ASYNC110 - the transport closes in its own time
            await asyncio.sleep(0)
