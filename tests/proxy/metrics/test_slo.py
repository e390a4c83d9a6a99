"""Objectives at a scrape: as they were judged a little while ago, and never by the scrape."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from modelsplit_policy.config.parser import parse
from modelsplit_policy.slo.judge import judge
from modelsplit_policy.slo.report import Report
from modelsplit_policy.slo.samples import Samples
from modelsplit_proxy.metrics.slo import SloMetrics
from modelsplit_proxy.runtime.tasks import Tasks
from modelsplit_proxy.storage.state_file import StoreError
from support.slo_history import NOW_US, breaching
from support.waiting import until

SLO = parse(json.loads((Path(__file__).parents[3] / "config/model-policy.json").read_text())).slo
ILL = judge(breaching().samples(), SLO, NOW_US)
NOTHING = judge(Samples(), SLO, NOW_US)


class Clock:
    at = 0.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return NOW_US / 1e6


class Judge:
    """Takes ``took_s`` for each report."""

    def __init__(self, clock: Clock, report: Report, took_s: float = 0.1) -> None:
        self.asked = 0
        self.fails = False
        self._clock = clock
        self._report = report
        self._took_s = took_s

    def of_nothing(self) -> Report:
        return NOTHING

    async def report(self) -> Report:
        self.asked += 1
        self._clock.at += self._took_s
        if self.fails:
            raise StoreError("the state file cannot be read")
        return self._report


class Watched:
    def __init__(self, report: Report, took_s: float = 0.1) -> None:
        self.clock = Clock()
        self.judge = Judge(self.clock, report, took_s)
        self.tasks = Tasks()
        self.metrics = SloMetrics(self.judge, self.tasks, self.clock)  # type: ignore[arg-type]
        self.registry = CollectorRegistry()
        self.registry.register(self.metrics)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"modelsplit_slo_{name}", labels)

    def series(self) -> set[tuple[str, ...]]:
        return {
            (sample.name, *sample.labels.values())
            for family in self.metrics.collect()
            for sample in family.samples
        }

    async def scrape(self) -> None:
        """And let whatever it began come to its end."""
        list(self.registry.collect())
        await until(lambda: not self.metrics._judging)


LATENCY = {"objective": "planner_latency_ms", "bound": "p95", "gate": "2"}


async def test_the_first_scrape_has_objectives_judged_and_the_next_tells_them() -> None:
    watched = Watched(ILL)
    await watched.scrape()
    assert watched.value("ok", **LATENCY) == 0
    assert watched.value("value", **LATENCY) == 9000
    assert watched.value("objective", **LATENCY) == 5000
    assert watched.value("ok", objective="covered_days", bound="min", gate="4") == 1
    assert watched.value("ok", objective="llm_latency_ms", bound="p95", gate="") == 0
    assert watched.value("judged_timestamp_seconds") == NOW_US / 1e6


async def test_without_enough_data_nothing_is_said_to_hold_or_not() -> None:
    watched = Watched(NOTHING)
    await watched.scrape()
    assert math.isnan(watched.value("ok", **LATENCY) or 0)
    assert math.isnan(watched.value("value", **LATENCY) or 0)
    assert watched.value("objective", **LATENCY) == 5000


async def test_a_judgement_changes_values_and_no_series() -> None:
    watched = Watched(ILL)
    before = watched.series()
    await watched.scrape()
    assert len(before) > 60
    assert watched.series() == before


@pytest.mark.parametrize(("took_s", "rests_s"), [(0.1, 60), (4.0, 200)])
async def test_a_scrape_a_second_judges_once_a_minute_or_a_fiftieth_of_the_time(
    took_s: float, rests_s: float
) -> None:
    watched = Watched(ILL, took_s)
    await watched.scrape()
    for _ in range(int(rests_s) - 1):
        watched.clock.at += 1
        await watched.scrape()
    assert watched.judge.asked == 1
    watched.clock.at += 1.001
    await watched.scrape()
    assert watched.judge.asked == 2


async def test_a_file_that_cannot_be_read_leaves_the_last_report_and_its_time() -> None:
    watched = Watched(ILL)
    await watched.scrape()
    watched.judge.fails = True
    watched.clock.at += 100
    await watched.scrape()
    assert watched.judge.asked == 2
    assert watched.value("ok", **LATENCY) == 0
