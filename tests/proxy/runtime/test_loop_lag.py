"""How late the loop is: one late tick tells a stall, and the window forgets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.runtime.loop_lag import LoopLag


class Loop:
    """A loop whose time is a number: timers run when ``advance`` is told to reach them."""

    def __init__(self) -> None:
        self.now = 50.0
        self.timers: list[tuple[float, Callable[..., None], tuple[Any, ...], Handle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., None], *args: Any) -> Handle:
        handle = Handle()
        self.timers.append((when, callback, args, handle))
        return handle

    def advance(self, to: float) -> None:
        """Time passes unnoticed, as during a stall; then what is due runs, once each."""
        self.now = to
        due = [timer for timer in self.timers if timer[0] <= to and not timer[3].cancelled]
        self.timers = [timer for timer in self.timers if timer[0] > to]
        for _, callback, args, _ in due:
            callback(*args)


class Handle:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def started(**options: float) -> tuple[LoopLag, Loop, list[float]]:
    lag, loop = LoopLag(**options), Loop()
    seen: list[float] = []
    lag.listen(seen.append)
    lag.start(cast("asyncio.AbstractEventLoop", loop))
    return lag, loop, seen


def test_a_loop_that_keeps_time_is_not_late() -> None:
    lag, loop, seen = started(tick_s=0.5)
    for tick in range(1, 5):
        loop.advance(50.0 + tick / 2)
    assert seen == [0.0] * 4
    assert repr(lag) == "<LoopLag p99 0.0 ms of 4>"


def test_a_stall_is_one_late_tick_and_no_burst_follows() -> None:
    _, loop, seen = started(tick_s=0.5)
    loop.advance(53.0)
    loop.advance(53.25)
    loop.advance(53.5)
    assert seen == [2.5, 0.0]


def test_a_clock_that_is_early_is_not_negative_lag() -> None:
    lag, loop, seen = started(tick_s=0.5)
    when, callback, args, _ = loop.timers.pop()
    loop.now = when - 0.001  # uvloop counts whole milliseconds
    callback(*args)
    assert seen == [0.0]
    assert lag.quantile(1.0) == 0.0


def test_a_listener_that_raises_does_not_end_the_measuring() -> None:
    lag, loop, seen = started(tick_s=0.5)

    def fails(_: float) -> None:
        raise ZeroDivisionError

    lag.listen(fails)
    for tick in (1, 2):
        with pytest.raises(ZeroDivisionError):
            loop.advance(50.0 + tick / 2)
    assert seen == [0.0, 0.0]


def test_after_stop_nothing_ticks() -> None:
    lag, loop, seen = started(tick_s=0.5)
    lag.stop()
    loop.advance(60.0)
    assert seen == []
    LoopLag().stop()


@pytest.mark.parametrize(
    ("q", "value"), [(0.0, 1.0), (0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0)]
)
def test_quantiles_are_nearest_rank(q: float, value: float) -> None:
    lag = LoopLag()
    for sample in range(100, 0, -1):
        lag.observe(float(sample))
    assert lag.quantile(q) == value


def test_before_the_first_tick_there_is_no_lag() -> None:
    assert LoopLag().quantile(0.99) == 0.0


def test_the_window_forgets() -> None:
    lag = LoopLag(tick_s=0.1, window_s=1.0)
    lag.observe(9.0)
    for _ in range(10):
        lag.observe(0.001)
    assert lag.quantile(1.0) == 0.001


@given(samples=st.lists(st.floats(0, 10), min_size=1), q=st.floats(0, 1))
def test_a_quantile_is_one_of_the_samples(samples: list[float], q: float) -> None:
    lag = LoopLag(tick_s=0.1, window_s=1000)
    for sample in samples:
        lag.observe(sample)
    assert lag.quantile(q) in samples
    assert sum(sample <= lag.quantile(q) for sample in samples) >= q * len(samples)


async def test_it_ticks_in_the_loop_the_product_runs_on() -> None:
    lag, ticked = LoopLag(tick_s=0.001), asyncio.Event()
    lag.listen(lambda _: ticked.set())
    lag.start(asyncio.get_running_loop())
    await ticked.wait()
    lag.stop()
