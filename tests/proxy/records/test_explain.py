"""One call told in words, as a person reads it at three in the morning."""

from __future__ import annotations

from typing import Any

import orjson

from modelsplit_policy.budgets import Standing
from modelsplit_policy.tickets import Crowd, Hold, Seats
from modelsplit_policy.vocabulary import Purpose
from modelsplit_proxy.records import explain, rows
from modelsplit_proxy.records.record import Attempt, CallRecord, Variant
from modelsplit_proxy.records.values import finished
from support.records import QUEUE_FULL, answered, begun, fallen_back, routing, turned_away
from support.stores import kept

CROWD = Crowd(
    Hold.ROLE_CAP,
    {"PLANNER": 2, "CHAT": 1},
    {"qwen3:4b": 2, "gemma3:12b": 1},
    {"PLANNER": 3},
    {"qwen3:4b": 3},
)


def told(record: CallRecord) -> str:
    """What a person reads of ``record``: by way of the row that is kept of it."""
    row, attempts = kept(record)
    call: dict[str, Any] = rows.call_fields(row)
    call["attempts"] = [rows.attempt_fields(attempt) for attempt in attempts]
    return explain.text(orjson.loads(orjson.dumps(call, option=orjson.OPT_NON_STR_KEYS)))


def test_a_call_that_waited_and_went_well() -> None:
    record = answered(job_id="job-1", schema="valid", applied=("num_ctx 8->4", "keep_alive"))
    [attempt] = record.attempts
    attempt.crowd, attempt.ahead, attempt.upstream_status = CROWD, 2, 200
    attempt.seats = Seats(2, 2, 3, 6, 2, None, 6, "")
    assert told(record) == (
        "request    req-1 from 127.0.0.1\n"
        "when       2026-11-23 00:29:03.250 UTC, /api/chat\n"
        "outcome    ok, status 200, after 3.000 s, of which 0.500 s in line\n"
        "role       PLANNER (LOCAL), because that is what the model name stands for; "
        "asked for planner, used qwen3:4b\n"
        "\n"
        "attempt 1  qwen3:4b\n"
        "              0.000 s  found no seat: all seats of its role were taken (role_cap); "
        "2 of its role ahead\n"
        "                       ran: PLANNER 2, CHAT 1 (qwen3:4b 2, gemma3:12b 1)\n"
        "                       waited: PLANNER 3 (of its role: qwen3:4b 3), this call among them\n"
        "              0.500 s  got a seat after 0.500 s in line; limits then: role 2/2, "
        "local 3/6, model 2/-, 6 at once worth running\n"
        "              0.500 s  sent to the upstream\n"
        "              1.000 s  it began to answer, status 200\n"
        "              3.000 s  ended well; tokens 11 in, 6 out; of its time load 0.250 s\n"
        "\n"
        "fallback   no: the first attempt answered\n"
        "applied    num_ctx 8->4, keep_alive\n"
        "schema     valid\n"
        "job_id     job-1\n"
        "finish_reason stop\n"
    )


def test_a_fallback_and_its_cause() -> None:
    text = told(fallen_back())
    assert "models     qwen3:4b, then qwen3:8b\n" in text
    assert "1.000 s  ended: E_UNREACHABLE_LOCAL connect_refused; Ollama is not answering" in text
    assert "attempt 2  qwen3:8b\n" in text
    assert "fallback   yes: the first attempt ended with E_UNREACHABLE_LOCAL\n" in text


def test_a_call_that_waited_for_nothing() -> None:
    record = turned_away()
    [attempt] = record.attempts
    attempt.crowd = CROWD
    attempt.crowd_at_end = CROWD._replace(hold=Hold.GLOBAL_CAP)
    attempt.seats = Seats(2, 2, 6, 6, 2, None, 6, "DEGRADED: the lines are long")
    text = told(record)
    assert "outcome    E_OVERLOAD_THROTTLED, status 503, after 2.000 s" in text
    among, left = (line for line in text.splitlines() if "waited: " in line)
    assert among.endswith(", this call among them")
    assert left.endswith("(of its role: qwen3:4b 3)"), "it had left when they were counted"
    assert "queue_full: its queue is full\n" in text
    assert "health was DEGRADED: the lines are long\n" in text
    assert "2.000 s  left the line without a seat: all local seats were taken (global_cap)" in text
    assert "fallback   no: another model would have stood in the same line" in text


