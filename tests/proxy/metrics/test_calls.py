"""What a scrape shows: names and labels of the contract, bounded, and the seed names as views."""

from __future__ import annotations

import re
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from modelsplit_policy.admission import from_policy
from modelsplit_policy.breaker import BreakerKey, BreakerState, BreakerView
from modelsplit_policy.call import Event
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.health import Level
from modelsplit_policy.roles import Candidate, Route
from modelsplit_policy.vocabulary import Context, Provider, Role, RouteReason
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.metrics.calls import CallMetrics, label_values
from modelsplit_proxy.runtime.loop_lag import LoopLag
from support.records import (
    REFUSED,
    answered,
    begun,
    broken_off,
    fallen_back,
    routed,
    turned_away,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.http.upstream_pool import UpstreamPool
    from modelsplit_proxy.watch.health import HealthMonitor

POLICY = policy_file.load(None).policy
CHAT = Route(
    role=Role.CHAT,
    context=Context.CHAT,
    provider=Provider.LOCAL,
    requested_model="llava:7b",
    candidates=(Candidate("llava:7b", None),),
    reason=RouteReason.DEFAULT,
)
BAD_JSON = Failure(ErrorCode.BAD_REQUEST, Reason.BAD_JSON, "x", "X")
# The policy document's name, the canonical histogram, and which of its series.
VIEWS = {
    "job_e2e_latency_ms": ("modelsplit_request_duration_seconds", {"outcome": "ok"}),
    "planner_latency_ms": (
        "modelsplit_request_duration_seconds",
        {"role": "PLANNER", "outcome": "ok"},
    ),
    "tool_latency_ms": ("modelsplit_tool_duration_seconds", {}),
}
# The document's names that mean something else than any histogram of ours.
OWN = {"llm_latency_ms", "llm_queue_wait_ms"}


class Connections:
    open_connections = 3


class Quiet:
    """A monitor whose breakers are ``opened``."""

    def __init__(self, *opened: str | None) -> None:
        self.guard = SimpleNamespace(level=Level.DEGRADED if opened else Level.OK)
        self._keys = [BreakerKey(Provider.LOCAL, model) for model in opened]

    def open_breakers(self) -> list[BreakerView]:
        return [BreakerView(key, BreakerState.OPEN, 3, 10.0, "why") for key in self._keys]


def watching(lag: LoopLag, monitor: Quiet) -> CallMetrics:
    metrics = CallMetrics(POLICY)
    metrics.watch(
        from_policy(POLICY),
        cast("UpstreamPool", Connections()),
        lag,
        cast("HealthMonitor", monitor),
    )
    return metrics


class Scraped:
    """The exposition, parsed as Prometheus does."""

    def __init__(self, metrics: CallMetrics) -> None:
        self.text = generate_latest(metrics.registry).decode()
        self.families = {f.name: f for f in text_string_to_metric_families(self.text)}
        self.samples = [s for family in self.families.values() for s in family.samples]

    def values(self, name: str, **labels: str) -> list[float]:
        return [
            sample.value
            for sample in self.samples
            if sample.name == name and sample.labels.items() >= labels.items()
        ]

    def total(self, name: str, **labels: str) -> float:
        return sum(self.values(name, **labels))

    def buckets(self, name: str, where: Mapping[str, str]) -> dict[str, float]:
        """Cumulative counts by edge, summed over the series that match."""
        out: dict[str, float] = {}
        for sample in self.samples:
            if sample.name == f"{name}_bucket" and sample.labels.items() >= where.items():
                edge = sample.labels["le"]
                out[edge] = out.get(edge, 0.0) + sample.value
        return out

    def series(self) -> set[tuple[str, ...]]:
        return {(s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))) for s in self.samples}


@pytest.fixture
def lag() -> LoopLag:
    return LoopLag()


@pytest.fixture
def metrics(lag: LoopLag) -> CallMetrics:
    return watching(lag, Quiet())


# --- Before the first call --------------------------------------------------------------------


def test_the_series_people_watch_are_there_at_zero(metrics: CallMetrics) -> None:
    scraped = Scraped(metrics)
    for role in Role:
        for outcome in ("ok", "client_gone", "error"):
            wanted = {"role": role.value, "outcome": outcome}
            assert scraped.values("modelsplit_request_duration_seconds_count", **wanted) == [0.0]
            assert scraped.values("modelsplit_upstream_duration_seconds_count", **wanted) == [0.0]
            assert scraped.values("modelsplit_queue_wait_seconds_count", **wanted) == [0.0]
        assert scraped.values("modelsplit_in_flight", role=role.value) == [0.0]
        assert scraped.values("modelsplit_queue_depth", role=role.value) == [0.0]
    for name in VIEWS:
        assert scraped.values(f"{name}_count") == [0.0]
    assert scraped.values("event_loop_lag_p99") == [0.0]
    assert scraped.values("modelsplit_client_retries_total") == [0.0]
    assert scraped.values("modelsplit_upstream_connections") == [3.0]


