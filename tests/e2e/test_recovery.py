"""Ollama goes away and comes back: who waits, who is told at once, and how soon all is well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.models import DEFAULT_MODELS
from support.calls import call
from support.faults import CHAT
from support.harness import running, warm

if TYPE_CHECKING:
    from support.harness import Running
    from support.wire import Answer

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/chat"
SIM = SimConfig(tokens=2, max_loaded=5, num_parallel=8, models=(*DEFAULT_MODELS, CHAT))
WAITS: dict[str, Any] = {"global": {"restart_wait_ms": 10_000}}


async def ask(up: Running, number: int, model: str = "planner", **headers: str) -> Answer:
    body = call(ROUTE, model) | {"messages": [{"role": "user", "content": f"{number}"}]}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with up.client() as client:
        return await client.request("POST", ROUTE, body, sent)


async def admin(up: Running, path: str) -> Answer:
    async with up.admin() as client:
        return await client.request("GET", path)


async def test_a_restart_under_load_loses_no_waiting_call() -> None:
    async with running(SIM, WAITS) as up:
        await warm(up, "qwen3:4b", CHAT)
        for round_ in range(3):
            await up.sim.stop()
            calls = [
                asyncio.ensure_future(ask(up, number, model))
                for number in range(8)
                for model in ("planner", CHAT)
            ]
            await up.until(lambda: up.seats() == (0, 16))
            assert (await admin(up, "/readyz")).status == 503
            waiters = (await admin(up, "/stats")).json["waiters"]
            assert {waiter["hold"] for waiter in waiters} == {"away"}
            await up.sim.start()
            answers = await asyncio.gather(*calls)
            assert [answer.status for answer in answers] == [200] * 16, round_
            assert {answer["X-LLM-Attempt"] for answer in answers} == {"1"}
            assert (await admin(up, "/stats")).json["breakers"] == []
            await up.until(lambda: up.app.probe.up is True)


async def test_a_call_waits_no_longer_than_its_wait_and_is_told_why() -> None:
    async with running(SIM, WAITS) as up:
        await warm(up, "qwen3:4b")
        await up.sim.stop()
        answer = await ask(up, 0, X_LLM_Max_Wait_Ms="200")
        assert (answer.status, answer.json["error_code"]) == (502, "E_UNREACHABLE_LOCAL")
        assert answer.json["reason"] == "connect_refused"
        assert up.seats() == (0, 0)


async def test_what_a_call_waited_for_is_told_as_it_was() -> None:
    """It had a seat, and nobody listened: that is time in line, and nothing was sent."""
    async with running(SIM, WAITS) as up:
        await warm(up, "qwen3:4b")
        await up.sim.stop()
        answer = await ask(up, 0, X_LLM_Max_Wait_Ms="200")
        waited_ms = float(answer["X-LLM-Queue-Wait-Ms"])
        assert waited_ms >= 200
        record = up.calls.records[-1]
        [attempt] = record.attempts
        assert (attempt.seated, attempt.dispatched, attempt.crowd) == (None, None, None)
        [returned] = attempt.returned
        assert record.started <= returned <= record.started + record.total_s
        assert record.llm_latency_s is None
        text = (await admin(up, f"/requests/{record.request_id}?format=text")).body.decode()
        assert "had a seat, but nobody listened: back in line until Ollama is there" in text
        assert "left the line without a seat: Ollama was away (away)" in text
        assert "sent to the upstream" not in text


async def test_away_for_longer_calls_are_told_at_once_and_who_waits_too() -> None:
    async with running(SIM, {"global": {"restart_wait_ms": 300}}) as up:
        await warm(up, "qwen3:4b")
        await up.sim.stop()
        first = [asyncio.ensure_future(ask(up, number)) for number in range(4)]
        for answer in await asyncio.gather(*first):
            assert (answer.status, answer.json["error_code"]) == (502, "E_UNREACHABLE_LOCAL")
        # Now each is told at once.
        answer = await ask(up, 9)
        assert (answer.status, answer.json["reason"]) == (502, "connect_refused")
        assert float(answer["X-LLM-Queue-Wait-Ms"]) < 200


async def test_one_that_was_never_there_is_not_waited_for() -> None:
    sim = SimConfig(tokens=1)
    async with running(sim, WAITS) as up:
        up.app.presence._outage._seen = False
        await up.sim.stop()
        answer = await ask(up, 0)
        assert (answer.status, answer.json["reason"]) == (502, "connect_refused")


async def test_nobody_there_is_no_reason_to_ask_for_another_model() -> None:
    async with running(SIM) as up:
        await up.sim.stop()
        answer = await ask(up, 0)
        assert answer.json["reason"] == "connect_refused"
        assert (answer["X-LLM-Attempt"], answer["X-LLM-Fallback-Used"]) == ("1", "false")
        # And who asks whether it is there knows at once.
        assert up.app.probe.up is False
        assert (await admin(up, "/readyz")).status == 503


async def test_as_soon_as_it_is_back_nobody_is_refused() -> None:
    """The probe's answer closes what connections that failed have opened: no trial has to load."""
    async with running(SIM) as up:
        await warm(up, "qwen3:4b")
        await up.sim.stop()
        for number in range(5):
            assert (await ask(up, number)).json["reason"] == "connect_refused"
        # By now its breaker is open: not asked any more, but it is the same outage.
        refused = await ask(up, 5)
        assert (refused.status, refused.json["error_code"]) == (502, "E_UNREACHABLE_LOCAL")
        assert (refused.json["reason"], refused["Retry-After"]) == ("connect_refused", "1")
        assert "ollama serve`; asked again in 1 s" in refused.json["error"]
        assert up.calls.records[-1].attempts[0].dispatched is None
        await up.sim.start()
        await up.until(lambda: up.app.probe.up is True)
        assert up.app.breakers.snapshot() == ()
        answers = await asyncio.gather(*(ask(up, number) for number in range(10)))
        assert [answer.status for answer in answers] == [200] * 10


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind(*, stream: bool) -> None:
    async with running(SIM, WAITS) as up:
        await warm(up, "qwen3:4b")
        await up.sim.stop()
        client = up.client()
        await client.ask("POST", ROUTE, call(ROUTE, "planner", stream=stream))
        await up.until(lambda: up.seats() == (0, 1))
        client.reset()
        (record,) = await up.calls.wait(1)
        assert record.failure is not None
        assert record.failure.code == "E_CLIENT_GONE"
        assert up.seats() == (0, 0)
