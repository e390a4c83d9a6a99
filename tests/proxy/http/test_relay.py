"""The streaming loop against a source and a sink that do nothing of their own."""

from __future__ import annotations

import asyncio

import pytest

from modelsplit_policy.deadlines import Bounds
from modelsplit_policy.failures import Reason
from modelsplit_proxy.http.upstream import Fault, UpstreamError
from modelsplit_proxy.protocol.stream_end import Tail
from support.fake_time import fake_time, passes
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


@pytest.mark.fake_time
async def test_silence_is_a_stall_and_pieces_put_it_off() -> None:
    exchange = FakeExchange()
    running = await start(relay(exchange, FakeDown()), Bounds(stall_s=10))
    for _ in range(5):
        await passes(9)
        exchange.deal(b"x")
    await passes(9)
    assert not running.done()
    await passes(1)
    assert await soon(running) is Reason.STALL


@pytest.mark.fake_time
async def test_the_deadline_comes_whatever_flows() -> None:
    exchange = FakeExchange()
    deadline = fake_time().time() + 15
    running = await start(relay(exchange, FakeDown()), Bounds(deadline, stall_s=5))
    for _ in range(14):
        exchange.deal(b"x")
        await passes(1)
    assert not running.done()
    exchange.deal(b"x")
    await passes(1)
    assert await soon(running) is Reason.ROLE_TIMEOUT


@pytest.mark.fake_time
async def test_a_slow_client_pauses_the_upstream_and_its_silence_is_no_stall() -> None:
    exchange, down = FakeExchange(), FakeDown()
    running = await start(relay(exchange, down), Bounds(stall_s=10))
    assert down.source is not None
    down.source.pause()
    await passes(60)
    assert not running.done()
    down.source.resume()
    assert exchange.told == ["pause", "resume"]
    await passes(9)
    assert not running.done()
    await passes(1)
    assert await soon(running) is Reason.STALL


@pytest.mark.fake_time
async def test_a_client_already_behind_pauses_the_upstream_from_the_start() -> None:
    exchange, down = FakeExchange(), FakeDown(writing_paused=True)
    running = await start(relay(exchange, down), Bounds(stall_s=10))
    assert exchange.told == ["pause"]
    await passes(60)
    assert not running.done()
    exchange.end()
    assert await soon(running) is None


async def test_a_cancelled_relay_lets_go_of_the_client() -> None:
    down = FakeDown()
    running = await start(relay(FakeExchange(), down), Bounds(stall_s=5))
    running.cancel()
    await asyncio.wait([running])
    assert down.source is None
