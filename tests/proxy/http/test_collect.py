"""An answer held until it is whole, too large or too late."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from modelsplit_policy.deadlines import Bounds
from modelsplit_policy.failures import Reason
from modelsplit_proxy.http.collect import Collector

if TYPE_CHECKING:
    from modelsplit_proxy.http.upstream import Exchange

from support.relaying import FakeExchange, soon


async def test_a_collector_keeps_a_whole_answer() -> None:
    exchange = FakeExchange(b"a")
    collector = Collector(cast("Exchange", exchange), 10)
    running = asyncio.get_running_loop().create_task(collector.run(Bounds))
    await asyncio.sleep(0)
    exchange.deal(b"bc")
    exchange.end()
    assert await soon(running) is None
    assert (collector.body, collector.overflowed) == (b"abc", False)


async def test_a_collector_stops_reading_at_its_limit() -> None:
    exchange = FakeExchange(b"a" * 10)
    collector = Collector(cast("Exchange", exchange), 10)
    running = asyncio.get_running_loop().create_task(collector.run(Bounds))
    await asyncio.sleep(0)
    assert not running.done()
    exchange.deal(b"b")
    assert await soon(running) is None
    assert (collector.overflowed, exchange.told) == (True, ["pause"])


async def test_a_collector_is_bounded_in_time() -> None:
    collector = Collector(cast("Exchange", FakeExchange()), 10)
    assert await collector.run(lambda: Bounds(stall_s=0.02)) is Reason.STALL
