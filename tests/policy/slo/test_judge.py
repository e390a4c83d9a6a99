"""Whole reports: of a good week, a bad one, and of nothing. All of it is made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsplit_policy.config.model import SloPolicy
from modelsplit_policy.config.parser import parse
from modelsplit_policy.slo.facts import End
from modelsplit_policy.slo.judge import judge, longest_window_s
from modelsplit_policy.slo.report import Finding, Gate, Report, Verdict
from modelsplit_policy.slo.samples import DOCUMENT_BASELINE, CallSample, Samples
from modelsplit_policy.vocabulary import JobState
from support.slo_history import (
    COMPARED,
    DAY_US,
    EMPTY,
    HOUR_US,
    MINUTE_US,
    NOW_US,
    History,
    breaching,
    executor,
    passing,
    planner,
)

ROOT = Path(__file__).parents[3]
SLO = parse(json.loads((ROOT / "config" / "model-policy.json").read_text())).slo
WELL, ILL = passing(), breaching()
PASS, BREACH = Verdict.PASS, Verdict.BREACH
NOT_ENOUGH, NOT_JUDGED = Verdict.NOT_ENOUGH_DATA, Verdict.NOT_JUDGED


def report(history: History, slo: Any = SLO, **asked: Any) -> Report:
    return judge(history.samples(), slo, NOW_US, **asked)


def gate(report: Report, number: int | None) -> Gate:
    [found] = [gate for gate in report.gates if gate.number == number]
    return found


def finding(report: Report, number: int | None, name: str, bound: str | None = None) -> Finding:
    [found] = [
        found
        for found in gate(report, number).findings
        if found.objective.name == name and bound in {None, found.objective.bound}
    ]
    return found


def verdicts(report: Report) -> dict[int | None, Verdict]:
    return {gate.number: gate.verdict for gate in report.gates}


# --- A good week --------------------------------------------------------------------------


def test_a_good_week_passes_every_gate() -> None:
    good = report(WELL)
    told = {
        (found.objective.gate, found.objective.name): (found.verdict, found.note)
        for gate in good.gates
        for found in gate.findings
        if found.verdict is not PASS
    }
    assert told == {}
    assert verdicts(good) == {0: PASS, 1: PASS, 2: PASS, 3: PASS, 4: PASS, None: PASS}
    assert (good.verdict, good.window_s, good.covered_s) == (PASS, 604_800, 604_800)


def test_its_figures_are_those_of_the_pattern() -> None:
    good = report(WELL)
    latency = finding(good, 2, "planner_latency_ms")
    assert (latency.value, latency.low, latency.high, latency.n) == (2000, 2000, 2000, 150)
    assert finding(good, 4, "planner_latency_ms").n == 5040
    assert finding(good, 1, "llm_queue_wait_ms").value == 100
    assert finding(good, 3, "executor_job_rate").value == pytest.approx(2 / 60)
    assert finding(good, 4, "uptime").n == 10_080
    assert finding(good, 0, "covered_hours").value == 12
    assert finding(good, 1, "timeouts").note == (
        "0 in 5 h, 0 per 100 calls; baseline 26 in 5 h (a made-up month)"
    )


# --- A bad one ----------------------------------------------------------------------------


def test_a_bad_week_fails_every_gate() -> None:
    bad = report(ILL)
    assert verdicts(bad) == dict.fromkeys([0, 1, 2, 3, 4, None], BREACH)
    passed = {
        (found.objective.gate, found.objective.name)
        for gate in bad.gates
        for found in gate.findings
        if found.verdict is not BREACH
    }
    assert passed == {
        *((0, name) for name in ("covered_hours", "telemetry_fields")),
        *((0, name) for name in ("descriptor_growth", "task_growth", "state_file_share")),
        *((4, name) for name in ("covered_days", "planner_latency_ms", "planner_failure_rate")),
    }


def test_a_breach_names_its_five_worst_calls() -> None:
    found = finding(report(ILL), 2, "planner_latency_ms")
    slowest = [call.request_id for call in ILL.calls if call.ended_us - call.started_us > 8_500_000]
    answered = [name for name in slowest if name in dict.fromkeys(slowest)]
    assert len(found.worst) == 5
    assert set(found.worst) <= set(answered)
    assert found.value == 9000


def test_downtime_is_told_by_when_it_began() -> None:
    found = finding(report(ILL), 4, "uptime")
    assert found.value == pytest.approx(1 - 3 / 168)
    assert found.worst_at_us == (NOW_US - 30 * HOUR_US,)


def test_the_cloud_is_counted_within_any_day() -> None:
    found = finding(report(ILL), 4, "cloud_calls")
    assert (found.value, found.note, found.worst[0]) == (12, "the most in any 24 h", "cloud-11")


# --- Nothing ------------------------------------------------------------------------------


def test_nothing_is_not_enough_data_and_says_what_is_missing() -> None:
    empty = report(EMPTY)
    assert set(verdicts(empty).values()) == {NOT_ENOUGH}
    for found in gate(empty, 3).findings[:2]:
        assert found.note == "no client sends X-LLM-Job-Id"
    assert finding(empty, 4, "job_e2e_latency_ms").note == "no client sends X-LLM-Job-Id"
    assert all(found.value is None or found.value == 0 for g in empty.gates for found in g.findings)


def test_a_breach_wins_over_missing_data() -> None:
    slow = History(tuple(planner(f"p{i}", NOW_US - i * MINUTE_US, 9000) for i in range(1, 40)))
    assert verdicts(report(slow))[2] is BREACH
    assert finding(report(slow), 2, "planner_failure_rate").verdict is NOT_ENOUGH


def test_jobs_without_a_job_in_the_window_say_that_no_client_names_any() -> None:
    old = History(jobs=tuple(job for job in WELL.jobs if job.started_us < NOW_US - 6 * HOUR_US))
    found = finding(report(old), 3, "executor_job_rate")
    assert (found.verdict, found.note) == (NOT_ENOUGH, "no client sends X-LLM-Job-Id")


def test_jobs_that_expired_are_told_apart() -> None:
    expired = tuple(replace(job, state=JobState.EXPIRED) for job in WELL.jobs[-7:])
    some = report(History(jobs=(*WELL.jobs[:-7], *expired)))
    assert finding(some, 3, "job_success_rate").note.endswith("; 7 expired, counted neither way")
    assert finding(some, 3, "executor_job_rate").n == 60
    none = report(History(jobs=expired))
    assert finding(none, 3, "job_success_rate").note == "7 jobs expired"


def test_a_restart_in_good_order_is_told() -> None:
    beats = [beat for beat in WELL.heartbeats if not 5 < NOW_US - beat.at_us < 5 * MINUTE_US]
    beats[-1] = replace(beats[-1], drained=True)
    late = replace(beats[-1], at_us=NOW_US - MINUTE_US + 1, drained=False)
    found = finding(report(History(heartbeats=(*beats, late))), 4, "uptime")
    assert (found.value, found.note) == (1, "4 min of restarts in good order apart")


# --- What is asked for --------------------------------------------------------------------


def test_one_gate_alone_is_judged_by_its_own_rows() -> None:
    only = report(ILL, gates={2})
    assert [gate.number for gate in only.gates] == [2]
    assert only.gates[0] == gate(report(ILL), 2)
    assert longest_window_s(SLO, gates={2}) == 5 * 3600
    assert longest_window_s(SLO) == 7 * 86_400


def test_since_looks_back_so_far_in_every_row() -> None:
    day = report(WELL, since_s=86_400)
    assert {found.window_s for gate in day.gates for found in gate.findings} == {86_400}
    assert finding(day, 2, "planner_latency_ms").n == 720
    assert finding(day, 4, "covered_days").verdict is NOT_ENOUGH
    assert finding(day, 0, "covered_hours").value == 24


def test_an_objective_set_to_null_is_not_judged_and_named_so() -> None:
    slo = {**SLO, "fallback_rate": None}
    found = finding(report(WELL, slo), 2, "fallback_rate")
    assert (found.verdict, found.bound) == (NOT_JUDGED, None)
    assert verdicts(report(WELL, slo))[2] is PASS


def test_a_policy_without_objectives_judges_nothing() -> None:
    assert set(verdicts(report(WELL, {})).values()) == {NOT_JUDGED}


def test_a_bound_that_is_not_shipped_is_judged_where_a_policy_has_it() -> None:
    slo = {**SLO, "tool_latency_ms": SloPolicy(p95=200.0)}
    assert not any(
        found.objective.name == "tool_latency_ms"
        for gate in report(WELL).gates
        for found in gate.findings
    )
    found = finding(report(WELL, slo), None, "tool_latency_ms")
    assert (found.value, found.verdict) == (300, BREACH)


# --- The planner in every gate ------------------------------------------------------------


@pytest.mark.parametrize("number", range(5))
def test_every_gate_tells_how_the_planners_calls_ended_and_fails_by_refusals(number: int) -> None:
    """A scheduler must not pass by refusing."""
    refused = [
        planner(f"r{i}", NOW_US - i * MINUTE_US, 1, "E_OVERLOAD_THROTTLED") for i in range(1, 60)
    ]
    calls = sorted((*WELL.calls, *refused), key=lambda call: call.started_us)
    seen = report(History(tuple(calls), WELL.jobs, WELL.heartbeats, WELL.reviews))
    told = gate(seen, number).planner
    assert told is not None
    assert told.ends[End.REFUSED] == 59
    assert finding(seen, number, "planner_failure_rate").verdict is BREACH


def test_timeouts_are_told_of_each_role_apart() -> None:
    late = executor("late", NOW_US - HOUR_US)._replace(outcome="E_TIMEOUT_LOCAL")
    seen = report(History((*WELL.calls, late), heartbeats=WELL.heartbeats))
    told = {row.role: (row.calls, row.timeouts, row.per_5h) for row in seen.timeouts}
    assert told["PLANNER"] == (150, 0, 0.0)
    assert told["EXECUTOR"][1:] == (1, 1.0)


def test_a_timeout_counts_although_the_fallback_answered() -> None:
    codes = ("E_TIMEOUT_LOCAL", "ok")
    saved = [
        planner(f"s{i}", NOW_US - i * MINUTE_US, 9000)._replace(attempt_codes=codes)
        for i in range(1, 31)
    ]
    calls = sorted((*WELL.calls, *saved), key=lambda call: call.started_us)
    found = finding(report(History(tuple(calls), heartbeats=WELL.heartbeats)), 1, "timeouts")
    assert (found.value, found.verdict) == (30, BREACH)


@pytest.mark.parametrize(("since_h", "value"), [(24, 5), (5, 24), (2.5, 48)])
def test_timeouts_are_scaled_to_five_hours(since_h: float, value: float) -> None:
    late = [
        planner(f"s{i}", NOW_US - i * MINUTE_US, 15_000, "E_TIMEOUT_LOCAL") for i in range(1, 25)
    ]
    calls = sorted((*WELL.calls, *late), key=lambda call: call.started_us)
    seen = report(History(tuple(calls), heartbeats=WELL.heartbeats), since_s=int(since_h * 3600))
    assert finding(seen, 1, "timeouts").value == pytest.approx(value)


def test_the_mission_document_is_the_baseline_of_whoever_has_none() -> None:
    seen = judge(Samples(WELL.calls, heartbeats=WELL.heartbeats), SLO, NOW_US)
    assert seen.baseline == DOCUMENT_BASELINE
    assert "26 in 5 h (the shipped figures)" in finding(seen, 1, "timeouts").note
    assert COMPARED.timeouts == 26


# --- Order and time -----------------------------------------------------------------------


def test_what_comes_after_the_moment_of_judging_does_not_count() -> None:
    later = History((*WELL.calls, planner("later", NOW_US + 1, 99_000)), WELL.jobs, WELL.heartbeats)
    assert finding(report(later), 2, "planner_latency_ms").n == 150


worse = st.sampled_from(["slow", "timeout", "refused", "failed"])


def spoil(call: CallSample, how: str) -> CallSample:
    if how == "slow":
        late_us = call.started_us + max(20_000_000, call.ended_us - call.started_us)
        return call._replace(ended_us=late_us)
    outcome = {"timeout": "E_TIMEOUT_LOCAL", "refused": "E_OVERLOAD_THROTTLED"}.get(
        how, "E_UPSTREAM_LOCAL"
    )
    return call._replace(outcome=outcome, attempt_codes=(outcome,))


_RANK = [PASS, NOT_ENOUGH, BREACH]


@settings(max_examples=40)
@given(
    n=st.integers(1, 130),
    spoilt=st.lists(st.tuples(st.integers(0, 129), worse), max_size=12),
    more=st.tuples(st.integers(0, 129), st.just("slow")),
)
def test_a_slower_call_never_makes_a_latency_better(
    n: int, spoilt: list[tuple[int, str]], more: tuple[int, str]
) -> None:
    calls = [planner(f"c{i}", NOW_US - (i + 1) * MINUTE_US) for i in range(n)][::-1]
    for index, how in spoilt:
        calls[index % n] = spoil(calls[index % n], how)
    before = finding(report(History(tuple(calls)), gates={2}), 2, "planner_latency_ms")
    index, how = more
    if calls[index % n].outcome == "ok":
        calls[index % n] = spoil(calls[index % n], how)
    after = finding(report(History(tuple(calls)), gates={2}), 2, "planner_latency_ms")
    assert _RANK.index(after.verdict) >= _RANK.index(before.verdict)


@settings(max_examples=40)
@given(n=st.integers(1, 250), bad=st.integers(0, 20), how=worse.filter(lambda how: how != "slow"))
def test_a_call_that_is_not_served_never_makes_the_failure_rate_better(
    n: int, bad: int, how: str
) -> None:
    def verdict(spoilt: int) -> int:
        calls = [planner(f"c{i}", NOW_US - (i + 1) * MINUTE_US) for i in range(n)][::-1]
        calls[:spoilt] = [spoil(call, how) for call in calls[:spoilt]]
        seen = report(History(tuple(calls)), gates={2}, since_s=604_800)
        return _RANK.index(finding(seen, 2, "planner_failure_rate").verdict)

    assert verdict(min(n, bad + 1)) >= verdict(min(n, bad))


def test_a_week_has_seven_days() -> None:
    assert DAY_US * 7 == 604_800_000_000
