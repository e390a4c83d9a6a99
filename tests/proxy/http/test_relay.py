"""The streaming loop against a source and a sink that do nothing of their own."""

from __future__ import annotations

import asyncio

from modelsplit_policy.deadlines import Bounds
from modelsplit_policy.failures import Reason
from modelsplit_proxy.http.upstream import Fault, UpstreamError
from modelsplit_proxy.protocol.stream_end import Tail
from support.relaying import FakeDown, FakeExchange, relay, soon, start


async def test_pieces_pass_one_by_one_and_the_tail_sees_them() -> None:
    exchange, down, tail = FakeExchange(b"early"), FakeDown(), Tail()
    running = await start(relay(exchange, down, tail))
    exchange.deal(b"a\n", b"b\n")
    assert down.written == [b"early", b"a\n", b"b\n"]
    exchange.end()
    assert await soon(running) is None
    assert tail.lines() == [b"earlya", b"b"]
    assert down.source is None


async def test_a_break_is_the_result() -> None:
    exchange = FakeExchange()
    running = await start(relay(exchange, FakeDown()))
    error = UpstreamError(Fault.TRUNCATED, "gone")
    exchange.end(error)
    exchange.end()
    assert await soon(running) is error


async def test_silence_is_a_stall_and_pieces_put_it_off() -> None:
    exchange = FakeExchange()
    loop = asyncio.get_running_loop()
    began = loop.time()
    running = await start(relay(exchange, FakeDown()), Bounds(stall_s=0.1))
    for _ in range(5):
        await asyncio.sleep(0.04)
        exchange.deal(b"x")
    assert not running.done()
    assert await soon(running) is Reason.STALL
    assert loop.time() - began >= 0.28


async def test_the_deadline_comes_whatever_flows() -> None:
    exchange = FakeExchange()
    deadline = asyncio.get_running_loop().time() + 0.1
    running = await start(relay(exchange, FakeDown()), Bounds(deadline, stall_s=5))
    while not running.done():
        exchange.deal(b"x")
        await asyncio.sleep(0.01)
    assert await soon(running) is Reason.ROLE_TIMEOUT


async def test_a_slow_client_pauses_the_upstream_and_its_silence_is_no_stall() -> None:
    exchange, down = FakeExchange(), FakeDown()
    running = await start(relay(exchange, down), Bounds(stall_s=0.08))
    assert down.source is not None
    down.source.pause()
    await asyncio.sleep(0.25)
    assert not running.done()
    down.source.resume()
    assert exchange.told == ["pause", "resume"]
    assert await soon(running) is Reason.STALL


async def test_a_client_already_behind_pauses_the_upstream_from_the_start() -> None:
    exchange, down = FakeExchange(), FakeDown(writing_paused=True)
    running = await start(relay(exchange, down), Bounds(stall_s=0.05))
    assert exchange.told == ["pause"]
    await asyncio.sleep(0.15)
    assert not running.done()
    exchange.end()
    assert await soon(running) is None


async def test_a_cancelled_relay_lets_go_of_the_client() -> None:
    down = FakeDown()
    running = await start(relay(FakeExchange(), down), Bounds(stall_s=5))
    running.cancel()
    await asyncio.wait([running])
    assert down.source is None