def test_every_name_is_ours_or_the_policy_documents(metrics: CallMetrics) -> None:
    names = set(Scraped(metrics).families)
    assert {n for n in names if not n.startswith("modelsplit_")} == {
        *VIEWS,
        *OWN,
        "event_loop_lag_p99",
    }


def test_our_histograms_count_seconds_and_the_seed_names_milliseconds(metrics: CallMetrics) -> None:
    for name, family in Scraped(metrics).families.items():
        if family.type == "histogram":
            assert name.endswith("_ms" if name in {*VIEWS, *OWN} else "_seconds")
        assert family.documentation


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
    scraped = Scraped(metrics)
    check_views(scraped)
    assert scraped.total("job_e2e_latency_ms_count") == 3, "answered calls"
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
    scraped = Scraped(metrics)
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
    metrics = watching(LoopLag(), Quiet())
    for end in ends:
        record = answered()
        record.ended = record.attempts[0].ended = 100.5 + end
        metrics.call_ended(record)
    check_views(Scraped(metrics))


def test_the_objectives_thresholds_are_bucket_edges(metrics: CallMetrics) -> None:
    """Else a share below the threshold could only be guessed between two edges."""
    scraped = Scraped(metrics)
    for name, objective in POLICY.slo.items():
        for threshold in (objective.p95, objective.p99):
            if threshold is not None:
                edges = {float(edge) for edge in scraped.buckets(name, {})}
                assert threshold in edges, name


# --- Latencies are of answered calls ------------------------------------------------------------


def test_an_outage_lets_no_latency_look_better(metrics: CallMetrics) -> None:
    """Refusals, errors and clients that left take a millisecond, and are no latencies."""
    metrics.call_ended(answered())
    before = Scraped(metrics)
    left = routed()
    left.call.step(Event.CLIENT_GONE)
    left.failure = Failure(ErrorCode.CLIENT_GONE, Reason.QUEUED, "gone", "Gone")
    for record in (turned_away(), broken_off(), left, begun(failure=BAD_JSON)):
        record.ended = record.started + 0.001
        metrics.call_ended(record)
    after = Scraped(metrics)
    assert after.total("modelsplit_requests_total") == 5
    histograms = [name for name, family in after.families.items() if family.type == "histogram"]
    assert {*VIEWS, *OWN} < set(histograms)
    for name in histograms:
        labels = {key for series in after.families[name].samples for key in series.labels}
        answers = {"outcome": "ok"} if "outcome" in labels else {}
        assert after.buckets(name, answers) == before.buckets(name, answers), name
        assert after.total(f"{name}_sum", **answers) == before.total(f"{name}_sum", **answers)


# --- One call, counted --------------------------------------------------------------------------


def test_an_answered_call_is_counted_once_with_its_tokens(metrics: CallMetrics) -> None:
    metrics.call_ended(answered())
    scraped = Scraped(metrics)
    labels = {"role": "PLANNER", "provider": "LOCAL", "model": "qwen3:4b", "outcome": "ok"}
    assert scraped.values("modelsplit_requests_total", **labels) == [1.0]
    assert scraped.total("modelsplit_requests_total") == 1
    assert scraped.total("modelsplit_request_duration_seconds_sum", role="PLANNER") == 3.0
    assert scraped.total("modelsplit_upstream_duration_seconds_sum") == 2.5
    assert scraped.total("modelsplit_queue_wait_seconds_sum") == 0.5
    assert scraped.total("modelsplit_time_to_first_byte_seconds_sum") == 1.0
    tokens = {
        way: scraped.total("modelsplit_tokens_total", model="qwen3:4b", direction=way)
        for way in ("input", "output")
    }
    assert tokens == {"input": 11, "output": 6}
    assert scraped.total("modelsplit_errors_total") == 0


def test_a_fallback_is_counted_by_its_cause_and_as_one_request(metrics: CallMetrics) -> None:
    metrics.call_ended(fallen_back())
    scraped = Scraped(metrics)
    cause = {"role": "PLANNER", "code": REFUSED.code.value}
    assert scraped.values("modelsplit_fallbacks_total", **cause) == [1.0]
    assert scraped.total("modelsplit_requests_total", model="qwen3:8b", outcome="ok") == 1
    assert scraped.total("modelsplit_errors_total") == 0


def test_a_call_turned_away_is_an_error_with_its_reason_and_its_wait(metrics: CallMetrics) -> None:
    metrics.call_ended(turned_away())
    scraped = Scraped(metrics)
    labels = {"role": "PLANNER", "code": "E_OVERLOAD_THROTTLED", "reason": "queue_full"}
    assert scraped.values("modelsplit_errors_total", **labels) == [1.0]
    assert scraped.total("modelsplit_request_duration_seconds_count", outcome="error") == 1
    assert scraped.total("modelsplit_queue_wait_seconds_sum", role="PLANNER") == 2.0
    assert scraped.total("modelsplit_upstream_duration_seconds_count") == 0


