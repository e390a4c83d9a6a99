"""Samples and the policy's bounds in, a report out. Every sample is looked at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.slo import facts, verdicts
from modelsplit_policy.slo.counting import OF_JOBS, Counts, Row
from modelsplit_policy.slo.leaks import RUN_HOURS, growth, last_run
from modelsplit_policy.slo.objectives import GATES, HOUR_S, TABLE, UNSHIPPED
from modelsplit_policy.slo.report import Finding, Gate, PlannerCalls, Report, Verdict, worst_of
from modelsplit_policy.slo.tallies import WORST, Clock
from modelsplit_policy.slo.uptime import MINUTE_US, uptime
from modelsplit_policy.slo.verdicts import Judged

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from modelsplit_policy.config.model import SloPolicy
    from modelsplit_policy.slo.heartbeat import Heartbeat
    from modelsplit_policy.slo.objectives import Objective
    from modelsplit_policy.slo.samples import Samples

    Slo = Mapping[str, SloPolicy | None]

DEFAULT_WINDOW_S: Final = 5 * HOUR_S
_MIB: Final = 1 << 20


class _Holding(NamedTuple):
    """Something that a process holds: ``slack`` more of it is no growth.

    That is what a garbage collector leaves, a pool of connections that fills, a few tasks.
    ``scale``: so much is one ``unit``.
    """

    read: Callable[[Heartbeat], int | None]
    slack: int
    scale: int
    unit: str


_GROWTH: Final[Mapping[str, _Holding]] = MappingProxyType(
    {
        "memory_growth": _Holding(lambda beat: beat.rss_bytes, 16 * _MIB, _MIB, "MiB"),
        "descriptor_growth": _Holding(lambda beat: beat.descriptors, 16, 1, "descriptors"),
        "task_growth": _Holding(lambda beat: beat.tasks, 8, 1, "tasks"),
    }
)
# Of what there may be too few, in words.
_WHAT: Final = MappingProxyType(
    {
        "planner_latency_ms": "answered planner calls",
        "llm_latency_ms": "answered calls",
        "llm_queue_wait_ms": "answered calls",
        "planner_failure_rate": "planner calls",
        "fallback_rate": "calls",
        "schema_error_rate": "answers held to a schema",
        "telemetry_fields": "answered calls",
        "timeouts": "planner calls",
        "cloud_calls": "calls",
        "event_loop_lag_p99": "heartbeats",
        "tool_latency_ms": "tools",
        "job_e2e_latency_ms": "ended jobs",
        "executor_job_rate": "ended jobs",
        "job_success_rate": "ended jobs",
        "hallucination_rate": "reviewed calls",
        "uptime": "minutes with a heartbeat",
    }
)


def longest_window_s(
    slo: Slo, since_s: int | None = None, gates: Collection[int] | None = None
) -> int:
    """How far ``judge`` looks back with the same arguments."""
    longest = max(_window_s(row, slo, since_s) for row in _rows(gates))
    # Burn rates look back over five hours.
    return max(longest, DEFAULT_WINDOW_S)


def judge(
    samples: Samples,
    slo: Slo,
    now_us: int,
    since_s: int | None = None,
    gates: Collection[int] | None = None,
) -> Report:
    """Judge every objective of the table by what came before ``now_us``.

    ``slo``: the policy's. ``since_s``: look back so far instead of over each one's own window.
    ``gates``: only these; None: all of them, and the targets beside them.
    """
    rows = [
        _row(row, slo, now_us, seconds)
        for row in _rows(gates)
        for seconds in (_window_s(row, slo, since_s),)
        if (row.name, row.bound) not in UNSHIPPED or _bound(row, slo) is not None
    ]
    [timeouts] = [row for row in TABLE if (row.name, row.bound) == ("timeouts", "of_baseline")]
    window_s = longest_window_s(slo, since_s, gates)
    timeouts_window_s = _window_s(timeouts, slo, since_s)
    counts = Counts(rows, window_s, now_us, timeouts_window_s, samples.kept_since_us)
    beats = [beat for beat in samples.heartbeats if beat.at_us <= now_us]
    counts.take(samples, beats)
    seen = _Seen(counts, beats, samples)
    gate_findings = tuple(_gates([(row, _finding(row, seen)) for row in rows], counts))
    return Report(
        now_us=now_us,
        verdict=worst_of(gate.verdict for gate in gate_findings),
        gates=gate_findings,
        timeouts=counts.role_timeouts(),
        timeouts_window_s=counts.timeouts_window_s,
        window_s=window_s,
        covered_s=counts.coverage[window_s].seconds,
        baseline=samples.baseline,
    )


def _row(row: Objective, slo: Slo, now_us: int, window_s: int) -> Row:
    clock = Clock(now_us - 1_000_000 * window_s, now_us)
    return Row(row, _bound(row, slo), clock, window_s, _policy_window_s(row, slo))


def _rows(gates: Collection[int] | None) -> list[Objective]:
    return [row for row in TABLE if gates is None or row.gate in gates]


def _bound(row: Objective, slo: Slo) -> float | None:
    objective = slo.get(row.name)
    bound: float | None = None if objective is None else getattr(objective, row.bound)
    return bound


def _window_s(row: Objective, slo: Slo, since_s: int | None) -> int:
    if since_s is not None:
        return since_s
    if row.window_s is not None:
        return row.window_s
    return _policy_window_s(row, slo)


def _policy_window_s(row: Objective, slo: Slo) -> int:
    objective = slo.get(row.name)
    return DEFAULT_WINDOW_S if objective is None else objective.window_s


def _gates(findings: Sequence[tuple[Row, Finding]], counts: Counts) -> Iterator[Gate]:
    for number in (*GATES, None):
        own = [(row, finding) for row, finding in findings if row.objective.gate == number]
        if not own:
            continue
        planner = None
        if number is not None:
            # The window of the row that bounds what the planner's calls may come to.
            [row] = [row for row, _ in own if row.name == "planner_failure_rate"]
            planner = PlannerCalls(row.window_s, dict(counts.ends[row.window_s]))
        verdict = worst_of(finding.verdict for _, finding in own)
        yield Gate(number, verdict, tuple(finding for _, finding in own), planner)


# --- One row --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    """All that was seen. ``beats``: the heartbeats by time."""

    counts: Counts
    beats: Sequence[Heartbeat]
    samples: Samples


def _finding(row: Row, seen: _Seen) -> Finding:
    if row.bound is None:
        return Finding(row.objective, row.window_s, None, Verdict.NOT_JUDGED)
    judged = Judged(row.objective, row.bound, row.window_s)
    finding = _finder(row)(row, judged, seen)
    no_jobs = row.name in OF_JOBS and finding.n == 0
    return _without_jobs(row, finding, seen) if no_jobs else finding


def _without_jobs(row: Row, finding: Finding, seen: _Seen) -> Finding:
    """Whether clients name no jobs, or none of those they name has ended."""
    expired = seen.counts.expired[row.window_s]
    return replace(finding, note=f"{expired} jobs expired" if expired else verdicts.NO_JOBS)


def _finder(row: Row) -> Callable[[Row, Judged, _Seen], Finding]:
    """By what the objective is held to, else by its name, else by how it is counted."""
    special = _OF_BASELINE if row.objective.bound == "of_baseline" else _BY_NAME
    if row.name in special:
        return special[row.name]
    if row.objective.sliding:
        return _of_events
    shares = facts.CALL_SHARES.keys() | facts.JOB_SHARES.keys() | {"hallucination_rate"}
    return _of_share if row.name in shares else _of_values


def _of_values(row: Row, judged: Judged, seen: _Seen) -> Finding:
    del seen
    return verdicts.of_values(judged, row.values, _WHAT[row.name])


def _of_lag(row: Row, judged: Judged, seen: _Seen) -> Finding:
    """The worst minutes are told by when they were.

    A machine that is busy is so for many minutes: a few of them are one event.
    """
    del seen
    finding = verdicts.of_values(judged, row.values, _WHAT[row.name], alike=True)
    return replace(finding, worst=(), worst_at_us=tuple(map(int, finding.worst)))


def _of_share(row: Row, judged: Judged, seen: _Seen) -> Finding:
    del seen
    return verdicts.of_share(judged, row.share, _WHAT[row.name])


def _of_events(row: Row, judged: Judged, seen: _Seen) -> Finding:
    del seen
    return verdicts.of_events(judged, row.events, row.policy_window_s, _WHAT[row.name])


def _of_timeouts(row: Row, judged: Judged, seen: _Seen) -> Finding:
    covered_s = seen.counts.coverage[row.window_s].seconds
    baseline = seen.samples.baseline
    return verdicts.of_timeouts(judged, row.events, baseline, covered_s, _WHAT[row.name])


def _of_job_success(row: Row, judged: Judged, seen: _Seen) -> Finding:
    finding = verdicts.of_job_success(judged, row.share, seen.samples.baseline)
    expired = seen.counts.expired[row.window_s]
    return _noted(finding, f"{expired} expired, counted neither way") if expired else finding


def _of_hallucinations(row: Row, judged: Judged, seen: _Seen) -> Finding:
    return verdicts.of_hallucinations(judged, row.share, seen.samples.baseline)


def _of_classification(row: Row, judged: Judged, seen: _Seen) -> Finding:
    return verdicts.of_classification(judged, row.share, seen.counts.calls[row.window_s])


def _of_coverage(row: Row, judged: Judged, seen: _Seen) -> Finding:
    return verdicts.of_coverage(judged, seen.counts.coverage[row.window_s].seconds)


def _of_growth(row: Row, judged: Judged, seen: _Seen) -> Finding:
    held = _GROWTH[row.name]
    grown = growth(last_run(_beats(row, seen)), held.read, held.slack)
    return verdicts.of_growth(judged, grown, RUN_HOURS, held.scale, held.unit)


def _of_uptime(row: Row, judged: Judged, seen: _Seen) -> Finding:
    share, now_us = row.share, row.clock.now_us
    minutes = uptime(_beats(row, seen), row.clock.since_us, now_us)
    last_hour = uptime(seen.beats, now_us - 60 * MINUTE_US, now_us)
    last_five = uptime(seen.beats, now_us - 300 * MINUTE_US, now_us)
    share.total, share.bad = minutes.present + minutes.missing, minutes.missing
    share.short_total, share.short_bad = last_hour.present + last_hour.missing, last_hour.missing
    share.long_total, share.long_bad = last_five.present + last_five.missing, last_five.missing
    # Every minute was looked at, and minutes of one outage are not independent: no interval.
    found = verdicts.of_share(judged, share, _WHAT[row.name], alike=True)
    finding = replace(found, low=None, high=None)
    if finding.verdict is Verdict.BREACH:
        finding = replace(finding, worst_at_us=minutes.down_at_us[:WORST])
    apart = f"{minutes.apart} min of restarts in good order apart"
    return _noted(finding, apart) if minutes.apart else finding


def _noted(finding: Finding, note: str) -> Finding:
    """With one more thing that a reader must know."""
    return replace(finding, note=f"{finding.note}; {note}" if finding.note else note)


def _of_state_file(row: Row, judged: Judged, seen: _Seen) -> Finding:
    """The largest share of its limit that the state file had."""
    shares = [
        (beat.state_bytes / beat.state_limit_bytes, beat.at_us)
        for beat in _beats(row, seen)
        if beat.state_bytes is not None and beat.state_limit_bytes
    ]
    if not shares:
        return judged.nothing("no heartbeats")
    value, at_us = max(shares)
    verdict = judged.by(value)
    worst = (at_us,) if verdict is Verdict.BREACH else ()
    return judged.finding(verdict, value=value, n=len(shares), worst_at_us=worst)


def _beats(row: Row, seen: _Seen) -> list[Heartbeat]:
    return [beat for beat in seen.beats if beat.at_us >= row.clock.since_us]


_OF_BASELINE: Final = MappingProxyType(
    {
        "timeouts": _of_timeouts,
        "job_success_rate": _of_job_success,
        "hallucination_rate": _of_hallucinations,
    }
)
_BY_NAME: Final = MappingProxyType(
    {
        "error_classification": _of_classification,
        "covered_hours": _of_coverage,
        "covered_days": _of_coverage,
        "memory_growth": _of_growth,
        "descriptor_growth": _of_growth,
        "task_growth": _of_growth,
        "event_loop_lag_p99": _of_lag,
        "uptime": _of_uptime,
        "state_file_share": _of_state_file,
    }
)
