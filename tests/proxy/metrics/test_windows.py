"""Quantiles of the last five minutes and five hours, in time that the test tells."""

from __future__ import annotations

import asyncio
import math
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.metrics.buckets import FINE_S, GROWTH
from modelsplit_proxy.metrics.families import KEPT, KeptSeries
from modelsplit_proxy.metrics.windows import Quantiles, Windows, quantile
from support.fake_time import passes


class Told:
    """A clock; the process starts at 2026-11-23T00:29:03Z."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return 1000.0 + self.at

    def wall(self) -> float:
        return 1795393743.0 + self.at


class World:
    """One series and its windows, which keep a copy every ten seconds."""

    def __init__(self) -> None:
        self.clock = Told()
        self.series = KeptSeries(FINE_S)
        self.windows = Windows({"wait": self.series}, self.clock)

    def pass_to(self, at: float) -> None:
        while self.clock.at < at:
            self.clock.at = min(at, self.clock.at + 10)
            self.windows.keep()

    def shown(self, window: str) -> dict[str, Any]:
        return self.windows.fields()["wait"][window]


def test_before_the_first_value_there_is_no_quantile() -> None:
    world = World()
    nothing = {"n": 0, "p95": None, "p99": None, "since": "2026-11-23T00:29:03.000Z"}
    assert world.shown("5m") == world.shown("5h") == {**nothing, "window_s": 0.0}


def test_a_young_process_has_short_windows_and_says_so() -> None:
    world = World()
    world.series.observe(2.0)
    world.clock.at = 42.0
    for window in ("5m", "5h"):
        shown = world.shown(window)
        assert (shown["n"], shown["window_s"]) == (1, 42.0)
        assert shown["since"] == "2026-11-23T00:29:03.000Z"
        assert (shown["p95"], shown["p99"]) == (2000, 2000)


def test_what_is_older_than_a_window_is_not_in_it() -> None:
    world = World()
    world.series.observe(60.0)
    world.pass_to(60.0)
    world.series.observe(1.0)
    world.pass_to(330.0)
    assert world.shown("5m") == {
        "n": 1,
        "p95": 1000,
        "p99": 1000,
        "since": "2026-11-23T00:29:33.000Z",
        "window_s": 300.0,
    }
    assert world.shown("5h")["n"] == 2
    world.pass_to(5 * 3600 + 50)
    assert world.shown("5m")["n"] == 0
    assert world.shown("5h")["n"] == 2, "kept in steps of ten minutes: never shorter than it says"
    world.pass_to(5 * 3600 + 700)
    assert world.shown("5h")["n"] == 0


def test_a_window_is_never_shorter_and_hardly_longer_than_its_name() -> None:
    world = World()
    world.pass_to(6 * 3600)
    for step in range(20):
        world.pass_to(6 * 3600 + step * 7)
        assert 300 <= world.shown("5m")["window_s"] <= 310 + 7
        assert 18000 <= world.shown("5h")["window_s"] <= 18600 + 7


def test_what_is_kept_does_not_grow() -> None:
    world = World()
    world.pass_to(24 * 3600)
    kept = {name: len(window) for name, window in world.windows._windows.items()}
    assert kept == {"5m": 31, "5h": 31}


def test_a_process_that_slept_forgets_what_is_too_old() -> None:
    world = World()
    world.series.observe(1.0)
    world.pass_to(100.0)
    world.clock.at = 4000.0
    assert world.shown("5m")["n"] == 0
    assert world.shown("5m")["window_s"] == 3900.0


@pytest.mark.fake_time
async def test_copies_are_kept_by_a_task() -> None:
    world = World()
    task = asyncio.get_running_loop().create_task(world.windows.watch())
    await asyncio.sleep(0)
    for step in (9.999, 20.0):  # a timer may be a little early
        world.clock.at = step
        await passes(10.0)
    assert len(world.windows._windows["5m"]) == 3
    task.cancel()


# --- Quantiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("upto", "q", "value"),
    [
        ((0, 0, 0), 0.5, None),
        ((1, 1, 1), 0.5, 0.5),
        ((0, 2, 2), 0.5, 1.5),
        ((2, 4, 4), 0.5, 1.0),
        ((2, 4, 4), 0.75, 1.5),
        ((0, 0, 5), 0.95, 2.0),
    ],
)
def test_a_quantile_is_in_its_bucket_by_its_share(
    upto: tuple[int, ...], q: float, value: float | None
) -> None:
    assert quantile((1.0, 2.0), upto, q) == value


@given(st.lists(st.floats(0.001, 3000), min_size=1, max_size=60), st.sampled_from([0.95, 0.99]))
def test_a_quantile_is_within_five_per_cent_of_the_value_of_that_rank(
    values: list[float], q: float
) -> None:
    series = KeptSeries(FINE_S)
    for value in values:
        series.observe(value)
    exact = sorted(values)[math.ceil(q * len(values)) - 1]
    shown = quantile(series.edges, list(accumulate(series.counts)), q)
    assert shown is not None
    assert exact / GROWTH - 1e-9 <= shown <= exact * GROWTH + 1e-9


@given(st.lists(st.floats(0.001, 3000), min_size=1, max_size=60), st.sampled_from([0.5, 0.95]))
def test_a_quantile_of_few_is_one_of_them(values: list[float], q: float) -> None:
    series = KeptSeries(FINE_S)
    series.observe(7.0)
    before = tuple(series.counts)
    for value in values:
        series.observe(value)
    found = Quantiles(series, before)
    assert found.count == len(values)
    assert found.at(q) == sorted(values)[math.ceil(q * len(values)) - 1]


def test_a_quantile_of_many_is_of_the_buckets() -> None:
    series = KeptSeries(FINE_S)
    nothing = tuple(series.counts)
    for number in range(KEPT + 1):
        series.observe(1.0 + number / 1000)
    many = Quantiles(series, nothing)
    median = many.at(0.5)
    assert many.count == KEPT + 1
    assert median is not None
    assert median == pytest.approx(1.0 + KEPT / 2000, rel=GROWTH - 1)
