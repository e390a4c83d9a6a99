"""Seats and lines: never more than the caps, in order, bounded, and always given back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.journal import CallState
from modelsplit_sim.models import DEFAULT_MODELS
from support.calls import call
from support.harness import running, warm
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.harness import Running
    from support.wire import Answer

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"
# An upstream that would run far more at once than the proxy ever lets it.
WIDE = SimConfig(
    tokens=5, token_rate=400, num_parallel=64, max_loaded=5, models=(*DEFAULT_MODELS, "llama3.2:1b")
)
# Answers that last until their client leaves.
ENDLESS = SimConfig(tokens=10**6, token_rate=200, num_parallel=64, max_loaded=5, models=WIDE.models)


async def ask(
    up: Running, model: str, headers: dict[str, str] | None = None, *, stream: bool = False
) -> Answer:
    async with up.client() as client:
        return await client.request("POST", ROUTE, call(ROUTE, model, stream=stream), headers)


async def stream_of(up: Running, model: str) -> Client:
    """A client that has the first line of a stream and goes on."""
    client = up.client()
    await client.ask("POST", ROUTE, call(ROUTE, model, stream=True))
    answer = await client.head()
    assert answer.status == 200
    await anext(client.pieces(answer))
    return client


@pytest.fixture
async def full() -> AsyncIterator[tuple[Running, list[Client]]]:
    """Both planner seats taken by streams that do not end."""
    async with running(ENDLESS) as up:
        streams = [await stream_of(up, "planner") for _ in range(2)]
        try:
            yield up, streams
        finally:
            for client in streams:
                client.reset()
            await up.sim.wait_for(lambda sim: sim.active == 0)
            await up.until(lambda: up.seats() == (0, 0))


async def test_no_cap_is_ever_exceeded() -> None:
    async with running(WIDE) as up:
        models = ["planner"] * 12 + ["executor"] * 20 + ["heavy"] * 6 + ["llama3.2:1b"] * 14
        answers = await asyncio.gather(*(ask(up, model) for model in models))
        assert {answer.status for answer in answers} == {200}
        assert up.sim.max_active == 6
        peaks = up.sim.counts.max_active_by_model
        assert peaks["qwen3:4b"] == 2
        assert 3 <= peaks["qwen3:8b"] <= 5
        assert peaks["gemma3:12b"] == 1
        assert peaks["llama3.2:1b"] <= 6
        assert up.seats() == (0, 0)


@pytest.mark.parametrize(("model", "cap"), [("planner", 2), ("executor", 5), ("heavy", 1)])
async def test_a_role_alone_gets_its_cap_and_no_more(model: str, cap: int) -> None:
    async with running(WIDE) as up:
        answers = await asyncio.gather(*(ask(up, model) for _ in range(cap * 3)))
        assert {answer.status for answer in answers} == {200}
        assert up.sim.max_active == cap


async def test_chat_shares_the_global_cap() -> None:
    async with running(WIDE) as up:
        await asyncio.gather(*(ask(up, "llama3.2:1b") for _ in range(15)))
        assert 1 < up.sim.max_active <= 6


async def test_a_line_is_first_come_first_served() -> None:
    async with running(WIDE) as up:
        calls = []
        for number in range(8):
            client = up.client()
            await client.ask("POST", ROUTE, call(ROUTE, "heavy"), {"X-Request-Id": f"n{number}"})
            await arrived(up, number + 1)
            calls.append(client)
        await up.calls.wait(8)
        assert [record.request_id for record in up.calls.records] == [f"n{n}" for n in range(8)]
        waits = [record.queue_wait_s for record in up.calls.records]
        assert waits == sorted(waits)
        for client in calls:
            answer = await client.answer()
            assert answer.status == 200
            assert float(answer["X-LLM-Queue-Wait-Ms"]) >= 0
            await client.close()


async def test_a_wait_is_told() -> None:
    async with running(WIDE) as up, up.client() as one, up.client() as two:
        for client in (one, two):
            await client.ask("POST", ROUTE, call(ROUTE, "heavy"))
        first, second = await one.answer(), await two.answer()
        assert float(first["X-LLM-Queue-Wait-Ms"]) < 5
        waited = float(second["X-LLM-Queue-Wait-Ms"])
        assert waited > 5
        assert f"queue;dur={waited}" in second["Server-Timing"]


async def test_a_full_line_refuses_at_once() -> None:
    overlay = {"roles": {"HEAVY": {"max_queue": 2}}}
    async with running(ENDLESS, overlay) as up:
        running_call = await stream_of(up, "heavy")
        waiting = [asyncio.create_task(ask(up, "heavy")) for _ in range(2)]
        await up.until(lambda: up.seats() == (1, 2))
        answer = await ask(up, "heavy")
        assert (answer.status, answer.phrase) == (503, "Queue Full")
        assert answer.json["error_code"] == answer["X-LLM-Error-Code"] == "E_OVERLOAD_THROTTLED"
        assert answer.json["reason"] == "queue_full"
        assert 1 <= int(answer["Retry-After"]) <= 30
        assert "HEAVY" in answer.json["error"]
        assert "1/1" in answer.json["error"]
        assert "2/2" in answer.json["error"]
        assert float(answer["X-LLM-Queue-Wait-Ms"]) < 100
        assert len(up.asked) == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        running_call.reset()
        await up.until(lambda: up.seats() == (0, 0))


async def test_a_long_wait_ends(full: tuple[Running, list[Client]]) -> None:
    up, _ = full
    answer = await ask(up, "planner", {"X-LLM-Max-Wait-Ms": "60"})
    assert (answer.status, answer.phrase) == (503, "Queue Timeout")
    assert answer.json["reason"] == "queue_timeout"
    assert 1 <= int(answer["Retry-After"]) <= 30
    assert 55 <= float(answer["X-LLM-Queue-Wait-Ms"]) < 2000
    assert answer["X-LLM-Attempt"] == "1"
    assert (up.seats(), len(up.asked)) == ((2, 0), 2)
    [record] = await up.calls.wait()
    assert (record.call.state, record.outcome) == ("rejected", "E_OVERLOAD_THROTTLED")


async def test_no_patience_at_all_is_a_refusal(full: tuple[Running, list[Client]]) -> None:
    up, _ = full
    answer = await ask(up, "planner", {"X-LLM-Max-Wait-Ms": "0"})
    assert answer.json["reason"] == "queue_timeout"
    assert up.seats() == (2, 0)


async def test_a_client_cannot_wait_longer_than_its_role() -> None:
    row = {"max_wait_ms": 100, "allow_long_wait": True, "max_concurrent": 1}
    async with running(ENDLESS, {"roles": {"PLANNER": row}}) as up:
        held = await stream_of(up, "planner")
        answer = await ask(up, "planner", {"X-LLM-Max-Wait-Ms": "999999999"})
        assert answer.json["reason"] == "queue_timeout"
        assert 90 <= float(answer["X-LLM-Queue-Wait-Ms"]) < 3000
        held.reset()
        await up.until(lambda: up.seats() == (0, 0))


async def test_metadata_never_waits(full: tuple[Running, list[Client]]) -> None:
    up, _ = full
    waiting = asyncio.create_task(ask(up, "planner"))
    await up.until(lambda: up.seats() == (2, 1))
    async with up.client() as client:
        for method, target in (
            ("HEAD", "/"),
            ("GET", "/"),
            ("GET", "/api/version"),
            ("GET", "/api/tags"),
            ("GET", "/api/ps"),
            ("GET", "/v1/models"),
        ):
            answer = await client.request(method, target)
            assert answer.status == 200, target
            assert answer.get("X-LLM-Role") is None
        answer = await client.request("POST", "/api/show", {"model": "qwen3:4b"})
        assert answer.status == 200
    assert up.seats() == (2, 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("fault", "headers", "status"),
    [
        (None, {}, 200),
        ({"kind": Kind.STATUS, "path": ROUTE, "status": 500}, {}, 500),
        ({"kind": Kind.STATUS, "path": ROUTE, "status": 400}, {}, 400),
        ({"kind": Kind.RESET, "path": ROUTE}, {}, 502),
        ({"kind": Kind.HANG, "path": ROUTE}, {"X-LLM-Timeout-Ms": "40"}, 504),
        ({"kind": Kind.CUT_FIN}, {}, 502),
    ],
    ids=["ok", "500", "400", "reset", "timeout", "cut"],
)
@pytest.mark.parametrize("model", ["planner", "llama3.2:1b"])
async def test_a_seat_comes_back(
    model: str, fault: dict[str, object] | None, headers: dict[str, str], status: int
) -> None:
    async with running(WIDE) as up:
        await warm(up, *(("qwen3:4b", "qwen3:8b") if model == "planner" else (model,)))
        if fault is not None:
            up.sim.faults.add(**fault)  # type: ignore[arg-type]
        answer = await ask(up, model, headers)
        assert answer.status == status, answer.body
        assert up.seats() == (0, 0)
        await up.sim.wait_for(lambda sim: sim.active == 0)


async def test_a_refused_connection_gives_its_seat_back() -> None:
    async with running(WIDE) as up:
        await up.sim.stop()
        answer = await ask(up, "planner")
        assert answer.status == 502
        assert up.seats() == (0, 0)


@pytest.mark.parametrize("how", ["fin", "rst", "half"])
async def test_a_client_that_leaves_the_line_is_never_asked_for(
    full: tuple[Running, list[Client]], how: str
) -> None:
    up, _ = full
    client = up.client()
    await client.ask("POST", ROUTE, call(ROUTE, "planner"))
    await up.until(lambda: up.seats() == (2, 1))
    await leave(client, how)
    await up.until(lambda: up.seats() == (2, 0))
    assert len(up.asked) == 2
    [record] = await up.calls.wait()
    assert (record.call.state, record.status) == ("abandoned", 499)
    assert record.failure is not None
    assert (record.failure.code, record.failure.reason) == ("E_CLIENT_GONE", "queued")
    await client.close()


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_byte(how: str, *, stream: bool) -> None:
    async with running(ENDLESS) as up:
        up.sim.faults.add(Kind.HANG, path=ROUTE)
        client = up.client()
        await client.ask("POST", ROUTE, call(ROUTE, "planner", stream=stream))
        await up.sim.wait_for(lambda sim: any(sent.fault == "hang" for sent in sim.calls))
        await leave(client, how)
        await up.sim.wait_for(lambda sim: len(sim.in_state(CallState.ABORTED)) == 1)
        [record] = await up.calls.wait()
        assert record.failure is not None
        assert record.failure.reason == "before_first_byte"
        assert up.seats() == (0, 0)
        assert len(up.asked) == 1


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_client_that_leaves_mid_stream_frees_the_model(how: str) -> None:
    async with running(ENDLESS) as up:
        client = await stream_of(up, "planner")
        assert (up.sim.active, up.seats()) == (1, (1, 0))
        await leave(client, how)
        await up.sim.wait_for(lambda sim: sim.active == 0)
        [record] = await up.calls.wait()
        assert record.call.state == "abandoned"
        assert record.failure is not None
        assert record.failure.reason == "streaming"
        assert up.seats() == (0, 0)


async def test_the_next_in_line_gets_the_seat_of_one_who_left(
    full: tuple[Running, list[Client]],
) -> None:
    up, streams = full
    next_one = up.client()
    await next_one.ask("POST", ROUTE, call(ROUTE, "planner", stream=True))
    await up.until(lambda: up.seats() == (2, 1))
    streams[0].reset()
    answer = await next_one.head()
    assert answer.status == 200
    assert up.seats() == (2, 0)
    streams[0] = next_one


async def test_a_storm_of_leavers_leaks_nothing() -> None:
    async with running(ENDLESS) as up:
        clients = [up.client() for _ in range(40)]
        for number, client in enumerate(clients):
            model = ("planner", "executor", "heavy", "llama3.2:1b")[number % 4]
            await client.ask("POST", ROUTE, call(ROUTE, model, stream=True))
        await up.until(lambda: sum(up.seats()) == 40)
        for client in clients:
            client.reset()
        await up.until(lambda: up.seats() == (0, 0))
        await up.sim.wait_for(lambda sim: sim.active == 0)
        assert up.sim.max_active <= 6
        assert len(up.calls.records) == 40
        answer = await ask(up, "planner", {"X-LLM-Timeout-Ms": "50", "X-LLM-No-Fallback": "1"})
        assert answer.status == 504


async def arrived(up: Running, count: int) -> None:
    """Until so many calls have a seat, wait for one, or have ended."""
    await up.until(lambda: sum(up.seats()) + len(up.calls.records) >= count)


async def leave(client: Client, how: str) -> None:
    if how == "rst":
        client.reset()
    elif how == "half":
        client.half_close()
    else:
        await client.close()


async def test_the_queue_is_shown_with_places_and_who_runs(
    full: tuple[Running, list[Client]],
) -> None:
    up, _ = full
    async with up.client() as first, up.client() as second, up.admin() as admin:
        for number, client in enumerate((first, second), 1):
            await client.ask("POST", ROUTE, call(ROUTE, "planner"), {"X-Request-Id": f"w{number}"})
            await up.until(lambda: up.seats()[1] == number)  # noqa: B023
        shown = (await admin.request("GET", "/queue")).json
    assert [(row["request_id"], row["place"]) for row in shown["waiting"]] == [("w1", 1), ("w2", 2)]
    row = shown["waiting"][1]
    assert (row["llm_role"], row["model"], row["hold"]) == ("PLANNER", "qwen3:4b", "role_cap")
    assert row["why"] == "all seats of its role were taken"
    assert row["expected_wait_ms"] is None, "too little is known"
    assert [run["llm_role"] for run in shown["running"]] == ["PLANNER", "PLANNER"]
    assert {(run["host"], run["overdue"]) for run in shown["running"]} == {("default", False)}


async def test_whoever_is_refused_is_told_its_place(full: tuple[Running, list[Client]]) -> None:
    up, _ = full
    async with up.client() as waiting:
        await waiting.ask("POST", ROUTE, call(ROUTE, "planner"))
        await up.until(lambda: up.seats()[1] == 1)
        answer = await ask(up, "planner", {"X-LLM-Max-Wait-Ms": "60"})
    assert (answer.status, answer["X-LLM-Queue-Position"]) == (503, "2")


async def test_whoever_is_answered_is_told_no_place() -> None:
    async with running(WIDE) as up:
        assert (await ask(up, "planner")).get("X-LLM-Queue-Position") is None
