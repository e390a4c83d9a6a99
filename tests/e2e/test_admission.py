"""Who gets in, in which order, and who is told to come back, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy import parallelism
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.health import Level
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.runtime.loop_lag import LoopLag
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import DEFAULT_MODELS
from modelsplit_sim.server import Sim
from support.calls import DIALECTS, call
from support.harness import LEARNING, in_front_of, running, warm
from support.records import begun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.harness import Overlay, Running
    from support.wire import Answer, Client

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"
CHAT, TINY = "llama3.2:1b", "tiny"
# Answers that last until their client leaves, unless it asks for a short one.
ENDLESS = SimConfig(
    tokens=10**6,
    token_rate=500,
    num_parallel=64,
    max_loaded=8,
    models=(*DEFAULT_MODELS, CHAT, TINY),
)
# One call at a time, whoever it is from: what the next in line is, is then plain to see.
ONE_BY_ONE: Overlay = {
    "global": {"parallel": 1},
    "roles": {"PLANNER": {"reserved": 0}, "EXECUTOR": {"ageing_ms": 150}},
}
LATE = Failure(ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT, "late", "Upstream Timeout")


def short(model: str, tokens: int = 2, **more: Any) -> dict[str, Any]:
    return call(ROUTE, model, options={"num_predict": tokens}, **more)


async def ask(
    up: Running, model: str, headers: dict[str, str] | None = None, *, source: str | None = None
) -> Answer:
    async with up.client(source) as client:
        return await client.request("POST", ROUTE, short(model), headers)


async def stats(up: Running) -> Any:
    async with up.admin() as admin:
        return (await admin.request("GET", "/stats")).json


async def metrics(up: Running) -> list[str]:
    async with up.admin() as admin:
        return (await admin.request("GET", "/metrics")).body.decode().splitlines()


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy test machine makes the loop late; only what a test says is a late loop here."""
    monkeypatch.setattr(LoopLag, "start", lambda *_: None)


class Crowd:
    """Clients that hold seats or stand in line, until the test is over."""

    def __init__(self, up: Running) -> None:
        self.up = up
        self.clients: list[Client] = []

    async def hold(self, model: str, count: int = 1) -> list[Client]:
        """Streams without end, each with its first line."""
        held = []
        for _ in range(count):
            client = self._client()
            await client.ask("POST", ROUTE, call(ROUTE, model, stream=True))
            assert (await client.head()).status == 200
            held.append(client)
        return held

    async def wait(
        self, model: str, name: str = "", *, source: str | None = None, wait_ms: int | None = None
    ) -> Client:
        """A short call that stands in line; its request id is ``name``."""
        before = self.up.seats()[1]
        client = self._client(source)
        headers = {"X-Request-Id": name or model.replace(":", "-")}
        if wait_ms is not None:
            headers["X-LLM-Max-Wait-Ms"] = str(wait_ms)
        await client.ask("POST", ROUTE, short(model), headers)
        await self.up.until(lambda: self.up.seats()[1] > before)
        return client

    def leave(self) -> None:
        """All of them."""
        for client in self.clients:
            if client.writer is not None and not client.writer.is_closing():
                client.reset()

    def _client(self, source: str | None = None) -> Client:
        client = self.up.client(source)
        self.clients.append(client)
        return client


@contextlib.asynccontextmanager
async def crowded(
    overlay: Overlay | None = None, sim: SimConfig = ENDLESS
) -> AsyncIterator[tuple[Running, Crowd]]:
    async with running(sim, overlay) as up:
        crowd = Crowd(up)
        try:
            yield up, crowd
        finally:
            crowd.leave()
        await up.until(lambda: up.seats() == (0, 0))
        assert not up.app.admission_queue._waiting


def order(up: Running) -> list[str]:
    """The short calls' names in the order in which they got their seats."""
    seated = [(record.attempts[0].seated, record.request_id) for record in up.calls.records]
    return [name for _, name in sorted((at, name) for at, name in seated if at is not None)]


# Seats.


