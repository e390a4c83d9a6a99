"""The process as a scrape shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from prometheus_client import CollectorRegistry

from modelsplit_policy.admission import from_policy
from modelsplit_policy.breaker import BreakerKey, BreakerState, BreakerView
from modelsplit_policy.health import Level
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.metrics.process import ProcessMetrics, measure_lag
from modelsplit_proxy.runtime.loop_lag import LoopLag
from support.scraped import POLICY, Scraped

if TYPE_CHECKING:
    from modelsplit_proxy.http.upstream_pool import UpstreamPool
    from modelsplit_proxy.watch.health import HealthMonitor


class Connections:
    open_connections = 3


class Quiet:
    """A monitor whose breakers are ``opened``."""

    def __init__(self, *opened: str | None) -> None:
        self._keys = [BreakerKey(Provider.LOCAL, model) for model in opened]

    def open_breakers(self) -> list[BreakerView]:
        return [BreakerView(key, BreakerState.OPEN, 3, 10.0, "why") for key in self._keys]


def scraped(monitor: Quiet) -> Scraped:
    registry = CollectorRegistry()
    registry.register(
        ProcessMetrics(
            from_policy(POLICY),
            [cast("UpstreamPool", Connections())],
            cast("HealthMonitor", monitor),
            lambda model: "other" if model.startswith("evil") else model,
            lambda: Level.DEGRADED,
        )
    )
    return Scraped(registry)


def test_an_idle_process() -> None:
    idle = scraped(Quiet())
    for role in Role:
        assert idle.values("modelsplit_in_flight", role=role.value) == [0.0]
        assert idle.values("modelsplit_queue_depth", role=role.value) == [0.0]
    assert idle.values("modelsplit_upstream_connections") == [3.0]
    assert idle.values("modelsplit_breaker_open") == []


def test_open_breakers_of_unknown_models_are_one_series() -> None:
    shown = scraped(Quiet(None, "qwen3:4b", "evil1", "evil2"))
    opened = [s.labels["model"] for s in shown.samples if s.name == "modelsplit_breaker_open"]
    assert sorted(opened) == ["", "other", "qwen3:4b"]
    assert shown.values("modelsplit_health_level") == [1.0]


def test_the_loops_lag_is_counted_in_seconds() -> None:
    lag, registry = LoopLag(), CollectorRegistry()
    measure_lag(lag, registry)
    for _ in range(50):
        lag.observe(0.012)
    shown = Scraped(registry)
    assert shown.total("modelsplit_event_loop_lag_seconds_count") == 50
    assert shown.total("modelsplit_event_loop_lag_seconds_sum") == pytest.approx(0.6)
