"""Metrics of the calls that take part in an experiment, by experiment and arm.

Both labels are names out of the policy, so their number is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from modelsplit_policy.config import Policy
    from modelsplit_proxy.record import CallRecord

_LABELS = ("experiment", "arm")
_OUTCOMES = ("ok", "client_gone", "error")


class ExperimentMetrics:
    """Counts finished calls of arms; every arm's series exist from the start."""

    def __init__(
        self, policy: Policy, registry: CollectorRegistry, buckets_s: Sequence[float]
    ) -> None:
        self._requests = Counter(
            "modelsplit_experiment_requests",
            "Finished calls of an experiment's arm.",
            (*_LABELS, "outcome"),
            registry=registry,
        )
        self._duration = Histogram(
            "modelsplit_experiment_duration_seconds",
            "Whole time of a call of an experiment's arm.",
            _LABELS,
            buckets=buckets_s,
            registry=registry,
        )
        for test in policy.experiments:
            for arm in test.arms if test.enabled else ():
                self._duration.labels(test.name, arm.name)
                for outcome in _OUTCOMES:
                    self._requests.labels(test.name, arm.name, outcome)

    def call_ended(self, record: CallRecord) -> None:
        if record.variant is None:
            return
        outcome = record.outcome if record.outcome in _OUTCOMES else "error"
        arm = (record.variant.experiment, record.variant.arm)
        self._requests.labels(*arm, outcome).inc()
        self._duration.labels(*arm).observe(record.total_s)
