"""A baseline from what was: the numbers of a window of records, to be compared with later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_policy.slo import facts
from modelsplit_policy.slo.coverage import Coverage
from modelsplit_policy.slo.objectives import HOUR_S
from modelsplit_policy.slo.ranked import Ranked
from modelsplit_policy.slo.samples import Baseline, Opinion

if TYPE_CHECKING:
    from modelsplit_policy.slo.samples import Samples

PER_S: Final = 5 * HOUR_S
LEAST_CALLS: Final = 20
"""Answered planner calls that a baseline is taken from, at least."""


class TooLittleError(Exception):
    """The window has too little to compare with later. The text says what there is."""


def baseline_of(samples: Samples, since_us: int, now_us: int, source: str) -> Baseline:
    """What was between the two moments; timeouts are scaled to five hours.

    Raises TooLittleError without an hour of records, or without enough answered planner calls.
    """
    coverage, latencies = Coverage(since_us, now_us, samples.kept_since_us), Ranked()
    timeouts = 0
    for call in samples.calls:
        coverage.take(call.started_us)
        timeouts += facts.planner_timed_out(call) is True
        if (latency_us := facts.planner_latency_us(call)) is not None:
            latencies.add(latency_us)
    for beat in samples.heartbeats:
        coverage.take(beat.at_us)
    if coverage.seconds < HOUR_S or latencies.count < LEAST_CALLS:
        raise TooLittleError(
            f"{latencies.count} answered planner calls in {coverage.seconds // 60} min of records: "
            f"a baseline needs {LEAST_CALLS} of them in an hour at least"
        )
    failed = [bad for job in samples.jobs if (bad := facts.job_failed(job)) is not None]
    opinions = [review.opinion for review in samples.reviews if review.called_us <= now_us]
    return Baseline(
        source=source,
        timeouts=round(timeouts * PER_S / coverage.seconds, 2),
        timeouts_window_s=PER_S,
        planner_p95_ms=latencies.quantile(0.95) / 1000,
        jobs=len(failed),
        jobs_ok=failed.count(False),
        reviews=len(opinions),
        hallucinated=opinions.count(Opinion.HALLUCINATED),
    )
