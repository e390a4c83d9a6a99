"""Jobs for Prometheus: how they ended, how long they took, whether they asked an executor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from prometheus_client import CollectorRegistry

from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.metrics.document_names import DocumentNames
from modelsplit_proxy.metrics.jobs import JobMetrics
from modelsplit_proxy.records.job_store import EndedJob, Tool
from modelsplit_proxy.runtime.loop_lag import LoopLag
from support.scraped import Scraped

if TYPE_CHECKING:
    from modelsplit_proxy.records.job_keeper import JobKeeper


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> JobMetrics:
    documents = DocumentNames(LoopLag())
    registry.register(documents)
    keeper = cast("JobKeeper", SimpleNamespace(open=3))
    return JobMetrics(keeper, registry, documents)


def test_every_series_is_there_at_zero(metrics: JobMetrics, registry: CollectorRegistry) -> None:
    del metrics
    scraped = Scraped(registry)
    assert scraped.values("modelsplit_jobs_total") == [0.0] * 6
    assert scraped.values("modelsplit_job_duration_seconds_count") == [0.0] * 2
    assert scraped.values("modelsplit_tool_duration_seconds_count") == [0.0]
    assert scraped.values("modelsplit_jobs_open") == [3.0]


def test_jobs_that_were_finished_have_a_duration_and_expired_ones_have_none(
    metrics: JobMetrics, registry: CollectorRegistry
) -> None:
    metrics.job_ended(EndedJob("a", JobState.OK, 2_500_000, executor=True))
    metrics.job_ended(EndedJob("b", JobState.FAILED, 61_000_000, executor=False))
    metrics.job_ended(EndedJob("c", JobState.EXPIRED, None, executor=True))
    scraped = Scraped(registry)
    for state, executor in (("ok", "yes"), ("failed", "no"), ("expired", "yes")):
        assert scraped.total("modelsplit_jobs_total", state=state, executor=executor) == 1
    assert scraped.total("modelsplit_jobs_total", executor="yes") == 2, "of 3 jobs"
    assert scraped.total("modelsplit_job_duration_seconds_sum") == 63.5
    assert scraped.total("job_e2e_latency_ms_count") == 2
    assert scraped.total("job_e2e_latency_ms_sum") == pytest.approx(63_500)


def test_tools(metrics: JobMetrics, registry: CollectorRegistry) -> None:
    metrics.tool_ran(Tool("grep", 80_500, ok=False))
    scraped = Scraped(registry)
    assert scraped.total("modelsplit_tool_duration_seconds_sum") == pytest.approx(0.0805)
    assert scraped.total("tool_latency_ms_sum") == pytest.approx(80.5)
