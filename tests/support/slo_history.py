"""A made-up week, since none can be waited for: nothing here was measured.

Calls come in a fixed pattern, so that every figure of a report can be reckoned by hand: a
planner call every two minutes, a job every five, an executor's call every two hundred; a
heartbeat a minute.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelsplit_policy.slo.heartbeat import Heartbeat
from modelsplit_policy.slo.samples import Baseline, CallSample, JobSample, Opinion, Review, Samples
from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.records import slo_store
from modelsplit_proxy.storage.state_file import FILE_NAME
from support.stores import opened

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
# A whole minute: 2026-11-23T00:29:00Z.
NOW_US = 1_795_393_740_000_000
MIB = 1 << 20

COMPARED = Baseline("a made-up month", 26, 18_000, 10_000, 400, 380, 60, 18)


@dataclass(frozen=True)
class History:
    """Samples in lists, by time."""

    calls: tuple[CallSample, ...] = ()
    jobs: tuple[JobSample, ...] = ()
    heartbeats: tuple[Heartbeat, ...] = ()
    reviews: tuple[Review, ...] = ()

    def samples(self, baseline: Baseline = COMPARED) -> Samples:
        return Samples(self.calls, self.jobs, self.heartbeats, self.reviews, baseline)


def planner(
    name: str, started_us: int, latency_ms: int = 2000, outcome: str = "ok", **changes: Any
) -> CallSample:
    """A call of the planner: 100 ms in line, the rest of it the model's."""
    ended_us = started_us + latency_ms * 1000
    return CallSample(
        name,
        started_us,
        ended_us,
        "PLANNER",
        outcome,
        attempt_codes=(outcome,),
        sent=True,
        queue_wait_us=100_000,
        upstream_wait_us=0,
        llm_latency_us=max(0, latency_ms * 1000 - 100_000),
        context="PLANNER",
        provider="LOCAL",
        model="qwen3:4b",
        schema_checked=True,
    )._replace(**changes)


def executor(name: str, started_us: int, **changes: Any) -> CallSample:
    values: dict[str, Any] = {"role": "EXECUTOR", "context": "EXECUTOR", "model": "qwen3:8b"}
    return planner(name, started_us)._replace(**(values | {"schema_checked": False} | changes))


def heartbeat(at_us: int, **changes: Any) -> Heartbeat:
    beat = Heartbeat(
        at_us,
        "run-1",
        rss_bytes=60 * MIB,
        descriptors=24,
        tasks=12,
        state_bytes=5 * MIB,
        state_limit_bytes=1024 * MIB,
        lag_p99_us=2000,
    )
    return replace(beat, **changes)


def passing(now_us: int = NOW_US, days: int = 7) -> History:
    """Everything as it should be, up to ``now_us``."""
    minutes = range(days * 24 * 60)
    begin_us = now_us - days * DAY_US
    calls: list[CallSample] = []
    jobs: list[JobSample] = []
    for minute in minutes:
        at_us = begin_us + minute * MINUTE_US + 1_000_000
        if minute % 2 == 0:
            calls.append(planner(f"plan-{minute}", at_us))
        if minute % 200 == 0:
            calls.append(executor(f"exec-{minute}", at_us))
        if minute % 5 == 0:
            job = JobSample(
                f"job-{minute}",
                at_us,
                at_us + 20_000_000,
                JobState.OK if minute % 500 else JobState.FAILED,
                executor=minute % 200 == 0,
                tools_us=(300_000,),
            )
            jobs.append(job)
    return History(
        tuple(calls),
        tuple(jobs),
        tuple(heartbeat(begin_us + minute * MINUTE_US + 30_000_000) for minute in minutes),
        tuple(
            Review(call.request_id, call.started_us, Opinion.GOOD)
            for call in calls
            if call.role == "EXECUTOR"
        )[-40:],
    )


