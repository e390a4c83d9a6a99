"""An Ollama that hangs: it takes connections and says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_policy import deadlines
from modelsplit_policy.health import Level
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import DEFAULT_MODELS, ModelSpec
from support import patience
from support.calls import call
from support.harness import in_front_of, running, warm
from support.ports import stand_in
from support.process import spawned
from support.stopped import Way, way
from support.wire import Client

if TYPE_CHECKING:
    from support.harness import Overlay, Running
    from support.wire import Answer

ROUTE = "/api/generate"
FIRST, SECOND, CHAT = "qwen3:4b", "qwen3:8b", "llama3.2:1b"
MUTE_S = 0.4
PLAIN: Overlay = {"roles": {"PLANNER": {"validate": False}}}


@pytest.fixture(autouse=True)
def soon_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes half a minute takes half a second here."""
    patience.notice_soon(monkeypatch, MUTE_S)


@contextlib.asynccontextmanager
async def ollama(*loaded: str) -> AsyncIterator[Way]:
    models = tuple(map(ModelSpec, (FIRST, SECOND, CHAT)))
    async with (
        stand_in(SimConfig(tokens=4, max_loaded=5, models=models)) as sim,
        way(sim.port) as upstream,
        Client(sim.port) as client,
    ):
        for model in loaded:
            assert (await client.request("POST", ROUTE, {"model": model})).status == 200
        yield upstream


async def ask(up: Running, model: str) -> Answer:
    async with up.client() as client:
        return await client.request("POST", ROUTE, call(ROUTE, model))


def told(answer: Answer) -> tuple[int, Any, Any]:
    return answer.status, answer.json["error_code"], answer.json["reason"]


MUTE = (504, "E_TIMEOUT_LOCAL", "upstream_mute")
# Bounds that are further away than a process on a busy machine takes for anything.
PATIENT: Overlay = {"load_timeout_ms": 600_000, "roles": {"CHAT": {"timeout_ms": 600_000}}}


async def test_a_process_that_is_stopped_hangs() -> None:
    async with (
        spawned("modelsplit_sim", "--model", CHAT) as upstream,
        in_front_of(orjson.loads(await upstream.said())["port"], PATIENT) as up,
    ):
        upstream.signal(signal.SIGSTOP)
        assert told(await ask(up, CHAT)) == MUTE


@pytest.mark.flowing_time
@pytest.mark.parametrize("loaded", [(FIRST, SECOND, CHAT), ()])
async def test_no_call_holds_its_seat_for_ever_and_no_second_model_is_asked(
    loaded: tuple[str, ...],
) -> None:
    async with ollama(*loaded) as upstream, in_front_of(upstream.port, PLAIN) as up:
        await up.app.loaded_models.ask()
        upstream.hang()
        answers = await asyncio.gather(ask(up, "planner"), ask(up, CHAT))
        assert [told(answer) for answer in answers] == [MUTE, MUTE]
        assert [answer["X-LLM-Attempt"] for answer in answers] == ["1", "1"]
        assert [len(record.attempts) for record in await up.calls.wait(2)] == [1, 1]
        assert up.seats() == (0, 0)


@pytest.mark.flowing_time
async def test_a_role_that_is_out_of_time_while_it_hangs_asks_no_second_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadlines, "MUTE_S", 60.0)
    overlay = {"roles": {"PLANNER": {"validate": False, "timeout_ms": 200}}}
    async with ollama(FIRST, SECOND) as upstream, in_front_of(upstream.port, overlay) as up:
        await up.app.loaded_models.ask()
        upstream.hang()
        await up.until(lambda: up.app.probe.up is False)
        answer = await ask(up, "planner")
        assert told(answer) == MUTE
        assert "the role's 0.2 s" in answer.json["error"]
        [record] = await up.calls.wait()
        assert len(record.attempts) == 1


