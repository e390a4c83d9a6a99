"""Edges of buckets: thresholds are among them, and those for quantiles are close together."""

from __future__ import annotations

from itertools import pairwise

import pytest

from modelsplit_proxy.metrics.buckets import FINE_S, GROWTH, LAG_S, LATENCY_S, WAIT_S
from support.scraped import POLICY

# Milliseconds of objectives that dashboards and gates judge by, and who shows them.
THRESHOLDS = {
    "job_e2e_latency_ms": ((60_000, 70_000), LATENCY_S),
    "planner_latency_ms": ((5_000,), LATENCY_S),
    "llm_latency_ms": ((3_000,), LATENCY_S),
    "tool_latency_ms": ((), LATENCY_S),
    "llm_queue_wait_ms": ((2_000,), WAIT_S),
    "event_loop_lag_p99": ((100,), LAG_S),
}


@pytest.mark.parametrize("edges", [LATENCY_S, WAIT_S, LAG_S, FINE_S])
def test_edges_rise(edges: tuple[float, ...]) -> None:
    assert list(edges) == sorted(set(edges))


@pytest.mark.parametrize("name", THRESHOLDS)
def test_every_threshold_is_an_edge(name: str) -> None:
    """Else a share below it could only be guessed between two edges."""
    thresholds, edges = THRESHOLDS[name]
    shipped = POLICY.slo.get(name)
    known = () if shipped is None else (shipped.p95, shipped.p99, shipped.max)
    wanted = {*thresholds, *(value for value in known if value is not None)}
    assert wanted <= {edge * 1000 for edge in edges}


def test_what_the_shipped_policy_judges_in_milliseconds_is_bound_above() -> None:
    timed = {name for name in POLICY.slo if name.endswith("_ms") or "lag" in name}
    assert timed <= set(THRESHOLDS)


def test_the_timeouts_of_roles_are_edges() -> None:
    rows = POLICY.roles.values()
    bounds = {row.timeout_ms for row in rows} | {row.fallback_timeout_ms for row in rows}
    assert {bound for bound in bounds if bound is not None} <= {edge * 1000 for edge in LATENCY_S}


def test_fine_buckets_hold_every_edge_and_are_five_per_cent_wide() -> None:
    assert {*LATENCY_S, *WAIT_S, *LAG_S} <= set(FINE_S)
    assert all(after <= before * GROWTH * (1 + 1e-9) for before, after in pairwise(FINE_S))
    assert FINE_S[-1] > 3600
