"""Random operations against admission, each followed by a check of everything it promises.

First the policy alone: calls come, end, give up, come due, models load, time passes. After
every operation: no cap is exceeded, no seat is lost or doubled, nobody waits who may run.
The caps and the reasons to wait are worked out here anew, from the bench's own books.

Then calls through the admission queue on an event loop, each cancelled after a random number
of turns of that loop, so that the cancellation meets every await there is; at the end nothing
runs and nobody waits.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import uvloop

from kit import options, show, table
from modelsplit_policy.admission import Admission
from modelsplit_policy.hosts import HostSeats
from modelsplit_policy.parallelism import Parallelism, Report
from modelsplit_policy.pools import PoolLimits
from modelsplit_policy.tickets import Place, Ticket
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.limits.admission_queue import AdmissionQueue
from modelsplit_proxy.runtime.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS = 100_000
CALLS = 20_000
GLOBAL_SEATS = 6
POOLS = {
    Role.PLANNER: PoolLimits(seats=2, max_queue=8, reserved=1),
    Role.EXECUTOR: PoolLimits(seats=5, max_queue=8, ageing_s=4.0),
    Role.HEAVY: PoolLimits(seats=1, max_queue=4, ageing_s=6.0),
    Role.CLOUD: PoolLimits(seats=3, max_queue=4, counts_globally=False),
    Role.CHAT: PoolLimits(seats=None, max_queue=8, ageing_s=3.0),
}
MODEL_SEATS = {"b": 1, "c": 3}
MODELS = "abcde"


def make(*, learns: bool) -> Admission:
    learned = Parallelism(
        cap=GLOBAL_SEATS,
        host=None if learns else GLOBAL_SEATS,
        models={} if learns else dict.fromkeys(MODELS, GLOBAL_SEATS),
    )
    return Admission(POOLS, [HostSeats(GLOBAL_SEATS, MODEL_SEATS, learned)], forecasts=learns)


class Books:
    """Who is seated and who waits, kept apart from admission's own."""

    def __init__(self, under_test: Admission) -> None:
        self.under_test = under_test
        self.seated: list[Ticket] = []
        self.waiting: list[Ticket] = []
        self.violations: Counter[str] = Counter()

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.violations[what] += 1

    def took(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            self.expect(ticket in self.waiting, "seated somebody who did not wait")
            if ticket in self.waiting:
                self.waiting.remove(ticket)
            self.seated.append(ticket)

    def check(self) -> None:
        roles = Counter(ticket.role for ticket in self.seated)
        local = [ticket for ticket in self.seated if ticket.role is not Role.CLOUD]
        models = Counter(ticket.model for ticket in local)
        self._caps(roles, len(local), models)
        self._nothing_lost(roles, len(local))
        for ticket in self.waiting:
            self._waits_for_a_reason(ticket, roles, len(local), models)

    def _caps(self, roles: Counter[Role], local: int, models: Counter[str]) -> None:
        self.expect(local <= GLOBAL_SEATS, "global cap")
        for role, limits in POOLS.items():
            self.expect(limits.seats is None or roles[role] <= limits.seats, "role cap")
        for model, cap in MODEL_SEATS.items():
            self.expect(models[model] <= cap, "model cap")
        self.expect(local + _kept(roles) <= GLOBAL_SEATS, "a reserved seat is taken")
        late = sum(ticket.overdue for ticket in self.seated if ticket.role is not Role.CLOUD)
        self.expect(late <= 1, "overdue calls are a crowd")

    def _nothing_lost(self, roles: Counter[Role], local: int) -> None:
        waiting = Counter(ticket.role for ticket in self.waiting)
        self.expect(self.under_test.running_local == local, "local count")
        for role in Role:
            self.expect(self.under_test.running(role) == roles[role], "seat lost or doubled")
            self.expect(self.under_test.waiting(role) == waiting[role], "place lost or doubled")
        self.expect(all(t.place is Place.SEATED for t in self.seated), "seated, says its ticket")
        self.expect(all(t.place is Place.WAITING for t in self.waiting), "waits, says its ticket")

    def _waits_for_a_reason(
        self, ticket: Ticket, roles: Counter[Role], local: int, models: Counter[str]
    ) -> None:
        if _held(ticket, roles, local, models):
            return
        useful = self.under_test.host().parallelism
        self.expect(ticket.role is not Role.CLOUD, "cloud waits for usefulness")
        self.expect(not useful.fits(ticket.model), "fits and waits")


def _kept(roles: Counter[Role]) -> int:
    return sum(max(0, limits.reserved - roles[role]) for role, limits in POOLS.items())


def _held(ticket: Ticket, roles: Counter[Role], local: int, models: Counter[str]) -> bool:
    """By a cap, as the policy states them."""
    limits = POOLS[ticket.role]
    if limits.seats is not None and roles[ticket.role] >= limits.seats:
        return True
    if not limits.counts_globally:
        return False
    if local >= GLOBAL_SEATS or models[ticket.model] >= MODEL_SEATS.get(ticket.model, local + 1):
        return True
    claims = roles[ticket.role] < limits.reserved
    return not claims and local + _kept(roles) >= GLOBAL_SEATS


class Storm:
    """One random sequence of operations."""

    def __init__(self, seed: int, *, learns: bool) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.books = Books(make(learns=learns))
        self.done: Counter[str] = Counter()
        self._actions: list[tuple[Callable[[], None], int]] = [
            (self._arrive, 40),
            (self._end, 25),
            (self._give_up, 8),
            (self._due, 6),
            (self._first_byte, 6),
            (self._load, 5),
            (self._pass, 10),
        ]

    def run(self, operations: int) -> None:
        actions = [action for action, _ in self._actions]
        weights = [weight for _, weight in self._actions]
        for action in self.rng.choices(actions, weights, k=operations):
            action()
            self.books.took(self.books.under_test.fill(self.now))
            self.books.check()

    def _arrive(self) -> None:
        rng, books = self.rng, self.books
        ticket = Ticket(
            rng.choice(list(Role)),
            rng.choice(MODELS),
            self.now,
            client=rng.choice("xyz"),
            max_wait_s=8.0,
            front=rng.random() < 0.05,
        )
        refusal = books.under_test.ask(ticket, self.now)
        books.expect((refusal is not None) == (ticket.place is Place.GONE), "refused and kept")
        if ticket.place is Place.SEATED:
            books.seated.append(ticket)
        elif ticket.place is Place.WAITING:
            books.waiting.append(ticket)
        self.done[f"ask: {ticket.place}"] += 1

    def _end(self) -> None:
        if not self.books.seated:
            return
        ticket = self.books.seated.pop(self.rng.randrange(len(self.books.seated)))
        self.books.under_test.leave(ticket, self.now, self._report(ticket))
        if self.rng.random() < 0.1:
            self.books.under_test.leave(ticket, self.now)
        self.done["leave"] += 1

    def _report(self, ticket: Ticket) -> Report | None:
        rng, held_s = self.rng, max(0.01, self.now - ticket.seated)
        if rng.random() < 0.3:
            return None
        work_s = held_s * rng.uniform(0.3, 1.0)
        return Report(rng.randint(1, 200), work_s, 0.0, 0.0, held_s)

    def _give_up(self) -> None:
        if not self.books.waiting:
            return
        ticket = self.books.waiting.pop(self.rng.randrange(len(self.books.waiting)))
        self.books.under_test.leave(ticket, self.now)
        self.done["give up"] += 1

    def _due(self) -> None:
        if self.books.waiting:
            self.books.under_test.due(self.rng.choice(self.books.waiting))
            self.done["due"] += 1

    def _first_byte(self) -> None:
        if self.books.seated:
            self.books.under_test.first_byte(self.rng.choice(self.books.seated), self.now)
            self.done["first byte"] += 1

    def _load(self) -> None:
        loaded = frozenset(self.rng.sample(MODELS, self.rng.randint(0, 3)))
        known = {} if self.rng.random() < 0.2 else {model: model in loaded for model in MODELS}
        self.books.under_test.note_loaded(known)
        self.done["residency"] += 1

    def _pass(self) -> None:
        self.now += self.rng.expovariate(2.0)
        self.done["time"] += 1


def storm(operations: int, seed: int) -> dict[str, Any]:
    start = time.perf_counter()
    storms = [Storm(seed + number, learns=bool(number % 2)) for number in range(10)]
    for one in storms:
        one.run(operations // len(storms))
    spent = time.perf_counter() - start
    done: Counter[str] = Counter()
    violations: Counter[str] = Counter()
    for one in storms:
        done += one.done
        violations += one.books.violations
    return {
        "operations": operations,
        "seconds": spent,
        "per_s": operations / spent,
        "violations": dict(violations),
        "done": dict(done.most_common()),
    }


# Through the admission queue.


class Crowd:
    """Calls through one admission queue; each notes how far it came."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.admission = make(learns=True)
        self.admission_queue = AdmissionQueue(self.admission, SystemClock())
        self.ends: Counter[str] = Counter()
        self.peak = 0

    async def call(self) -> None:
        """One call: ask, wait, run for a moment, leave; like the proxy's own attempt."""
        rng = self.rng
        ticket = Ticket(
            rng.choice(list(Role)),
            rng.choice(MODELS),
            time.monotonic(),
            client=rng.choice("xyz"),
            max_wait_s=rng.choice((0.0, 0.001, 0.02, 8.0)),
        )
        stage = "before it asked"
        try:
            await asyncio.sleep(0)
            stage = "in line"
            refusal = self.admission_queue.ask(ticket)
            if ticket.place is Place.WAITING:
                refusal = await self.admission_queue.wait(ticket)
            stage = "refused" if refusal is not None else "running"
            await self._run(ticket)
            stage = "refused" if refusal is not None else "served"
        finally:
            granted = stage == "in line" and ticket.place is Place.SEATED
            self.ends["granted as it left" if granted else stage] += 1
            self.admission_queue.leave(ticket)

    async def _run(self, ticket: Ticket) -> None:
        if ticket.place is not Place.SEATED:
            return
        self.peak = max(self.peak, self.admission.running_local)
        await asyncio.sleep(0)
        self.admission_queue.first_byte(ticket)
        for _ in range(self.rng.randrange(6)):
            await asyncio.sleep(0)

    async def cancelled(self) -> None:
        """A call that is cancelled after a random number of turns of the loop, or never."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.call())
            if self.rng.random() < 0.75:
                for _ in range(self.rng.randrange(14)):
                    await asyncio.sleep(0)
                task.cancel()

    async def run(self, calls: int) -> None:
        for _ in range(calls // 40):
            async with asyncio.TaskGroup() as group:
                for _ in range(40):
                    group.create_task(self.cancelled())


async def through_gate(calls: int, seed: int) -> dict[str, Any]:
    crowd = Crowd(seed)
    start = time.perf_counter()
    await crowd.run(calls)
    return {
        "calls": calls,
        "seconds": time.perf_counter() - start,
        "ends": dict(crowd.ends.most_common()),
        "peak": crowd.peak,
        "running": sum(crowd.admission.running(role) for role in Role),
        "waiting": sum(crowd.admission.waiting(role) for role in Role),
        "remembered": len(crowd.admission_queue._waiting),  # noqa: SLF001 - what is being judged
    }


def text(policy: dict[str, Any], gate: dict[str, Any]) -> str:
    total = sum(policy["violations"].values())
    rows = [
        ["operations", policy["operations"]],
        ["operations/s, checks included", f"{policy['per_s']:.0f}"],
        ["violations", f"{total} {policy['violations'] or ''}"],
        ["of which", ", ".join(f"{name} {count}" for name, count in policy["done"].items())],
    ]
    gate_rows = [
        ["calls through the admission queue", gate["calls"]],
        ["calls/s", f"{gate['calls'] / gate['seconds']:.0f}"],
        ["ended", ", ".join(f"{name} {count}" for name, count in gate["ends"].items())],
        ["most at once", f"{gate['peak']} of {GLOBAL_SEATS}"],
        ["at the end running / waiting", f"{gate['running']} / {gate['waiting']}"],
        ["futures left behind", gate["remembered"]],
    ]
    return "\n\n".join((table(["policy", ""], rows), table(["event loop", ""], gate_rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Random operations against admission, checked.")
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--calls", type=int, default=CALLS, help="through the admission queue")
    parser.add_argument("--seed", type=int, default=1)
    given = options(parser)
    policy = storm(given.operations, given.seed)
    gate = uvloop.run(through_gate(given.calls, given.seed))
    show({"policy": policy, "gate": gate}, text(policy, gate), as_json=given.json)
    left = gate["running"] or gate["waiting"] or gate["remembered"]
    if policy["violations"] or left or gate["peak"] > GLOBAL_SEATS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
