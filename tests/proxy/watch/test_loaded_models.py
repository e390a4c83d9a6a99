"""Which models are loaded, asked of an Ollama that may not feel like telling."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest

from modelsplit_policy import loaded_models
from modelsplit_policy.loaded_models import Listed
from modelsplit_proxy.http.upstream_pool import UpstreamPool
from modelsplit_proxy.limits.admission_queue import AdmissionQueue
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.runtime.tasks import Tasks
from modelsplit_proxy.watch import loaded_models as watch_loaded_models
from modelsplit_proxy.watch.loaded_models import LoadedModelsWatch
from modelsplit_proxy.watch.model_list import ModelList
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.server import Sim
from support.records import answered
from support.wire import Client

pytestmark = pytest.mark.flowing_time


class Told:
    """A gate that notes what it is told."""

    def __init__(self) -> None:
        self.models: list[dict[str, bool]] = []
        self.sizes: Mapping[str, int] = {}
        self.on_gpu = False
        self.changed = asyncio.Event()

    def resident(
        self, models: Mapping[str, bool], sizes: Mapping[str, int], *, on_gpu: bool
    ) -> None:
        self.sizes = sizes
        self.models.append(dict(models))
        self.on_gpu = on_gpu
        self.changed.set()

    @property
    def loaded(self) -> list[set[str]]:
        """The names of those that are loaded, each time."""
        return [{name for name, loaded in told.items() if loaded} for told in self.models]

    async def until(self, count: int) -> None:
        while len(self.models) < count:
            self.changed.clear()
            await self.changed.wait()


@contextlib.asynccontextmanager
async def asking(**config: Any) -> AsyncIterator[tuple[LoadedModelsWatch, Sim, Told]]:
    async with Sim(SimConfig(**{"tokens": 1, "max_loaded": 3} | config)) as sim:
        pool = UpstreamPool("127.0.0.1", sim.port, connect_timeout_s=600)
        told, tasks, authority = Told(), Tasks(), f"127.0.0.1:{sim.port}"
        try:
            yield (
                LoadedModelsWatch(
                    pool,
                    authority,
                    ModelList(pool, authority, tasks),
                    cast("AdmissionQueue", told),
                    tasks,
                ),
                sim,
                told,
            )
        finally:
            await tasks.close()
            pool.close()


async def load(sim: Sim, model: str) -> None:
    async with Client(sim.port) as client:
        answer = await client.request("POST", "/api/generate", {"model": model})
        assert answer.status == 200


def asked(sim: Sim) -> int:
    return sum(call.path == "/api/ps" for call in sim.calls)


async def test_what_is_loaded_is_told_to_the_gate_by_canonical_names() -> None:
    async with asking(models=("Tiny:latest", "qwen3:4b", "other")) as (under, sim, told):
        assert repr(under) == "<LoadedModelsWatch <LoadedModels default unknown>>"
        await under.ask()
        assert told.models == [{"tiny": False, "qwen3:4b": False, "other": False}]
        await load(sim, "Tiny")
        await load(sim, "qwen3:4b")
        await under.ask()
        assert under.models == frozenset(told.loaded[-1]) == frozenset({"tiny", "qwen3:4b"})
        assert repr(under) == "<LoadedModelsWatch <LoadedModels default ['qwen3:4b', 'tiny']>>"


@pytest.mark.parametrize(("gpu_share", "on_gpu"), [(1.0, True), (0.6, False), (0.0, False)])
async def test_whether_it_computes_on_a_gpu_is_told_once_something_is_loaded(
    gpu_share: float, on_gpu: bool
) -> None:
    async with asking(gpu_share=gpu_share) as (under, sim, told):
        await under.ask()
        assert told.on_gpu is False
        await load(sim, "qwen3:4b")
        await under.ask()
        assert told.on_gpu is on_gpu


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
        {"kind": Kind.STATUS, "status": 200, "body": " " * (4 * 1024 * 1024 + 1)},
        {"kind": Kind.RESET},
        {"kind": Kind.GARBAGE},
    ],
)
async def test_without_an_answer_nothing_is_assumed(fault: dict[str, Any]) -> None:
    async with asking() as (under, sim, told):
        under.known.observe([Listed("old news")], 0.0)
        sim.faults.add(**fault, path="/api/ps")
        await under.ask()
        assert under.models is None
        assert told.models == [{}]
        sim.faults.clear()
        await under.ask()
        assert under.models == frozenset()


async def test_a_second_name_is_loaded_with_the_first() -> None:
    async with asking() as (under, sim, _), Client(sim.port) as client:
        copied = {"source": "qwen3:4b", "destination": "mine"}
        assert (await client.request("POST", "/api/copy", copied)).status == 200
        await load(sim, "qwen3:4b")
        await under.ask()
        assert under.models == frozenset({"qwen3:4b"})
        assert (under.loaded("mine"), under.loaded("qwen3:8b")) == (True, False)


async def test_a_model_that_runs_elsewhere_is_not_being_loaded() -> None:
    tags = b'{"models":[{"name":"far","digest":"abc","remote_host":"https://ollama.com:443"}]}'
    async with asking() as (under, sim, _):
        sim.faults.add(Kind.STATUS, status=200, body=tags.decode(), path="/api/tags")
        await under.ask()
        assert (under.models, under.loaded("far")) == (frozenset(), None)


async def test_one_that_answers_at_once_and_is_in_no_list_is_not_being_loaded() -> None:
    async with asking() as (under, _, _):
        await under.ask()
        assert under.loaded("qwen3:4b") is False
        for load_s, loaded in ((2.0, False), (0.03, None)):
            record = answered()
            assert record.model == "qwen3:4b"
            record.attempts[-1].usage = Usage(load_s=load_s)
            under.call_ended(record)
            assert under.loaded("qwen3:4b") is loaded


async def test_without_a_list_of_what_is_installed_nothing_is_being_loaded() -> None:
    async with asking() as (under, sim, _):
        sim.faults.add(Kind.STATUS, status=404, path="/api/tags")
        await under.ask()
        assert (under.models, under.loaded("qwen3:4b")) == (frozenset(), None)


# --- One question at a time -------------------------------------------------------------------


class Questions:
    """Answers /api/ps when the test says so; ``open``: the questions that wait for that."""

    def __init__(self) -> None:
        self.open: list[asyncio.Future[list[Listed]]] = []
        self.changed = asyncio.Event()

    async def loaded(self) -> list[Listed]:
        answer: asyncio.Future[list[Listed]] = asyncio.get_running_loop().create_future()
        self.open.append(answer)
        self.changed.set()
        return await answer

    async def until(self, count: int) -> None:
        while len(self.open) < count:
            self.changed.clear()
            await self.changed.wait()


async def test_who_asks_while_it_is_asked_shares_the_next_question_and_the_last_answer_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with asking() as (under, _, _):
        questions = Questions()
        monkeypatch.setattr(under, "_loaded", questions.loaded)
        first = asyncio.create_task(under.ask())
        await questions.until(1)
        others = [asyncio.create_task(under.ask()) for _ in range(3)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(questions.open) == 1, "one at a time"
        questions.open[0].set_result([Listed("a", "1")])
        await first
        await questions.until(2)
        assert under.models == frozenset({"a"})
        assert not any(task.done() for task in others), "what was asked before is old news"
        questions.open[1].set_result([Listed("b", "2")])
        await asyncio.gather(*others)
        assert (len(questions.open), under.models) == (2, frozenset({"b"}))


async def test_one_who_is_in_a_hurry_takes_nothing_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with asking() as (under, _, _):
        questions = Questions()
        monkeypatch.setattr(under, "_loaded", questions.loaded)
        under.known.observe([Listed("a", "1")], asyncio.get_running_loop().time())
        patient = asyncio.create_task(under.ask())
        await questions.until(1)
        await under.ask(0.01)
        assert under.models == frozenset({"a"}), "nothing was learned, and nothing forgotten"
        leaving = asyncio.create_task(under.ask())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        questions.open[0].set_result([Listed("b", "2")])
        await patient
        assert under.models == frozenset({"b"})


async def test_an_ollama_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_loaded_models, "_TIMEOUT_S", 0.05)
    async with asking() as (under, sim, told):
        sim.faults.add(Kind.HANG, path="/api/ps")
        now = asyncio.get_running_loop().time()
        under.known.observe([Listed("x")], now)
        await under.ask()
        assert told.loaded == [{"x"}], "it may be loading a model"
        under.known.observe([Listed("x")], now - loaded_models.KEEP_S)
        await under.ask()
        assert told.models[1:] == [{}]
        await sim.wait_for(lambda sim: sim.connections_open == 0)


async def test_nobody_there() -> None:
    async with asking() as (under, sim, told):
        await sim.stop()
        await under.ask()
        assert told.models == [{}]


async def test_it_asks_after_a_call_and_seldom_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded_models, "AT_LEAST_S", 0.01)
    monkeypatch.setattr(loaded_models, "AT_MOST_S", 60.0)
    async with asking() as (under, sim, told):
        task = asyncio.create_task(under.watch())
        await told.until(1)
        await load(sim, "qwen3:4b")
        under.call_ended(answered())
        await told.until(2)
        assert told.loaded == [set(), {"qwen3:4b"}]
        for _ in range(20):
            under.call_ended(answered())
        await told.until(3)
        assert asked(sim) == 3, "twenty calls that end together are one reason to ask"
        monkeypatch.setattr(loaded_models, "AT_MOST_S", 0.02)
        under.call_ended(answered())
        await told.until(6)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
