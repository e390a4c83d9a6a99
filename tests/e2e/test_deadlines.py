"""How long a call may take, over real sockets: loads, timeouts, silence, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.journal import CallState
from modelsplit_sim.models import DEFAULT_MODELS, ModelSpec
from support.calls import DIALECTS, call
from support.harness import in_front_of, running, warm
from support.raw import Peer, raw_upstream

if TYPE_CHECKING:
    from modelsplit_sim.server import Sim
    from support.harness import Overlay, Running
    from support.wire import Answer, Client

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"
FIRST, SECOND = "qwen3:4b", "qwen3:8b"
CHAT = "llama3.2:1b"
MODELS: tuple[ModelSpec | str, ...] = (*DEFAULT_MODELS, CHAT)
QUICK = SimConfig(tokens=4, num_parallel=8, max_loaded=5, models=MODELS)
# As long as a load takes here, and a role's timeout that is much shorter.
LOAD_S, ROLE_S = 1.5, 0.5
SLOW = SimConfig(tokens=4, num_parallel=8, max_loaded=5, models=MODELS, load_ms=LOAD_S * 1000)
# What a leaving client's upstream has to be gone in.
GONE_S = 0.25


def bounds(**row: Any) -> Overlay:
    """A PLANNER with a short timeout for its first model and any of these."""
    return {"roles": {"PLANNER": {"timeout_ms": int(ROLE_S * 1000), **row}}}


def now() -> float:
    return asyncio.get_running_loop().time()


async def ask(
    up: Running, body: dict[str, Any], headers: dict[str, str] | None = None, route: str = ROUTE
) -> Answer:
    async with up.client() as client:
        return await client.request("POST", route, body, headers)


def told(answer: Answer, reason: str, *numbers: str) -> None:
    """An error that names its bound and the number of it."""
    assert (answer.status, answer.phrase) == (504, "Upstream Timeout")
    said = answer.json if "error_code" in answer.json else answer.json["error"]
    message = said.get("message") or said["error"]
    assert (said["error_code"], said["reason"]) == ("E_TIMEOUT_LOCAL", reason)
    for number in numbers:
        assert number in message


def loading(sim: Sim) -> bool:
    return bool(sim.in_state(CallState.LOADING))


# --- A load does not run the role's clock -----------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_a_slow_load_is_neither_cut_nor_thrown_away(*, stream: bool) -> None:
    async with running(SLOW, bounds()) as up:
        await up.app.loaded_models.ask()
        began = now()
        answer = await ask(up, call(ROUTE, "planner", stream=stream))
        assert now() - began > LOAD_S - 0.1 > ROLE_S
        assert (answer.status, answer.whole) == (200, True)
        assert answer.lines[-1]["done"] is True
        assert answer["X-LLM-Model"] == FIRST
        assert (answer["X-LLM-Attempt"], answer["X-LLM-Fallback-Used"]) == ("1", "false")
        [sent] = up.asked
        await up.sim.wait_for(lambda _: sent.state is CallState.FINISHED)
        assert (sent.model, sent.left_at) == (FIRST, None)
        assert up.sim.loaded == [FIRST]
        [record] = await up.calls.wait()
        assert (record.outcome, record.call.state) == ("ok", "completed")


@pytest.mark.parametrize("route", DIALECTS)
async def test_a_stream_after_a_slow_load_has_the_roles_whole_time(route: str) -> None:
    """Its first byte may come before /api/ps has shown that the model is loaded."""
    tokens, rate = 12, 40
    slow = SimConfig(tokens=tokens, token_rate=rate, load_ms=700, models=MODELS)
    assert tokens / rate < ROLE_S < 0.7
    async with running(slow, bounds()) as up:
        await up.app.loaded_models.ask()
        answer = await ask(up, call(route, "planner", stream=True), route=route)
        assert (answer.status, answer.whole) == (200, True)
        [record] = await up.calls.wait()
        assert (record.outcome, len(up.asked)) == ("ok", 1)


async def test_the_roles_clock_starts_when_the_model_is_there() -> None:
    """It loads, and then says nothing: the prompt is read for longer than the role allows."""
    mute = SimConfig(load_ms=700, prefill_ms=500, max_loaded=5, models=MODELS)
    async with running(mute, bounds()) as up:
        await up.app.loaded_models.ask()
        began = now()
        headers = {"X-LLM-No-Fallback": "1"}
        answer = await ask(up, call(ROUTE, "planner", stream=True), headers)
        spent = now() - began
        told(answer, "role_timeout", f"{ROLE_S:g} s", FIRST)
        # A load, the role's time, and what it takes to see the end of the load.
        assert 0.7 + ROLE_S - 0.05 < spent < 0.7 + ROLE_S + 0.8
        assert up.sim.loaded == [FIRST], "what was loaded stays"
        await up.sim.wait_for(lambda sim: sim.active == 0)


async def test_a_stall_before_the_first_byte_of_a_warm_model_is_the_roles() -> None:
    async with running(QUICK, bounds()) as up:
        await warm(up, FIRST)
        up.sim.faults.add(Kind.HANG, model=FIRST)
        began = now()
        answer = await ask(up, call(ROUTE, "planner"), {"X-LLM-No-Fallback": "1"})
        assert ROLE_S - 0.05 < now() - began < ROLE_S + 0.3
        told(answer, "role_timeout", f"{ROLE_S:g} s", FIRST)


# --- A load has its own bound -----------------------------------------------------------------


async def test_a_load_without_end_is_bounded_by_its_own_number() -> None:
    overlay = {**bounds(), "load_timeout_ms": 300}
    endless = SimConfig(load_ms=60_000, max_loaded=5, models=MODELS)
    async with running(endless, overlay) as up:
        await up.app.loaded_models.ask()
        began = now()
        answer = await ask(up, call(ROUTE, "planner"), {"X-LLM-No-Fallback": "1"})
        assert 0.25 < now() - began < ROLE_S
        told(answer, "load_timeout", "load_timeout_ms, 0.3 s", FIRST)
        [record] = await up.calls.wait()
        assert record.failure is not None
        assert record.failure.reason == "load_timeout"
        await up.sim.wait_for(lambda sim: not loading(sim))


async def test_a_load_that_takes_too_long_is_a_cause_for_the_fallback() -> None:
    overlay = {**bounds(), "load_timeout_ms": 300}
    async with running(QUICK, overlay) as up:
        await warm(up, SECOND)
        up.sim.faults.add(Kind.SLOW_LOAD, seconds=60.0, model=FIRST)
        answer = await ask(up, call(ROUTE, "planner"))
        assert (answer.status, answer["X-LLM-Model"]) == (200, SECOND)
        [record] = await up.calls.wait()
        causes = [attempt.failure and attempt.failure.reason for attempt in record.attempts]
        assert causes == ["load_timeout", None]
        assert [sent.model for sent in up.asked][1:] == [FIRST, SECOND]


async def test_chat_has_no_bound_but_that_of_a_load() -> None:
    overlay: Overlay = {"load_timeout_ms": 300}
    async with running(SLOW, overlay) as up:
        await up.app.loaded_models.ask()
        told(await ask(up, call(ROUTE, CHAT)), "load_timeout", "0.3 s", CHAT)
        assert len(up.asked) == 1


# --- What is known may be old -----------------------------------------------------------------


async def evict(sim: Sim, model: str) -> None:
    """Behind the proxy's back."""
    for runner in list(sim.scheduler.runners.values()):
        if runner.spec.name == model:
            sim.scheduler.unload(runner.spec.key)
    assert model not in sim.loaded