def breaching(now_us: int = NOW_US, days: int = 7) -> History:
    """The same week with one fault of each kind in the last five hours."""
    well = passing(now_us, days)
    calls: list[CallSample] = []
    late_us = now_us - 4 * HOUR_US
    for number, call in enumerate(well.calls):
        lately = call.started_us > late_us and call.role == "PLANNER"
        changed = call
        if lately and number % 8 == 0:
            changed = planner(call.request_id, call.started_us, 9000)
        elif lately and number % 8 == 1:
            changed = planner(call.request_id, call.started_us, 15_000, "E_TIMEOUT_LOCAL")
            changed = changed._replace(reason="role_timeout", has_error_fields=number % 16 == 1)
        elif lately and number % 8 == 2:
            changed = planner(call.request_id, call.started_us, 8000, "E_OVERLOAD_THROTTLED")
            changed = changed._replace(
                reason="queue_timeout", sent=False, queue_wait_us=8_000_000, llm_latency_us=None
            )
        elif lately and number % 8 in {3, 4}:
            codes = ("E_SCHEMA_INVALID", "ok")
            changed = call._replace(attempt_codes=codes, fallback_used=True)
        calls.append(changed)
    down = range(now_us - 30 * HOUR_US, now_us - 27 * HOUR_US)
    jobs = tuple(
        replace(job, state=JobState.FAILED, ended_us=job.started_us + 90_000_000, executor=True)
        if job.started_us > late_us
        else job
        for job in well.jobs
    )
    cloud = [
        executor(f"cloud-{number}", now_us - DAY_US + number * HOUR_US, provider="CLOUD")
        for number in range(12)
    ]
    growing = (
        replace(beat, rss_bytes=60 * MIB + max(0, number - 9360) * MIB // 4, lag_p99_us=150_000)
        for number, beat in enumerate(well.heartbeats)
        if beat.at_us not in down
    )
    reviews = tuple(
        replace(review, opinion=Opinion.HALLUCINATED) if number % 2 else review
        for number, review in enumerate(well.reviews)
    )
    ordered = sorted((*calls, *cloud), key=lambda call: call.started_us)
    return History(tuple(ordered), jobs, tuple(growing), reviews)


EMPTY = History()


# --- The same as a state file -------------------------------------------------------------


def write(directory: Path, history: History, baseline: Baseline | None = COMPARED) -> None:
    """Make a state file that holds this history, as if a proxy had served through it."""
    with opened(directory), closing(sqlite3.connect(directory / FILE_NAME)) as db, db:
        for number, call in enumerate(history.calls, 1):
            _write_call(db, number, call)
        for job in history.jobs:
            _write_job(db, job)
        for beat in history.heartbeats:
            slo_store.keep_heartbeat(db, beat)
        for review in history.reviews:
            slo_store.keep_review(db, review, review.called_us, None)
        if baseline is not None:
            slo_store.keep_baseline(db, baseline, NOW_US)


def _write_call(db: sqlite3.Connection, number: int, call: CallSample) -> None:
    more: dict[str, Any] = {}
    if call.schema_checked:
        more["schema"] = "invalid" if call.unfit else "valid"
    if call.outcome != "ok":
        more |= {"error_code": call.outcome, "error_context": call.context}
        if call.has_error_fields:
            more["error_provider"] = call.provider
    values = {
        "id": number,
        "started_us": call.started_us,
        "total_us": call.ended_us - call.started_us,
        "wait_us": call.queue_wait_us,
        "llm_us": call.llm_latency_us if call.sent else None,
        "upstream_wait_us": call.upstream_wait_us,
        "first_us": call.ended_us - call.started_us if call.has_telemetry else None,
        "request_id": call.request_id,
        "role": call.role,
        "context": call.context,
        "provider": call.provider,
        "model": call.model,
        "outcome": call.outcome,
        "reason": call.reason or (None if call.outcome == "ok" else "bug"),
        "attempts": max(1, len(call.attempt_codes)),
        "fallback": int(call.fallback_used),
        "more": json.dumps(more) if more else None,
    }
    _insert(db, "calls", values)
    for attempt, code in enumerate(call.attempt_codes, 1):
        _insert(db, "attempts", {"call_id": number, "number": attempt, "outcome": code})


def _write_job(db: sqlite3.Connection, job: JobSample) -> None:
    counts = dict.fromkeys(
        ("calls", "failures", "planner", "executor", "heavy", "cloud", "chat"), 0
    )
    counts |= dict.fromkeys(("prompt_tokens", "output_tokens", "cost_usd", "cost_unknown"), 0)
    values = {
        "job_id": job.job_id,
        "first_us": job.started_us,
        "last_us": job.ended_us or job.started_us,
        "started_us": job.started_us,
        "ended_us": job.ended_us,
        "state": str(job.state),
        "executor_calls": int(job.executor),
    }
    _insert(db, "jobs", counts | values)
    for tool_us in job.tools_us:
        tool = {"job_id": job.job_id, "at_us": job.started_us, "duration_us": tool_us}
        _insert(db, "job_tools", tool | {"name": "grep", "ok": 1})


def _insert(db: sqlite3.Connection, table: str, values: dict[str, Any]) -> None:
    columns, marks = ", ".join(values), ", ".join("?" * len(values))
    db.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(values.values()))
