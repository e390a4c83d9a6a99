"""The end of a call is told to everyone, whatever one of them makes of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.records.call_ended import CallEnded
from support.calls import DIALECTS, call
from support.harness import running
from support.records import answered, turned_away

if TYPE_CHECKING:
    from modelsplit_proxy.records.record import CallRecord


def fails(record: CallRecord) -> None:
    raise ZeroDivisionError(record.request_id)


def fails_otherwise(record: CallRecord) -> None:
    raise LookupError(record.request_id)


def test_listeners_are_told_of_every_call_in_the_order_in_which_they_were_added() -> None:
    heard: list[str] = []
    ended = CallEnded()
    ended.listen("first", lambda record: heard.append(f"first {record.outcome}"))
    ended.listen("second", lambda record: heard.append(f"second {record.outcome}"))
    ended.tell(answered())
    ended.tell(turned_away())
    assert heard == [
        "first ok",
        "second ok",
        "first E_OVERLOAD_THROTTLED",
        "second E_OVERLOAD_THROTTLED",
    ]
    assert ended.failures == {"first": 0, "second": 0}


def test_one_that_raises_is_counted_and_the_others_are_told() -> None:
    heard: list[str] = []
    ended = CallEnded()
    ended.listen("first", fails)
    ended.listen("second", lambda record: heard.append(record.request_id))
    ended.tell(answered())
    ended.tell(answered(request_id="req-2"))
    assert heard == ["req-1", "req-2"]
    assert ended.failures == {"first": 2, "second": 0}


def test_the_first_failure_of_each_listener_and_kind_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = CallEnded()
    ended.listen("one", fails)
    ended.listen("other", fails)
    ended.tell(answered())
    ended.tell(answered(request_id="req-2"))
    ended.listen("one", fails_otherwise)
    ended.tell(answered(request_id="req-3"))
    assert [record.getMessage() for record in caplog.records] == [
        "at the end of call req-1: one failed; further ZeroDivisionError there are only counted",
        "at the end of call req-1: other failed; further ZeroDivisionError there are only counted",
        "at the end of call req-3: one failed; further LookupError there are only counted",
    ]
    assert all(record.levelno == logging.ERROR for record in caplog.records)
    assert all(record.exc_info is not None for record in caplog.records)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", DIALECTS)
async def test_a_client_whose_answer_is_whole_keeps_it_and_its_connection(
    route: str, *, stream: bool
) -> None:
    async with running() as up, up.client() as client:
        up.app.ended.listen("health", fails)
        for count in (1, 2):
            answer = await client.request("POST", route, call(route, "planner", stream=stream))
            assert (answer.status, answer.whole) == (200, True)
            assert answer.get("Connection") is None
            assert up.app.ended.failures["health"] == count
        async with up.admin() as admin:
            metrics = (await admin.request("GET", "/metrics")).body.decode()
        assert 'modelsplit_call_end_failures_total{listener="health"} 2.0' in metrics
        assert up.seats() == (0, 0)
        # Those before and behind it have heard of both.
        assert len(await up.calls.wait(2)) == 2


def test_who_only_wants_calls_of_jobs_is_told_of_those_behind_all_others() -> None:
    heard: list[str] = []
    ended = CallEnded()
    ended.listen("jobs", lambda record: heard.append(f"jobs {record.job_id}"), only_jobs=True)
    ended.listen("first", lambda record: heard.append(f"first {record.job_id}"))
    ended.tell(answered())
    ended.tell(answered(job_id="j"))
    assert heard == ["first None", "first j", "jobs j"]
    assert ended.failures == {"jobs": 0, "first": 0}
