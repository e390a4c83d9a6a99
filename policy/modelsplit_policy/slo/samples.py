"""What objectives are judged by: calls, jobs, heartbeats and reviews, as plain values.

Moments are whole microseconds of the wall clock, durations whole microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.slo.heartbeat import Heartbeat
    from modelsplit_policy.vocabulary import JobState

OK: Final = "ok"
CLIENT_GONE: Final = "client_gone"


class CallSample(NamedTuple):
    """One finished call that asked a model for something, or would have.

    ``started_us``: when it came, which is the moment that places it in a window.
    ``role``, ``context``, ``provider``, ``model`` None: it was turned away before it had one.
    ``outcome``: ``ok``, ``client_gone`` or the error code; ``reason``: of what did not go well.
    ``attempt_codes``: of each attempt its error code or ``ok``, in order; of the last one, what
    became of the call. Empty: no model was asked for.
    ``sent``: an attempt reached the upstream.
    ``queue_wait_us``: in our line, all attempts together. ``upstream_wait_us``: inside the
    upstream; None: not known. ``llm_latency_us``: last attempt, dispatch to end, less load and
    upstream wait where known; None: it was not sent.
    ``schema_checked``: its answer was held to a schema; ``unfit``: and did not fit.
    ``job_id``: of which job; calls of one are alike. None: its client named none.
    ``has_error_fields``: of a call that failed, whether all fields of the error are there.
    ``has_telemetry``: of an answered call, whether all that was to be measured is there.
    """

    request_id: str
    started_us: int
    ended_us: int
    role: str | None
    outcome: str
    reason: str | None = None
    attempt_codes: tuple[str, ...] = ()
    sent: bool = False
    queue_wait_us: int = 0
    upstream_wait_us: int | None = None
    llm_latency_us: int | None = None
    context: str | None = None
    provider: str | None = None
    model: str | None = None
    fallback_used: bool = False
    schema_checked: bool = False
    unfit: bool = False
    has_error_fields: bool = True
    has_telemetry: bool = True
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class JobSample:
    """One job. ``ended_us`` places it in a window; None: it has not ended.

    ``executor``: it had a call of the context EXECUTOR. ``tools_us``: its tools' durations.
    """

    job_id: str
    started_us: int
    ended_us: int | None
    state: JobState
    executor: bool
    tools_us: tuple[int, ...] = ()


class Opinion(StrEnum):
    """What a person says of an answer."""

    GOOD = "good"
    BAD = "bad"
    HALLUCINATED = "hallucinated"


@dataclass(frozen=True, slots=True)
class Review:
    """A person's verdict on one call. ``called_us``: when the call came."""

    request_id: str
    called_us: int
    opinion: Opinion


@dataclass(frozen=True, slots=True)
class Baseline:
    """What objectives that say "of the baseline" are compared with.

    ``timeouts``: PLANNER calls with a timeout in ``timeouts_window_s`` seconds. ``jobs`` of
    which ``jobs_ok`` ended well; ``reviews`` of which ``hallucinated`` were found so. 0 jobs or
    reviews: there is nothing to compare with. ``source``: where it is from, in words.
    """

    source: str
    timeouts: float
    timeouts_window_s: int
    planner_p95_ms: float
    jobs: int = 0
    jobs_ok: int = 0
    reviews: int = 0
    hallucinated: int = 0


DOCUMENT_BASELINE: Final = Baseline(
    source="the shipped figures", timeouts=26, timeouts_window_s=18_000, planner_p95_ms=10_000
)
"""As it was before modelsplit: 26 planner timeouts in five hours, and a P95 of 10 s."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Everything of the time that is looked at. Each is read once; heartbeats by time.

    ``kept_since_us``: when the first record was made of all that are kept, whatever the time;
    None: nobody knows.
    """

    calls: Iterable[CallSample] = ()
    jobs: Iterable[JobSample] = ()
    heartbeats: Iterable[Heartbeat] = ()
    reviews: Iterable[Review] = ()
    baseline: Baseline = DOCUMENT_BASELINE
    kept_since_us: int | None = None
