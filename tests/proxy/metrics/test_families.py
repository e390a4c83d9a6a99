"""Counters and histograms as a scrape shows them, against prometheus_client's own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from modelsplit_proxy.metrics.families import KEPT, Counters, Histograms, KeptSeries, Series

if TYPE_CHECKING:
    from collections.abc import Iterable

EDGES = (0.5, 1.0, 2.5)


def lines(registry: CollectorRegistry) -> list[str]:
    """The samples; what prometheus_client adds on its own (``_created``) left out."""
    text = generate_latest(registry).decode()
    shown = (line for line in text.splitlines() if not line.startswith("#"))
    return [line for line in shown if "_created" not in line]


def test_a_counter_begins_with_its_first_use() -> None:
    registry = CollectorRegistry()
    calls = Counters("calls", "Calls.", ("role", "outcome"), registry)
    assert lines(registry) == []
    calls.at["CHAT", "ok"] += 1
    calls.at["CHAT", "ok"] += 2
    calls.at['a"b', "x\n"] += 1
    assert lines(registry) == [
        'calls_total{outcome="ok",role="CHAT"} 3.0',
        'calls_total{outcome="x\\n",role="a\\"b"} 1.0',
    ]
    assert "# HELP calls_total Calls." in generate_latest(registry).decode()


def test_what_has_no_labels_is_there_from_the_start() -> None:
    registry = CollectorRegistry()
    Counters("calls", "Calls.", (), registry)
    Histograms("wait", "Wait.", (), (1.0,), registry)
    assert lines(registry) == [
        "calls_total 0.0",
        'wait_bucket{le="1.0"} 0.0',
        'wait_bucket{le="+Inf"} 0.0',
        "wait_count 0.0",
        "wait_sum 0.0",
    ]


@given(st.lists(st.one_of(st.sampled_from(EDGES), st.floats(0, 5))))
def test_a_histogram_shows_what_prometheus_clients_would(values: Iterable[float]) -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    known = Histogram("wait", "Wait.", ("role",), buckets=EDGES, registry=theirs).labels("CHAT")
    mine = Histograms("wait", "Wait.", ("role",), EDGES, ours).at["CHAT",]
    for value in values:
        known.observe(value)
        mine.observe(value)
    assert lines(ours) == lines(theirs)


def test_a_look_at_a_scrape_makes_no_series() -> None:
    registry = CollectorRegistry()
    waits = Histograms("wait", "Wait.", ("role",), EDGES, registry)
    generate_latest(registry)
    assert not waits.at


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 2.0**53, 1e300])
def test_what_is_no_quantity_is_not_observed(value: float) -> None:
    registry = CollectorRegistry()
    wait = Histograms("wait", "Wait.", (), (1.0,), registry)
    for observed in (0.5, value):
        wait.at[()].observe(observed)
    assert "wait_count 1.0" in lines(registry)
    assert "wait_sum 0.5" in lines(registry)


@given(st.lists(st.one_of(st.sampled_from(EDGES), st.floats(0, 5))))
def test_a_series_that_keeps_its_values_counts_as_any_other(values: Iterable[float]) -> None:
    series, kept = Series(EDGES), KeptSeries(EDGES)
    for value in (*values, math.nan, -1.0):
        series.observe(value)
        kept.observe(value)
        assert (kept.total, kept.counts) == (series.total, series.counts)
    assert kept.upto(EDGES) == series.upto(EDGES)


def test_the_last_values_are_kept_and_no_more() -> None:
    kept = KeptSeries(EDGES)
    assert kept.last(0) == []
    for number in range(KEPT + 10):
        kept.observe(float(KEPT + 10 - number))
    assert kept.last(3) == [1.0, 2.0, 3.0]
    assert kept.last(KEPT) == [float(number) for number in range(1, KEPT + 1)]
    assert kept.last(KEPT + 1) is None
    assert sum(kept.counts) == KEPT + 10