def test_a_second_model_that_found_no_seat() -> None:
    record = turned_away()
    record.unseated = Attempt("qwen3:8b", 101.0, failure=QUEUE_FULL, crowd=CROWD, ended=101.0)
    text = told(record)
    assert "this call among them" not in text, "it was turned away at once"
    assert "unseated   qwen3:8b: was not sent, so it does not count\n" in text
    assert "fallback   no: the second model found no seat in time (no_seat)\n" in text


def test_a_call_that_found_nobody_and_went_back_in_line() -> None:
    """Its whole time is told: when it stood where, and for what."""
    record = answered()
    [attempt] = record.attempts
    attempt.returned, attempt.seats = (100.001,), Seats(1, 2, 1, 6, 1, None, 6, "DEGRADED: late")
    text = told(record)
    assert "of which 0.500 s in line" in text
    assert (
        "              0.001 s  had a seat, but nobody listened: "
        "back in line until Ollama is there\n"
        "              0.500 s  health was DEGRADED: late\n"
        "              0.500 s  got a seat after 0.500 s in line; limits then"
    ) in text


def test_a_call_that_waited_for_ollama_rather_than_for_others_says_so() -> None:
    record = answered()
    [attempt] = record.attempts
    attempt.crowd, attempt.gone_s = CROWD._replace(hold=Hold.MUTE), 0.42
    text = told(record)
    assert "found no seat: Ollama hung, and with it the calls that had a seat (mute)" in text
    assert "got a seat after 0.500 s in line, for 0.420 s of which Ollama did not answer" in text


def test_where_nobody_ran_there_is_no_model_either() -> None:
    record = answered()
    [attempt] = record.attempts
    attempt.crowd = Crowd(Hold.AWAY, {}, {}, {}, {})
    assert "  ran: nobody\n" in told(record)


def test_a_call_that_could_not_connect_was_not_sent() -> None:
    assert "0.000 s  connecting to the upstream\n" in told(fallen_back())


def test_the_second_line_that_a_call_stood_in_is_told_with_its_moments() -> None:
    record = turned_away()
    record.unseated = Attempt(
        "qwen3:8b", 102.0, failure=QUEUE_FULL, crowd=CROWD, crowd_at_end=CROWD, ended=112.0
    )
    record.ended = 112.0
    text = told(record)
    assert "after 12.000 s, of which 12.000 s in line" in text
    assert "2.000 s  found no seat: all seats of its role were taken (role_cap)\n" in text
    assert "12.000 s  left the line without a seat: all seats of its role were taken" in text
    assert "12.000 s  ended: its queue is full\n" in text


def test_what_comes_before_and_after_its_attempts_is_told_too() -> None:
    record = answered(started=99.0)
    record.ended = 105.0
    text = told(record)
    assert "1.000 s  the request had arrived and was let in\n" in text
    assert "6.000 s  its client had the answer\n" in text
    assert "let in" not in told(answered())


def test_the_budgets_that_counted_a_call_and_the_one_that_refused_it() -> None:
    record = answered()
    standing = Standing("heavy", "1h", 3600, False, 10, 10, 0, None, 719.2, False)
    record.note_budgets([standing], "heavy")
    line = "budget     heavy  10/10 calls in 1h, next free in 12 min; refused the call\n"
    assert line in told(record)


def test_a_call_refused_before_it_had_a_role() -> None:
    text = told(begun(ended=100.25, failure=QUEUE_FULL, status=503))
    assert "role       none: it was refused before a role was chosen\n" in text
    assert "fallback   no: the call was refused before any model was asked (not_asked)\n" in text


def test_a_call_that_began_with_the_fallback_and_tried_a_breaker() -> None:
    record = answered()
    routing(record).starts_at_fallback = True
    record.attempts[0].trial = True
    text = told(record)
    assert "sent to the upstream, as the trial of an open breaker\n" in text
    assert "fallback   yes: the call began with it\n" in text


def test_names_from_clients_cannot_write_on_the_terminal() -> None:
    text = told(answered(client="evil\x1b[2J\nname"))
    assert "\x1b" not in text
    assert text.splitlines()[0].startswith("request    req-1 from evil")


def test_fields_that_came_later_are_told_as_they_are() -> None:
    record = answered(variant=Variant("e", "b"))
    finished(record)[2]["budget"] = "heavy-20b: 7 of 10 left"
    text = told(record)
    assert "variant    b\n" in text
    assert "budget     heavy-20b: 7 of 10 left\n" in text


def test_what_a_call_was_for_is_told() -> None:
    lines = told(answered(job_id="j", purpose=Purpose.FAILURE_ANALYSIS)).splitlines()
    assert {"job_id     j", "purpose    failure_analysis"} <= set(lines)
    assert not any(line.startswith("purpose") for line in told(answered()).splitlines())
