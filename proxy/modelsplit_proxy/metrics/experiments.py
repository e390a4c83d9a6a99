"""Metrics of the calls that take part in an experiment, by experiment and arm.

Both labels are names out of the policy, so their number is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_proxy.metrics.families import Counters, Histograms, Series

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from modelsplit_policy.config.model import Policy
    from modelsplit_proxy.records.record import CallRecord

_LABELS = ("experiment", "arm")
_OUTCOMES = ("ok", "client_gone", "error")


class ExperimentMetrics:
    """Counts finished calls of arms; every arm's series exist from the start."""

    def __init__(
        self, policy: Policy, registry: CollectorRegistry, edges_s: tuple[float, ...]
    ) -> None:
        self._requests = Counters(
            "modelsplit_experiment_requests",
            "Finished calls of an experiment's arm.",
            (*_LABELS, "outcome"),
            registry,
        )
        self._duration = Histograms(
            "modelsplit_experiment_duration_seconds",
            "Answered calls of an experiment's arm: their whole time.",
            _LABELS,
            edges_s,
            registry,
        )
        for test in policy.experiments:
            for arm in test.arms if test.enabled else ():
                self._duration.at[test.name, arm.name] = Series(edges_s)
                for outcome in _OUTCOMES:
                    self._requests.at[test.name, arm.name, outcome] = 0.0

    def call_ended(self, record: CallRecord) -> None:
        variant = None if record.routing is None else record.routing.variant
        if variant is None:
            return
        outcome = record.outcome if record.outcome in _OUTCOMES else "error"
        experiment, arm = variant.experiment, variant.arm
        self._requests.at[experiment, arm, outcome] += 1
        if outcome == "ok":
            self._duration.at[experiment, arm].observe(record.total_s)
