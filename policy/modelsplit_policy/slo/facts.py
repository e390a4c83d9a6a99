"""What one sample says to each objective: a duration, good or bad, or nothing."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.slo.samples import CLIENT_GONE, OK
from modelsplit_policy.vocabulary import JobState, Provider, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modelsplit_policy.slo.samples import CallSample, JobSample

_TIMEOUTS: Final = frozenset({str(ErrorCode.TIMEOUT_LOCAL), str(ErrorCode.TIMEOUT_CLOUD)})
_REFUSALS: Final = frozenset(
    map(
        str,
        (
            ErrorCode.OVERLOAD_THROTTLED,
            ErrorCode.RATE_LIMITED,
            ErrorCode.BUDGET_EXHAUSTED,
            ErrorCode.BUDGET_NOT_APPROVED,
        ),
    )
)
# What the request itself, or who sent it, is to blame for.
_CLIENTS_OWN: Final = frozenset(
    map(
        str,
        (
            ErrorCode.BAD_REQUEST,
            ErrorCode.UNAUTHORIZED,
            ErrorCode.FORBIDDEN,
            ErrorCode.ESCALATION_DENIED,
            ErrorCode.REQUEST_TOO_LARGE,
            ErrorCode.LOOP,
        ),
    )
)
_PLANNER: Final = str(Role.PLANNER)
_CLOUD: Final = str(Provider.CLOUD)
_UNFIT: Final = str(ErrorCode.SCHEMA_INVALID)
_CUT: Final = str(Reason.CUT)
_WAITED_IN_VAIN: Final = str(Reason.QUEUE_TIMEOUT)
_GONE: Final = frozenset({CLIENT_GONE, str(ErrorCode.CLIENT_GONE)})


class End(StrEnum):
    """How a call ended, as the gates count it; the first that fits.

    ``TIMEOUT``: an attempt ran out of time, also if another answered. ``CLIENTS_OWN``: the
    request was at fault; it counts nowhere.
    """

    TIMEOUT = "timeout"
    ANSWERED = "answered"
    CLIENT_GONE = "client_gone"
    REFUSED = "refused"
    CLIENTS_OWN = "clients_own"
    FAILED = "failed"


NOT_SERVED: Final = frozenset({End.TIMEOUT, End.REFUSED, End.FAILED})
"""Together these must not exceed the bound of ``planner_failure_rate``."""


def end_of(call: CallSample) -> End:
    outcome = call.outcome
    if outcome in _TIMEOUTS or not _TIMEOUTS.isdisjoint(call.attempt_codes):
        return End.TIMEOUT
    if outcome == OK:
        return End.ANSWERED
    if outcome in _GONE:
        return End.CLIENT_GONE
    if outcome in _REFUSALS:
        return End.REFUSED
    return End.CLIENTS_OWN if outcome in _CLIENTS_OWN else End.FAILED


# --- Durations, in microseconds; None: the objective does not concern the sample -----------


def planner_latency_us(call: CallSample) -> int | None:
    """The whole time of an answered call of the planner, as its client saw it."""
    answered = call.outcome == OK and call.role == _PLANNER
    return call.ended_us - call.started_us if answered else None


def llm_latency_us(call: CallSample) -> int | None:
    return call.llm_latency_us if call.outcome == OK else None


def queue_wait_us(call: CallSample) -> int | None:
    """In our line and, where known, inside the upstream, of calls that waited to some end.

    Those are the answered ones, and those whose wait in line ran out. A call turned away at
    once waited for nothing: counted here, it would make an outage look like an empty line.
    """
    if call.outcome != OK and call.reason != _WAITED_IN_VAIN:
        return None
    return call.queue_wait_us + (call.upstream_wait_us or 0)


def job_latency_us(job: JobSample) -> int | None:
    if job.ended_us is None or job.state not in {JobState.OK, JobState.FAILED}:
        return None
    return job.ended_us - job.started_us


# --- Whether something is bad; None: the objective does not concern the sample -------------


def planner_not_served(call: CallSample) -> bool | None:
    if call.role != _PLANNER:
        return None
    end = end_of(call)
    return None if end is End.CLIENTS_OWN else end in NOT_SERVED


def planner_timed_out(call: CallSample) -> bool | None:
    if call.role != _PLANNER:
        return None
    end = end_of(call)
    return None if end is End.CLIENTS_OWN else end is End.TIMEOUT


def used_fallback(call: CallSample) -> bool | None:
    return call.fallback_used if call.attempt_codes else None


def did_not_fit(call: CallSample) -> bool | None:
    """Whether an answer did not fit its schema, the first one's or the fallback's."""
    unfit = call.unfit or call.outcome == _UNFIT or _UNFIT in call.attempt_codes
    if (not unfit and not call.schema_checked) or call.reason == _CUT:
        return None
    return unfit


def error_fields_missing(call: CallSample) -> bool | None:
    return None if call.outcome == OK else not call.has_error_fields


def telemetry_missing(call: CallSample) -> bool | None:
    return not call.has_telemetry if call.outcome == OK else None


def went_to_cloud(call: CallSample) -> bool | None:
    return call.sent and call.provider == _CLOUD


def job_used_executor(job: JobSample) -> bool | None:
    return None if job.ended_us is None else job.executor


def job_failed(job: JobSample) -> bool | None:
    ended = job.ended_us is not None and job.state in {JobState.OK, JobState.FAILED}
    return job.state is JobState.FAILED if ended else None


CALL_VALUES: Final[Mapping[str, Callable[[CallSample], int | None]]] = MappingProxyType(
    {
        "planner_latency_ms": planner_latency_us,
        "llm_latency_ms": llm_latency_us,
        "llm_queue_wait_ms": queue_wait_us,
    }
)
CALL_SHARES: Final[Mapping[str, Callable[[CallSample], bool | None]]] = MappingProxyType(
    {
        "planner_failure_rate": planner_not_served,
        "fallback_rate": used_fallback,
        "schema_error_rate": did_not_fit,
        "error_classification": error_fields_missing,
        "telemetry_fields": telemetry_missing,
    }
)
CALL_EVENTS: Final[Mapping[str, Callable[[CallSample], bool | None]]] = MappingProxyType(
    {"timeouts": planner_timed_out, "cloud_calls": went_to_cloud}
)
JOB_SHARES: Final[Mapping[str, Callable[[JobSample], bool | None]]] = MappingProxyType(
    {"executor_job_rate": job_used_executor, "job_success_rate": job_failed}
)
