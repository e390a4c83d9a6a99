"""The listening sockets and their connections, with nothing behind them: the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.http.request import Request
from support.serving import DRAINING, GET, Recorder, hello, only, say, serving
from support.waiting import until

if TYPE_CHECKING:
    from modelsplit_proxy.http.downstream import Downstream


async def test_stopping_closes_idle_connections_and_lets_the_others_finish() -> None:
    release, began = asyncio.Event(), asyncio.Event()

    async def serve(request: Request, down: Downstream) -> None:
        if request.raw_path == "/slow":
            began.set()
            await release.wait()
        say(down, b"hello", length=5)

    async with (
        serving(serve) as up,
        up.client() as new,
        up.client() as idle,
        up.client() as busy,
        up.client() as half,
    ):
        await new.open()
        assert (await idle.request("GET", "/")).body == b"hello"
        await busy.ask("GET", "/slow")
        await half.send(GET[:10])
        await until(began.is_set)
        await until(lambda: any(c._head_timer for c in up.edge.connections))
        up.edge.stop_accepting(DRAINING)
        assert await idle.at_eof()
        assert await new.at_eof()
        await half.send(GET[10:])
        assert (await half.answer()).body == b"hello"
        release.set()
        assert (await busy.answer()).body == b"hello"
        assert await busy.at_eof()
        with pytest.raises(OSError):  # noqa: PT011 - refused, or reset, as the kernel likes
            await up.client().request("GET", "/")


async def test_a_request_that_has_just_arrived_is_not_dropped() -> None:
    """Between its last byte and its handler's first step a connection is not idle."""
    async with serving(hello) as up, up.client() as client:
        assert (await client.request("GET", "/")).body == b"hello"
        connection = only(up)
        connection.data_received(GET)
        assert not connection.idle
        connection.stop(DRAINING)
        assert (await client.answer()).body == b"hello"
        assert await client.at_eof()


@pytest.mark.fake_time
async def test_closing_cuts_what_still_runs_at_once() -> None:
    began = asyncio.Event()

    async def serve(request: Request, down: Downstream) -> None:
        del request
        down.feed_from(Recorder())
        down.head(200, "OK", [], length=None, close=False)
        down.write(b"half")
        began.set()
        await asyncio.get_running_loop().create_future()

    for version in (b"1.0", b"1.1"):
        began.clear()
        async with serving(serve) as up, up.client() as client:
            await client.send(b"GET / HTTP/%b\r\nHost: localhost\r\n\r\n" % version)
            await until(began.is_set)
            answer = await client.head()
            up.edge.stop_accepting(DRAINING)
            await up.edge.close()  # no time passes
            async for _ in client.pieces(answer):
                pass
            assert not answer.whole