@pytest.mark.flowing_time
async def test_who_waits_in_line_is_told_that_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "MUTE_S", 600.0)
    overlay: Overlay = {
        "global": {"max_concurrent": 1},
        "roles": {"PLANNER": {"validate": False, "reserved": 0, "max_wait_ms": 5000}},
    }
    async with ollama(FIRST, CHAT) as upstream, in_front_of(upstream.port, overlay) as up:
        await up.app.loaded_models.ask()
        upstream.hang()
        async with up.client() as runs:
            await runs.ask("POST", ROUTE, call(ROUTE, CHAT))
            await up.until(lambda: up.seats() == (1, 0))
            await up.until(lambda: up.app.probe.up is False)
            answer = await ask(up, "planner")
            assert told(answer) == (503, "E_OVERLOAD_THROTTLED", "queue_timeout")
            assert f"because Ollama at http://{up.app.target.authority}" in answer.json["error"]
            assert "it hangs; restart it; retry in" in answer.json["error"]
            async with up.admin() as admin:
                health = (await admin.request("GET", "/healthz")).json
            ask_it = f"curl -m 5 http://{up.app.target.authority}/api/version"
            assert health["health"]["next"] == f"{ask_it}   # answers once Ollama is restarted"
            upstream.go_on()
            assert (await runs.answer()).status == 200


@pytest.mark.flowing_time
async def test_it_is_seen_in_health_and_opens_the_providers_breaker_until_it_is_back() -> None:
    async with ollama(FIRST, SECOND, CHAT) as upstream, in_front_of(upstream.port, PLAIN) as up:
        await up.app.loaded_models.ask()
        upstream.hang()
        await up.until(lambda: up.app.probe.up is False)
        up.app.monitor.look()
        assert (up.app.monitor.guard.level, up.app.monitor.guard.cause) == (
            Level.CRITICAL,
            "the upstream is down",
        )
        async with up.admin() as admin:
            assert (await admin.request("GET", "/readyz")).status == 503
        answers = await asyncio.gather(*(ask(up, CHAT) for _ in range(5)))
        assert {told(answer) for answer in answers} == {MUTE}
        [view] = up.app.monitor.open_breakers()
        assert (str(view.key), view.state) == ("LOCAL", "open")
        upstream.go_on()
        await up.until(lambda: up.app.probe.up is True)
        while (await ask(up, CHAT)).status != 200:
            pass
        assert (await ask(up, "planner")).status == 200
        assert up.seats() == (0, 0)


@pytest.mark.flowing_time
async def test_a_long_prompt_of_an_ollama_that_answers_is_read_to_its_end() -> None:
    slow = SimConfig(models=(*DEFAULT_MODELS, CHAT), max_loaded=5, prefill_ms=500, tokens=2)
    async with running(slow) as up:
        await warm(up, CHAT)
        began = asyncio.get_running_loop().time()
        answer = await ask(up, CHAT)
        assert answer.status == 200
        assert asyncio.get_running_loop().time() - began > MUTE_S


@pytest.mark.flowing_time
async def test_a_call_that_never_begins_is_given_up_though_ollama_answers_all_else() -> None:
    overlay = {"roles": {"CHAT": {"first_byte_timeout_ms": 300}}}
    async with running(SimConfig(models=(CHAT,)), overlay) as up:
        await warm(up, CHAT)
        up.sim.faults.add(Kind.HANG, model=CHAT)
        answer = await ask(up, CHAT)
        assert told(answer) == (504, "E_TIMEOUT_LOCAL", "first_byte_timeout")
        assert "within 0.3 s" in answer.json["error"]
        assert up.seats() == (0, 0)


@pytest.mark.flowing_time
async def test_a_second_name_of_a_loaded_model_has_the_roles_time_and_no_more() -> None:
    """/api/ps names the first; that is no load that the role would wait for."""
    models = (ModelSpec(FIRST), ModelSpec("mine:4b", blob=FIRST))
    overlay = {
        "roles": {
            "PLANNER": {
                "primary": "mine:4b",
                "timeout_ms": 200,
                "fallback": None,
                "fallback_timeout_ms": None,
            }
        }
    }
    async with running(SimConfig(models=models), overlay) as up:
        await warm(up, FIRST)
        up.sim.faults.add(Kind.HANG, model="mine:4b")
        assert told(await ask(up, "planner")) == (504, "E_TIMEOUT_LOCAL", "role_timeout")
