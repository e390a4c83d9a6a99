"""One job told whole: where its time went, what overlapped, what came too late."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_policy.jobs import Job, begun
from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.records import job_reader, rows
from modelsplit_proxy.records.job_reader import KeptJob, ToldCall, ToldTool
from modelsplit_proxy.records.job_story import story
from modelsplit_proxy.records.values import log_fields
from support.records import answered, fallen_back

SECOND = 1_000_000


def kept(job: Job, **sums: int) -> KeptJob:
    return KeptJob("j", job, job_reader.nothing_yet() | sums)


def told(began_us: int, took_us: int | None = 3 * SECOND, **changes: Any) -> ToldCall:
    """A call with 0.5 s in line, 0.25 s of loading and 2.25 s of answering."""
    record = answered(**changes)
    fields = log_fields(record) | {"attempts": rows.attempts_fields(record)}
    return ToldCall(began_us, None if took_us is None else began_us + took_us, fields)


def finished(end_us: int) -> Job:
    return begun(0).start(0).finish(end_us, JobState.OK).ended([])


def test_the_parts_add_up_to_the_whole() -> None:
    tools = [ToldTool("grep", 5 * SECOND, SECOND, ok=False)]
    calls = [told(0), told(6 * SECOND)]
    fields = story(kept(finished(10 * SECOND), calls=2, tools=1), calls, tools, 99 * SECOND)
    assert fields["time"] == {
        "llm_ms": 4500.0,
        "tools_ms": 1000.0,
        "load_ms": 500.0,
        "upstream_wait_ms": 0.0,
        "queue_ms": 1000.0,
        "rest_ms": 3000.0,
    }
    assert sum(fields["time"].values()) == fields["total_ms"] == fields["job_e2e_latency_ms"]
    assert fields["gaps"] == [
        {"began_ms": 3000.0, "ended_ms": 4000.0},
        {"began_ms": 5000.0, "ended_ms": 6000.0},
        {"began_ms": 9000.0, "ended_ms": 10000.0},
    ]
    assert fields["left_out"] == 0
    assert fields["timeline"][2] == {
        "what": "tool",
        "name": "grep",
        "ok": False,
        "began_ms": 4000.0,
        "ended_ms": 5000.0,
        "duration_ms": 1000.0,
        "late": False,
    }


def test_calls_at_once_are_counted_once() -> None:
    calls = [told(0), told(0), told(SECOND)]
    fields = story(kept(finished(4 * SECOND), calls=3), calls, [], 0)
    assert fields["time"]["llm_ms"] == 3250.0, "0.75 s to 4 s"
    assert fields["time"]["queue_ms"] == 500.0
    assert sum(fields["time"].values()) == 4000.0


def test_a_call_that_runs_is_told_until_now() -> None:
    record = answered()
    record.attempts[0].ended = None
    fields = log_fields(record) | {"attempts": rows.attempts_fields(record)}
    fields["outcome"] = "running"
    running = ToldCall(SECOND, None, fields)
    told_now = story(kept(begun(0)), [running], [], 8 * SECOND)
    assert (told_now["state"], told_now["running"], told_now["total_ms"]) == ("open", 1, 8000.0)
    [call] = told_now["timeline"]
    assert (call["ended_ms"], call["outcome"], call["spans"][-1]["ended_ms"]) == (
        None,
        "running",
        8000.0,
    )
    assert sum(told_now["time"].values()) == 8000.0


def test_what_came_after_the_end_is_late_and_none_of_its_time() -> None:
    calls = [told(0), told(5 * SECOND, purpose="failure_analysis")]
    tools = [ToldTool("grep", 9 * SECOND, SECOND, ok=True)]
    fields = story(kept(finished(4 * SECOND), calls=2, tools=1, late=2), calls, tools, 0)
    assert [row["late"] for row in fields["timeline"]] == [False, True, True]
    assert fields["timeline"][1]["purpose"] == "failure_analysis"
    assert sum(fields["time"].values()) == fields["total_ms"] == 4000.0
    assert fields["gaps"] == [{"began_ms": 3000.0, "ended_ms": 4000.0}]


def test_both_attempts_of_a_call_are_seen() -> None:
    record = fallen_back()
    fields = log_fields(record) | {"attempts": rows.attempts_fields(record)}
    call = ToldCall(0, 4 * SECOND, fields)
    parts = [
        span["part"]
        for span in story(kept(finished(4 * SECOND)), [call], [], 0)["timeline"][0]["spans"]
    ]
    assert parts == ["queue", "llm", "queue", "llm"]


@pytest.mark.parametrize(("calls", "tools", "left_out"), [(5, 0, 4), (1, 3, 3), (1, 0, 0)])
def test_what_is_not_shown_is_counted(calls: int, tools: int, left_out: int) -> None:
    fields = story(kept(finished(SECOND), calls=calls, tools=tools), [told(0)], [], 0)
    assert fields["left_out"] == left_out


def test_a_call_whose_attempts_are_gone_is_a_call_still() -> None:
    call = ToldCall(0, SECOND, log_fields(answered()) | {"attempts": None})
    fields = story(kept(finished(SECOND), calls=1), [call], [], 0)
    assert (fields["timeline"][0]["spans"], fields["gaps"]) == ([], [])
    assert fields["time"]["rest_ms"] == 1000.0
