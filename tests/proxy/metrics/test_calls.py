"""What a scrape shows of calls: names and labels of the contract, bounded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.call import Event
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.metrics.calls import label_values
from support.records import (
    CHAT,
    REFUSED,
    answered,
    begun,
    broken_off,
    fallen_back,
    routed,
    turned_away,
)
from support.scraped import Scraped, call_metrics

if TYPE_CHECKING:
    from modelsplit_proxy.metrics.calls import CallMetrics

BAD_JSON = Failure(ErrorCode.BAD_REQUEST, Reason.BAD_JSON, "x", "X")


@pytest.fixture
def metrics() -> CallMetrics:
    return call_metrics()


# --- Before the first call --------------------------------------------------------------------


def test_the_series_people_watch_are_there_at_zero(metrics: CallMetrics) -> None:
    scraped = Scraped(metrics.registry)
    for role in Role:
        for outcome in ("ok", "client_gone", "error"):
            wanted = {"role": role.value, "outcome": outcome}
            assert scraped.values("modelsplit_request_duration_seconds_count", **wanted) == [0.0]
            assert scraped.values("modelsplit_upstream_duration_seconds_count", **wanted) == [0.0]
        wanted = {"role": role.value, "outcome": "ok"}
        assert scraped.values("modelsplit_queue_wait_seconds_count", **wanted) == [0.0]
    assert scraped.values("modelsplit_client_retries_total") == [0.0]


def test_our_histograms_count_seconds(metrics: CallMetrics) -> None:
    for name, family in Scraped(metrics.registry).families.items():
        if family.type == "histogram" and name.startswith("modelsplit_"):
            assert name.endswith("_seconds")
        assert family.documentation


# --- Latencies are of answered calls ------------------------------------------------------------


def test_an_outage_lets_no_latency_look_better(metrics: CallMetrics) -> None:
    """Refusals, errors and clients that left take a millisecond, and are no latencies."""
    metrics.call_ended(answered())
    before = Scraped(metrics.registry)
    left = routed()
    left.call.step(Event.CLIENT_GONE)
    left.failure = Failure(ErrorCode.CLIENT_GONE, Reason.QUEUED, "gone", "Gone")
    for record in (turned_away(), broken_off(), left, begun(failure=BAD_JSON)):
        record.ended = record.started + 0.001
        metrics.call_ended(record)
    after = Scraped(metrics.registry)
    assert after.total("modelsplit_requests_total") == 5
    histograms = [name for name, family in after.families.items() if family.type == "histogram"]
    assert len(histograms) == 10, "five of ours, five of the document's"
    for name in histograms:
        labels = {key for series in after.families[name].samples for key in series.labels}
        answers = {"outcome": "ok"} if "outcome" in labels else {}
        assert after.buckets(name, answers) == before.buckets(name, answers), name
        assert after.total(f"{name}_sum", **answers) == before.total(f"{name}_sum", **answers)


# --- One call, counted --------------------------------------------------------------------------


def test_an_answered_call_is_counted_once_with_its_tokens(metrics: CallMetrics) -> None:
    metrics.call_ended(answered())
    scraped = Scraped(metrics.registry)
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
    scraped = Scraped(metrics.registry)
    cause = {"role": "PLANNER", "code": REFUSED.code.value}
    assert scraped.values("modelsplit_fallbacks_total", **cause) == [1.0]
    assert scraped.total("modelsplit_requests_total", model="qwen3:8b", outcome="ok") == 1
    assert scraped.total("modelsplit_errors_total") == 0


def test_a_call_turned_away_is_an_error_with_its_reason_and_its_wait(metrics: CallMetrics) -> None:
    metrics.call_ended(turned_away())
    scraped = Scraped(metrics.registry)
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
    scraped = Scraped(metrics.registry)
    assert scraped.total("modelsplit_requests_total", outcome="client_gone") == 1
    assert scraped.total("modelsplit_requests_total", outcome="error") == 0


def test_a_call_refused_before_it_had_a_role_is_counted_under_other(metrics: CallMetrics) -> None:
    metrics.call_ended(begun(failure=BAD_JSON))
    scraped = Scraped(metrics.registry)
    labels = {"role": "other", "provider": "other", "model": "other", "outcome": "error"}
    assert scraped.values("modelsplit_requests_total", **labels) == [1.0]
    assert scraped.values("modelsplit_errors_total", role="other", reason="bad_json") == [1.0]
    assert scraped.total("modelsplit_request_duration_seconds_count") == 0


def test_an_sdks_retry_is_counted(metrics: CallMetrics) -> None:
    metrics.call_ended(answered(client_retry=True))
    metrics.call_ended(answered())
    assert Scraped(metrics.registry).values("modelsplit_client_retries_total") == [1.0]


def test_what_passes_through_is_counted_by_kind_and_class_of_status(metrics: CallMetrics) -> None:
    for status in (200, 204, 404, 499, 502):
        metrics.passed("metadata", status)
    metrics.passed("other", 200)
    scraped = Scraped(metrics.registry)
    counts = {
        sample.labels["status"]: sample.value
        for sample in scraped.samples
        if sample.name == "modelsplit_passthrough_requests_total"
        and sample.labels["kind"] == "metadata"
    }
    assert counts == {"2xx": 2, "4xx": 2, "5xx": 1}


# --- Bounds -------------------------------------------------------------------------------------


def test_a_client_that_invents_models_adds_no_series(metrics: CallMetrics) -> None:
    metrics.call_ended(answered(CHAT))
    before = Scraped(metrics.registry).series()
    for number in range(400):
        record = answered(CHAT)
        record.requested_model = record.attempts[-1].model = f'evil"{number}\n\udcff'
        metrics.call_ended(record)
    after = Scraped(metrics.registry)
    assert after.series() == before
    assert after.total("modelsplit_requests_total", model="other") == 401


def test_models_of_the_policy_keep_their_names_in_every_spelling(metrics: CallMetrics) -> None:
    labels = [metrics.model_label(name) for name in ("qwen3:4b", "Qwen3:4B", "gpt-oss:20b", "x")]
    assert labels == ["qwen3:4b", "qwen3:4b", "gpt-oss:20b", "other"]


def test_every_bounded_label_has_a_value_of_its_closed_set(metrics: CallMetrics) -> None:
    for record in (answered(), answered(CHAT), fallen_back(), turned_away(), begun()):
        metrics.call_ended(record)
    closed = label_values()
    for sample in Scraped(metrics.registry).samples:
        for label, value in sample.labels.items():
            if label in closed:
                assert value in closed[label], sample


def test_labels_are_the_same_few_words_everywhere(metrics: CallMetrics) -> None:
    for record in (answered(), fallen_back(), turned_away()):
        metrics.call_ended(record)
    metrics.passed("other", 200)
    used = set(re.findall(r'[{,](\w+)="', Scraped(metrics.registry).text))
    assert used <= {
        *("le", "role", "outcome", "provider", "model", "code", "reason", "direction"),
        *("kind", "status", "what"),
    }
