"""Metrics by experiment and arm: names of the policy and nothing else."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from modelsplit_proxy.metrics.experiments import ExperimentMetrics
from modelsplit_proxy.records.record import CallRecord, Variant
from support.harness import policy
from support.records import answered, turned_away

ARMS = [{"name": name, "model": name, "weight": 1} for name in ("a", "b")]
TEST = {"name": "t", "role": "PLANNER", "arms": ARMS, "sticky": "job", "enabled": True}


def counted(*records: CallRecord, enabled: bool = True) -> dict[tuple[str, ...], float]:
    """Calls by experiment, arm and outcome, or by the first two for the count of durations."""
    registry = CollectorRegistry()
    told = policy({"experiments": [{**TEST, "enabled": enabled}]}).policy
    metrics = ExperimentMetrics(told, registry, (1.0, 5.0))
    for record in records:
        metrics.call_ended(record)
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name.endswith(("_requests_total", "_count"))
    }


def test_every_arm_is_there_from_the_start() -> None:
    found = counted()
    assert {key for key in found if len(key) == 2} == {("t", "a"), ("t", "b")}
    assert {key[2] for key in found if len(key) == 3} == {"ok", "client_gone", "error"}
    assert (len(found), set(found.values())) == (8, {0})


def test_calls_count_for_their_arm_by_how_they_ended() -> None:
    found = counted(answered(variant=Variant("t", "a")), turned_away(variant=Variant("t", "a")))
    assert (found["t", "a", "ok"], found["t", "a", "error"]) == (1, 1)
    assert found["t", "a"] == 1, "latencies are of answered calls"
    assert found["t", "b"] == 0


def test_calls_outside_an_experiment_do_not_count() -> None:
    assert counted(answered(), enabled=False) == {}