async def test_a_model_that_went_unseen_is_asked_about_before_its_load_is_given_up() -> None:
    async with running(SLOW, bounds()) as up:
        await warm(up, FIRST)
        await evict(up.sim, FIRST)
        assert up.app.loaded_models.loaded(FIRST) is True
        before = len(up.asked)
        answer = await ask(up, call(ROUTE, "planner", stream=True))
        assert (answer.status, answer.whole, answer["X-LLM-Attempt"]) == (200, True, "1")
        assert answer.lines[-1]["done"] is True
        [sent] = up.asked[before:]
        assert (sent.model, sent.left_at) == (FIRST, None)
        [record] = await up.calls.wait()
        assert record.outcome == "ok"


async def test_where_ollama_does_not_tell_the_role_has_its_own_time_and_no_more() -> None:
    async with running(SLOW, bounds()) as up:
        up.sim.faults.add(Kind.STATUS, status=500, path="/api/ps")
        await up.app.loaded_models.ask()
        began = now()
        answer = await ask(up, call(ROUTE, "planner"), {"X-LLM-No-Fallback": "1"})
        assert now() - began < ROLE_S + 0.5
        told(answer, "role_timeout", f"{ROLE_S:g} s")


async def test_an_ollama_that_is_mute_about_its_models_does_not_hold_a_call_for_long() -> None:
    async with running(QUICK, bounds()) as up:
        await warm(up, FIRST)
        up.sim.faults.add(Kind.HANG)
        began = now()
        answer = await ask(up, call(ROUTE, "planner"), {"X-LLM-No-Fallback": "1"})
        assert now() - began < ROLE_S + 1.0
        told(answer, "role_timeout", f"{ROLE_S:g} s")


