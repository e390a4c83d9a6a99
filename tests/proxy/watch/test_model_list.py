"""Ollama's list of what is installed: read, and asked for once however many need it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import orjson
import pytest

from modelsplit_policy.loaded_models import Listed
from modelsplit_proxy.http.upstream_pool import UpstreamPool
from modelsplit_proxy.runtime.tasks import Tasks
from modelsplit_proxy.watch import model_list
from modelsplit_proxy.watch.model_list import LIST, ModelList
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.server import Sim
from support.harness import running
from support.wire import Client

pytestmark = pytest.mark.flowing_time


def test_names_are_read_without_latest_and_nothing_else_passes_for_a_list() -> None:
    body = b'{"models":[{"name":"qwen3:4b"},{"name":"mine:latest"}]}'
    found = model_list.listed(body)
    assert found is not None
    assert set(found) == {"qwen3:4b", "mine"}
    for other in (b"", b"[]", b'{"models":null}', b'{"models":[{}]}', b"not json"):
        assert model_list.listed(other) is None


def test_what_a_model_can_do_is_read_where_the_list_says_it() -> None:
    rows = [
        {"name": "a", "digest": "1", "capabilities": ["completion", "tools"]},
        {"name": "b", "digest": "2", "capabilities": []},
        {"name": "c", "capabilities": "tools"},
    ]
    found = model_list.listed(orjson.dumps({"models": rows}))
    assert found is not None
    assert [found[name].capabilities for name in "abc"] == [
        frozenset({"completion", "tools"}),
        None,
        None,
    ]


def test_a_row_says_who_computes_and_which_weights_these_are() -> None:
    found = [
        {"name": "mine", "digest": "abc"},
        {"name": "far", "digest": "def", "remote_host": "https://ollama.com:443"},
        {"name": "bare"},
        {"name": "large", "size": 9, "size_vram": 7},
        {"name": "odd", "size": "9", "size_vram": None},
    ]
    assert model_list.rows(orjson.dumps({"models": found})) == [
        Listed("mine", "abc"),
        Listed("far", "def", remote=True),
        Listed("bare"),
        Listed("large", size=9, vram=7),
        Listed("odd"),
    ]


@contextlib.asynccontextmanager
async def asking() -> AsyncIterator[tuple[ModelList, Sim]]:
    async with Sim(SimConfig(models=("tiny", "qwen3:4b"))) as sim:
        pool, tasks = UpstreamPool("127.0.0.1", sim.port, connect_timeout_s=600), Tasks()
        try:
            yield ModelList(pool, f"127.0.0.1:{sim.port}", tasks), sim
        finally:
            await tasks.close()
            pool.close()


def asked(sim: Sim) -> int:
    return sum(call.path == LIST for call in sim.calls)


async def test_whoever_needs_no_newer_list_shares_one_question() -> None:
    async with asking() as (under, sim):
        assert repr(under) == "<ModelList unknown>"
        begun = asyncio.get_running_loop().time()
        first, second = await asyncio.gather(under.since(begun), under.since(begun))
        assert first is not None
        assert set(first) == {"tiny", "qwen3:4b"}
        assert second is first is await under.since(begun)
        assert (asked(sim), repr(under)) == (1, "<ModelList 2 models>")


async def test_another_list_differs_where_it_names_others_or_other_weights() -> None:
    async with asking() as (under, sim):
        assert not under.differs(b'{"models":[]}'), "nothing is known"
        assert await under.since(asyncio.get_running_loop().time()) is not None
        async with Client(sim.port) as client:
            body = (await client.request("GET", LIST)).body
        assert not under.differs(body)
        assert not under.differs(b"no list")
        other = orjson.loads(body)
        other["models"][0]["digest"] = "another"
        assert under.differs(orjson.dumps(other))
        assert under.differs(b'{"models":[]}')


async def test_a_host_that_no_longer_says_may_have_what_it_had() -> None:
    async with asking() as (under, sim):
        assert under.may_have("tiny"), "it has never said"
        assert await under.since(asyncio.get_running_loop().time()) is not None
        assert not under.may_have("tiny"), "it says"
        await sim.stop()
        under.outdate()
        assert await under.since(asyncio.get_running_loop().time()) is None
        assert (under.may_have("tiny"), under.may_have("other")) == (True, False)
        assert (under.has("tiny"), under.silent_about("tiny")) == (False, ())


async def test_what_has_changed_since_the_question_began_is_asked_for_anew() -> None:
    async with asking() as (under, sim):
        begun = asyncio.get_running_loop().time()
        before = asyncio.create_task(under.since(begun))
        await asyncio.sleep(0)
        under.outdate()
        after = asyncio.create_task(under.since(begun))
        assert await before is not None
        assert await after is not None
        assert asked(sim) == 2


async def test_no_answer_is_no_list_and_is_asked_for_again() -> None:
    async with asking() as (under, sim):
        sim.faults.add(Kind.STATUS, status=500, path=LIST)
        begun = asyncio.get_running_loop().time()
        assert await under.since(begun) is None
        sim.faults.clear()
        assert await under.since(begun) is not None


async def test_who_waits_no_longer_takes_nothing_from_the_others() -> None:
    async with asking() as (under, sim):
        sim.faults.add(Kind.HANG, path=LIST)
        begun = asyncio.get_running_loop().time()
        hasty = asyncio.create_task(under.since(begun))
        patient = asyncio.create_task(under.since(begun))
        await sim.wait_for(lambda sim: any(call.path == LIST for call in sim.calls))
        hasty.cancel()
        await asyncio.gather(hasty, return_exceptions=True)
        assert not patient.done()
        patient.cancel()
        await asyncio.gather(patient, return_exceptions=True)
        assert asked(sim) == 1


async def test_at_its_start_the_process_asks_once() -> None:
    async with running() as up:
        assert up.app.installed.facts
        assert up.app.loaded_models.digests
        assert asked(up.sim) == 1


async def test_the_names_that_ollama_told_last_are_known() -> None:
    async with running(SimConfig(models=("llama3.2:1b",))) as up:
        await up.until(lambda: bool(up.app.installed.facts))
        assert up.app.model_list.names() == ["llama3.2:1b"]
