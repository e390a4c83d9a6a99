"""Jobs in the state file: what is told of them is there, and how they end."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsplit_policy.jobs import Job, VerdictError
from modelsplit_policy.vocabulary import Context, JobState
from modelsplit_proxy.records import job_store, rows
from modelsplit_proxy.records.job_store import EndedJob, Tool, TooManyJobsError
from modelsplit_proxy.storage.migrations import MIGRATIONS
from support.records import PLANNER, answered

if TYPE_CHECKING:
    from collections.abc import Iterator

OK, FAILED, EXPIRED, OPEN = JobState.OK, JobState.FAILED, JobState.EXPIRED, JobState.OPEN
HOUR = 3_600_000_000
GREP = Tool("grep", 5, ok=True)


def fresh() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    for step in MIGRATIONS:
        for statement in step:
            db.execute(statement)
    return db


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(fresh()) as db:
        yield db


def call(db: sqlite3.Connection, job_id: str, began_us: int, took_s: float = 1.0) -> None:
    """A call of EXECUTOR that has ended, as the record writer writes it."""
    route = PLANNER._replace(context=Context.EXECUTOR)
    record = answered(route, job_id=job_id, started_wall=began_us / 1e6)
    record.ended = record.started + took_s
    db.execute(*rows.insert_call(record))
    db.execute(rows.UPSERT_JOB, rows.job_row(record))


def sums(db: sqlite3.Connection, job_id: str) -> tuple[int, ...]:
    query = "SELECT calls, executor_calls, tools, late FROM jobs WHERE job_id = ?"
    row: tuple[int, ...] = db.execute(query, (job_id,)).fetchone()
    return row


def test_what_is_told_is_read_back(db: sqlite3.Connection) -> None:
    assert job_store.find(db, "j") is None
    assert job_store.start(db, "j", 100) == Job(100, 100, 100)
    assert job_store.start(db, "j", 300) == Job(100, 100, 100)
    assert job_store.add_tool(db, "j", 200, GREP) is False
    finished = job_store.finish(db, "j", 400, FAILED, "no luck")
    assert finished == job_store.find(db, "j") == Job(100, 400, 100, 400, FAILED, "no luck")
    assert db.execute("SELECT job_id, at_us, duration_us, name, ok FROM job_tools").fetchall() == [
        ("j", 200, 5, "grep", 1)
    ]
    assert job_store.close(db, "j") == EndedJob("j", FAILED, 300, executor=False)
    assert job_store.close(db, "j") is None, "once"
    found = job_store.find(db, "j")
    assert found is not None
    assert (found.state, found.ended_us) == (FAILED, 400)


def test_what_is_refused_changes_nothing(db: sqlite3.Connection) -> None:
    finished = job_store.finish(db, "j", 400, OK, None)
    with pytest.raises(VerdictError):
        job_store.finish(db, "j", 500, FAILED, "no")
    assert job_store.find(db, "j") == finished


def test_a_tool_or_a_finish_of_an_unknown_job_creates_it(db: sqlite3.Connection) -> None:
    job_store.add_tool(db, "t", 100, GREP)
    job_store.finish(db, "f", 100, OK, None)
    assert (job_store.find(db, "t"), job_store.count_open(db)) == (Job(100, 100), 2)
    assert job_store.close(db, "t") is None, "nobody has told it to be finished"
    assert job_store.close(db, "f") == EndedJob("f", OK, 0, executor=False)


def test_it_ends_with_its_last_call_and_has_asked_an_executor(db: sqlite3.Connection) -> None:
    job_store.start(db, "j", 1_000_000)
    call(db, "j", 2_000_000, 5.0)
    job_store.finish(db, "j", 3_000_000, OK, None)
    call(db, "j", 3_500_000, 60.0)
    assert job_store.close(db, "j") == EndedJob("j", OK, 6_000_000, executor=True)
    assert sums(db, "j") == (2, 2, 0, 1)


def test_calls_and_tools_that_come_later_are_counted_as_late(db: sqlite3.Connection) -> None:
    job_store.finish(db, "j", 1_000_000, OK, None)
    job_store.close(db, "j")
    call(db, "j", 1_000_000)
    call(db, "j", 1_000_001)
    assert job_store.add_tool(db, "j", 9_000_000, GREP) is True
    assert sums(db, "j") == (2, 2, 1, 2)
    found = job_store.find(db, "j")
    assert found is not None
    assert (found.state, found.ended_us) == (OK, 1_000_000), "it stays as it ended"


def test_a_job_of_which_nothing_is_heard_expires(db: sqlite3.Connection) -> None:
    job_store.start(db, "told", 100)
    call(db, "called", 0, 1.0)
    job_store.start(db, "running", 100)
    job_store.finish(db, "finished", 100, OK, None)
    assert job_store.expire(db, HOUR + 99, HOUR, frozenset()) == []
    ended = job_store.expire(db, 2 * HOUR, HOUR, {"running"})
    assert ended == [
        EndedJob("told", EXPIRED, None, executor=False),
        EndedJob("called", EXPIRED, None, executor=True),
    ]
    assert job_store.expire(db, 2 * HOUR, HOUR, {"running"}) == []
    assert job_store.finishing(db, {"running"}) == ["finished"]
    assert job_store.finishing(db, {"finished"}) == []
    call(db, "told", 2 * HOUR)
    assert sums(db, "told") == (1, 1, 0, 1)


def test_no_job_is_begun_beside_ten_thousand_open_ones(db: sqlite3.Connection) -> None:
    for number in range(9_999):
        call(db, f"j{number}", number)
    job_store.start(db, "last", 100)
    for report in (
        lambda: job_store.start(db, "more", 100),
        lambda: job_store.add_tool(db, "more", 100, GREP),
        lambda: job_store.finish(db, "more", 100, OK, None),
    ):
        with pytest.raises(TooManyJobsError):
            report()
    assert (job_store.find(db, "more"), job_store.count_open(db)) == (None, 10_000)
    assert job_store.start(db, "j7", 100).started_us == 100, "one that is open already"
    call(db, "by a call", 100)
    assert job_store.find(db, "by a call") is not None, "a call never fails for its job"
    job_store.finish(db, "j7", 200, OK, None)
    job_store.close(db, "j7")
    job_store.finish(db, "j8", 200, OK, None)
    job_store.close(db, "j8")
    assert job_store.start(db, "more", 300).started_us == 300


# -- any order ------------------------------------------------------------------------------------

SECONDS = st.integers(0, 100).map(lambda seconds: seconds * 1_000_000)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), SECONDS, st.integers(0, 30)),
        st.tuples(st.just("tool"), SECONDS, st.just(0)),
    ),
    max_size=6,
    unique=True,
)


def row_after(events: list[tuple[str, int, int]]) -> tuple[object, ...]:
    """What the file says of the job once all that is written, in this order, and it is closed."""
    with contextlib.closing(fresh()) as db:
        for what, at_us, took_s in events:
            if what == "call":
                call(db, "j", at_us, took_s)
            elif what == "tool":
                job_store.add_tool(db, "j", at_us, GREP)
            elif what == "start":
                job_store.start(db, "j", at_us)
            else:
                job_store.finish(db, "j", at_us, OK, None)
        job_store.close(db, "j")
        query = f"SELECT {job_store.COLUMNS}, calls, tools, late FROM jobs"
        row: tuple[object, ...] = db.execute(query).fetchone()
        return row


@settings(max_examples=60)
@given(events=EVENTS, start=st.none() | SECONDS, finish=SECONDS, data=st.data())
def test_the_order_in_which_events_are_written_does_not_matter(
    events: list[tuple[str, int, int]], start: int | None, finish: int, data: st.DataObject
) -> None:
    told = [*events, ("finish", finish, 0)]
    told += [] if start is None else [("start", start, 0)]
    assert row_after(data.draw(st.permutations(told))) == row_after(told)
