"""The policy document's names: the same observations, in milliseconds."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from modelsplit_proxy.metrics.document_names import DocumentNames
from modelsplit_proxy.runtime.loop_lag import LoopLag
from support.records import CHAT, answered, begun, fallen_back, turned_away
from support.scraped import Scraped, call_metrics

if TYPE_CHECKING:
    from modelsplit_proxy.metrics.calls import CallMetrics

# The policy document's name, the canonical histogram, and which of its series.
VIEWS = {
    "planner_latency_ms": (
        "modelsplit_request_duration_seconds",
        {"role": "PLANNER", "outcome": "ok"},
    ),
}
# The document's names that mean something else than any histogram of ours of calls; of jobs,
# see ``test_jobs``.
OWN = {"llm_latency_ms", "llm_queue_wait_ms", "job_e2e_latency_ms", "tool_latency_ms"}


@pytest.fixture
def metrics() -> CallMetrics:
    return call_metrics()


def test_every_name_is_there_at_zero_and_no_other(metrics: CallMetrics) -> None:
    scraped = Scraped(metrics.registry)
    others = {name for name in scraped.families if not name.startswith("modelsplit_")}
    assert others == {*VIEWS, *OWN, "event_loop_lag_p99"}
    for name in {*VIEWS, *OWN}:
        assert scraped.families[name].type == "histogram"
        assert scraped.values(f"{name}_count") == [0.0]
    assert scraped.values("event_loop_lag_p99") == [0.0]


def test_an_observation_is_in_the_buckets_that_are_shown() -> None:
    registry = CollectorRegistry()
    documents = DocumentNames(LoopLag())
    registry.register(documents)
    for seconds in (0.05, 0.0501, 2.0, 2.5, 3.0, 4000.0):
        documents.planner.observe(seconds)
    upto = Scraped(registry).buckets("planner_latency_ms", {})
    assert (upto["50"], upto["100"], upto["2000"], upto["3000"]) == (1, 2, 3, 5)
    assert (upto["600000"], upto["+Inf"]) == (5, 6)
    assert Scraped(registry).total("planner_latency_ms_sum") == pytest.approx(4007600.1)


def test_the_loops_lag_is_a_gauge_in_milliseconds() -> None:
    lag = LoopLag()
    metrics = call_metrics(lag)
    for _ in range(50):
        lag.observe(0.012)
    assert Scraped(metrics.registry).values("event_loop_lag_p99") == [pytest.approx(12.0)]


# --- One observation, two names -----------------------------------------------------------------


def check_views(scraped: Scraped) -> None:
    for name, (canonical, where) in VIEWS.items():
        seconds, view = scraped.buckets(canonical, where), scraped.buckets(name, {})
        finite = [edge for edge in seconds if edge != "+Inf"]
        edges = {edge: Decimal(edge) * 1000 for edge in finite}
        assert {Decimal(edge) for edge in view if edge != "+Inf"} == set(edges.values())
        by_edge = {Decimal(edge): count for edge, count in view.items() if edge != "+Inf"}
        assert all(by_edge[edges[edge]] == seconds[edge] for edge in finite)
        assert view["+Inf"] == seconds["+Inf"] == scraped.total(f"{name}_count")
        assert scraped.total(f"{name}_sum") == pytest.approx(
            scraped.total(f"{canonical}_sum", **where) * 1000
        )


def test_the_seed_names_are_the_same_observations_in_milliseconds(metrics: CallMetrics) -> None:
    for record in (answered(), answered(CHAT), fallen_back(), turned_away(), begun()):
        metrics.call_ended(record)
    scraped = Scraped(metrics.registry)
    check_views(scraped)
    assert scraped.total("job_e2e_latency_ms_count") == 0, "calls are no jobs"
    assert scraped.total("planner_latency_ms_count") == 2, "answered calls"
    assert scraped.total("planner_latency_ms_sum") == pytest.approx(3000 + 4000)


def test_the_documents_wait_and_latency_are_told_apart_by_what_ollama_says(
    metrics: CallMetrics,
) -> None:
    """Of 2.5 s at Ollama 0.25 were loading and 0.75 waiting for a slot."""
    waited = answered()
    waited.attempts[0].usage = waited.attempts[0].usage._replace(
        prompt_eval_s=0.5, eval_s=1.0, total_s=2.5
    )
    for record in (waited, answered(CHAT), fallen_back(), turned_away(), begun()):
        metrics.call_ended(record)
    scraped = Scraped(metrics.registry)
    assert scraped.total("modelsplit_upstream_wait_seconds_sum", role="PLANNER") == 0.75
    assert scraped.total("modelsplit_upstream_wait_unknown_total") == 2
    ours = scraped.total("modelsplit_queue_wait_seconds_sum", outcome="ok")
    assert ours == pytest.approx(0.5 + 0.5 + 0.25)
    assert scraped.total("llm_queue_wait_ms_sum") == pytest.approx(1000 * (ours + 0.75))
    assert scraped.total("llm_queue_wait_ms_count") == 3
    raw = scraped.total("modelsplit_upstream_duration_seconds_sum")
    assert raw == pytest.approx(2.5 + 2.5 + 2.75)
    assert scraped.total("llm_latency_ms_sum") == pytest.approx(1000 * (raw - 0.75 - 0.25 - 0.25))
    assert scraped.total("llm_latency_ms_count") == 3


@given(ends=st.lists(st.floats(0, 900), max_size=20))
@settings(max_examples=10)
def test_whatever_the_latencies_the_views_agree(ends: list[float]) -> None:
    metrics = call_metrics()
    for end in ends:
        record = answered()
        record.ended = record.attempts[0].ended = 100.5 + end
        metrics.call_ended(record)
    check_views(Scraped(metrics.registry))
