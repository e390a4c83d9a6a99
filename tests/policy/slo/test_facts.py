"""What one call or job says to each objective."""

from __future__ import annotations

import pytest

from modelsplit_policy.failures import ErrorCode
from modelsplit_policy.slo import facts
from modelsplit_policy.slo.facts import End, end_of
from modelsplit_policy.slo.names import OBJECTIVES
from modelsplit_policy.slo.samples import JobSample
from modelsplit_policy.vocabulary import JobState
from support.slo_history import executor, planner

ENDS = {
    "ok": End.ANSWERED,
    "client_gone": End.CLIENT_GONE,
    "E_CLIENT_GONE": End.CLIENT_GONE,
    "E_TIMEOUT_LOCAL": End.TIMEOUT,
    "E_TIMEOUT_CLOUD": End.TIMEOUT,
    **dict.fromkeys(
        (
            "E_OVERLOAD_THROTTLED",
            "E_RATE_LIMITED",
            "E_BUDGET_EXHAUSTED",
            "E_BUDGET_NOT_APPROVED",
        ),
        End.REFUSED,
    ),
    **dict.fromkeys(
        (
            "E_BAD_REQUEST",
            "E_UNAUTHORIZED",
            "E_FORBIDDEN",
            "E_ESCALATION_DENIED",
            "E_REQUEST_TOO_LARGE",
            "E_LOOP",
        ),
        End.CLIENTS_OWN,
    ),
    **dict.fromkeys(
        (
            "E_MODEL_NOT_FOUND",
            "E_UNREACHABLE_LOCAL",
            "E_UNREACHABLE_CLOUD",
            "E_UPSTREAM_LOCAL",
            "E_UPSTREAM_CLOUD",
            "E_STREAM_BROKEN_LOCAL",
            "E_STREAM_BROKEN_CLOUD",
            "E_SCHEMA_INVALID",
            "E_INTERNAL",
        ),
        End.FAILED,
    ),
}


def test_every_code_has_its_end() -> None:
    assert set(ENDS) == {"ok", "client_gone", *ErrorCode}


@pytest.mark.parametrize("outcome", sorted(ENDS))
def test_a_call_ends_as_its_outcome_says(outcome: str) -> None:
    assert end_of(planner("c", 0, 1, outcome)) is ENDS[outcome]


@pytest.mark.parametrize("outcome", ["ok", "E_SCHEMA_INVALID", "client_gone"])
def test_a_timeout_of_any_attempt_is_a_timeout(outcome: str) -> None:
    call = planner("c", 0)._replace(outcome=outcome, attempt_codes=("E_TIMEOUT_LOCAL", outcome))
    assert end_of(call) is End.TIMEOUT
    assert facts.planner_timed_out(call) is True


def test_only_answered_calls_have_a_latency() -> None:
    assert facts.planner_latency_us(planner("c", 5, 2000)) == 2_000_000
    assert facts.llm_latency_us(planner("c", 5, 2000)) == 1_900_000
    failed = planner("c", 5, 2000, "E_UPSTREAM_LOCAL")
    assert (facts.planner_latency_us(failed), facts.llm_latency_us(failed)) == (None, None)
    assert facts.planner_latency_us(executor("c", 5)) is None


def test_the_wait_is_ours_and_what_is_known_of_the_upstreams() -> None:
    call = planner("c", 0)._replace(queue_wait_us=7, upstream_wait_us=5)
    assert facts.queue_wait_us(call) == 12
    assert facts.queue_wait_us(call._replace(upstream_wait_us=None)) == 7
    for outcome in ("E_OVERLOAD_THROTTLED", "E_TIMEOUT_LOCAL", "client_gone"):
        assert facts.queue_wait_us(call._replace(outcome=outcome)) is None
    in_vain = call._replace(outcome="E_OVERLOAD_THROTTLED", reason="queue_timeout")
    assert facts.queue_wait_us(in_vain) == 12


def test_a_request_that_is_at_fault_counts_nowhere() -> None:
    call = planner("c", 0, 1, "E_BAD_REQUEST")
    assert (facts.planner_not_served(call), facts.planner_timed_out(call)) == (None, None)


def test_a_client_that_leaves_is_a_call_but_no_failure() -> None:
    assert facts.planner_not_served(planner("c", 0, 1, "client_gone")) is False


def test_an_answer_that_did_not_fit_counts_although_the_fallbacks_did() -> None:
    call = planner("c", 0)
    assert facts.did_not_fit(call) is False
    assert facts.did_not_fit(call._replace(attempt_codes=("E_SCHEMA_INVALID", "ok"))) is True
    assert facts.did_not_fit(call._replace(outcome="E_SCHEMA_INVALID")) is True
    # A stream is passed on whether it fits or not.
    assert facts.did_not_fit(call._replace(unfit=True)) is True


def test_an_answer_that_was_cut_or_never_checked_says_nothing_of_schemas() -> None:
    cut = planner("c", 0)._replace(outcome="E_SCHEMA_INVALID", reason="cut")
    assert facts.did_not_fit(cut) is None
    assert facts.did_not_fit(executor("c", 0)) is None


def test_fields_are_counted_of_failures_and_telemetry_of_answers() -> None:
    good, bad = planner("c", 0), planner("c", 0, 1, "E_INTERNAL")
    assert (facts.error_fields_missing(good), facts.telemetry_missing(good)) == (None, False)
    assert (facts.error_fields_missing(bad), facts.telemetry_missing(bad)) == (False, None)
    assert facts.error_fields_missing(bad._replace(has_error_fields=False)) is True
    assert facts.telemetry_missing(good._replace(has_telemetry=False)) is True


def test_a_call_went_to_the_cloud_once_it_was_sent_there() -> None:
    call = planner("c", 0)._replace(provider="CLOUD")
    assert facts.went_to_cloud(call) is True
    assert facts.went_to_cloud(call._replace(sent=False)) is False
    assert facts.went_to_cloud(planner("c", 0)) is False


@pytest.mark.parametrize(
    ("state", "ended", "latency", "failed", "executor"),
    [
        (JobState.OK, 9, 4, False, True),
        (JobState.FAILED, 9, 4, True, True),
        (JobState.EXPIRED, 9, None, None, True),
        (JobState.OPEN, None, None, None, None),
    ],
)
def test_a_job_counts_once_it_has_ended_and_expired_ones_have_no_latency(
    state: JobState,
    ended: int | None,
    latency: int | None,
    failed: bool | None,
    executor: bool | None,
) -> None:
    job = JobSample("j", 5, ended, state, executor=True)
    assert facts.job_latency_us(job) == latency
    assert facts.job_failed(job) is failed
    assert facts.job_used_executor(job) is executor


def test_every_table_is_of_objectives() -> None:
    for table in (facts.CALL_VALUES, facts.CALL_SHARES, facts.CALL_EVENTS, facts.JOB_SHARES):
        assert set(table) <= set(OBJECTIVES)
