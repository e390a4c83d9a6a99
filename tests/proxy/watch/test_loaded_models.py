"""Which models are loaded, asked of an Ollama that may not feel like telling."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from modelsplit_policy import loaded_models
from modelsplit_proxy.http.upstream_pool import Pool
from modelsplit_proxy.limits.admission_queue import Gate
from modelsplit_proxy.watch import loaded_models as watch_loaded_models
from modelsplit_proxy.watch.loaded_models import Residency
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.server import Sim
from support.records import answered
from support.wire import Client


class Told:
    """A gate that notes what it is told."""

    def __init__(self) -> None:
        self.models: list[frozenset[str] | None] = []
        self.changed = asyncio.Event()

    def resident(self, models: frozenset[str] | None) -> None:
        self.models.append(models)
        self.changed.set()

    async def until(self, count: int) -> None:
        while len(self.models) < count:
            self.changed.clear()
            await self.changed.wait()


@contextlib.asynccontextmanager
async def asking(**config: Any) -> AsyncIterator[tuple[Residency, Sim, Told]]:
    async with Sim(SimConfig(**{"tokens": 1, "max_loaded": 3} | config)) as sim:
        pool = Pool("127.0.0.1", sim.port, connect_timeout_s=600)
        told = Told()
        try:
            yield Residency(pool, f"127.0.0.1:{sim.port}", cast("Gate", told)), sim, told
        finally:
            pool.close()


async def load(sim: Sim, model: str) -> None:
    async with Client(sim.port) as client:
        answer = await client.request("POST", "/api/generate", {"model": model})
        assert answer.status == 200


def asked(sim: Sim) -> int:
    return sum(call.path == "/api/ps" for call in sim.calls)


async def test_what_is_loaded_is_told_to_the_gate_by_canonical_names() -> None:
    async with asking(models=("Tiny:latest", "qwen3:4b", "other")) as (under, sim, told):
        assert repr(under) == "<Residency <LoadedModels default unknown>>"
        await under.ask()
        assert told.models == [frozenset()]
        await load(sim, "Tiny")
        await load(sim, "qwen3:4b")
        await under.ask()
        assert under.models == told.models[-1] == frozenset({"tiny", "qwen3:4b"})
        assert repr(under) == "<Residency <LoadedModels default ['qwen3:4b', 'tiny']>>"


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": Kind.STATUS, "status": 500},
        {"kind": Kind.STATUS, "status": 404, "body": '{"models":[]}'},
        {"kind": Kind.STATUS, "status": 200, "body": "not JSON"},
        {"kind": Kind.STATUS, "status": 200, "body": "[]"},
        {"kind": Kind.STATUS, "status": 200, "body": "{}"},
        {"kind": Kind.STATUS, "status": 200, "body": '{"models":null}'},
        {"kind": Kind.STATUS, "status": 200, "body": '{"models":["x"]}'},
        {"kind": Kind.STATUS, "status": 200, "body": '{"models":[{}]}'},
        {"kind": Kind.STATUS, "status": 200, "body": " " * (1024 * 1024 + 1)},
        {"kind": Kind.RESET},
        {"kind": Kind.GARBAGE},
    ],
)
async def test_without_an_answer_nothing_is_assumed(fault: dict[str, Any]) -> None:
    async with asking() as (under, sim, told):
        under.known.observe({"old news"}, 0.0)
        sim.faults.add(**fault, path="/api/ps")
        await under.ask()
        assert under.models is None
        assert told.models == [None]
        sim.faults.clear()
        await under.ask()
        assert told.models == [None, frozenset()]


async def test_an_ollama_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_loaded_models, "_TIMEOUT_S", 0.05)
    async with asking() as (under, sim, told):
        sim.faults.add(Kind.HANG, path="/api/ps")
        await under.ask()
        assert told.models == [None]
        await sim.wait_for(lambda sim: sim.connections_open == 0)


async def test_nobody_there() -> None:
    async with asking() as (under, sim, told):
        await sim.stop()
        await under.ask()
        assert told.models == [None]


async def test_it_asks_after_a_call_and_seldom_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded_models, "AT_LEAST_S", 0.01)
    monkeypatch.setattr(loaded_models, "AT_MOST_S", 60.0)
    async with asking() as (under, sim, told):
        task = asyncio.create_task(under.watch())
        await told.until(1)
        await load(sim, "qwen3:4b")
        under.call_ended(answered())
        await told.until(2)
        assert told.models == [frozenset(), frozenset({"qwen3:4b"})]
        for _ in range(20):
            under.call_ended(answered())
        await told.until(3)
        assert asked(sim) == 3, "twenty calls that end together are one reason to ask"
        monkeypatch.setattr(loaded_models, "AT_MOST_S", 0.02)
        under.call_ended(answered())
        await told.until(6)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