# --- Silence inside an answer -----------------------------------------------------------------


@pytest.mark.parametrize("route", DIALECTS)
async def test_silence_inside_a_stream_is_told_in_it(route: str) -> None:
    async with running(QUICK, stall_timeout_s=0.2) as up:
        await warm(up, FIRST, SECOND)
        up.sim.faults.add(Kind.STALL, after=2)
        before = len(up.asked)
        began = now()
        answer = await ask(up, call(route, "planner", stream=True), route=route)
        assert 0.15 < now() - began < 0.6
        assert (answer.status, answer.whole) == (200, True)
        last = answer.body.strip().splitlines()[-1]
        fields = orjson.loads(last.removeprefix(b"data: "))
        fields = fields if route == ROUTE else fields["error"]
        assert (fields["error_code"], fields["reason"]) == ("E_TIMEOUT_LOCAL", "stall")
        assert "silent for 0.2 s" in (fields.get("message") or fields["error"])
        # The client has had a byte: nobody else is asked.
        assert [sent.model for sent in up.asked[before:]] == [FIRST]
        await up.sim.wait_for(lambda sim: sim.active == 0)


async def test_a_role_that_is_out_of_time_in_mid_stream_says_so_in_the_stream() -> None:
    endless = SimConfig(tokens=10**6, token_rate=50, max_loaded=5, models=MODELS)
    async with running(endless, bounds()) as up:
        await warm(up, FIRST, SECOND)
        before = len(up.asked)
        answer = await ask(up, call(ROUTE, "planner", stream=True))
        assert (answer.status, answer["X-LLM-Attempt"]) == (200, "1")
        last = answer.lines[-1]
        assert (last["error_code"], last["reason"]) == ("E_TIMEOUT_LOCAL", "role_timeout")
        assert f"the role's {ROLE_S:g} s" in last["error"]
        assert [sent.model for sent in up.asked[before:]] == [FIRST]


# --- A client that leaves ---------------------------------------------------------------------


@contextlib.asynccontextmanager
async def leaving(up: Running, client: Client, how: str) -> AsyncIterator[None]:
    """The client leaves; what follows must be so within a quarter of a second."""
    if how == "reset":
        client.reset()
    else:
        await client.close()
    left = now()
    yield
    assert now() - left < GONE_S
    [record] = await up.calls.wait()
    assert (record.outcome, record.status, record.call.state) == ("client_gone", 499, "abandoned")
    assert up.seats() == (0, 0)


