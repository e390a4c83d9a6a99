"""A call is cancelled at every place where it waits; after each nothing is missing.

Over real sockets, with the handler's own task: at the n-th suspension of one call its task is
cancelled, for n = 1, 2, 3 … until the call completes, in each of three ways. Seats, places in
line, client seats, budget charges in memory and on disk, breaker trials, hurried questions
and upstream connections must then be as if it had ended by itself, and the next call must be
answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from modelsplit_policy.approvals import ApprovalAction, Change
from modelsplit_policy.breaker import Allowed, BreakerRules, Breakers
from modelsplit_policy.breaker import BreakerState as Breaker
from modelsplit_policy.budgets import nano
from modelsplit_policy.call import State
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.tickets import Place, Ticket
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.calls.call import InferenceCall
from modelsplit_proxy.limits import budget_store
from modelsplit_proxy.records.record import CallRecord
from modelsplit_proxy.runtime.lifecycle import Lifecycle
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import DEFAULT_MODELS, ModelSpec
from support.clouds import FROM_ALL
from support.harness import Running, running, warm
from support.waiting import until

pytestmark = pytest.mark.flowing_time

GENERATE = "/api/generate"
PRIMARY, HEAVY, OPUS = "qwen3:4b", "gpt-oss:20b", "claude-3-opus"
CLOUD = "glm-4.6:cloud"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
BROKEN = Failure(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS, "500", "Upstream Failed")
SIM = SimConfig(
    (*DEFAULT_MODELS, ModelSpec(OPUS), ModelSpec(CLOUD)),
    load_ms=40,
    tokens=3,
    token_rate=400,
    num_parallel=8,
    max_loaded=9,
    leak_abandoned=False,
)
# The ways to be cancelled: the client leaves as the call begins to wait, or in the moment in
# which what it waits for has come; or it is we who leave, and tell the client.
WAITING, GRANTED, CUT = "as it waits", "as it has come", "cut short"
UNTOLD = {State.ABANDONED}
TOLD = {State.REJECTED, State.FAILED, State.TRUNCATED}
# More suspensions than any call has.
MOST = 60


class Knife:
    """Cancels the task of the next call at its ``at``-th suspension; 0: of none."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.lifecycle: Lifecycle | None = None
        self._at = 0
        self._seen = 0
        self.fell = False

    def arm(self, at: int) -> None:
        self._at, self._seen, self.fell = at, 0, False

    def suspends(self, future: asyncio.Future[Any] | None) -> None:
        self._seen += 1
        if self._seen != self._at:
            return
        self.fell = True
        task = asyncio.current_task()
        assert task is not None
        if self.how != GRANTED:
            assert self.lifecycle is not None
            self.lifecycle.cutting = self.how == CUT
            task.cancel()
        elif future is None:
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            # Called before the task's own callback, which it adds when it gets the future.
            future.add_done_callback(lambda _: task.cancel())


class Watched(Awaitable[None]):
    """A coroutine whose suspensions the knife sees."""

    def __init__(self, work: Awaitable[None], knife: Knife) -> None:
        self._work = work
        self._knife = knife

    def __await__(self) -> Generator[Any, Any, None]:
        inner: Any = self._work.__await__()
        step, value = inner.send, None
        while True:
            try:
                future = step(value)
            except StopIteration:
                return
            self._knife.suspends(future)
            try:
                value = yield future
                step = inner.send
            except BaseException as error:  # noqa: BLE001 - handed on to where it belongs
                value, step = error, inner.throw


