"""Ollama's own Python client, unchanged, with only its address changed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import orjson
import pytest
from ollama import AsyncClient, ChatResponse, ResponseError

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import DEFAULT_MODELS
from support.harness import running
from support.records import routing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.harness import Running

pytestmark = pytest.mark.flowing_time

QUICK = SimConfig(
    tokens=5, num_parallel=8, max_loaded=5, models=(*DEFAULT_MODELS, "all-minilm-embed:latest")
)
HELLO = [{"role": "user", "content": "hello"}]


@contextlib.asynccontextmanager
async def ollama(up: Running, **headers: str) -> AsyncIterator[AsyncClient]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with AsyncClient(host=up.url, headers=sent, trust_env=False) as client:
        yield client


@pytest.fixture
async def up() -> AsyncIterator[Running]:
    async with running(QUICK) as up:
        yield up


async def test_it_lists_and_shows(up: Running) -> None:
    async with ollama(up) as client:
        listed = await client.list()
        assert {model.model for model in listed.models} >= {"qwen3:4b", "gpt-oss:20b"}
        shown = await client.show("qwen3:4b")
        assert shown.details is not None
        assert shown.details.family == "qwen3"
        assert (await client.ps()).models == []


async def test_it_generates_by_alias(up: Running) -> None:
    async with ollama(up) as client:
        answer = await client.generate("planner", "hello")
        assert (answer.model, answer.done, answer.eval_count) == ("qwen3:4b", True, 5)
        [record] = await up.calls.wait()
        assert routing(record).role == "PLANNER"


async def test_it_chats_in_a_role(up: Running) -> None:
    async with ollama(up, X_LLM_Role="EXECUTOR") as client:
        answer = await client.chat("qwen3:8b", HELLO)
        assert answer.message.content
        [record] = await up.calls.wait()
        assert (routing(record).role, routing(record).reason) == ("EXECUTOR", "header")


async def test_it_does_not_mind_telemetry(up: Running) -> None:
    async with ollama(up, X_LLM_Telemetry="body") as client:
        parts = [part async for part in await client.chat("planner", HELLO, stream=True)]
        assert [part.done for part in parts] == [False] * 5 + [True]
        assert parts[-1].eval_count == 5
        assert (await client.generate("planner", "hello")).eval_count == 5


async def test_it_streams(up: Running) -> None:
    async with ollama(up) as client:
        parts = [part async for part in await client.chat("planner", HELLO, stream=True)]
        assert [part.done for part in parts] == [False] * 5 + [True]
        told = [
            part.response or "" async for part in await client.generate("heavy", "hi", stream=True)
        ]
        assert "".join(told)


async def test_it_gets_an_object_that_fits_a_schema(up: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"steps": {"type": "integer"}, "goal": {"type": "string"}},
        "required": ["steps", "goal"],
    }
    async with ollama(up) as client:
        answer = await client.chat("planner", HELLO, format=schema)
        value = orjson.loads(answer.message.content or "")
        assert isinstance(value["steps"], int)
        assert up.asked[-1].json["format"] == schema


async def test_it_embeds(up: Running) -> None:
    async with ollama(up) as client:
        answer = await client.embed("all-minilm-embed", ["one", "two"])
        assert [len(vector) for vector in answer.embeddings] == [384, 384]


async def test_a_throttled_call_is_told_in_our_words(up: Running) -> None:
    up.sim.faults.add(Kind.HANG, path="/api/chat")
    async with up.client() as one, up.client() as two:
        for busy in (one, two):
            await busy.ask("POST", "/api/chat", {"model": "planner", "messages": HELLO})
        await up.until(lambda: up.seats() == (2, 0))
        async with ollama(up, X_LLM_Max_Wait_Ms="40") as client:
            with pytest.raises(ResponseError) as raised:
                await client.chat("planner", HELLO)
        assert raised.value.status_code == 503
        assert "role PLANNER is overloaded" in raised.value.error
        assert "2/2 running" in raised.value.error
        assert "retry in" in raised.value.error


async def test_an_unknown_model_is_ollamas_own_error(up: Running) -> None:
    async with ollama(up) as client:
        with pytest.raises(ResponseError, match="model 'nosuch:1b' not found") as raised:
            await client.generate("nosuch:1b", "hi")
        assert raised.value.status_code == 404


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind.CUT_FIN, "broke off"),
        (Kind.CUT_RST, "broke off"),
        (Kind.CUT_CLEAN, "without saying that it was done"),
        (Kind.REPEAT_CUTOFF, "without saying that it was done"),
        (Kind.RUNNER_DIES, "error was encountered while running the model"),
    ],
)
async def test_a_broken_stream_raises(up: Running, kind: Kind, words: str) -> None:
    up.sim.faults.add(kind, after=2)
    async with ollama(up) as client:
        parts = await client.chat("planner", HELLO, stream=True)
        assert (await anext(parts)).message.content
        with pytest.raises(ResponseError, match=words):
            await all_of(parts)


async def all_of(parts: AsyncIterator[ChatResponse]) -> list[ChatResponse]:
    return [part async for part in parts]


async def test_an_upstream_that_is_away(up: Running) -> None:
    await up.sim.stop()
    async with ollama(up) as client:
        with pytest.raises(ResponseError, match=r"try `OLLAMA_HOST=.* ollama serve`") as raised:
            await client.generate("planner", "hi")
        assert raised.value.status_code == 502
