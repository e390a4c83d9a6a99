"""What is counted while samples go by: of every row of the table, and once for all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from modelsplit_policy.slo import facts
from modelsplit_policy.slo.coverage import Coverage
from modelsplit_policy.slo.facts import End, end_of
from modelsplit_policy.slo.objectives import HOUR_S
from modelsplit_policy.slo.report import RoleTimeouts
from modelsplit_policy.slo.samples import Opinion
from modelsplit_policy.slo.tallies import Clock, Events, Share, Values
from modelsplit_policy.vocabulary import JobState, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelsplit_policy.slo.heartbeat import Heartbeat
    from modelsplit_policy.slo.objectives import Objective
    from modelsplit_policy.slo.samples import CallSample, JobSample, Review, Samples

PER_S: Final = 5 * HOUR_S
"""Timeouts are told as so many in this time."""
OF_JOBS: Final = frozenset(
    {"job_e2e_latency_ms", "executor_job_rate", "job_success_rate", "tool_latency_ms"}
)
_PLANNER: Final = str(Role.PLANNER)
_ROLES: Final = tuple(map(str, Role))


@dataclass(slots=True)
class Row:
    """One row of the table and what is counted for it; one without a bound counts nothing.

    ``policy_window_s``: the ``window`` of the policy's objective.
    """

    objective: Objective
    bound: float | None
    clock: Clock
    window_s: int
    policy_window_s: int
    values: Values = field(init=False)
    share: Share = field(init=False)
    events: Events = field(init=False)

    def __post_init__(self) -> None:
        bound_us = (self.bound or 0.0) * 1000
        self.values = Values(self.clock, bound_us)
        self.share = Share(self.clock)
        self.events = Events(self.clock)

    @property
    def name(self) -> str:
        return self.objective.name


class Counts:
    """Every row's counts, and what is counted once for all of them."""

    def __init__(
        self,
        rows: Sequence[Row],
        window_s: int,
        now_us: int,
        timeouts_window_s: int,
        kept_since_us: int | None = None,
    ) -> None:
        self.timeouts_window_s = timeouts_window_s
        self._now_us = now_us
        seconds = {row.window_s for row in rows} | {window_s, timeouts_window_s}
        self.coverage = {
            s: Coverage(now_us - 1_000_000 * s, now_us, kept_since_us) for s in seconds
        }
        self.ends: dict[int, Counter[End]] = {s: Counter() for s in seconds}
        self.calls: Counter[int] = Counter()
        # Jobs that nobody said had ended, by window.
        self.expired: Counter[int] = Counter()
        self._by_role: dict[str, Counter[bool]] = {role: Counter() for role in _ROLES}
        # By window, the longest first: most calls of a week are of no interest to the last hours.
        self._windows = sorted((now_us - 1_000_000 * s, s) for s in seconds)
        live = [row for row in rows if row.bound is not None]
        feeders = [(row.clock.earliest_us, feed) for row in live if (feed := _call_feeder(row))]
        self._call_feeders = sorted(feeders, key=lambda feeder: feeder[0])
        self._job_rows = [row for row in live if row.name in OF_JOBS]
        self._beat_rows = [row for row in live if row.name == "event_loop_lag_p99"]
        self._review_rows = [row for row in live if row.name == "hallucination_rate"]

    def take(self, samples: Samples, beats: Sequence[Heartbeat]) -> None:
        """Look at every sample once; ``beats``: the heartbeats."""
        for call in samples.calls:
            self.call(call)
        for job in samples.jobs:
            self.job(job)
        for review in samples.reviews:
            self.review(review)
        for beat in beats:
            self.heartbeat(beat)

    def call(self, call: CallSample) -> None:
        started_us = call.started_us
        if started_us > self._now_us:
            return
        for earliest_us, feed in self._call_feeders:
            if started_us < earliest_us:
                break
            feed(call)
        end = end_of(call)
        planner, role = call.role == _PLANNER, call.role
        for since_us, seconds in self._windows:
            if started_us < since_us:
                break
            self.coverage[seconds].take(started_us)
            self.calls[seconds] += 1
            if planner:
                self.ends[seconds][end] += 1
            if seconds == self.timeouts_window_s and role is not None:
                self._by_role[role][end is End.TIMEOUT] += 1

    def job(self, job: JobSample) -> None:
        ended_us = job.ended_us
        if ended_us is None or ended_us > self._now_us:
            return
        if job.state is JobState.EXPIRED:
            for since_us, seconds in self._windows:
                self.expired[seconds] += ended_us >= since_us
        for row in self._job_rows:
            if row.name == "tool_latency_ms":
                for tool_us in job.tools_us:
                    row.values.take(ended_us, tool_us, job.job_id)
            elif row.name == "job_e2e_latency_ms":
                if (latency_us := facts.job_latency_us(job)) is not None:
                    row.values.take(ended_us, latency_us, job.job_id)
            elif (bad := facts.JOB_SHARES[row.name](job)) is not None:
                row.share.take(ended_us, bad, job.job_id)

    def review(self, review: Review) -> None:
        hallucinated = review.opinion is Opinion.HALLUCINATED
        if review.called_us <= self._now_us:
            for row in self._review_rows:
                row.share.take(review.called_us, hallucinated, review.request_id)

    def heartbeat(self, beat: Heartbeat) -> None:
        for coverage in self.coverage.values():
            coverage.take(beat.at_us)
        if beat.lag_p99_us is not None:
            for row in self._beat_rows:
                row.values.take(beat.at_us, beat.lag_p99_us, str(beat.at_us))

    def role_timeouts(self) -> tuple[RoleTimeouts, ...]:
        """Of every role that had calls."""
        covered_s = self.coverage[self.timeouts_window_s].seconds
        scale = PER_S / covered_s if covered_s >= HOUR_S else None
        return tuple(
            RoleTimeouts(role, counts.total(), counts[True], scale and counts[True] * scale)
            for role, counts in self._by_role.items()
            if counts
        )


def _call_feeder(row: Row) -> Callable[[CallSample], None] | None:
    """What a call adds to a row's counts; None: it adds nothing."""
    if (read := facts.CALL_VALUES.get(row.name)) is not None:
        return _value_feeder(read, row.values)
    if (look := facts.CALL_SHARES.get(row.name)) is not None:
        return _share_feeder(look, row.share)
    look = facts.CALL_EVENTS.get(row.name)
    return None if look is None else _event_feeder(look, row.events)


def _value_feeder(
    read: Callable[[CallSample], int | None], values: Values
) -> Callable[[CallSample], None]:
    def feed(call: CallSample) -> None:
        if (value := read(call)) is not None:
            values.take(call.started_us, value, call.request_id, call.job_id)

    return feed


def _share_feeder(
    look: Callable[[CallSample], bool | None], share: Share
) -> Callable[[CallSample], None]:
    def feed(call: CallSample) -> None:
        if (bad := look(call)) is not None:
            share.take(call.started_us, bad, call.request_id, cluster=call.job_id)

    return feed


def _event_feeder(
    look: Callable[[CallSample], bool | None], events: Events
) -> Callable[[CallSample], None]:
    def feed(call: CallSample) -> None:
        if (event := look(call)) is not None:
            events.take(call.started_us, event, call.request_id)

    return feed
