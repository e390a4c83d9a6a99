"""An answer held until it is whole, too large or too late."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, cast

from modelsplit_policy.deadlines import Bounds
from modelsplit_policy.failures import Reason
from modelsplit_proxy.http.collect import SMALL_BYTES, BodyCopy, Collector
from modelsplit_proxy.http.read_budget import HeldBytes, ReadBudget

if TYPE_CHECKING:
    from modelsplit_proxy.http.upstream import Exchange

from support.relaying import FakeExchange, soon
from support.work import Work, is_linear, tracing, work_of


async def test_a_collector_keeps_a_whole_answer() -> None:
    exchange = FakeExchange(b"a")
    collector = Collector(cast("Exchange", exchange), 10)
    running = asyncio.get_running_loop().create_task(collector.run(Bounds))
    await asyncio.sleep(0)
    exchange.deal(b"bc")
    exchange.end()
    assert await soon(running) is None
    assert (collector.body, collector.overflowed) == (b"abc", False)


async def test_a_collector_stops_reading_where_its_budget_has_no_room() -> None:
    budget = ReadBudget(3 * SMALL_BYTES)
    first, second = HeldBytes(budget), HeldBytes(budget)
    for hold, overflowed in ((first, False), (second, True)):
        exchange = FakeExchange(b"a" * SMALL_BYTES)
        collector = Collector(cast("Exchange", exchange), 10**6, hold)
        running = asyncio.get_running_loop().create_task(collector.run(Bounds))
        await asyncio.sleep(0)
        assert hold.size == 0  # small ones are not charged
        exchange.deal(b"b" * SMALL_BYTES)
        exchange.end()
        assert await soon(running) is None
        assert collector.overflowed is overflowed
        assert len(collector.body) == 2 * SMALL_BYTES
    assert (first.size, second.size) == (2 * SMALL_BYTES, 0)


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


# --- What is held -----------------------------------------------------------------------------


async def test_what_is_held_in_small_pieces_takes_no_more_than_its_bytes() -> None:
    exchange = FakeExchange()
    collector, kept = Collector(cast("Exchange", exchange), 10**6), BodyCopy(10**6)
    for feed in (collector.data, kept.add):
        with tracing():
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(50_000):
                feed(b"ab")
            assert tracemalloc.get_traced_memory()[0] - before < 200_000
    assert collector.body == kept.body == b"ab" * 50_000


async def test_to_hold_small_pieces_takes_no_more_work_than_their_bytes() -> None:
    def collected(count: int) -> int:
        collector = Collector(cast("Exchange", FakeExchange()), 10**6)
        return work_of(collector.data, [b"0123456789abcdef"] * count, Work())

    def kept(count: int) -> int:
        return work_of(BodyCopy(10**6).add, [b"0123456789abcdef"] * count, Work())

    assert is_linear(collected, 1000)
    assert is_linear(kept, 1000)


def test_what_is_too_large_to_keep_is_let_go_of() -> None:
    kept = BodyCopy(5)
    kept.add(b"12345")
    assert (kept.overflowed, kept.body) == (False, b"12345")
    kept.add(b"6")
    kept.add(b"7")
    assert (kept.overflowed, kept.body) == (True, b"")