async def test_a_planner_gets_in_while_everybody_else_is_busy() -> None:
    async with crowded() as (up, crowd):
        await crowd.hold("executor", 5)
        await crowd.wait("heavy")
        await crowd.wait(CHAT)
        await crowd.wait("executor")
        answer = await ask(up, "planner")
        assert answer.status == 200
        assert float(answer["X-LLM-Queue-Wait-Ms"]) < 50
        seen = await stats(up)
        assert seen["global"] == {"running": 5, "seats": 6, "lent": 0, "inside": 0}
        holds = {waiter["llm_role"]: waiter["hold"] for waiter in seen["waiters"]}
        assert holds == {"HEAVY": "reserved", "CHAT": "reserved", "EXECUTOR": "role_cap"}


async def test_a_lent_seat_is_used_shown_and_given_back_at_the_next_release() -> None:
    async with crowded({"roles": {"PLANNER": {"lend_reserved": True}}}) as (up, crowd):
        held = await crowd.hold("executor", 5)
        await crowd.hold("heavy")
        assert (await stats(up))["global"] == {"running": 6, "seats": 6, "lent": 1, "inside": 0}
        assert "modelsplit_seats_lent 1.0" in await metrics(up)
        await crowd.wait(CHAT, "chat")
        await crowd.wait("planner", "planner")
        held[0].reset()
        await up.calls.wait(3)
        assert order(up)[1:] == ["planner", "chat"]


async def test_a_model_runs_as_many_calls_as_its_cap_however_it_is_spelled() -> None:
    overlay = {"models": {"Tiny:latest": {"max_concurrent": 1, "parallel": 6}}}
    async with crowded(overlay) as (up, crowd):
        await crowd.hold(TINY)
        await crowd.wait("TINY:latest")
        assert (await ask(up, CHAT)).status == 200
        assert [waiter["hold"] for waiter in (await stats(up))["waiters"]] == ["model_cap"]
        assert up.sim.counts.max_active_by_model[TINY] == 1


# Order.


async def test_planners_pass_an_executor_within_its_ageing_and_no_later_ones() -> None:
    async with crowded(ONE_BY_ONE) as (up, crowd):
        [held] = await crowd.hold(CHAT)
        await crowd.wait("executor", "executor")
        joined = up.app.clock.now()
        await crowd.wait("planner", "early")
        await up.until(lambda: up.app.clock.now() > joined + 0.15)
        await crowd.wait("planner", "late")
        held.reset()
        await up.calls.wait(4)
        assert order(up)[1:] == ["early", "executor", "late"]


async def test_one_clients_burst_does_not_stand_in_front_of_anothers_call() -> None:
    async with crowded(ONE_BY_ONE) as (up, crowd):
        [held] = await crowd.hold(CHAT)
        for number in range(5):
            await crowd.wait("executor", f"burst-{number}", source="127.0.0.2")
        await crowd.wait("executor", "single", source="127.0.0.3")
        clients = {waiter["client"] for waiter in (await stats(up))["waiters"]}
        assert clients == {"127.0.0.2", "127.0.0.3"}
        held.reset()
        await up.calls.wait(7)
        burst = [f"burst-{number}" for number in range(5)]
        assert order(up)[1:] == [burst[0], "single", *burst[1:]]


async def test_a_waiter_whose_model_is_loaded_goes_first_for_two_seconds_at_most() -> None:
    async with crowded(ONE_BY_ONE) as (up, crowd):
        [held] = await crowd.hold(CHAT)
        await up.app.loaded_models.ask()
        assert up.app.loaded_models.models == frozenset({CHAT})
        await crowd.wait(TINY, "cold")
        await crowd.wait(CHAT, "warm")
        held.reset()
        await up.calls.wait(3)
        assert order(up)[1:] == ["warm", "cold"]


async def test_two_seconds_of_waiting_for_others_models_are_enough() -> None:
    async with crowded(ONE_BY_ONE) as (up, crowd):
        [held] = await crowd.hold(CHAT)
        await up.app.loaded_models.ask()
        await crowd.wait(TINY, "cold")
        joined = up.app.clock.now()
        await crowd.wait(CHAT, "warm")
        await up.until(lambda: up.app.clock.now() > joined + 2.0)
        held.reset()
        await up.calls.wait(3)
        assert order(up)[1:] == ["cold", "warm"]


# How long a call waits.


