"""Jobs as they are read back: rows, calls with their attempts, tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.jobs import begun
from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.records import job_reader, job_store
from modelsplit_proxy.records.job_reader import JobReader, KeptJob, ToldTool
from modelsplit_proxy.records.job_store import Tool
from modelsplit_proxy.records.query import JobQuery
from modelsplit_proxy.records.recorder import Recorder
from support.records import answered, fallen_back, turned_away
from support.stores import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OK, FAILED, OPEN = JobState.OK, JobState.FAILED, JobState.OPEN
START_US = 1795393743250000


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[JobReader]:
    """Two calls and a tool of a job that went well, one that failed, one that is open."""
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        recorder.call_ended(answered(request_id="a", job_id="good"))
        second = fallen_back(request_id="b", job_id="good", started_wall=START_US / 1e6 + 5)
        recorder.call_ended(second)
        recorder.call_ended(turned_away(request_id="c", job_id="open"))
        recorder.catch_up()
        for work in (
            lambda db: job_store.add_tool(
                db, "good", START_US + 4_000_000, Tool("grep", 500_000, ok=True)
            ),
            lambda db: job_store.finish(db, "good", START_US + 9_500_000, OK, None),
            lambda db: job_store.close(db, "good"),
            lambda db: job_store.start(db, "bad", START_US - 60_000_000),
            lambda db: job_store.finish(db, "bad", START_US - 50_000_000, FAILED, "no luck"),
            lambda db: job_store.close(db, "bad"),
        ):
            store.submit(work)
        assert store.catch_up(3600)
        yield JobReader(recorder.read)


def test_one_job(reader: JobReader) -> None:
    kept = reader.find("good")
    assert kept is not None
    assert job_reader.fields(kept) == {
        "job_id": "good",
        "state": "ok",
        "why": None,
        "started_at": "2026-11-23T00:29:03.250Z",
        "start_told_at": None,
        "finished_at": "2026-11-23T00:29:12.750Z",
        "ended_at": "2026-11-23T00:29:12.750Z",
        "last_event_at": "2026-11-23T00:29:12.750Z",
        "job_e2e_latency_ms": 9500.0,
        "running": 0,
        "calls": 2,
        "failures": 0,
        "executor_calls": 0,
        "roles": {"PLANNER": 2},
        "tools": 1,
        "late": 0,
        "prompt_tokens": 11,
        "output_tokens": 6,
        "cost_usd": 0.0,
        "cost_unknown": 2,
    }
    assert reader.find("' OR 1=1 --") is None
    assert reader.known(("good", "nobody's", "bad")) == {"good", "bad"}
    assert reader.known([f"j{number}" for number in range(3000)]) == set()


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        (JobQuery(), ["good", "open", "bad"]),
        (JobQuery(OPEN), ["open"]),
        (JobQuery(FAILED), ["bad"]),
        (JobQuery(since_us=START_US), ["good", "open"]),
        (JobQuery(until_us=START_US), ["bad"]),
        (JobQuery(OK, START_US - 10**9, START_US + 10**9), ["good"]),
        (JobQuery(JobState.EXPIRED), []),
    ],
)
def test_jobs_that_are_like_this(reader: JobReader, query: JobQuery, ids: list[str]) -> None:
    assert [kept.job_id for kept in reader.latest(query, 10)] == ids
    assert len(reader.latest(query, 1)) == min(1, len(ids))


def test_the_calls_of_a_job_with_their_attempts(reader: JobReader) -> None:
    first, second = reader.calls("good")
    assert (first.fields["request_id"], second.fields["request_id"]) == ("a", "b")
    assert (first.started_us, first.ended_us) == (START_US, START_US + 3_000_000)
    assert [attempt["number"] for attempt in second.fields["attempts"]] == [1, 2]
    assert not reader.calls("nobody's")
    assert not reader.tools("nobody's")


def test_the_tools_of_a_job(reader: JobReader) -> None:
    assert reader.tools("good") == [ToldTool("grep", START_US + 4_000_000, 500_000, ok=True)]


def test_a_job_of_which_only_a_running_call_is_known() -> None:
    kept = KeptJob("new", begun(START_US), job_reader.nothing_yet())
    fields = job_reader.fields(kept, running=1)
    assert (fields["state"], fields["running"], fields["calls"]) == ("open", 1, 0)
    assert (fields["ended_at"], fields["job_e2e_latency_ms"], fields["roles"]) == (None, None, {})
