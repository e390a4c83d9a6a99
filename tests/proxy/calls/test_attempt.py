"""One model asked once: what is sent, what becomes of every kind of answer, and of the seat."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from modelsplit_policy.attempts import retries_at_once
from modelsplit_policy.call import State
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.fallback import is_cause
from modelsplit_policy.roles import Candidate
from modelsplit_proxy.calls.reply import Setback
from modelsplit_proxy.http.upstream import Fault, UpstreamError, UpstreamHead
from modelsplit_proxy.protocol.request_headers import Asked
from support.attempts import NDJSON, TOKEN, Seats, Trial, Upstream, answers

pytestmark = pytest.mark.flowing_time

GOOD = b'{"model":"qwen3:4b","response":"hi","done":true,"eval_count":7}'
FULL = Failure(ErrorCode.OVERLOAD_THROTTLED, Reason.QUEUE_FULL, "full", "Queue Full", 3)
RESET = UpstreamError(Fault.RESET, "it closed the connection unanswered")
CUT = UpstreamError(Fault.TRUNCATED, "it closed the connection mid-answer")
QUICK = Candidate("qwen3:4b", 0.02)
SCHEMA = {"type": "object", "required": ["n"]}


async def set_back(trial: Trial, candidate: Candidate = QUICK) -> Setback:
    """What the attempt says that has shown the client nothing."""
    setback = await trial.run(candidate)
    assert setback is not None
    assert trial.heard.heads == 0, "the client has seen something"
    assert trial.record.attempts[-1].failure is setback.failure
    assert trial.record.attempts[-1].ended is not None
    return setback


# --- What is sent -----------------------------------------------------------------------------


async def test_the_request_is_the_clients_for_another_model_and_from_us() -> None:
    sent = {"User-Agent": "a client", "Connection": "keep-alive", "X-LLM-Role": "PLANNER"}
    trial = Trial(answers(200, GOOD), headers=sent)
    await trial.run()
    head, _, body = trial.upstream.written.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /api/generate HTTP/1.1"
    assert b"Host: 127.0.0.1:11434" in lines
    assert b"User-Agent: a client" in lines
    assert b"Via: 1.1 modelsplit" in lines
    assert b"Content-Length: %d" % len(body) in lines
    assert not [line for line in lines if line.lower().startswith((b"connection", b"x-llm"))]
    assert body == b'{"model":"qwen3:4b","prompt":"hi"}'


async def test_what_the_policy_changes_in_it_is_noted() -> None:
    overlay = {"roles": {"PLANNER": {"max_num_ctx": 2048}}}
    body = b'{"model":"planner","prompt":"hi","options":{"num_ctx":8192}}'
    trial = Trial(answers(200, GOOD), overlay=overlay, body=body)
    await trial.run()
    assert trial.upstream.body["options"] == {"num_ctx": 2048}
    assert trial.upstream.body["model"] == "qwen3:4b"
    assert any("num_ctx 8192->2048" in words for words in trial.record.applied)


# --- The seat ---------------------------------------------------------------------------------


async def test_without_a_seat_nothing_is_sent() -> None:
    trial = Trial(answers(200, GOOD), admission_queue=Seats(refusal=FULL))
    setback = await set_back(trial)
    assert setback.failure.reason is Reason.QUEUE_FULL
    assert trial.upstream.written == b""
    assert trial.record.call.state is State.PENDING
    assert trial.left_once


async def test_a_wait_in_line_counts_and_ends_with_a_seat() -> None:
    trial = Trial(answers(200, GOOD), admission_queue=Seats(waits=True))
    run = trial.attempt()
    running = asyncio.create_task(run.run(waited_s=0.0, after=None))
    await asyncio.sleep(0)
    assert trial.record.call.state is State.QUEUED
    assert trial.upstream.written == b""
    trial.clock.at += 2.5
    trial.admission_queue.granted.set()
    assert await running is None
    assert run.waited_s == 2.5
    assert trial.left_once


async def test_the_wait_is_one_for_all_attempts_and_a_client_may_shorten_it() -> None:
    for asked_ms, waited_s, left_s in [(None, 0.0, 8.0), (None, 3.0, 5.0), (2000, 0.5, 1.5)]:
        trial = Trial(answers(200, GOOD), asked=Asked(max_wait_ms=asked_ms))
        await trial.run(waited_s=waited_s)
        assert trial.admission_queue.tickets[0].max_wait_s == left_s
    longer = Trial(answers(200, GOOD), asked=Asked(max_wait_ms=60_000))
    await longer.run(waited_s=9.0)
    assert longer.admission_queue.tickets[0].max_wait_s == 0.0


async def test_whoever_leaves_the_line_takes_nothing_along() -> None:
    trial = Trial(answers(200, GOOD), admission_queue=Seats(waits=True))
    running = asyncio.create_task(trial.attempt().run(waited_s=0.0, after=None))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert trial.upstream.written == b""
    assert trial.left_once


async def test_a_call_that_is_cancelled_upstream_cuts_it_off_and_gives_its_seat_back() -> None:
    trial = Trial(Upstream())
    running = asyncio.create_task(trial.attempt().run(waited_s=0.0, after=None))
    await trial.upstream.asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert trial.upstream.aborted == 1
    assert trial.left_once
    assert trial.breakers.snapshot() == (), "a client that left is nobody's failure"


async def test_only_a_whole_answer_reports_how_fast_it_ran() -> None:
    whole = Trial(answers(200, GOOD))
    await whole.run()
    [report] = whole.admission_queue.reports
    assert report is not None
    assert report.tokens == 7
    broken = Trial(answers(200, TOKEN, kind=NDJSON, error=CUT))
    await broken.run()
    assert broken.admission_queue.reports == [None]


async def test_an_answer_that_does_not_fit_keeps_its_seat_until_the_retry_has_one() -> None:
    body = orjson.dumps({"model": "planner", "prompt": "hi", "format": SCHEMA})
    trial = Trial(answers(200, GOOD), body=body)
    run = trial.attempt()
    setback = await run.run(waited_s=0.0, after=None)
    assert setback is not None
    assert setback.failure.reason is Reason.SCHEMA
    assert retries_at_once(setback.failure)
    assert trial.admission_queue.left == []
    run.release()
    assert trial.left_once


# --- Breakers ---------------------------------------------------------------------------------


async def test_a_model_that_is_stopped_is_not_even_queued_for() -> None:
    trial = Trial(answers(200, GOOD))
    trial.open_breaker("qwen3:4b")
    setback = await set_back(trial)
    assert setback.failure.reason is Reason.BREAKER_OPEN
    assert trial.admission_queue.tickets == []
    assert trial.upstream.written == b""
    assert trial.record.attempts[-1].seated is None


async def test_a_breaker_that_opened_meanwhile_stops_the_call_at_the_door() -> None:
    trial = Trial(answers(200, GOOD), admission_queue=Seats(waits=True))
    running = asyncio.create_task(trial.attempt().run(waited_s=0.0, after=None))
    await asyncio.sleep(0)
    trial.open_breaker("qwen3:4b")
    trial.admission_queue.granted.set()
    setback = await running
    assert setback is not None
    assert setback.failure.reason is Reason.BREAKER_OPEN
    assert trial.upstream.written == b""
    assert trial.left_once


# --- No answer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("upstream", "code", "reason", "status"),
    [
        (
            Upstream(refused=UpstreamError(Fault.REFUSED, "connection refused")),
            "E_UNREACHABLE_LOCAL",
            "connect_refused",
            502,
        ),
        (
            Upstream(refused=UpstreamError(Fault.CONNECT_TIMEOUT, "no connection within 2 s")),
            "E_TIMEOUT_LOCAL",
            "connect_timeout",
            504,
        ),
        (Upstream(error=RESET), "E_UNREACHABLE_LOCAL", "reset", 502),
        (answers(200, b'{"mod', error=CUT), "E_UNREACHABLE_LOCAL", "truncated", 502),
        (answers(200, b'{"mod'), "E_UPSTREAM_LOCAL", "unterminated", 502),
        (answers(200, b'{"response":"","done":false}'), "E_UPSTREAM_LOCAL", "unterminated", 502),
        (answers(500, b'{"error":"x"}'), "E_UPSTREAM_LOCAL", "status", 502),
        (answers(503, b'{"error":"x"}'), "E_OVERLOAD_THROTTLED", "upstream_busy", 503),
        (answers(404, b'{"error":"x"}'), "E_MODEL_NOT_FOUND", "not_installed", 404),
        (Upstream(), "E_TIMEOUT_LOCAL", "role_timeout", 504),
        (answers(200, b'{"mod', ends=False), "E_TIMEOUT_LOCAL", "role_timeout", 504),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)
async def test_before_the_first_byte_another_model_may_be_asked_if_anybody_is_there(
    upstream: Upstream, code: str, reason: str, status: int
) -> None:
    trial = Trial(upstream)
    setback = await set_back(trial)
    failure = setback.failure
    assert (failure.code, failure.reason, failure.status) == (code, reason, status)
    assert is_cause(failure) == (not reason.startswith("connect_"))
    assert trial.record.call.state is State.DISPATCHED
    assert trial.left_once
    assert upstream.aborted == (0 if upstream.refused else 1)


async def test_an_unknown_path_is_not_a_missing_model() -> None:
    plain = UpstreamHead(404, b"Not Found", [(b"Content-Type", b"text/plain")], None)
    setback = await set_back(Trial(Upstream(plain, (b"404 page not found",))))
    assert setback.failure.code == "E_BAD_REQUEST"
    assert setback.failure.reason is Reason.UPSTREAM_REJECTED
    assert not is_cause(setback.failure)


async def test_the_upstreams_own_words_come_with_the_setback() -> None:
    setback = await set_back(Trial(answers(500, b'{"error":', b'"x"}')))
    assert setback.answer is not None
    assert setback.answer.body == b'{"error":"x"}'
    assert setback.answer.head.status == 500


# --- The bounds -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trial", "role_s", "reason", "number"),
    [
        (lambda: Trial(Upstream()), 0.02, Reason.ROLE_TIMEOUT, "the role's 0.02 s"),
        (
            lambda: Trial(Upstream(), loaded=False, overlay={"load_timeout_ms": 30}),
            60.0,
            Reason.LOAD_TIMEOUT,
            "load_timeout_ms, 0.03 s",
        ),
        (
            lambda: Trial(answers(200, b"{", ends=False), stall_s=0.01),
            60.0,
            Reason.STALL,
            "silent for 0.01 s",
        ),
    ],
    ids=["role", "load", "stall"],
)
async def test_a_bound_says_which_it_is_and_its_number(
    trial: object, role_s: float, reason: Reason, number: str
) -> None:
    assert callable(trial)
    setback = await set_back(trial(), Candidate("qwen3:4b", role_s))
    assert (setback.failure.code, setback.failure.reason) == ("E_TIMEOUT_LOCAL", reason)
    assert number in setback.failure.message
    assert "qwen3:4b" in setback.failure.message


@pytest.mark.parametrize(
    ("own_s", "asked_ms", "bound", "clients"),
    [
        (0.02, None, "0.02 s", False),
        (0.02, 60_000, "0.02 s", False),
        (60.0, 30, "0.03 s", True),
        (None, 30, "0.03 s", True),
    ],
)
async def test_a_client_may_shorten_the_roles_timeout_and_not_stretch_it(
    own_s: float | None, asked_ms: int | None, bound: str, *, clients: bool
) -> None:
    trial = Trial(Upstream(), asked=Asked(timeout_ms=asked_ms))
    setback = await set_back(trial, Candidate("qwen3:4b", own_s))
    assert bound in setback.failure.message
    assert trial.record.deadline_was_clients is clients
    # A client in a hurry says nothing about the model.
    assert bool(trial.breakers.snapshot()) is not clients


# --- A stream that was begun early ------------------------------------------------------------


async def test_after_an_early_head_a_setback_is_told_inside_and_ends_the_call() -> None:
    overlay = {"roles": {"PLANNER": {"early_headers_after_ms": 10}}}
    trial = Trial(Upstream(), overlay=overlay)
    assert await trial.run(Candidate("qwen3:4b", 0.1)) is None, "no other model may be asked"
    assert trial.heard.status == 200
    lines = [orjson.loads(line) for line in trial.heard.body.splitlines()]
    assert len(lines) >= 2
    assert not any(line["done"] for line in lines[:-1])
    assert lines[-1]["reason"] == "role_timeout"
    assert trial.record.call.state is State.TRUNCATED