async def test_a_call_held_only_by_what_is_learned_starts_before_its_wait_ends() -> None:
    async with crowded(LEARNING) as (up, crowd):
        await crowd.hold("executor")
        async with up.client() as client:
            headers = {"X-LLM-Max-Wait-Ms": "320"}
            await client.ask("POST", ROUTE, short("executor"), headers)
            await up.until(lambda: up.seats() == (1, 1))
            assert [waiter["hold"] for waiter in (await stats(up))["waiters"]] == ["parallelism"]
            answer = await client.answer()
        assert answer.status == 200
        assert 290 <= float(answer["X-LLM-Queue-Wait-Ms"]) < 420
        assert up.sim.max_active == 2


async def test_who_waited_in_vain_is_told_what_held_it_as_its_record_is() -> None:
    """Its role has a seat left, so the role's numbers would explain nothing."""
    async with crowded({"global": {"parallel": 1}}) as (up, crowd):
        await crowd.hold("executor")
        # Not started late: it is known that a second call takes from the first.
        up.app.admission.host().overdue = 1
        answer = await ask(up, "heavy", {"X-LLM-Max-Wait-Ms": "80"})
        told = "(1 at once known to be worth running, 1 running, 1/32 waiting)"
        assert (answer.status, told in answer.json["error"]) == (503, True), answer.json
        crowd_at_end = up.calls.records[-1].attempts[0].crowd_at_end
        assert crowd_at_end is not None
        assert crowd_at_end.hold == "parallelism"
        up.app.admission.host().overdue = 0


async def test_a_wait_is_as_long_as_the_client_says_and_then_ends() -> None:
    async with crowded() as (up, crowd):
        await crowd.hold("heavy")
        answer = await ask(up, "heavy", {"X-LLM-Max-Wait-Ms": "80"})
        assert (answer.status, answer.phrase) == (503, "Queue Timeout")
        assert 75 <= float(answer["X-LLM-Queue-Wait-Ms"]) < 400
        assert len(up.asked) == 1


@pytest.mark.parametrize("route", DIALECTS)
async def test_a_wait_that_is_foreseen_to_be_too_long_is_refused_at_once(route: str) -> None:
    # Every call takes 40 ms or more, so that is what a place in line is known to cost.
    steady = replace(ENDLESS, token_rate=50)
    async with crowded(sim=steady) as (up, crowd):
        for _ in range(16):
            assert (await ask(up, "heavy")).status == 200
        await crowd.hold("heavy")
        for number in range(3):
            await crowd.wait("heavy", f"n{number}")
        async with up.client() as client:
            headers = {"X-LLM-Max-Wait-Ms": "60"}
            answer = await client.request("POST", route, call(route, "heavy"), headers)
        assert (answer.status, answer.phrase) == (503, "Queue Timeout")
        fields = answer.json if route == ROUTE else answer.json["error"]
        text = fields["error"] if route == ROUTE else fields["message"]
        assert fields["reason"] == "queue_timeout"
        assert text.startswith("role HEAVY is overloaded: expected wait ")
        assert " ms, at most 60 ms (1/1 running, 3/32 waiting); retry in " in text
        assert text.endswith(f"retry in {answer['Retry-After']} s")
        assert 1 <= int(answer["Retry-After"]) <= 30
        assert (await stats(up))["forecast"] == {"refused": 1, "checked": 0, "wrong": 0}
        assert 'modelsplit_forecasts_total{what="refused"} 1.0' in await metrics(up)
        assert len(up.asked) == 17


# What is learned.


class Load:
    """Six clients that never let go, and what was known after each call of theirs."""

    def __init__(self, up: Running, tokens: int = 16) -> None:
        self.up = up
        self.tokens = tokens
        self.known: list[int] = []
        up.app.ended.listen("test", lambda *_: self.known.append(self.slots))

    @property
    def slots(self) -> int:
        return self.up.app.admission.host().parallelism.slots("qwen3:8b")

    async def until(self, slots: int, steady: int, at_most: int) -> int:
        """How many calls it took until the estimate was right and stayed so for ``steady``."""
        self.known.clear()
        enough = asyncio.Event()

        def done() -> bool:
            if len(self.known) >= at_most or self.known[-steady:] == [slots] * steady:
                enough.set()
            return enough.is_set()

        async def client() -> None:
            async with self.up.client() as one:
                while not done():
                    answer = await one.request("POST", ROUTE, short("qwen3:8b", self.tokens))
                    assert answer.status == 200, answer.body

        await asyncio.gather(*(client() for _ in range(6)))
        wrong = [number for number, known in enumerate(self.known, 1) if known != slots]
        return max(wrong, default=0)


