"""How long planners wait while five executors keep the machine busy: one plain line, or ours.

Five executors ask again as soon as they are answered. Planners come at random. The *wait* is
from a planner's arrival until something computes for it, wherever it waited.

Virtual time, three machines: a small CPU host (calls at once share the machine, one slot a
model), a middling one, and a large one with room for six. The plain line gets the number of
calls at once that is best for the machine, set by hand; modelsplit is told nothing.

Real processes: the small host's stand-in, twice at the same time, behind two proxies. The
plain line is the same proxy with every call in one role (CHAT) and ``parallel`` given; there
the wait is until the first line comes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from kit import admission_of, mean, options, policy, quantile, show, table, write_policy
from modelsplit_policy.parallelism import Parallelism
from modelsplit_policy.tickets import Place, Ticket
from modelsplit_policy.vocabulary import Role
from support.host import Host, Job, Run
from support.process import ollama, serving
from support.wire import Client

if TYPE_CHECKING:
    from modelsplit_policy.admission import Admission
    from modelsplit_policy.failures import Failure, Reason
    from modelsplit_policy.parallelism import Report

EXECUTORS = 5
PLANNER_TOKENS = (5, 15)
EXECUTOR_TOKENS = (20, 60)
RATE = 20.0
# Nobody here is turned away: waits are what is measured.
_LONG = {"max_wait_ms": 600_000, "allow_long_wait": True}
PATIENT: dict[str, Any] = {
    "global": {"forecast": False},
    "roles": {"PLANNER": _LONG, "EXECUTOR": _LONG, "CHAT": _LONG},
}


HELD_S = {
    role: row.max_hold_ms / 1000
    for role, row in policy(PATIENT).roles.items()
    if row.max_hold_ms is not None
}


@dataclass(frozen=True, slots=True)
class Machine:
    """``best``: calls at once the plain line is given; ``every_s``: between planners."""

    name: str
    contention: float
    slots: int
    best: int
    every_s: float


MACHINES = (
    Machine("small: n calls at an n-th of the speed, 1 slot", 1.0, 1, 1, 4.0),
    Machine("middling: contention 0.3, 4 slots", 0.3, 4, 3, 2.0),
    Machine("large: no contention, 6 slots", 0.0, 6, 5, 1.0),
)


class Plain:
    """One line, first come first served: what admission is compared with."""

    def __init__(self, seats: int) -> None:
        self._seats = seats
        self._running = 0
        self._line: deque[Ticket] = deque()
        self.parallelism = Parallelism(cap=seats, host=seats, models={})

    def ask(self, ticket: Ticket, now: float) -> Failure | None:
        del now
        ticket.place = Place.WAITING
        self._line.append(ticket)
        return None

    def leave(self, ticket: Ticket, now: float, report: Report | None = None) -> None:
        del now, report
        if ticket.place is Place.WAITING:
            self._line.remove(ticket)
        elif ticket.place is Place.SEATED:
            self._running -= 1
        ticket.place = Place.GONE

    def fill(self, now: float) -> list[Ticket]:
        del now
        seated = []
        while self._line and self._running < self._seats:
            ticket = self._line.popleft()
            ticket.place = Place.SEATED
            self._running += 1
            seated.append(ticket)
        return seated

    def due(self, ticket: Ticket) -> None:
        """Nobody is hurried."""

    def refusal(self, reason: Reason, ticket: Ticket, now: float) -> Failure:
        raise AssertionError(f"nobody is turned away: {ticket} {reason} {now}")


class Loop(Run):
    """A run in which every executor that is done asks again, until ``until``."""

    def __init__(
        self,
        admission: Admission | Plain,
        host: Host,
        jobs: list[Job],
        rng: random.Random,
        until: float,
    ) -> None:
        super().__init__(admission, host, jobs)  # type: ignore[arg-type]
        self._rng = rng
        self._until = until

    def _finish(self, job: Job, *, completed: bool) -> None:
        if job.role is Role.EXECUTOR and job.ended is None and self.now < self._until:
            again = executor(self._rng, self.now)
            self.jobs.append(again)
            self._at(self.now, "arrive", again)
        super()._finish(job, completed=completed)


def executor(rng: random.Random, at: float) -> Job:
    return _job(at, Role.EXECUTOR, "e", rng.randint(*EXECUTOR_TOKENS))


def _job(at: float, role: Role, model: str, tokens: int) -> Job:
    held_s = HELD_S.get(role, 1e9)
    return Job(at=at, role=role, model=model, tokens=tokens, max_wait_s=600.0, max_hold_s=held_s)


def played(
    machine: Machine, under_test: Admission | Plain, seed: int, planners: int
) -> dict[str, list[float]]:
    rng = random.Random(seed)
    jobs = [executor(rng, 0.0) for _ in range(EXECUTORS)]
    at = 20.0
    for _ in range(planners):
        at += rng.expovariate(1 / machine.every_s)
        jobs.append(_job(at, Role.PLANNER, "p", rng.randint(*PLANNER_TOKENS)))
    host = Host(rate=RATE, contention=machine.contention, slots=machine.slots)
    done = Loop(under_test, host, jobs, rng, at).run()
    mine = [job for job in done if job.role is Role.PLANNER]
    work = sum(job.tokens for job in done if job.role is Role.EXECUTOR)
    return {
        "wait": [(job.working or 0.0) - job.at for job in mine],
        "latency": [job.latency for job in mine],
        "executor_tokens_per_s": [work / max(job.ended or 0.0 for job in done)],
    }


def virtually(machine: Machine, *, plain: bool, seeds: int, planners: int) -> dict[str, Any]:
    waits: list[float] = []
    latencies: list[float] = []
    output: list[float] = []
    for seed in range(seeds):
        under_test = Plain(machine.best) if plain else admission_of(PATIENT)
        found = played(machine, under_test, seed, planners)
        waits += found["wait"]
        latencies += found["latency"]
        output += found["executor_tokens_per_s"]
    return {
        "machine": machine.name,
        "scheduler": f"one line, {machine.best} at once" if plain else "modelsplit",
        "wait_p50_s": quantile(waits, 0.5),
        "wait_p95_s": quantile(waits, 0.95),
        "latency_p95_s": quantile(latencies, 0.95),
        "executor_tokens_per_s": mean(output),
    }


# Real processes.


@dataclass(slots=True)
class Side:
    """One proxy and how its calls are marked."""

    port: int
    plain: bool
    waits: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    tokens: int = 0


async def one_call(side: Side, model: str, role: str, tokens: int) -> tuple[float, float]:
    """Seconds to the first line and to the end."""
    said = {"X-LLM-Role": "CHAT" if side.plain else role}
    body = {"model": model, "prompt": "go", "stream": True, "options": {"num_predict": tokens}}
    began = time.monotonic()
    async with Client(side.port) as client:
        await client.ask("POST", "/api/generate", body, said)
        answer = await client.head()
        assert answer.status == 200, answer.headers
        pieces = client.pieces(answer)
        await anext(pieces)
        first_s = time.monotonic() - began
        async for _ in pieces:
            pass
    return first_s, time.monotonic() - began


async def executor_loop(side: Side, seed: int, until: float) -> None:
    rng = random.Random(seed)
    while time.monotonic() < until:
        tokens = rng.randint(*EXECUTOR_TOKENS)
        await one_call(side, "qwen3:8b", "EXECUTOR", tokens)
        side.tokens += tokens


async def planner_call(side: Side, tokens: int) -> None:
    first_s, whole_s = await one_call(side, "qwen3:4b", "PLANNER", tokens)
    side.waits.append(first_s)
    side.latencies.append(whole_s)


async def planner_stream(side: Side, until: float) -> None:
    rng = random.Random(1)
    async with asyncio.TaskGroup() as group:
        while (pause := rng.expovariate(1 / 1.0)) + time.monotonic() < until:
            await asyncio.sleep(pause)
            group.create_task(planner_call(side, rng.randint(*PLANNER_TOKENS)))


async def side_by_side(seconds: float) -> list[dict[str, Any]]:
    """Four times as fast as the virtual machine, so that a short run says something."""
    sim = ("--shared-compute", "--token-rate", str(RATE * 4), "--max-loaded", "3")
    async with contextlib.AsyncExitStack() as stack:
        sides = []
        for plain in (True, False):
            state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            over = PATIENT | ({"global": {"forecast": False, "parallel": 1}} if plain else {})
            given = ("--policy", str(write_policy(state / "policy.json", over)))
            port, _ = await stack.enter_async_context(ollama(*sim))
            process = await stack.enter_async_context(serving(port, state, *given))
            sides.append(Side(process.port, plain))
        began = time.monotonic()
        until = began + seconds
        await asyncio.gather(
            *(executor_loop(side, seed, until) for side in sides for seed in range(EXECUTORS)),
            *(planner_stream(side, until) for side in sides),
        )
        spent_s = time.monotonic() - began
        return [_summed(side, spent_s) for side in sides]


def _summed(side: Side, spent_s: float) -> dict[str, Any]:
    return {
        "machine": f"small, real processes, 4 times as fast, {len(side.waits)} planners",
        "scheduler": "one line, 1 at once" if side.plain else "modelsplit",
        "wait_p50_s": quantile(side.waits, 0.5),
        "wait_p95_s": quantile(side.waits, 0.95),
        "latency_p95_s": quantile(side.latencies, 0.95),
        "executor_tokens_per_s": side.tokens / spent_s,
    }


def text(rows: list[dict[str, Any]]) -> str:
    head = ["machine", "scheduler", "planner wait p50 s", "p95 s", "planner latency p95 s"]
    lines = []
    for number, row in enumerate(rows):
        plain = rows[number - number % 2]
        lines.append(
            [
                row["machine"],
                row["scheduler"],
                *(f"{row[key]:.2f}" for key in ("wait_p50_s", "wait_p95_s", "latency_p95_s")),
                f"{row['executor_tokens_per_s']:.1f}",
                f"{row['wait_p95_s'] / plain['wait_p95_s']:.2f}" if plain["wait_p95_s"] else "-",
            ]
        )
    return table([*head, "executor tokens/s", "wait p95 ÷ one line's"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Planners' wait beside five busy executors.")
    parser.add_argument("--seeds", type=int, default=20, help="in virtual time")
    parser.add_argument("--planners", type=int, default=100, help="in virtual time, each seed")
    parser.add_argument("--seconds", type=float, default=30.0, help="real processes; 0: none")
    given = options(parser)
    rows = [
        virtually(machine, plain=plain, seeds=given.seeds, planners=given.planners)
        for machine in MACHINES
        for plain in (True, False)
    ]
    if given.seconds:
        rows += uvloop.run(side_by_side(given.seconds))
    show({"rows": rows}, text(rows), as_json=given.json)


if __name__ == "__main__":
    main()
