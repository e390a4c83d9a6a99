"""Jobs by their events, in any order: when they begin and end, and what comes too late."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.jobs import Job, VerdictError, begun
from modelsplit_policy.vocabulary import JobState

if TYPE_CHECKING:
    from collections.abc import Callable

OK, FAILED, EXPIRED, OPEN = JobState.OK, JobState.FAILED, JobState.EXPIRED, JobState.OPEN
HOUR = 3_600_000_000


def test_from_start_to_finish() -> None:
    job = begun(100).start(100).seen(150, 300).seen(320).finish(400, OK).ended([(150, 300)])
    assert (job.state, job.first_us, job.ended_us, job.e2e_us) == (OK, 100, 400, 300)


def test_a_job_whose_start_was_never_told_begins_with_its_first_call() -> None:
    job = begun(250).seen(200, 300).seen(150, 180)
    assert (job.first_us, job.last_us, job.started_us, job.state) == (150, 300, None, OPEN)


def test_the_first_start_holds() -> None:
    job = begun(100).start(100)
    assert job.start(500) == job
    assert job.finish(600, OK).ended([]).start(700).started_us == 100


def test_a_start_that_is_told_late_moves_nothing() -> None:
    job = begun(100).start(200)
    assert (job.first_us, job.started_us) == (100, 200)


def test_the_same_verdict_again_changes_nothing_and_another_is_refused() -> None:
    job = begun(100).finish(200, FAILED, "no luck")
    assert job.finish(300, FAILED, "other words") == job
    with pytest.raises(VerdictError) as refused:
        job.finish(300, OK)
    assert refused.value.state is FAILED
    over = job.ended([])
    assert over.finish(900, FAILED) == over
    with pytest.raises(VerdictError):
        over.finish(900, OK)


def test_it_ends_with_the_last_call_that_ran_when_it_was_finished() -> None:
    job = begun(100).finish(200, OK)
    assert (job.state, job.ended_us, job.e2e_us) == (OPEN, None, None)
    over = job.ended([(110, 150), (190, 450), (120, 300), (201, 9000)])
    assert (over.state, over.ended_us, over.e2e_us) == (OK, 450, 350)
    assert over.ended([(1, 99_999)]) == over, "once"
    assert begun(1).ended([(1, 2)]).state is OPEN, "nobody has told it to be finished"


def test_what_comes_later_is_late() -> None:
    job = begun(100).finish(200, OK)
    assert (job.is_late(200), job.is_late(201)) == (False, True)
    over = job.ended([(150, 450)])
    assert (over.is_late(200), over.is_late(300)) == (False, True)
    assert not begun(100).is_late(10**18)
    lapsed = begun(100).expired(100 + HOUR, HOUR)
    assert (lapsed.is_late(100), lapsed.is_late(101)) == (False, True)


def test_a_job_never_finished_expires_an_hour_after_its_last_event() -> None:
    job = begun(100).seen(200, 300)
    assert job.expired(299 + HOUR, HOUR) == job
    lapsed = job.expired(300 + HOUR, HOUR)
    assert (lapsed.state, lapsed.ended_us, lapsed.e2e_us) == (EXPIRED, 300, None)
    assert lapsed.expired(9 * HOUR, HOUR) == lapsed
    for verdict in (OK, FAILED):
        with pytest.raises(VerdictError) as refused:
            lapsed.finish(2 * HOUR, verdict)
        assert refused.value.state is EXPIRED


def test_a_job_that_was_told_to_be_finished_does_not_expire() -> None:
    job = begun(100).finish(200, OK)
    assert job.expired(9 * HOUR, HOUR) == job


def test_a_clock_that_is_set_back_makes_no_job_end_before_it_began() -> None:
    job = begun(1000).start(1000).finish(900, OK).ended([])
    assert (job.first_us, job.ended_us, job.e2e_us) == (900, 900, 0)


# -- any order ------------------------------------------------------------------------------------

MOMENTS = st.integers(0, 10_000)
CALLS = st.lists(st.tuples(MOMENTS, st.integers(0, 3000)), max_size=6)


@given(data=st.data(), calls=CALLS, tools=st.lists(MOMENTS, max_size=4), finish=MOMENTS)
def test_the_order_in_which_events_become_known_does_not_matter(
    data: st.DataObject, calls: list[tuple[int, int]], tools: list[int], finish: int
) -> None:
    start = data.draw(st.none() | MOMENTS)
    spans = [(began, began + took) for began, took in calls]
    events: list[Callable[[Job], Job]] = [
        *(lambda job, span=span: job.seen(*span) for span in spans),
        *(lambda job, at=at: job.seen(at) for at in tools),
        lambda job: job.finish(finish, OK, "why"),
    ]
    if start is not None:
        events.append(lambda job: job.start(start))
    shuffled = data.draw(st.permutations(events))
    moments = [*tools, finish, *(began for began, _ in spans)]
    moments += [] if start is None else [start]
    first = data.draw(st.sampled_from(moments))
    jobs = []
    for order in (events, shuffled, [*shuffled, *events]):
        job = begun(first)
        for event in order:
            job = event(job)
        jobs.append(job.ended(spans))
    assert jobs[0] == jobs[1] == jobs[2], "again, too"
    [job, *_] = jobs
    on_time = [ended for began, ended in spans if began <= finish]
    assert job.first_us == min(moments)
    assert job.ended_us == max([finish, *on_time])
    assert job.e2e_us is not None
    assert job.e2e_us >= 0


@given(job=st.builds(Job, MOMENTS, MOMENTS), now=MOMENTS, after=st.integers(1, 5000))
def test_a_job_is_over_once_and_stays_as_it_is(job: Job, now: int, after: int) -> None:
    job = replace(job, last_us=max(job.first_us, job.last_us))
    for over in (job.finish(now, OK).ended([]), job.expired(now, after)):
        if over.state is not OPEN:
            assert over.ended([(0, 99_999)]) == over.expired(10**9, 1) == over