async def restarted(up: Running, slots: int) -> None:
    """Ollama comes back on its port with another NUM_PARALLEL."""
    await up.sim.stop()
    up.sim.config = replace(up.sim.config, num_parallel=slots)
    await up.sim.start()


def paced(slots: int) -> SimConfig:
    """A token takes 10 ms, whoever else runs."""
    return SimConfig(token_rate=100, num_parallel=slots, max_loaded=4)


@pytest.fixture
def keen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that last a share of these short calls are seen, as they are of real ones."""
    monkeypatch.setattr(parallelism, "HIDDEN_MIN_S", 0.05)


@pytest.mark.usefixtures("keen")
@pytest.mark.parametrize(("slots", "within"), [(1, 12), (2, 20), (4, 60)])
async def test_how_many_calls_a_model_takes_at_once_is_found_out(slots: int, within: int) -> None:
    async with running(paced(slots), LEARNING) as up:
        # Calls that end one after the other leave the next a short wait: a slot's share.
        load = Load(up, tokens=max(16, 6 * slots))
        calls = await load.until(slots, steady=4 + 2 * slots, at_most=within + 12)
        assert calls <= within, load.known
        learned = (await stats(up))["parallelism"]
        assert learned["slots"]["qwen3:8b"] == slots
        assert learned["resident"] == ["qwen3:8b"]
        assert learned["host"] <= slots + 1, "nothing is concluded beyond what was seen"
        assert f"modelsplit_parallelism_host {learned['host']:.1f}" in await metrics(up)
        # One probe at a time may be too many; more are not.
        assert up.sim.waiting == 0
        waited = [one for one in up.sim.calls if one.started_at and one.path == ROUTE]
        beyond = sum((one.started_at or 0) - one.arrived_at > 0.05 for one in waited[1:])
        assert beyond <= 4


@pytest.mark.usefixtures("keen")
@pytest.mark.parametrize(("before", "after", "within"), [(4, 1, 20), (1, 2, 35)])
async def test_another_value_after_a_restart_is_found_out(
    before: int, after: int, within: int
) -> None:
    async with running(paced(before), LEARNING) as up:
        load = Load(up)
        await load.until(before, steady=4, at_most=50)
        await restarted(up, after)
        calls = await load.until(after, steady=5, at_most=within + 5)
        assert calls <= within, load.known


@pytest.mark.usefixtures("keen")
async def test_what_was_learned_is_known_after_a_restart(tmp_path: Path) -> None:
    async with Sim(paced(4)) as sim:
        async with in_front_of(sim.port, LEARNING, state=tmp_path) as up:
            load = Load(up, tokens=24)
            up.sim = sim
            await load.until(4, steady=4, at_most=60)
            await up.app.loaded_models.ask()
            before = (await stats(up))["parallelism"]
        async with in_front_of(sim.port, LEARNING, state=tmp_path) as up:
            after = (await stats(up))["parallelism"]
    assert after["slots"]["qwen3:8b"] == before["slots"]["qwen3:8b"] == 4
    assert after["host"] == before["host"]
    assert after["contention"] == pytest.approx(before["contention"], abs=0.02)


# Circuit breakers.


async def test_after_five_failures_calls_go_straight_to_the_fallback() -> None:
    async with crowded() as (up, _):
        up.sim.faults.add(Kind.STATUS, status=500, model="qwen3:4b")
        for _ in range(5):
            answer = await ask(up, "planner")
            assert (answer.status, answer["X-LLM-Model"]) == (200, "qwen3:8b")
        for _ in range(3):
            answer = await ask(up, "planner")
            assert (answer.status, answer["X-LLM-Model"]) == (200, "qwen3:8b")
            assert (answer["X-LLM-Attempt"], answer["X-LLM-Fallback-Used"]) == ("2", "true")
        models = [sent.model for sent in up.asked]
        assert (models.count("qwen3:4b"), models.count("qwen3:8b")) == (5, 8)
        [breaker] = (await stats(up))["breakers"]
        assert (breaker["breaker"], breaker["state"]) == ("LOCAL/qwen3:4b", "open")
        assert breaker["failures"] == 5
        assert 0 < breaker["trial_in_s"] <= 1
        assert breaker["why"] == "5 failures in a row, last: E_UPSTREAM_LOCAL runner_failed"
        shown = 'modelsplit_breaker_open{model="qwen3:4b",provider="LOCAL"} 1.0'
        assert shown in await metrics(up)
        last = up.calls.records[-1].attempts[0].failure
        assert last is not None
        assert (last.code, last.reason) == ("E_OVERLOAD_THROTTLED", "breaker_open")


async def test_a_call_that_has_no_other_model_is_told_to_come_back() -> None:
    async with crowded() as (up, _):
        up.sim.faults.add(Kind.STATUS, status=500, times=5, path=ROUTE)
        for spelling in (CHAT, CHAT.upper(), CHAT, CHAT.title(), CHAT):
            assert (await ask(up, spelling)).status == 500
        for spelling in (CHAT, CHAT.upper()):
            answer = await ask(up, spelling)
            assert (answer.status, answer.phrase) == (503, "Breaker Open")
            assert answer.json["error_code"] == "E_OVERLOAD_THROTTLED"
            assert answer.json["reason"] == "breaker_open"
            assert answer.json["error"].startswith(f"calls to LOCAL/{CHAT} are stopped for now")
            assert answer["Retry-After"] == "1"
            assert float(answer["X-LLM-Queue-Wait-Ms"]) == 0
        assert len(up.asked) == 5
        assert (await ask(up, TINY)).status == 200
        record = up.calls.records[5]
        assert (record.call.state, record.outcome) == ("rejected", "E_OVERLOAD_THROTTLED")


async def trial_due(up: Running) -> None:
    """Wait until every open breaker would let a call through."""
    breakers = up.app.breakers
    await up.until(lambda: all(view.trial_in_s == 0 for view in breakers.snapshot()))


async def test_half_open_lets_exactly_one_call_through() -> None:
    async with crowded() as (up, crowd):
        up.sim.faults.add(Kind.STATUS, status=500, model=CHAT, times=5)
        for _ in range(5):
            await ask(up, CHAT)
        await trial_due(up)
        held = up.sim.faults.add(Kind.HANG, model=CHAT)
        trial = crowd._client()
        await trial.ask("POST", ROUTE, short(CHAT))
        await up.sim.wait_for(lambda _: held.hits == 1)
        others = await asyncio.gather(*(ask(up, CHAT) for _ in range(4)))
        assert {(answer.status, answer.phrase) for answer in others} == {(503, "Breaker Open")}
        assert held.hits == 1
        [breaker] = (await stats(up))["breakers"]
        assert breaker["state"] == "half_open"
        # The trial's client leaves: that says nothing, and the next call may try.
        up.sim.faults.clear()
        trial.reset()
        await up.until(lambda: up.seats() == (0, 0))
        [breaker] = (await stats(up))["breakers"]
        assert (breaker["state"], breaker["failures"], breaker["trial_in_s"]) == ("open", 5, 0)
        assert (await ask(up, CHAT)).status == 200
        assert (await stats(up))["breakers"] == []


async def test_a_client_that_leaves_never_counts() -> None:
    async with crowded() as (up, crowd):
        up.sim.faults.add(Kind.HANG, model=CHAT)
        for number in range(1, 8):
            client = crowd._client()
            await client.ask("POST", ROUTE, short(CHAT))
            await up.until(lambda seen=number: len(up.asked) == seen)  # type: ignore[misc]
            client.reset()
            await up.calls.wait(number)
        assert (await stats(up))["breakers"] == []
        up.sim.faults.clear()
        assert (await ask(up, CHAT)).status == 200


async def test_a_client_in_a_hurry_never_counts() -> None:
    async with crowded() as (up, _):
        await warm(up, CHAT)
        up.sim.faults.add(Kind.HANG, model=CHAT, path=ROUTE)
        for _ in range(6):
            assert (await ask(up, CHAT, {"X-LLM-Timeout-Ms": "20"})).status == 504
        assert (await stats(up))["breakers"] == []


async def test_service_is_back_within_a_second_of_its_upstream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with crowded() as (up, _):
        await up.sim.stop()
        statuses = [(await ask(up, "planner")).json["reason"] for _ in range(6)]
        assert statuses[0] == "connect_refused"
        assert statuses[-1] == "connect_refused"
        assert [str(view.key) for view in up.app.breakers.snapshot()] == ["LOCAL"]
        # Longer than one open time: it has tried again, in vain.
        await trial_due(up)
        assert (await ask(up, "planner")).status == 502
        await up.sim.start()
        back = up.app.clock.now()
        while (await ask(up, "planner")).status != 200:
            pass
        assert up.app.clock.now() - back < 1.2
        # The probe or a call's trial, whichever comes first.
        told = [text for text in caplog.messages if text.startswith("breaker LOCAL: ")][-1]
        assert told.partition(" -> closed: ")[2].startswith(
            ("the provider is back", "the trial succeeded: the upstream answered")
        )


# The Health Guard.


def troubled(up: Running, timeouts: int) -> Level:
    """So many calls have just run out of time."""
    for _ in range(timeouts):
        record = begun()
        record.failure, record.streamed = LATE, True
        up.app.monitor.call_ended(record)
    up.app.monitor.look()
    return up.app.monitor.guard.shedding


async def test_degraded_turns_away_chat_and_heavy_instead_of_letting_them_wait() -> None:
    async with crowded({"global": {"max_concurrent": 3}}) as (up, crowd):
        assert troubled(up, 5) is Level.DEGRADED
        assert (await ask(up, CHAT)).status == 200, "a free seat is not withheld"
        await crowd.hold("heavy")
        await crowd.hold("executor")
        for model, role in ((CHAT, "CHAT"), ("heavy", "HEAVY")):
            answer = await ask(up, model)
            assert (answer.status, answer.phrase) == (503, "Shed")
            assert answer.json["reason"] == "shed"
            assert answer.json["error_code"] == "E_OVERLOAD_THROTTLED"
            assert f"role {role} is shed: the service is overloaded" in answer.json["error"]
            assert 1 <= int(answer["Retry-After"]) <= 30
        await crowd.wait("executor")
        assert (await ask(up, "planner")).status == 200


async def test_critical_turns_away_executors_too_and_planners_never() -> None:
    async with crowded({"global": {"max_concurrent": 3}}) as (up, crowd):
        assert troubled(up, 15) is Level.CRITICAL
        for model in (CHAT, "heavy"):
            assert (await ask(up, model)).json["reason"] == "shed", "also from a free seat"
        held = await crowd.hold("executor", 2)
        assert (await ask(up, "executor")).json["reason"] == "shed"
        await crowd.hold("planner")
        await crowd.wait("planner")
        assert len(up.asked) == 3
        held[0].reset()
        await up.until(lambda: up.seats()[1] == 0)


async def test_a_late_loop_turns_calls_away_and_the_level_is_everywhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    overlay = {"health": {"sheds": ["event_loop_lag"]}}
    async with crowded(overlay) as (up, _):
        assert "modelsplit_health_level 0.0" in await metrics(up)
        for _ in range(300):
            up.app.lag.observe(1.2)
        up.app.monitor.look()
        health = (await stats(up))["health"]
        assert (health["level"], health["shedding"]) == ("CRITICAL", "CRITICAL")
        assert health["cause"].startswith("event-loop lag p99 1200 ms")
        async with up.admin() as admin:
            answer = await admin.request("GET", "/healthz")
            assert (answer.status, answer.json["health"]) == (200, health)
        assert "modelsplit_health_level 2.0" in await metrics(up)
        assert (await ask(up, CHAT)).json["reason"] == "shed"
        assert (await ask(up, "planner")).status == 200
        [told] = [line for line in caplog.messages if line.startswith("overloaded, ")]
        assert "HEAVY, CHAT calls are refused; EXECUTOR calls are refused where no seat" in told
        assert "is free: event-loop lag p99 1200 ms" in told


async def test_timeouts_of_calls_are_seen_and_those_of_a_hasty_client_are_not() -> None:
    overlay = {"roles": {"PLANNER": {"timeout_ms": 150, "fallback_timeout_ms": 150}}}
    async with crowded(overlay) as (up, _):
        await warm(up, "qwen3:4b", "qwen3:8b", "gemma3:12b")
        up.sim.faults.add(Kind.HANG, path=ROUTE)
        for _ in range(6):
            assert (await ask(up, "executor", {"X-LLM-Timeout-Ms": "10"})).status == 504
        assert troubled(up, 0) is Level.OK
        for number in range(3):
            body = short("planner") | {"messages": [{"role": "user", "content": f"{number}"}]}
            async with up.client() as client:
                assert (await client.request("POST", ROUTE, body)).status == 504
        assert troubled(up, 0) is Level.DEGRADED
        assert up.app.monitor.guard.cause.startswith("6 timeouts in 60 s")


# One client's own limits.


async def test_a_client_is_not_limited_unless_the_policy_says_so() -> None:
    async with crowded() as (up, crowd):
        await crowd.hold("executor", 5)
        for number in range(20):
            await crowd.wait("executor", f"n{number}")
        assert not any(record.failure for record in up.calls.records)


async def test_a_client_has_so_many_calls_here_at_once() -> None:
    async with crowded({"clients": {"max_concurrent": 2}}) as (up, crowd):
        [held] = await crowd.hold("heavy")
        waiting = await crowd.wait("heavy", "second")
        answer = await ask(up, "planner")
        assert (answer.status, answer.phrase) == (429, "Client Busy")
        assert answer.json["error_code"] == "E_RATE_LIMITED"
        assert answer.json["reason"] == "client_concurrency"
        assert "already has 2 calls here" in answer.json["error"]
        assert answer["Retry-After"] == "1"
        assert (await ask(up, "planner", source="127.0.0.2")).status == 200
        # One that leaves the line, and one that leaves its seat, make room again.
        for leaver in (waiting, held):
            leaver.reset()
            await up.until(lambda: sum(up.seats()) < 2)
            assert (await ask(up, "planner")).status == 200
        assert repr(up.app.client_seats) == "<ClientSeats {} of 2>"


async def test_a_client_sends_so_many_calls_a_second() -> None:
    async with crowded({"clients": {"rate_per_s": 0.5, "burst": 2}}) as (up, _):
        assert [(await ask(up, "planner")).status for _ in range(2)] == [200, 200]
        answer = await ask(up, "planner")
        assert (answer.status, answer.phrase) == (429, "Client Rate Limited")
        assert answer.json["error_code"] == "E_RATE_LIMITED"
        assert answer.json["reason"] == "client_rate"
        assert answer["Retry-After"] == "2"
        assert "faster than 0.5/s, 2 at once (clients.rate_per_s, " in answer.json["error"]
        assert answer.json["error"].endswith("; retry in 2 s")
        assert (await ask(up, "planner", source="127.0.0.2")).status == 200
        assert len(up.asked) == 3


# What is shown.


async def test_who_waits_for_how_long_and_why_is_shown() -> None:
    async with crowded() as (up, crowd):
        await crowd.hold("heavy")
        await crowd.hold("planner", 2)
        before = up.app.clock.now()
        await crowd.wait("heavy", source="127.0.0.2")
        joined = up.app.clock.now()
        await up.until(lambda: up.app.clock.now() > joined + 0.02)
        await crowd.wait("planner")
        seen = await stats(up)
        longest = (up.app.clock.now() - before) * 1000
        planner, heavy = seen["waiters"]
        assert 20 <= heavy.pop("waited_ms") + 0.1 <= longest + 0.2
        assert 0 <= planner.pop("waited_ms") < longest
        assert heavy == {
            "llm_role": "HEAVY",
            "model": "gemma3:12b",
            "client": "127.0.0.2",
            "hold": "role_cap",
            "place": 1,
            "expected_wait_ms": None,
            "request_id": "heavy",
        }
        assert planner["llm_role"] == "PLANNER"
        assert seen["global"] == {"running": 3, "seats": 6, "lent": 0, "inside": 0}
        assert seen["roles"][Role.PLANNER] == {
            "running": 2,
            "seats": 2,
            "reserved": 1,
            "waiting": 1,
            "max_queue": 64,
        }
        assert (seen["health"]["level"], seen["breakers"]) == ("OK", [])
        lines = await metrics(up)
        assert 'modelsplit_queue_depth{role="HEAVY"} 1.0' in lines
        assert 'modelsplit_in_flight{role="PLANNER"} 2.0' in lines