def test_a_client_that_left_is_not_an_error_of_ours(metrics: CallMetrics) -> None:
    record = routed()
    record.call.step(Event.CLIENT_GONE)
    record.failure = Failure(ErrorCode.CLIENT_GONE, Reason.QUEUED, "gone", "Gone")
    metrics.call_ended(record)
    scraped = Scraped(metrics)
    assert scraped.total("modelsplit_requests_total", outcome="client_gone") == 1
    assert scraped.total("modelsplit_requests_total", outcome="error") == 0


def test_a_call_refused_before_it_had_a_role_is_counted_under_other(metrics: CallMetrics) -> None:
    metrics.call_ended(begun(failure=BAD_JSON))
    scraped = Scraped(metrics)
    labels = {"role": "other", "provider": "other", "model": "other", "outcome": "error"}
    assert scraped.values("modelsplit_requests_total", **labels) == [1.0]
    assert scraped.values("modelsplit_errors_total", role="other", reason="bad_json") == [1.0]
    assert scraped.total("modelsplit_request_duration_seconds_count") == 0


def test_an_sdks_retry_is_counted(metrics: CallMetrics) -> None:
    metrics.call_ended(answered(client_retry=True))
    metrics.call_ended(answered())
    assert Scraped(metrics).values("modelsplit_client_retries_total") == [1.0]


def test_what_passes_through_is_counted_by_kind_and_class_of_status(metrics: CallMetrics) -> None:
    for status in (200, 204, 404, 499, 502):
        metrics.passed("metadata", status)
    metrics.passed("other", 200)
    scraped = Scraped(metrics)
    counts = {
        sample.labels["status"]: sample.value
        for sample in scraped.samples
        if sample.name == "modelsplit_passthrough_requests_total"
        and sample.labels["kind"] == "metadata"
    }
    assert counts == {"2xx": 2, "4xx": 2, "5xx": 1}


def test_the_loops_lag_is_shown_in_both_units(metrics: CallMetrics, lag: LoopLag) -> None:
    for _ in range(50):
        lag.observe(0.012)
    scraped = Scraped(metrics)
    assert scraped.values("event_loop_lag_p99") == [pytest.approx(12.0)]
    assert scraped.total("modelsplit_event_loop_lag_seconds_count") == 50
    assert scraped.total("modelsplit_event_loop_lag_seconds_sum") == pytest.approx(0.6)


# --- Bounds -------------------------------------------------------------------------------------


def test_a_client_that_invents_models_adds_no_series(metrics: CallMetrics) -> None:
    metrics.call_ended(answered(CHAT))
    before = Scraped(metrics).series()
    for number in range(400):
        record = answered(CHAT)
        record.requested_model = record.attempts[-1].model = f'evil"{number}\n\udcff'
        metrics.call_ended(record)
    after = Scraped(metrics)
    assert after.series() == before
    assert after.total("modelsplit_requests_total", model="other") == 401


def test_models_of_the_policy_keep_their_names_in_every_spelling(metrics: CallMetrics) -> None:
    labels = [metrics.model_label(name) for name in ("qwen3:4b", "Qwen3:4B", "gpt-oss:20b", "x")]
    assert labels == ["qwen3:4b", "qwen3:4b", "gpt-oss:20b", "other"]


def test_open_breakers_of_unknown_models_are_one_series() -> None:
    scraped = Scraped(watching(LoopLag(), Quiet(None, "qwen3:4b", "evil1", "evil2")))
    opened = [s.labels["model"] for s in scraped.samples if s.name == "modelsplit_breaker_open"]
    assert sorted(opened) == ["", "other", "qwen3:4b"]
    assert scraped.values("modelsplit_health_level") == [1.0]


def test_every_bounded_label_has_a_value_of_its_closed_set(metrics: CallMetrics) -> None:
    for record in (answered(), answered(CHAT), fallen_back(), turned_away(), begun()):
        metrics.call_ended(record)
    closed = label_values()
    for sample in Scraped(metrics).samples:
        for label, value in sample.labels.items():
            if label in closed:
                assert value in closed[label], sample


def test_labels_are_the_same_few_words_everywhere(metrics: CallMetrics) -> None:
    for record in (answered(), fallen_back(), turned_away()):
        metrics.call_ended(record)
    metrics.passed("other", 200)
    used = set(re.findall(r'[{,](\w+)="', Scraped(metrics).text))
    assert used <= {
        *("le", "role", "outcome", "provider", "model", "code", "reason", "direction"),
        *("kind", "status", "what"),
    }
