"""Times as people read them, and a clock that does not go back."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.budget_clock import Anchor, ClockReading
from modelsplit_proxy.runtime import clock
from modelsplit_proxy.runtime.clock import (
    BudgetClock,
    SystemClock,
    boot_id,
    machine_clocks,
    rfc3339,
)


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1795393743.25, "2026-11-23T00:29:03.250Z"),
        (1795393743.9999, "2026-11-23T00:29:03.999Z"),
        (951782400.001, "2000-02-29T00:00:00.001Z"),
    ],
)
def test_a_moment_is_told_in_utc_with_milliseconds(wall: float, text: str) -> None:
    assert rfc3339(wall) == text


@given(first=st.floats(0, 4e9), second=st.floats(0, 4e9))
def test_the_order_of_texts_is_the_order_of_times(first: float, second: float) -> None:
    if first <= second:
        assert rfc3339(first) <= rfc3339(second)


def test_now_never_goes_back_and_is_finer_than_a_millisecond() -> None:
    clock = SystemClock()
    times = [clock.now() for _ in range(10_000)]
    assert times == sorted(times)
    assert min(b - a for a, b in pairwise(times) if b > a) < 0.001


def test_wall_is_the_time_of_this_century() -> None:
    assert "2020" < rfc3339(SystemClock().wall()) < "2100"


def test_a_boot_is_known_by_the_same_name_whoever_tells_it() -> None:
    said = "AB12CD34-0000-1111-2222-333344445555"
    assert boot_id(said) == boot_id("ab12cd34000011112222333344445555")
    told = boot_id()
    assert told is None or re.fullmatch("[0-9a-f]{32}", told)


def test_a_hidden_boot_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(clock, "_BOOT_ID", tmp_path / "nothing")
    assert boot_id() is None


def test_the_machines_clocks_are_read_together() -> None:
    first, second = (machine_clocks("boot")() for _ in range(2))
    assert (first.boot, second.boot) == ("boot", "boot")
    assert 0 < first.since_boot <= second.since_boot
    assert first.wall > 1_700_000_000


def test_ledger_time_goes_on_from_what_it_is_told_by_what_has_passed() -> None:
    readings = [
        ClockReading("b", since_boot, wall) for since_boot, wall in ((9.0, 500.0), (12.5, 9.0))
    ]
    times = iter(readings)
    time = BudgetClock(lambda: next(times))
    time.begin(Anchor(ClockReading("b", 10.0, 500.0), 70_000.0))
    assert time.anchor() == Anchor(readings[1], 70_002.5)