def gone(sim: Sim) -> bool:
    """Nothing is done for anybody, and nobody's connection is kept for it."""
    return not sim.active and not sim.in_state(
        CallState.RECEIVED, CallState.LOADING, CallState.WAITING, CallState.RUNNING
    )


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("stream", [True, False])
class TestAClientThatLeaves:
    async def test_during_a_load(self, how: str, *, stream: bool) -> None:
        async with running(SLOW, bounds()) as up, up.client() as client:
            await up.app.loaded_models.ask()
            await client.ask("POST", ROUTE, call(ROUTE, "planner", stream=stream))
            await up.sim.wait_for(loading)
            async with leaving(up, client, how):
                await up.sim.wait_for(gone)
            [sent] = up.asked
            assert sent.state is CallState.ABORTED
            assert up.sim.loaded == []

    async def test_before_the_first_byte(self, how: str, *, stream: bool) -> None:
        async with running(QUICK) as up, up.client() as client:
            await warm(up, FIRST)
            up.sim.faults.add(Kind.HANG, model=FIRST)
            before = len(up.asked)
            await client.ask("POST", ROUTE, call(ROUTE, "planner", stream=stream))
            await up.sim.wait_for(lambda sim: any(sent.fault == "hang" for sent in sim.calls))
            async with leaving(up, client, how):
                await up.sim.wait_for(gone)
            assert len(up.asked) == before + 1, "nobody else is asked for a client that left"

    async def test_during_an_answer(self, how: str, *, stream: bool) -> None:
        """A stream that it is reading, or a whole answer that is still being written."""
        endless = SimConfig(tokens=10**6, token_rate=200, max_loaded=5, models=MODELS)
        async with running(endless) as up, up.client() as client:
            await warm(up, FIRST)
            await client.ask("POST", ROUTE, call(ROUTE, "planner", stream=stream))
            await up.sim.wait_for(lambda sim: any(sent.tokens > 3 for sent in sim.calls))
            if stream:
                assert (await client.head()).status == 200
            async with leaving(up, client, how):
                await up.sim.wait_for(gone)
            [record] = up.calls.records
            assert record.failure is not None
            assert record.failure.reason == ("streaming" if stream else "before_first_byte")

    async def test_in_line(self, how: str, *, stream: bool) -> None:
        one = bounds(max_concurrent=1, timeout_ms=15_000)
        async with running(QUICK, one) as up, up.client() as first, up.client() as second:
            await warm(up, FIRST)
            up.sim.faults.add(Kind.HANG, model=FIRST)
            before = len(up.asked)
            await first.ask("POST", ROUTE, call(ROUTE, "planner"))
            await up.sim.wait_for(lambda sim: any(sent.fault == "hang" for sent in sim.calls))
            await second.ask("POST", ROUTE, call(ROUTE, "planner", stream=stream))
            await up.until(lambda: up.seats() == (1, 1))
            left = now()
            second.reset() if how == "reset" else await second.close()
            await up.until(lambda: up.seats() == (1, 0))
            assert now() - left < GONE_S
            [record] = await up.calls.wait()
            assert record.failure is not None
            assert record.failure.reason == "queued"
            first.reset()
            await up.sim.wait_for(gone)
            assert len(up.asked) == before + 1, "it never reached the upstream"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_while_half_of_its_answer_is_held(how: str) -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        peer.send(head + b'{"response":')
        await peer.flush()
        begun.set()
        await peer.gone()
        closed.set()

    async with (
        raw_upstream(script) as upstream,
        in_front_of(upstream.port) as up,
        up.client() as client,
    ):
        await client.ask("POST", ROUTE, call(ROUTE, "planner"))
        await begun.wait()
        async with leaving(up, client, how):
            await closed.wait()
        assert len(upstream.heads) == 1


# --- Two calls upstream at most ---------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": Kind.STATUS, "status": 500},
        {"kind": Kind.RESET},
        {"kind": Kind.HANG},
        {"kind": Kind.CUT_FIN, "after": 0},
        {"kind": Kind.SLOW_LOAD, "seconds": 60.0},
    ],
    ids=lambda fault: str(fault["kind"]),
)
@pytest.mark.parametrize("stream", [True, False])
async def test_two_calls_and_no_third_whatever_goes_wrong(
    fault: dict[str, Any], *, stream: bool
) -> None:
    overlay = {**bounds(timeout_ms=150, fallback_timeout_ms=150), "load_timeout_ms": 300}
    async with running(QUICK, overlay) as up:
        up.sim.faults.add(**fault, path=ROUTE)
        before = len(up.asked)
        answer = await ask(up, call(ROUTE, "planner", stream=stream))
        assert answer.status >= 500
        assert [sent.model for sent in up.asked[before:]] == [FIRST, SECOND]
        assert answer["X-LLM-Attempt"] == "2"
        await up.sim.wait_for(gone)
