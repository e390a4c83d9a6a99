"""A process that grows is told from one whose load goes up and down."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

import pytest

from modelsplit_policy.slo.heartbeat import Heartbeat
from modelsplit_policy.slo.leaks import RUN_HOURS, Growth, growth, last_run

MINUTE_US = 60_000_000
read = attrgetter("tasks")


def run(tasks: list[int], name: str = "a") -> list[Heartbeat]:
    return [Heartbeat(i * MINUTE_US, name, tasks=count) for i, count in enumerate(tasks)]


HOURS = 12
MINUTES = HOURS * 60 + 1


def test_a_load_that_comes_and_goes_is_no_leak() -> None:
    busy = [10 + 40 * (minute // 60 % 2) for minute in range(MINUTES)]
    assert growth(run(busy), read, 0) == Growth(0.0, 12.0, MINUTES, 10, 10)


def test_a_floor_that_rises_is_one() -> None:
    leaking = [100 + minute + 40 * (minute // 60 % 2) for minute in range(MINUTES)]
    share = growth(run(leaking), read, 0).share
    # The least of the second quarter stands at three hours, of the last one at nine or ten.
    assert share == pytest.approx((600 - 280) / 280, abs=0.3)


def test_what_warms_up_at_the_beginning_is_none() -> None:
    assert growth(run([1] * 100 + [50] * (MINUTES - 100)), read, 0).share == 0.0


def test_a_little_is_none() -> None:
    grown = [100] * 400 + [108] * (MINUTES - 400)
    assert growth(run(grown), read, 8).share == 0.0
    assert growth(run(grown), read, 7).share == 0.01


@pytest.mark.parametrize("minutes", [0, 1, RUN_HOURS * 60])
def test_a_short_run_tells_nothing(minutes: int) -> None:
    assert growth(run([5] * minutes), read, 0).share is None


def test_what_is_not_known_tells_nothing() -> None:
    beats = [replace(beat, tasks=None) for beat in run([5] * MINUTES)]
    assert growth(beats, read, 0).share is None


def test_only_the_process_that_spoke_last_is_looked_at() -> None:
    beats = [*run([1], "a"), *run([2, 3], "b")]
    assert [beat.tasks for beat in last_run(beats)] == [2, 3]
    assert last_run([]) == []
