"""Calls that only load or unload: on their way at once, unless there is something to load."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.calls import call
from support.harness import Running, running, warm
from support.records import routing
from support.wire import Answer

pytestmark = pytest.mark.flowing_time

GENERATE, CHAT = "/api/generate", "/api/chat"
# Two planners fill their role, and nobody may wait.
FULL = {"roles": {"PLANNER": {"max_queue": 0}}}
ENDLESS = SimConfig(token_rate=5, tokens=10_000, max_loaded=3, num_parallel=4)
UNLOAD = {"model": "planner", "keep_alive": 0}
LOAD = {"model": "planner"}


async def ask(up: Running, body: dict[str, Any], route: str = GENERATE) -> Answer:
    async with up.client() as client:
        return await client.request("POST", route, body)


@asynccontextmanager
async def full(up: Running) -> AsyncIterator[None]:
    """While every seat of PLANNER is taken."""
    busy = [up.client() for _ in range(2)]
    for client in busy:
        await client.ask("POST", CHAT, call(CHAT, "planner", stream=True))
        await client.head()
    assert up.seats() == (2, 0)
    try:
        yield
    finally:
        for client in busy:
            await client.close()
    await up.until(lambda: up.seats() == (0, 0))


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (GENERATE, UNLOAD),
        (GENERATE, {"model": "planner", "prompt": "", "keep_alive": "0s", "options": None}),
        (CHAT, {"model": "Planner:latest", "messages": [], "keep_alive": 0}),
    ],
)
async def test_an_alias_is_unloaded_by_its_name(route: str, body: dict[str, Any]) -> None:
    async with running(SimConfig(max_loaded=3)) as up:
        await warm(up, "qwen3:4b", "qwen3:8b")
        answer = await ask(up, body, route)
        assert (answer.status, answer.json["done_reason"]) == (200, "unload")
        assert (answer.json["model"], answer["X-LLM-Model"]) == ("qwen3:4b", "qwen3:4b")
        assert answer["X-LLM-Role"] == "PLANNER"
        assert up.sim.loaded == ["qwen3:8b"]


async def test_with_every_seat_taken_an_unload_and_a_warm_load_go_at_once() -> None:
    async with running(ENDLESS, FULL) as up:
        await warm(up, "qwen3:4b", "qwen3:8b")
        async with full(up):
            answer = await ask(up, LOAD)
            assert (answer.status, answer.json["done_reason"]) == (200, "load")
            assert answer["X-LLM-Queue-Wait-Ms"] == "0.0"
            assert (await ask(up, {**LOAD, "keep_alive": "1h"})).status == 200
            executor = {"model": "qwen3:8b", "keep_alive": 0}
            assert (await ask(up, executor)).json["done_reason"] == "unload"
            assert up.seats() == (2, 0)


async def test_a_load_that_may_really_load_stands_in_line() -> None:
    async with running(ENDLESS, FULL) as up:
        await warm(up, "qwen3:4b")
        async with full(up):
            other = {"model": "qwen3:8b"}
            async with up.client() as client:
                answer = await client.request("POST", GENERATE, other, {"X-LLM-Role": "PLANNER"})
            assert (answer.status, answer.json["reason"]) == (503, "queue_full")
            again = {**LOAD, "options": {"num_ctx": 8192}}
            assert (await ask(up, again)).json["reason"] == "queue_full"


async def test_a_cold_load_holds_a_seat_until_the_model_is_loaded() -> None:
    async with running(SimConfig(load_ms=60_000)) as up, up.client() as client:
        await client.ask("POST", GENERATE, LOAD)
        await up.sim.wait_for(lambda sim: sim.waiting == 1)
        assert up.seats() == (1, 0)
    async with running() as up:
        answer = await ask(up, LOAD)
        assert answer.json["done_reason"] == "load"
        assert (up.seats(), up.sim.loaded) == ((0, 0), ["qwen3:4b"])


async def test_what_stands_for_a_prompt_that_was_hidden_takes_a_seat() -> None:
    async with running(ENDLESS, FULL) as up:
        await warm(up, "qwen3:4b")
        async with full(up), up.client() as client:
            body = b'{"model":"planner","prompt":"hi","prompt":null}'
            assert (await client.request("POST", GENERATE, body)).status == 503


async def test_they_are_no_samples_of_calls() -> None:
    async with running(SimConfig(max_loaded=3)) as up, up.admin() as admin:
        await ask(up, LOAD)
        await warm(up, "qwen3:4b")
        await ask(up, LOAD)
        await ask(up, UNLOAD)
        text = (await admin.request("GET", "/metrics")).body.decode()
        loads = 'modelsplit_loads_total{kind="%s",outcome="ok",role="PLANNER"} %s'
        assert loads % ("load", 2.0) in text
        assert loads % ("unload", 1.0) in text
        assert "modelsplit_requests_total{" not in text
        counts = [line for line in text.splitlines() if "_count{" in line and "role=" in line]
        assert counts
        assert all(line.endswith(" 0.0") for line in counts)
        lines = await up.logged()
        assert [line["loading"] for line in lines] == ["load", "load", "unload"]
        assert {(line["prompt_tokens"], line["output_tokens"]) for line in lines} == {(0, 0)}
        assert [line["planner_latency_ms"] for line in lines] == [None, None, None]


async def test_an_unload_whose_model_fails_is_not_tried_on_another() -> None:
    async with running(SimConfig(max_loaded=3)) as up:
        await warm(up, "qwen3:8b")
        up.sim.faults.add(Kind.STATUS, path=GENERATE, status=500)
        answer = await ask(up, UNLOAD)
        assert (answer.status, answer["X-LLM-Attempt"]) == (500, "1")
        assert up.sim.loaded == ["qwen3:8b"]


async def test_where_only_the_fallback_is_installed_it_is_what_is_unloaded() -> None:
    async with running(SimConfig(models=("qwen3:8b",))) as up:
        await warm(up, "qwen3:8b")
        answer = await ask(up, UNLOAD)
        assert (answer.status, answer["X-LLM-Model"]) == (200, "qwen3:8b")
        assert up.sim.loaded == []


async def test_an_open_breaker_does_not_keep_a_model_loaded() -> None:
    async with running() as up:
        await warm(up, "qwen3:4b")
        up.sim.faults.add(Kind.STATUS, path=CHAT, status=500, times=50)
        quick = call(CHAT, "qwen3:4b")
        answers = [await ask(up, quick, CHAT) for _ in range(20)]
        assert answers[-1].json["reason"] == "breaker_open"
        assert (await ask(up, {"model": "qwen3:4b", "keep_alive": 0})).status == 200
        assert up.sim.loaded == []


async def test_a_role_that_validates_does_not_look_for_an_answer_in_a_load() -> None:
    overlay = {"roles": {"PLANNER": {"validate": True, "fallback_timeout_ms": None}}}
    async with running(None, overlay) as up:
        schema = {"type": "object", "required": ["x"]}
        answer = await ask(up, {**LOAD, "format": schema})
        assert (answer.status, answer.json["done_reason"]) == (200, "load")


async def test_they_take_no_part_in_an_experiment() -> None:
    arms = [{"name": "only", "model": "qwen3:8b", "weight": 1}]
    test = {"name": "t", "role": "PLANNER", "arms": arms, "sticky": "client", "enabled": True}
    async with running(None, {"experiments": [test]}) as up:
        answer = await ask(up, LOAD)
        # What the next call will be answered by is loaded, and compared with nothing.
        assert (answer.json["model"], answer.get("X-LLM-Variant")) == ("qwen3:8b", None)
        assert routing(up.calls.records[-1]).variant is None


@pytest.mark.parametrize("body", [{"model": "cloud", "keep_alive": 0}, {"model": "cloud"}])
async def test_nothing_is_sent_to_the_cloud_without_an_approval(body: dict[str, Any]) -> None:
    price = {"claude-3-opus": {"price": {"input": 1, "output": 1}}}
    async with running(None, {"models": price}) as up:
        answer = await ask(up, body)
        assert (answer.status, answer.json["reason"]) == (403, "no_approval")
        assert not up.asked
