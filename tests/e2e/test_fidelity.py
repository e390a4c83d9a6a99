"""The same calls through the real process and through virtual time: the same decisions.

The process runs before the stand-in, over real sockets, in time that flows by itself; the
replay runs in virtual time on a host with the stand-in's figures. Where events lie far enough
apart for a socket's delay not to matter, who was admitted, throttled, fell back, and in which
order, must be the same.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from modelsplit_policy.model_names import canonical
from modelsplit_sim.config import SimConfig
from modelsplit_sim.host_shape import HostShape
from modelsplit_sim.models import DEFAULT_MODELS
from modelsplit_sim.replay.demand import Demand
from modelsplit_sim.replay.run import Contender, Traffic, play
from support.calls import call
from support.harness import LEARNING, policy, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_sim.replay.attempt import CallRun
    from support.harness import Overlay, Running

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"
SLOW = "qwen3:4b"
SIM = SimConfig(
    token_rate=50,
    shared_compute=True,
    contention=1.0,
    num_parallel=1,
    load_ms=400,
    max_loaded=2,
    models=(*DEFAULT_MODELS, "llama3.2:1b"),
)
HOST = HostShape(
    "the stand-in",
    ms_per_token=20.0,
    prompt_ms=0.0,
    load_ms=400.0,
    contention=1.0,
    num_parallel=1,
    max_loaded=2,
    mute_while_loading=False,
)


class Decision(NamedTuple):
    """What became of one call. ``models``: asked, in order."""

    outcome: str
    models: tuple[str, ...]


@dataclass
class Decided:
    """By call, and the order in which attempts had their seats."""

    decisions: list[Decision]
    seated: list[tuple[int, int]]


async def _send(up: Running, number: int, demand: Demand, began: float) -> None:
    loop = asyncio.get_running_loop()
    due = asyncio.Event()
    loop.call_at(began + demand.at, due.set)
    await due.wait()
    body = call(ROUTE, demand.model, stream=demand.stream)
    body["options"] = {"num_predict": demand.output_tokens}
    headers = {"X-Request-Id": f"call-{number}"}
    if demand.role:
        headers["X-LLM-Role"] = demand.role
    async with up.client(f"127.0.0.{10 + number}") as client:
        asking = asyncio.ensure_future(client.request("POST", ROUTE, body, headers))
        if demand.patience_s != float("inf"):
            loop.call_at(began + demand.at + demand.patience_s, asking.cancel)
        await asyncio.wait([asking])


async def really(overlay: Overlay, demands: Sequence[Demand]) -> Decided:
    """Through the process."""
    async with running(SIM, overlay, stall_timeout_s=600.0) as up:
        # Both ask what is loaded when they begin, and again so long after each answer.
        began = up.app.loaded_models.known._answered
        await asyncio.gather(
            *(_send(up, number, demand, began) for number, demand in enumerate(demands))
        )
        records = await up.calls.wait(len(demands))
    ordered = sorted(records, key=_number)
    seats = sorted(
        (attempt.seated, _number(record), place)
        for record in records
        for place, attempt in enumerate(record.attempts)
        if attempt.seated is not None
    )
    return Decided([_real(record) for record in ordered], [(n, place) for _, n, place in seats])


def _number(record: CallRecord) -> int:
    return int(record.request_id.removeprefix("call-"))


def _real(record: CallRecord) -> Decision:
    failure = record.failure
    outcome = "ok" if failure is None else str(failure.reason)
    if record.status == 499:
        outcome = "left"
    return Decision(outcome, tuple(canonical(attempt.model) for attempt in record.attempts))


def virtually(overlay: Overlay, demands: Sequence[Demand]) -> Decided:
    """In virtual time."""
    contender = Contender("x", policy(overlay).policy)
    played = play(contender, HOST, Traffic(demands), seed=1, loaded=())
    calls = sorted(played.calls, key=lambda each: each.number)
    seats = sorted(
        (attempt.seated, each.number, attempt.number)
        for each in calls
        for attempt in each.attempts
        if attempt.seated is not None
    )
    return Decided([_virtual(each) for each in calls], [(n, place) for _, n, place in seats])


def _virtual(run: CallRun) -> Decision:
    outcome = "ok" if run.failure is None else str(run.failure.reason)
    if run.gone:
        outcome = "left"
    return Decision(outcome, tuple(attempt.model for attempt in run.attempts))


def planner(at: float, tokens: int, **more: Any) -> Demand:
    return Demand(at, "planner", tokens, **more)


def executor(at: float, tokens: int, **more: Any) -> Demand:
    return Demand(at, "executor", tokens, **more)


ONE_SEAT: Overlay = {"roles": {"PLANNER": {"max_concurrent": 1, "reserved": 0, "max_queue": 2}}}
SHORT: Overlay = {
    "roles": {
        "PLANNER": {
            "max_concurrent": 1,
            "reserved": 0,
            "max_wait_ms": 1000,
            "allow_long_wait": True,
        }
    }
}
HASTY: Overlay = {"roles": {"PLANNER": {"timeout_ms": 1500, "fallback_timeout_ms": 5000}}}
ALONE: Overlay = {"global": {"max_concurrent": 1}, "roles": {"PLANNER": {"reserved": 0}}}
TRACES: dict[str, tuple[Overlay, list[Demand]]] = {
    "a line that is too long": (
        ONE_SEAT,
        [planner(1.0, 100), planner(1.6, 20), planner(1.8, 20), planner(2.0, 20)],
    ),
    "a wait that is too long": (
        SHORT,
        [planner(1.0, 100), planner(1.7, 10), planner(2.3, 10), planner(3.1, 10)],
    ),
    "a model that is too slow": (HASTY, [planner(1.0, 20), planner(2.5, 120), planner(5.9, 30)]),
    "clients that leave in line and at work": (
        ONE_SEAT,
        [
            planner(0.0, 150, patience_s=2.0),
            planner(0.5, 50, patience_s=1.1),
            planner(0.8, 40),
        ],
    ),
    "two roles for one seat": (
        ALONE,
        [
            executor(0.0, 60),
            executor(0.5, 30),
            planner(0.9, 30),
            executor(1.2, 30),
            planner(1.5, 30),
        ],
    ),
    "models that make room for each other": (
        {},
        [
            planner(0.0, 30),
            executor(1.3, 30),
            Demand(2.6, "heavy", 30),
            planner(4.1, 30),
            executor(5.7, 30),
        ],
    ),
    "what is learned": (
        LEARNING,
        [
            *(planner(2.0 * n, 40) for n in range(4)),
            executor(8.1, 60),
            planner(8.5, 40),
            executor(8.9, 40),
            planner(9.3, 40),
        ],
    ),
    "streams": (
        ONE_SEAT,
        [planner(0.0, 40, stream=True), planner(0.4, 40, stream=True), planner(0.9, 20)],
    ),
}


@pytest.mark.parametrize("name", TRACES)
async def test_the_process_and_virtual_time_decide_alike(name: str) -> None:
    overlay, trace = TRACES[name]
    demands = [replace(demand, at=demand.at + 1.0) for demand in trace]
    real, virtual = await really(overlay, demands), virtually(overlay, demands)
    assert real.decisions == virtual.decisions
    assert real.seated == virtual.seated


# So far apart that no hop of a socket in flowing time, and no sum of a few, changes their order.
APART_S = 0.12
KINDS = ("planner", "planner", "planner", "executor", "executor", "heavy", "llama3.2:1b")
# A short role's timeout, which counts from when it is seen that its model is loaded, is left to
# the traces above: when that is seen depends on when it was asked last.
OVERLAYS: list[Overlay] = [ONE_SEAT, SHORT, ALONE, {}, LEARNING]


def drawn(seed: int) -> tuple[Overlay, list[Demand]]:
    """Ten calls at random, some of them streams, some of them left, under one of the policies."""
    chance = random.Random(seed)
    at, demands = 1.0, []
    for _ in range(10):
        at += chance.choice((0.15, 0.4, 0.9, 1.6)) + chance.randint(0, 9) / 100
        patience_s = chance.uniform(0.7, 3.0) if chance.random() < 0.2 else float("inf")
        demands.append(
            Demand(
                round(at, 3),
                chance.choice(KINDS),
                chance.randint(10, 90),
                patience_s=round(patience_s, 3),
                stream=chance.random() < 0.3,
            )
        )
    return OVERLAYS[seed % len(OVERLAYS)], demands


def are_apart(overlay: Overlay, demands: Sequence[Demand]) -> bool:
    """Whether everything that happens by itself is far from whatever happens to other calls.

    What one event causes, such as the seat that an end gives to another, happens with it.
    """
    contender = Contender("x", policy(overlay).policy)
    played = play(contender, HOST, Traffic(demands), seed=1, loaded=())
    own = [
        (moment, each.number)
        for each in played.calls
        for moment in (each.arrived, each.arrived + each.demand.patience_s)
        if moment <= _ended(each) + APART_S
    ]
    ends = [(_ended(each), each.number) for each in played.calls]
    seats = [
        (moment, each.number)
        for each in played.calls
        for attempt in each.attempts
        for moment in (attempt.seated, attempt.begun)
        if moment is not None
    ]
    return _far(own, [*own, *ends, *seats]) and _far(ends, ends)


def _far(some: Sequence[tuple[float, int]], all_of_them: Sequence[tuple[float, int]]) -> bool:
    return all(
        number == other or abs(moment - at) >= APART_S
        for moment, number in some
        for at, other in all_of_them
    )


def _ended(each: CallRun) -> float:
    return each.arrived + each.latency_s


def clear_seeds(count: int, first: int) -> list[int]:
    """Seeds whose events lie apart."""
    seeds = (seed for seed in itertools.count(first) if are_apart(*drawn(seed)))
    return list(itertools.islice(seeds, count))


@pytest.mark.parametrize("number", range(6))
async def test_calls_at_random_are_decided_alike_where_their_events_lie_apart(number: int) -> None:
    [seed] = clear_seeds(1, 1000 * number + number)
    overlay, demands = drawn(seed)
    real, virtual = await really(overlay, demands), virtually(overlay, demands)
    assert real.decisions == virtual.decisions, seed
    assert real.seated == virtual.seated, seed
