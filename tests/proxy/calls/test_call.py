"""One call's own turns that no dialect and no queue explains."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from modelsplit_policy.attempts import BEFORE_A_SEAT, BEFORE_ANY_ATTEMPT, BEFORE_SENDING, Check
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.tickets import Ticket
from modelsplit_proxy.calls import answer as calls_answer
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.limits.admission_queue import AdmissionQueue
from modelsplit_proxy.limits.arrival_limit import ArrivalLimit
from modelsplit_proxy.limits.breakers import BreakerKeeper
from modelsplit_proxy.limits.budgets import AttemptCharge
from modelsplit_proxy.limits.client_keys import Caller
from modelsplit_proxy.limits.client_seats import ClientSeats
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import call
from support.harness import Running, running
from support.scripted import response, scripted

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 70_000])
async def test_a_held_answer_is_the_upstreams_bytes(size: int) -> None:
    said = b'{"done":true,"response":"%b"}' % (b"x" * size)
    async with scripted(response(said)) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up, up.client() as client:
            answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
            assert (answer.body, answer["Content-Length"]) == (said, str(len(said)))


async def test_an_answer_too_large_to_hold_passes_as_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls_answer, "HOLD_BYTES", 1000)
    said = b'{"embeddings":[[%b]]}' % b",".join([b"0.5"] * 200_000)
    async with scripted(response(said)) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up, up.client() as client:
            answer = await client.request("POST", "/api/embed", call("/api/embed", "x"))
            assert (answer.status, answer.whole, answer.body == said) == (200, True, True)
            assert answer["X-LLM-Role"] == "CHAT"
            [record] = await up.calls.wait()
            assert (record.outcome, record.call.state) == ("ok", "completed")


async def test_a_large_answer_that_breaks_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_answer, "HOLD_BYTES", 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90000\r\n\r\n"
    async with scripted(head + b"[" * 50_000, hang_up=True) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up, up.client() as client:
            answer = await client.request("POST", "/api/embed", call("/api/embed", "x"))
            assert (answer.status, answer.whole) == (200, False)
            [record] = await up.calls.wait()
            assert record.outcome == "E_STREAM_BROKEN_LOCAL"
            assert up.seats() == (0, 0)


async def test_a_large_error_is_told_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_answer, "HOLD_BYTES", 1000)
    raw = response(b"x" * 5000, status="500 No", content_type="text/plain")
    async with scripted(raw) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up, up.client() as client:
            answer = await client.request("POST", ROUTE, call(ROUTE, "llama3.2:1b"))
            assert (answer.status, answer.json["error_code"]) == (500, "E_UPSTREAM_LOCAL")


async def test_an_answer_in_no_known_type_passes() -> None:
    said = b'{"response":"pong","done":true}'
    async with scripted(response(said, content_type="text/plain")) as upstream:
        target = Address("127.0.0.1", upstream.port)
        async with running(upstream=target) as up, up.client() as client:
            answer = await client.request("POST", ROUTE, call(ROUTE, "planner"))
            assert (answer.status, answer.body) == (200, said)
            assert answer["Content-Type"] == "text/plain"


async def test_calls_share_connections_to_the_upstream() -> None:
    async with running(SimConfig(tokens=2), curious=False) as up, up.client() as client:
        for _ in range(10):
            await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert {sent.connection for sent in up.asked} == {up.asked[0].connection}


async def test_a_loading_request_is_a_call_like_any_other() -> None:
    async with running(SimConfig(tokens=2)) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, {"model": "planner"})
        assert (answer.status, answer.json["done_reason"]) == (200, "load")
        assert answer["X-LLM-Role"] == "PLANNER"


async def test_the_answer_decides_whether_it_is_a_stream() -> None:
    """Not the request: one refused before it streams comes as JSON, and is held."""
    async with running(SimConfig(tokens=2)) as up, up.client() as client:
        up.sim.faults.add(Kind.STATUS, status=500, path=ROUTE, model="qwen3:4b")
        answer = await client.request("POST", ROUTE, call(ROUTE, "qwen3:4b", stream=True))
        assert answer.status == 500
        assert "total;dur=" in answer["Server-Timing"]
        [record] = await up.calls.wait()
        assert record.streamed is False


# --- Who says no, in which order --------------------------------------------------------------

NO = {
    Reason.ROLE_DENIED: ErrorCode.FORBIDDEN,
    Reason.CALLS: ErrorCode.BUDGET_EXHAUSTED,
    Reason.BREAKER_OPEN: ErrorCode.OVERLOAD_THROTTLED,
    Reason.QUEUE_FULL: ErrorCode.OVERLOAD_THROTTLED,
}


def no(reason: Reason) -> Failure:
    return Failure(NO[reason], reason, "no", "No", retry_after_s=1)


async def never(*_: object) -> int:
    return 1


async def no_budget(*_: object) -> Failure:
    return no(Reason.CALLS)


def no_seat(_: AdmissionQueue, ticket: Ticket) -> Failure:
    del ticket
    return no(Reason.QUEUE_FULL)


# Who says no, what it is that does, and the reason that is told.
SAYS: list[tuple[Check, type, str, Any, Reason]] = [
    (Check.ROLE, Caller, "denied_role", lambda *_: no(Reason.ROLE_DENIED), Reason.ROLE_DENIED),
    (Check.CLIENT_SEATS, ClientSeats, "enter", lambda *_: False, Reason.CLIENT_CONCURRENCY),
    (Check.CLIENT_RATE, ArrivalLimit, "take", never, Reason.CLIENT_RATE),
    (
        Check.BREAKER,
        BreakerKeeper,
        "check",
        lambda *_: no(Reason.BREAKER_OPEN),
        Reason.BREAKER_OPEN,
    ),
    (Check.BUDGET, AttemptCharge, "check", no_budget, Reason.CALLS),
    (Check.SEAT, AdmissionQueue, "ask", no_seat, Reason.QUEUE_FULL),
    (Check.BUDGET, AttemptCharge, "reserve", no_budget, Reason.CALLS),
    (
        Check.BREAKER,
        BreakerKeeper,
        "admit",
        lambda *_: no(Reason.BREAKER_OPEN),
        Reason.BREAKER_OPEN,
    ),
]


async def test_of_several_that_say_no_the_one_that_policy_puts_first_is_told() -> None:
    """All say no at once; then the one in front gives in, and the next is heard."""
    order = [*BEFORE_ANY_ATTEMPT, *BEFORE_A_SEAT, *BEFORE_SENDING]
    assert order == [Check.DRAIN, *(check for check, *_ in SAYS)]
    limits = {"rate_per_s": 1000, "burst": 1000, "max_concurrent": 9}
    budget = {"name": "heavy", "role": "HEAVY", "calls": 9, "window": "1h"}
    async with running(overlay={"clients": limits, "budgets": [budget]}) as up:
        up.app.lifecycle.draining = True
        with contextlib.ExitStack() as patches:
            held = [patches.enter_context(pytest.MonkeyPatch.context()) for _ in SAYS]
            for patch, (_, kind, name, says, _) in zip(held, SAYS, strict=True):
                patch.setattr(kind, name, says)
            heard = [await told(up)]
            up.app.lifecycle.draining = False
            for patch in held:
                heard.append(await told(up))
                patch.undo()
        assert heard == [Reason.DRAINING, *(reason for *_, reason in SAYS)]
        assert await told(up) is None
        assert len(up.asked) == 1
        assert up.seats() == (0, 0)


async def told(up: Running) -> Reason | None:
    """The reason that a call to a role with a budget is told; None: it is answered."""
    before = len(up.calls.records)
    async with up.client() as client:
        await client.request("POST", ROUTE, call(ROUTE, "heavy"))
    record = (await up.calls.wait(before + 1))[-1]
    return None if record.failure is None else record.failure.reason