@pytest.fixture(params=[WAITING, GRANTED, CUT])
def knife(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Knife:
    blade = Knife(request.param)
    serve = InferenceCall.serve

    async def watched(call: InferenceCall, refused: Failure | None = None) -> None:
        await Watched(serve(call, refused), blade)

    monkeypatch.setattr(InferenceCall, "serve", watched)
    return blade


# --- The kinds of calls -----------------------------------------------------------------------

Prepare = Callable[[Running], Awaitable[None]]


async def nothing(up: Running) -> None:
    """Nothing to prepare."""


async def failing(up: Running) -> None:
    up.sim.faults.add(Kind.STATUS, status=500, model=PRIMARY, times=1)


async def hanging(up: Running) -> None:
    up.sim.faults.add(Kind.HANG, model=PRIMARY, times=1)


async def unfit(up: Running) -> None:
    up.sim.faults.add(Kind.BAD_SCHEMA, model=PRIMARY, times=1)


async def stopped(up: Running) -> None:
    """The model's breaker is open and lets one call try."""
    breakers = up.app.breakers
    breakers._breakers = Breakers(BreakerRules(open_s=1e-6, open_max_s=1e-6))
    for _ in range(5):
        admitted = breakers.admit(Provider.LOCAL, PRIMARY)
        assert isinstance(admitted, Allowed)
        breakers.ended(admitted, BROKEN, completed=False)
    stopped_at = up.app.clock.now()
    await until(lambda: up.app.clock.now() > stopped_at)


async def cold(up: Running) -> None:
    """Nothing is loaded, and the proxy knows."""
    for key in list(up.sim.scheduler.runners):
        up.sim.scheduler.unload(key)
    await up.app.loaded_models.ask()


async def breaking(up: Running) -> None:
    await cold(up)
    up.sim.faults.add(Kind.CUT_RST, after=0, model=PRIMARY, times=1)


async def loaded(up: Running) -> None:
    await warm(up, PRIMARY, "qwen3:8b", HEAVY, OPUS)


@dataclass(frozen=True)
class Case:
    """One kind of call: what it asks, under which policy, and what happens before it comes.

    ``queued``: there is no seat for it until it stands in line. ``halves``: its body comes in
    two pieces. ``attempts``: how many it takes.
    """

    body: dict[str, Any]
    overlay: dict[str, Any] = field(default_factory=dict)
    prepare: Prepare = nothing
    queued: bool = False
    halves: bool = False
    attempts: int = 1
    ends: State = State.COMPLETED


def asks(model: str, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "hi", "stream": stream, **more}


def planner(**row: Any) -> dict[str, Any]:
    return {"roles": {"PLANNER": row}}


def budget(model: str) -> dict[str, Any]:
    """Calls to ``model`` are counted, and never too many."""
    row = {"name": "counted", "models": [model], "calls": 1000, "window": "1h"}
    return {"budgets": [row]}


ONE_SEAT = planner(max_concurrent=1, reserved=0)
IN_CLOUD = {
    "roles": {"PLANNER": {"fallback": CLOUD, "max_concurrent": 1, "reserved": 0}},
    "models": {CLOUD: {"price": {"input": 1, "output": 1}}},
    **FROM_ALL,
    **budget(CLOUD),
}
CASES = {
    "stream": Case(asks("planner", stream=True)),
    "whole": Case(asks("planner")),
    "body in two pieces": Case(asks("planner"), halves=True),
    "queued": Case(asks("planner"), ONE_SEAT, queued=True),
    "fallback": Case(asks("planner"), prepare=failing, attempts=2),
    "fallback, queued": Case(asks("planner"), ONE_SEAT, failing, queued=True, attempts=2),
    "hanging": Case(asks("planner"), planner(timeout_ms=100), hanging, attempts=2),
    "budgeted": Case(asks(HEAVY), budget(HEAVY)),
    "budgeted fallback": Case(asks("planner"), budget("qwen3:8b"), failing, attempts=2),
    "approved": Case(asks("cloud"), budget(OPUS)),
    "early head": Case(asks("planner", stream=True), planner(early_headers_after_ms=10), cold),
    "early head, then broken": Case(
        asks("planner", stream=True),
        planner(early_headers_after_ms=5),
        breaking,
        ends=State.TRUNCATED,
    ),
    "schema held": Case(
        asks("planner", stream=True, format=SCHEMA),
        planner(validate_streams="hold"),
        unfit,
        attempts=2,
    ),
    "schema, seat kept": Case(asks("planner", format=SCHEMA), ONE_SEAT, unfit, attempts=2),
    "schema, seat kept, approved": Case(
        asks("planner", format=SCHEMA), IN_CLOUD, unfit, attempts=2
    ),
    "loading": Case(asks("planner"), prepare=cold),
    "a load and nothing else": Case({"model": "planner"}, prepare=cold),
    "trial": Case(asks("planner"), prepare=stopped),
}


@contextlib.asynccontextmanager
async def standing(case: Case, state: Path) -> AsyncIterator[Running]:
    """The proxy before a warm stand-in, with limits for clients and an approval."""
    clients = {"rate_per_s": 10_000, "burst": 10_000, "max_concurrent": 3}
    overlay = {"clients": clients, "budgets": [], **case.overlay}
    async with running(SIM, overlay, state=state) as up:
        change = Change(0, 0.0, 0.0, ApprovalAction.APPROVE, "kim", "a trial", nano(1e6), 1e12)
        await up.app.store.commit(lambda db: budget_store.add_change(db, change))
        yield up


class Victim:
    """One call of the kind, and whoever holds its seat before it."""

    def __init__(self, up: Running, case: Case, knife: Knife) -> None:
        self._up = up
        self._case = case
        self._knife = knife

    async def run(self) -> None:
        """Until its record is written, whatever became of it."""
        up, ended = self._up, len(self._up.calls.records)
        blocker = self._blocker() if self._case.queued else None
        async with up.client() as client:
            await self._send(client)
            if blocker is not None:
                await up.until(lambda: self._may_go_on() or len(up.calls.records) > ended)
                up.app.admission_queue.leave(blocker)
            await up.calls.wait(ended + 1)

    def _may_go_on(self) -> bool:
        """Whether it waits for a seat, and has not just been cancelled there."""
        leaves = self._knife.fell and self._knife.how != GRANTED
        return self._up.seats()[1] == 1 and not leaves

    def _blocker(self) -> Ticket:
        admission_queue, clock = self._up.app.admission_queue, self._up.app.clock
        ticket = Ticket(Role.PLANNER, PRIMARY, clock.now())
        assert admission_queue.ask(ticket) is None
        assert ticket.place is Place.SEATED
        return ticket

    async def _send(self, client: Any) -> None:
        if not self._case.halves:
            await client.ask("POST", GENERATE, self._case.body)
            return
        body = orjson.dumps(self._case.body)
        headers = {"Content-Length": str(len(body))}
        await client.ask("POST", GENERATE, body[:20], headers)
        active = self._up.app.live
        await self._up.until(lambda: len(active) == 1)
        await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            await client.send(body[20:])


# --- What must be whole -----------------------------------------------------------------------


async def whole(up: Running, state: Path) -> None:
    """Nothing of a call that has ended is left anywhere."""
    app = up.app
    await up.until(lambda: not app.lifecycle.active)
    await up.sim.wait_for(lambda sim: not sim.active)
    assert len(app.live) == 0
    assert up.seats() == (0, 0)
    assert not app.admission_queue._waiting
    assert app.client_seats._here == {}
    assert up.app.loaded_models.known._hurried == 0
    assert all(view.state is not Breaker.HALF_OPEN for view in app.breakers.snapshot())
    await connections(up)
    await charges(up, state)


async def connections(up: Running) -> None:
    """Every upstream connection is idle in the pool, or gone on both sides."""
    pool = up.app.pool
    await up.until(lambda: pool.open_connections == len(pool._idle))
    await up.until(lambda: up.sim.connections_open == pool.open_connections)


async def disconnected(up: Running) -> None:
    """No connection is idle: the next call has to wait for one."""
    for connection in list(up.app.pool._idle):
        connection.abort()
    await up.until(lambda: not up.app.pool._idle)


async def charges(up: Running, state: Path) -> None:
    """What was sent is counted once, in memory and on disk; what was not is counted nowhere."""
    counted = {model for row in up.app.policy.budgets for model in row.models or ()}
    if not counted:
        return
    sent = sum(
        attempt.sent and attempt.model in counted
        for record in up.calls.records
        for attempt in record.attempts
    )
    # Behind whatever is still to be written: what gives back does not hurry.
    await asyncio.wrap_future(up.app.store.submit(lambda _: None))
    inside = sum(row.calls for row in up.app.budget_keeper.standing())
    with closing(sqlite3.connect(state / FILE_NAME)) as db:
        [(on_disk, settled)] = db.execute(
            "SELECT count(*), coalesce(sum(settled), 0) FROM budget_charges"
        ).fetchall()
    assert (inside, on_disk, settled) == (sent, sent, sent)


@pytest.mark.parametrize("name", CASES)
async def test_wherever_a_call_is_cancelled_nothing_is_missing(
    name: str, knife: Knife, tmp_path: Path
) -> None:
    case = CASES[name]
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, error: errors.append(error))
    async with standing(case, tmp_path) as up:
        knife.lifecycle = up.app.lifecycle
        cut = [record async for record in cuts(up, case, knife, tmp_path)]
    assert errors == []
    whole_call = cut.pop()
    assert (whole_call.call.state, len(whole_call.attempts)) == (case.ends, case.attempts)
    ends = {record.call.state for record in cut}
    assert ends
    assert ends <= (TOLD if knife.how == CUT else UNTOLD)


async def cuts(up: Running, case: Case, knife: Knife, state: Path) -> AsyncIterator[CallRecord]:
    """The calls, cancelled one place later each time; the last has been left alone."""
    for at in range(1, MOST):
        await loaded(up)
        await case.prepare(up)
        await disconnected(up)
        knife.arm(at)
        await Victim(up, case, knife).run()
        fell = knife.fell
        knife.arm(0)
        up.app.lifecycle.cutting = False
        up.sim.faults.clear()
        await whole(up, state)
        yield up.calls.records[-1]
        await the_next_is_answered(up, case, state)
        if not fell:
            return
    raise AssertionError("it waits for ever")


async def the_next_is_answered(up: Running, case: Case, state: Path) -> None:
    body = {key: value for key, value in case.body.items() if key != "format"}
    async with up.client() as client:
        answer = await client.request("POST", GENERATE, body)
    assert answer.status == 200, answer
    assert answer.whole
    await whole(up, state)
