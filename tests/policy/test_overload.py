"""What a client is told that gets no seat, asks a stopped model, or comes while we restart."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy import overload
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.tickets import Hold, Seats
from modelsplit_policy.vocabulary import Role


@pytest.mark.parametrize(
    ("reason", "expected", "what", "phrase"),
    [
        (Reason.QUEUE_FULL, None, "is overloaded: its queue is full", "Queue Full"),
        (Reason.QUEUE_TIMEOUT, None, "is overloaded: no seat came free in 8.0 s", "Queue Timeout"),
        (
            Reason.QUEUE_TIMEOUT,
            (41.2, 10.0),
            "is overloaded: expected wait 41 s, at most 10 s",
            "Queue Timeout",
        ),
        (
            Reason.QUEUE_TIMEOUT,
            (0.123, 0.06),
            "is overloaded: expected wait 123 ms, at most 60 ms",
            "Queue Timeout",
        ),
        (Reason.SHED, None, "is shed: the service is overloaded", "Shed"),
    ],
)
def test_who_gets_no_seat_is_told_with_the_numbers(
    reason: Reason, expected: tuple[float, float] | None, what: str, phrase: str
) -> None:
    failure = overload.no_seat(
        reason,
        "PLANNER",
        held="2/2 running",
        waiting=(64, 64),
        retry_after_s=7,
        waited_s=8.01,
        expected=expected,
    )
    assert failure.message == (f"role PLANNER {what} (2/2 running, 64/64 waiting); retry in 7 s")
    assert (failure.status, failure.reason, failure.phrase) == (503, reason, phrase)
    assert failure.retry_after_s == 7


@pytest.mark.parametrize(
    ("hold", "words"),
    [
        (Hold.ROLE_CAP, "1/1 running"),
        (Hold.GLOBAL_CAP, "6/6 of all roles running"),
        (Hold.RESERVED, "free seats are kept for PLANNER"),
        (Hold.MODEL_CAP, "2/2 of m running"),
        (Hold.PARALLELISM, "3 at once known to be worth running, 3 running"),
        (Hold.TURN, "others were before it"),
        (Hold.AWAY, "Ollama is away"),
        (Hold.MUTE, "Ollama hangs"),
    ],
)
def test_the_limit_that_held_a_call_is_named_with_its_own_numbers(hold: Hold, words: str) -> None:
    seats = Seats(1, 1, 6, 6, 2, 2, 3, "")
    held = overload.held_by(hold, seats, model="m", slots=2, host=3, kept_for=[Role.PLANNER])
    assert held == words


def test_a_model_that_takes_no_more_at_once_is_no_full_host() -> None:
    seats = Seats(1, 5, 1, 6, 1, None, 3, "")
    held = overload.held_by(Hold.PARALLELISM, seats, model="m", slots=1, host=1, kept_for=())
    assert held == "1/1 of m running"


@pytest.mark.parametrize("hold", Hold)
@pytest.mark.parametrize("reason", [Reason.QUEUE_FULL, Reason.QUEUE_TIMEOUT])
def test_the_sentence_is_short_whatever_held_the_call(hold: Hold, reason: Reason) -> None:
    seats = Seats(1000, 1000, 1000, 1000, 1000, 1000, 1000, "")
    held = overload.held_by(
        hold, seats, model="m" * 300, slots=1000, host=1000, kept_for=[Role.EXECUTOR, Role.PLANNER]
    )
    failure = overload.no_seat(
        reason, "EXECUTOR", held=held, waiting=(1000, 1000), retry_after_s=30, waited_s=999.9
    )
    assert len(failure.message) <= 200


def test_who_waited_behind_a_hang_is_told_so_and_what_to_do() -> None:
    refusal = overload.no_seat(
        Reason.QUEUE_TIMEOUT, "PLANNER", held="", waiting=(1, 64), retry_after_s=3, waited_s=8.0
    )
    told = overload.behind_a_hang(refusal, Role.PLANNER, 8.0, "http://127.0.0.1:11434")
    assert told.message == (
        "no seat came free for role PLANNER in 8.0 s, because Ollama at http://127.0.0.1:11434 "
        "answers nothing: it hangs; restart it; retry in 3 s"
    )
    assert (told.code, told.reason, told.retry_after_s) == (refusal.code, refusal.reason, 3)
    assert len(overload.behind_a_hang(refusal, Role.EXECUTOR, 8.0, "x" * 300).message) <= 200


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (Reason.QUEUE_FULL, "the queue of role HEAVY is full"),
        (Reason.QUEUE_TIMEOUT, "no seat came free for role HEAVY"),
        (Reason.SHED, "role HEAVY is shed"),
    ],
)
def test_who_is_refused_at_once_behind_a_hang_is_told_so_too(reason: Reason, text: str) -> None:
    refusal = overload.no_seat(
        reason, "HEAVY", held="", waiting=(64, 64), retry_after_s=3, waited_s=0.0
    )
    told = overload.behind_a_hang(refusal, Role.HEAVY, 0.0, "http://127.0.0.1:11434")
    assert told.message == (
        f"{text}, because Ollama at http://127.0.0.1:11434 "
        "answers nothing: it hangs; restart it; retry in 3 s"
    )


def test_who_waited_for_an_ollama_that_was_away_is_told_for_how_long() -> None:
    refusal = overload.no_seat(
        Reason.QUEUE_TIMEOUT,
        "EXECUTOR",
        held="5/5 running",
        waiting=(1, 64),
        retry_after_s=3,
        waited_s=8.0,
    )
    told = overload.after_an_outage(refusal, 5.84)
    assert told.message == (
        "role EXECUTOR is overloaded: no seat came free in 8.0 s (5/5 running, 1/64 waiting); "
        "Ollama was away for 5.8 s of that; retry in 3 s"
    )
    assert (told.code, told.reason, told.retry_after_s) == (refusal.code, refusal.reason, 3)
    long = overload.after_an_outage(replace(refusal, message="x" * 190 + "; retry in 3 s"), 5.84)
    assert len(long.message) == 200
    assert long.message.endswith("; Ollama was away for 5.8 s of that; retry in 3 s")


def test_who_is_shed_is_told_why() -> None:
    failure = overload.no_seat(
        Reason.SHED,
        "CHAT",
        held="",
        waiting=(0, 64),
        retry_after_s=2,
        waited_s=0.0,
        health="16 timeouts in 60 s (CRITICAL from 15)",
    )
    assert failure.message == (
        "role CHAT is shed: the service is overloaded (16 timeouts in 60 s (CRITICAL from 15), "
        "0/64 waiting); retry in 2 s"
    )


def test_a_provider_that_is_still_away_is_told_as_the_last_call_was() -> None:
    last = Failure(ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED, "Ollama is away", "Away")
    told = overload.still_failing(last, 0.3)
    assert (told.code, told.reason, told.status, told.phrase) == (
        *(ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED, 502, "Away"),
    )
    assert told.message == "Ollama is away; asked again in 1 s"
    assert (told.retry_after_s, told.unsent) == (1, True)
    long = Failure(ErrorCode.UNREACHABLE_LOCAL, Reason.DNS, "x" * 200, "Away")
    assert len(overload.still_failing(long, 0.3).message) == 200


def test_a_stopped_model_is_told_with_the_reason() -> None:
    failure = overload.stopped("LOCAL/m", "5 failures in a row", 1.2)
    assert (failure.status, failure.reason) == (503, Reason.BREAKER_OPEN)
    assert (
        failure.message == "calls to LOCAL/m are stopped for now: 5 failures in a row; retry in 2 s"
    )
    assert failure.retry_after_s == 2


def test_a_name_cannot_write_sentences() -> None:
    message = overload.stopped("m\nERROR\x1b[31m" + "x" * 1000, "5 failures in a row", 1.0).message
    assert message.isprintable()
    assert len(message) <= 200


@given(st.floats(-10.0, 1e9))
def test_when_to_come_back_is_in_whole_seconds_never_too_few_and_never_long(wait_s: float) -> None:
    told = overload.retry_after(wait_s)
    assert 1 <= told <= 30
    assert told >= min(wait_s, 30)
    assert told - wait_s < 1 or told == 1


def test_a_wait_without_end_is_told_as_the_longest() -> None:
    assert overload.retry_after(math.inf) == 30


def test_a_restart_says_when_to_come_back() -> None:
    for failure in (overload.draining(), overload.cut_short()):
        assert (failure.status, failure.reason, failure.retry_after_s) == (503, "draining", 2)
        assert failure.message.startswith("modelsplit is restarting and ")
