"""Running calls are found while they run, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_policy.call import Event
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.protocol.stream_end import Tail
from modelsplit_proxy.records import live as module
from modelsplit_proxy.records.live import LiveCalls, no_answer
from modelsplit_proxy.records.query import Query
from modelsplit_proxy.records.record import CallRecord
from modelsplit_proxy.records.request_log import text
from modelsplit_proxy.records.values import log_fields
from support.records import PLANNER, routed


class Clock:
    def now(self) -> float:
        return 101.5

    def wall(self) -> float:
        return 0.0


def test_a_running_call_is_told_as_far_as_it_is() -> None:
    live = LiveCalls(Clock())
    record = routed(request_id="now")
    record.attempt(PLANNER.candidates[0], 100.25)
    live.enter(record)
    found = live.find("now")
    assert found is not None
    assert (found["outcome"], found["call_e2e_latency_ms"]) == ("running", 1500.0)
    assert found["ts"] == "2026-11-23T00:29:04.750Z"
    [attempt] = found["attempts"]
    assert (attempt["outcome"], attempt["asked_ms"], attempt["ended_ms"]) == (
        "running",
        250.0,
        None,
    )


@pytest.mark.parametrize(
    ("loaded", "state"), [(False, "loading"), (True, "dispatched"), (None, "dispatched")]
)
def test_a_call_that_waits_for_its_model_says_so_where_it_is_known(
    *, loaded: bool | None, state: str
) -> None:
    asked: list[tuple[str, str | None]] = []

    def is_loaded(model: str, host: str | None) -> bool | None:
        asked.append((model, host))
        return loaded

    live = LiveCalls(Clock(), is_loaded)
    record = routed(request_id="now")
    attempt = record.attempt(PLANNER.candidates[0], 100.25)
    live.enter(record)
    assert live.calls()[0].state == "pending"
    for event in (Event.ADMIT, Event.DISPATCH):
        record.call.step(event)
    attempt.dispatched = 100.5
    assert live.calls()[0].state == state
    found = live.find("now")
    assert found is not None
    assert found["state"] == state
    assert set(asked) == {(PLANNER.candidates[0].model, None)}
    record.call.step(Event.COMMIT)
    assert live.calls()[0].state == "streaming"


def test_why_nothing_has_come_yet() -> None:
    assert [no_answer(state) for state in ("loading", "dispatched")] == [
        *("loading its model", "no answer yet"),
    ]


def test_running_calls_are_listed_as_finished_ones_are() -> None:
    live = LiveCalls(Clock())
    for request_id in ("a", "b"):
        live.enter(routed(request_id=request_id))
    first, second = live.newest(Query(), 2)
    assert (first["request_id"], second["request_id"]) == ("b", "a")
    assert live.newest(Query(), 1) == [first]
    assert first.keys() == log_fields(routed()).keys()
    # How long it has taken so far, under both names.
    assert (first["outcome"], first["planner_latency_ms"]) == ("running", 1500.0)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(role=Role.PLANNER), ["b", "a"]),
        (Query(role=Role.HEAVY), []),
        (Query(client="10.0.0.9"), ["b"]),
        (Query(job="build"), ["a"]),
        (Query(model="planner"), ["b", "a"]),
        (Query(model=PLANNER.candidates[0].model), ["b", "a"]),
        (Query(model="other"), []),
        (Query(outcome="running"), ["b", "a"]),
        (Query(outcome="ok"), []),
        (Query(failed=True), []),
        (Query(since_us=2**62), []),
    ],
)
def test_those_are_listed_that_are_asked_for(query: Query, found: list[str]) -> None:
    live = LiveCalls(Clock())
    live.enter(routed(request_id="a", job_id="build"))
    live.enter(routed(request_id="b", client="10.0.0.9"))
    assert [call["request_id"] for call in live.newest(query, 9)] == found
    whole = [call for call in live.newest(Query(), 9) if query.fits(call)]
    assert [call["request_id"] for call in whole] == found


def test_however_many_run_few_are_put_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    live, told = LiveCalls(Clock()), []

    def counted(record: CallRecord) -> dict[str, Any]:
        told.append(record)
        return log_fields(record)

    monkeypatch.setattr(module, "log_fields", counted)
    for number in range(500):
        live.enter(routed(request_id=f"r{number}"))
    assert len(live.newest(Query(), 3)) == 3
    assert len(told) == 3
    assert live.newest(Query(failed=True), 3) == live.newest(Query(role=Role.HEAVY), 3) == []
    assert len(told) == 3


def test_who_is_in_line_has_waited_until_now() -> None:
    live = LiveCalls(Clock())
    record = routed(request_id="now")
    first = record.attempt(PLANNER.candidates[0], 100.25)
    live.enter(record)
    assert live.newest(Query(), 1)[0]["llm_queue_wait_ms"] == 1250.0
    assert "wait  1.25s" in text(live.newest(Query(), 1)[0])
    # Its second attempt stands in line as well, later.
    first.seated, first.ended = 100.5, 101.0
    assert live.newest(Query(), 1)[0]["llm_queue_wait_ms"] == 250.0
    record.attempt(PLANNER.candidates[0], 101.0)
    assert live.newest(Query(), 1)[0]["llm_queue_wait_ms"] == 750.0
    assert log_fields(record)["llm_queue_wait_ms"] == 250.0


def test_looking_at_a_running_call_does_not_fix_its_record() -> None:
    live = LiveCalls(Clock())
    record = routed(request_id="now")
    live.enter(record)
    live.find("now")
    record.ended, record.status = 103.0, 200
    assert (log_fields(record)["call_e2e_latency_ms"], log_fields(record)["status"]) == (
        3000.0,
        200,
    )


def test_an_id_used_twice_is_the_later_call() -> None:
    live = LiveCalls(Clock())
    earlier, later = routed(client="earlier"), routed(client="later")
    for record in (earlier, later):
        live.enter(record)
    assert len(live) == 2
    live.leave(later)
    found = live.find("req-1")
    assert found is not None
    assert found["client"] == "earlier"
    live.leave(earlier)
    live.leave(earlier)
    assert live.find("req-1") is None


def test_a_running_call_is_found_by_how_its_id_begins() -> None:
    live = LiveCalls(Clock())
    live.enter(routed(request_id="abc-1"))
    live.enter(routed(request_id="abd-2"))
    assert live.find("ab") is None
    found = live.begins("ab")
    assert found is not None
    assert found["request_id"] == "abd-2"
    assert live.begins("b-1") is None


def test_the_longest_silence_is_that_of_the_call_sent_first_whose_answer_has_not_begun() -> None:
    live = LiveCalls(Clock())
    assert live.longest_silence_s() == 0.0
    for dispatched, first_byte in ((90.0, 91.0), (100.0, None), (98.5, None), (None, None)):
        record = routed()
        attempt = record.attempt(PLANNER.candidates[0], 80.0)
        attempt.dispatched, attempt.first_byte = dispatched, first_byte
        live.enter(record)
    live.enter(routed())
    assert live.longest_silence_s() == 3.0


def test_running_calls_are_known_by_their_jobs() -> None:
    live = LiveCalls(Clock())
    records = [
        routed(request_id=f"r{n}", job_id=job) for n, job in enumerate(("a", None, "b", "a"))
    ]
    for record in records:
        live.enter(record)
    assert list(live.by_job()) == ["a", "b"]
    assert live.by_job()["a"] == live.of_job("a")
    assert [record.request_id for record in live.of_job("a")] == ["r0", "r3"]
    live.leave(records[2])
    assert list(live.by_job()) == ["a"]
    assert not live.of_job("b")


def test_of_a_stream_it_is_known_what_has_come_and_how_fast() -> None:
    live = LiveCalls(Clock())
    record = routed()
    live.enter(record)
    attempt = record.attempt(PLANNER.candidates[0], 80.0)
    attempt.dispatched = 99.0
    [call] = live.calls()
    assert (call.tokens, call.tokens_per_s) == (None, None)
    attempt.stream = Tail()
    attempt.first_byte = Clock().now() - 2.0
    for _ in range(7):
        attempt.stream.feed(b'{"response":"x"}\n')
    [call] = live.calls()
    assert (call.tokens, call.tokens_per_s) == (7, 3.5)
    attempt.stream = None
    assert live.calls()[0].tokens is None
