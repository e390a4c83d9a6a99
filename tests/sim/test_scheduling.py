"""Queues, slots, loads and evictions, as observed on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelsplit_sim import CallState, ModelSpec, Sim, SimConfig
from modelsplit_sim.models import model
from modelsplit_sim.pacing import Compute, SharedPace

from .client import Answer, Client, connect, post

pytestmark = pytest.mark.flowing_time

ENDLESS = 1_000_000
A, B, C = "a:1b", "b:1b", "c:1b"


def config(**fields: Any) -> SimConfig:
    given: dict[str, Any] = {"models": (A, B, C), "token_rate": 200.0}
    return SimConfig(**given | fields)


async def start(sim: Sim, model: str = A, tokens: int = ENDLESS, **fields: Any) -> Client:
    """A streaming generation that got its first token, or is queued when it cannot."""
    client = await Client.to(sim)
    options = {"num_predict": tokens} | fields.pop("options", {})
    body = {"model": model, "prompt": "hi", "options": options} | fields
    before = sim.counts.received
    client.send("POST", "/api/generate", body)
    await sim.wait_for(lambda s: s.counts.received > before and s.calls[-1].body_size > 0)
    return client


async def generate(sim: Sim, model: str = A, tokens: int = 2, **fields: Any) -> Answer:
    options = {"num_predict": tokens} | fields.pop("options", {})
    return await post(sim, "/api/generate", model=model, prompt="hi", options=options, **fields)


async def test_warm_waiters_are_not_bounded_by_the_queue_and_run_in_order() -> None:
    async with Sim(config(num_parallel=2, max_queue=2)) as sim:
        await generate(sim)
        first = [await start(sim, tokens=20) for _ in range(2)]
        late = [await start(sim, tokens=1) for _ in range(10)]
        assert (sim.active, sim.waiting) == (2, 10)
        answers = await asyncio.gather(*(client.answer() for client in first + late))
        assert [answer.status for answer in answers] == [200] * 12
        assert sim.max_active == 2
        starts = [call.started_at or 0.0 for call in sim.calls]
        assert starts == sorted(starts)
        for client in first + late:
            client.close()


async def test_waiting_requests_get_no_byte_until_their_turn() -> None:
    async with Sim(config()) as sim:
        holder = await start(sim)
        waiter = await start(sim, tokens=1)
        await sim.wait_for(lambda s: s.calls[0].tokens >= 5)
        assert sim.calls[1].first_byte_at is None
        assert sim.calls[1].state is CallState.WAITING
        holder.close()
        answer = await waiter.answer()
        assert answer.lines[-1]["done"] is True
        waiter.close()


async def test_a_cold_burst_beyond_the_queue_is_refused_at_once() -> None:
    async with Sim(config(max_queue=2, num_parallel=2, load_ms=100)) as sim:
        answers = await asyncio.gather(*(generate(sim) for _ in range(12)))
        statuses = sorted(answer.status for answer in answers)
        assert statuses == [200] * 3 + [503] * 9
        refused = next(answer for answer in answers if answer.status == 503)
        assert refused.json == {
            "error": "server busy, please try again.  maximum pending requests exceeded"
        }
        assert refused.header("Content-Length") == "77"
        assert sim.counts.loads == 1


@pytest.mark.parametrize(
    ("path", "length"),
    [
        ("/api/chat", "77"),
        ("/api/embed", "77"),
        ("/v1/chat/completions", "134"),
        ("/v1/completions", "134"),
        ("/v1/responses", "134"),
        ("/v1/embeddings", "134"),
        ("/v1/messages", "175"),
    ],
)
async def test_a_full_queue_in_every_dialect(path: str, length: str) -> None:
    async with Sim(config(max_queue=0, load_ms=5000)) as sim:
        holder = await start(sim)
        await sim.wait_for(lambda s: s.calls[0].state is CallState.LOADING)
        fields = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x"}
        answer = await post(sim, path, model=B, stream=True, max_tokens=2, **fields)
        assert (answer.status, answer.header("Content-Length")) == (503, length)
        assert answer.header("Retry-After") is None
        cached = answer.header("Cache-Control")
        assert cached == ("no-cache" if path == "/v1/messages" else None)
        holder.close()


async def test_a_swap_waits_for_running_work_and_lets_the_loaded_model_go_first() -> None:
    async with Sim(config(num_parallel=1)) as sim:
        running = await start(sim, A)
        await sim.wait_for(lambda s: s.active == 1)
        swap = await start(sim, B, tokens=1)
        second = await start(sim, A, tokens=1)
        assert sim.loaded == [A]
        running.close()
        assert (await second.answer()).status == 200
        assert (await swap.answer()).status == 200
        assert sim.loaded == [B]
        order = sorted(sim.calls[1:], key=lambda call: call.started_at or 0.0)
        assert [call.model for call in order] == [A, B]
        second.close()
        swap.close()


async def test_giving_up_at_the_head_of_a_swap_still_evicts_and_loads_nothing() -> None:
    async with Sim(config()) as sim:
        running = await start(sim, A)
        await sim.wait_for(lambda s: s.active == 1)
        swap = await start(sim, B, tokens=1)
        swap.close()
        await sim.wait_for(lambda s: s.calls[1].state is CallState.ABORTED)
        running.close()
        await sim.wait_for(lambda s: s.active == 0)
        await sim.wait_for(lambda s: s.loaded == [])
        assert sim.counts.loads == 1


async def test_two_models_stay_loaded_when_there_is_room() -> None:
    async with Sim(config(max_loaded=2)) as sim:
        await generate(sim, A)
        await generate(sim, B)
        assert sim.loaded == [A, B]


async def test_of_idle_models_the_one_whose_file_is_first_by_its_name_makes_room() -> None:
    first, second = sorted((A, B), key=lambda name: model(name).digest)
    for order in ((first, second), (second, first)):
        async with Sim(config(max_loaded=2)) as sim:
            for name in (*order, C):
                await generate(sim, name)
            assert sim.loaded == [second, C]


async def test_before_that_the_one_with_the_shortest_keep_alive_and_one_for_ever_last() -> None:
    first, second = sorted((A, B), key=lambda name: model(name).digest)
    for kept, loaded in (("1h", [first, C]), (-1, [first, C]), ("1m", [second, C])):
        async with Sim(config(max_loaded=2)) as sim:
            await generate(sim, first, keep_alive=kept)
            await generate(sim, second)
            await generate(sim, C)
            assert sim.loaded == loaded, kept


async def test_another_num_ctx_reloads_after_running_work_ends() -> None:
    async with Sim(config()) as sim:
        running = await start(sim, A, options={"num_ctx": 2048})
        await sim.wait_for(lambda s: s.active == 1)
        other = await start(sim, A, tokens=1, options={"num_ctx": 1024})
        assert sim.calls[1].state is CallState.QUEUED
        running.close()
        assert (await other.answer()).status == 200
        assert sim.counts.loads == 2
        other.close()


async def test_a_client_that_leaves_during_a_load_aborts_it() -> None:
    async with Sim(config(load_ms=60_000)) as sim:
        client = await start(sim)
        await sim.wait_for(lambda s: s.calls[0].state is CallState.LOADING)
        client.close()
        await sim.wait_for(lambda s: s.calls[0].state is CallState.ABORTED)
        assert (sim.loaded, sim.waiting) == ([], 0)


async def test_abandoned_queued_requests_leak_their_sockets() -> None:
    async with Sim(config(load_ms=60_000)) as sim:
        head = await start(sim)
        queued = await start(sim, B)
        queued.close()
        await sim.wait_for(lambda s: s.counts.leaked == 1)
        head.close()
        await sim.wait_for(lambda s: s.connections_open == 1)
    assert sim.connections_open == 0


async def test_abandoned_queued_requests_close_when_told_so() -> None:
    async with Sim(config(load_ms=60_000, leak_abandoned=False)) as sim:
        head = await start(sim)
        queued = await start(sim, B)
        queued.close()
        await sim.wait_for(lambda s: s.connections_open == 1)
        head.close()


async def test_aliases_of_one_blob_share_a_runner_and_its_expiry() -> None:
    models = (ModelSpec("one:1b", blob="x"), ModelSpec("two:1b", blob="x"))
    async with Sim(config(models=models)) as sim:
        await generate(sim, "one:1b", keep_alive=-1)
        await generate(sim, "two:1b", keep_alive="30s")
        assert (sim.counts.loads, sim.loaded) == (1, ["one:1b"])
        await post(sim, "/api/generate", model="two:1b", keep_alive=0)
        assert sim.loaded == []


async def test_idle_runners_expire() -> None:
    async with Sim(config(token_rate=0)) as sim:
        await generate(sim, keep_alive="20ms")
        await sim.wait_for(lambda s: s.loaded == [])


async def test_keep_alive_zero_unloads_after_the_answer() -> None:
    async with Sim(config(token_rate=0)) as sim:
        assert (await generate(sim, keep_alive=0)).lines[-1]["done"] is True
        await sim.wait_for(lambda s: s.loaded == [])


async def test_tokens_keep_their_pace_without_drift() -> None:
    async with Sim(config(token_rate=500)) as sim:
        await generate(sim, tokens=100)
        call = sim.calls[-1]
        spent = (call.ended_at or 0) - (call.started_at or 0)
        assert 0.19 <= spent < 0.6


async def test_shared_compute_divides_one_rate_among_all() -> None:
    async with Sim(config(token_rate=400, shared_compute=True, num_parallel=4)) as sim:
        await generate(sim)
        clients = [await start(sim, tokens=20) for _ in range(4)]
        for client in clients:
            await client.answer()
            client.close()
        calls = sim.calls[-4:]
        spent = max(c.ended_at or 0 for c in calls) - min(c.started_at or 0 for c in calls)
        assert 0.19 <= spent < 0.6


@pytest.mark.parametrize(
    ("contention", "free", "speed"),
    [(1.0, 1, 1 / 3), (5.0, 1, 1 / 11), (0.5, 2, 2 / 3), (0.0, 1, 1)],
)
def test_calls_at_once_slow_each_other_down_as_the_host_contends(
    contention: float, free: int, speed: float
) -> None:
    compute = Compute(shared=True, contention=contention, free=free)
    paces = [compute.pace(100.0) for _ in range(3)]
    for pace in paces:
        assert isinstance(pace, SharedPace)
        compute.join(pace, 0.0)
    assert compute.delay(1.0, 0.0) == pytest.approx(1 / speed)


async def test_prefill_delays_the_first_byte_by_prompt_length() -> None:
    async with Sim(config(token_rate=0, prefill_ms=1)) as sim:
        answer = await post(sim, "/api/generate", model=A, prompt="x" * 400, stream=False)
        assert answer.json["prompt_eval_count"] == 109
        assert answer.json["prompt_eval_duration"] >= 100_000_000


async def test_slow_readers_hold_their_tokens_back() -> None:
    async with Sim(config(token_rate=0)) as sim, connect(sim) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(
            "POST",
            "/api/generate",
            {"model": A, "prompt": "x", "options": {"num_predict": 10**7}},
        )
        await sim.wait_for(lambda s: bool(s.calls) and s.calls[0].tokens > 100)
        with pytest.raises(TimeoutError):
            await _moves_on(sim)
        assert sim.active == 1


async def _moves_on(sim: Sim) -> None:
    """Follow the first call's tokens; TimeoutError when they stand still."""
    for _ in range(10**6):
        seen = sim.calls[0].tokens
        await sim.wait_for(lambda s, last=seen: s.calls[0].tokens > last, timeout=0.2)  # type: ignore[misc]
