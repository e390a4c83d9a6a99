"""The line under cancellation: whoever leaves, and whenever, the seat goes to the next."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import pytest

from modelsplit_policy.admission import Admission
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.hosts import HostSeats
from modelsplit_policy.parallelism import Parallelism, Report
from modelsplit_policy.pools import PoolLimits
from modelsplit_policy.tickets import Hold, Place, Ticket
from modelsplit_policy.vocabulary import DEFAULT_HOST, Role
from modelsplit_proxy.limits.admission_queue import AdmissionQueue, HostLine
from modelsplit_proxy.runtime.clock import SystemClock
from support.fake_time import clock
from support.waiting import until

pytestmark = pytest.mark.flowing_time


class Under:
    """A gate with one seat for HEAVY and two for PLANNER, and those who came to it."""

    def __init__(self, *, host: int | None = 6, protected: bool = False) -> None:
        pools = dict.fromkeys(Role, PoolLimits(seats=1, max_queue=8))
        pools[Role.PLANNER] = PoolLimits(seats=2, max_queue=8, protected=protected)
        models = dict.fromkeys("mn", 6)
        parallelism = Parallelism(cap=6, host=host, models=models)
        self.admission = Admission(pools, [HostSeats(6, {}, parallelism)], forecasts=False)
        self.clock = clock() or SystemClock()
        self.admission_queue = AdmissionQueue(self.admission, self.clock)

    def ticket(self, role: Role = Role.HEAVY, wait_s: float = 30.0, **more: Any) -> Ticket:
        return Ticket(role, "m", self.clock.now(), max_wait_s=wait_s, **more)

    def seated(self, role: Role = Role.HEAVY) -> Ticket:
        """A call that has its seat."""
        ticket = self.ticket(role)
        assert self.admission_queue.ask(ticket) is None
        assert ticket.place is Place.SEATED
        return ticket

    async def call(self, ticket: Ticket) -> Failure | None:
        """What the product does with a ticket: the seat goes back whatever happens."""
        try:
            refusal = self.admission_queue.ask(ticket)
            if ticket.place is Place.WAITING:
                refusal = await self.admission_queue.wait(ticket)
            return refusal
        finally:
            self.admission_queue.leave(ticket)

    async def waiter(self, ticket: Ticket) -> asyncio.Task[Failure | None]:
        """A task in which a call stands in line."""
        task = asyncio.create_task(self.call(ticket))
        await asyncio.sleep(0)
        assert ticket.place is Place.WAITING
        return task

    def is_empty(self) -> bool:
        line = any(self.admission.waiting(role) for role in Role)
        return not line and not self.admission.running_local and not self.admission_queue._waiting


async def ended(task: asyncio.Task[Failure | None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_free_seat_is_taken_without_waiting() -> None:
    under = Under()
    ticket = under.seated()
    assert under.admission.running(Role.HEAVY) == 1
    assert repr(under.admission_queue).startswith("<AdmissionQueue 0 waiting")
    under.admission_queue.leave(ticket)
    assert under.is_empty()


async def test_a_seat_that_comes_free_wakes_the_next_in_line() -> None:
    under = Under()
    first = under.seated()
    one, two = under.ticket(), under.ticket()
    waiting = [await under.waiter(one), await under.waiter(two)]
    assert repr(under.admission_queue).startswith("<AdmissionQueue 2 waiting")
    under.admission_queue.leave(first)
    assert (one.place, two.place) == (Place.SEATED, Place.WAITING)
    assert await asyncio.gather(*waiting) == [None, None]
    assert under.is_empty()


# A waiter cancelled at each moment: the one behind it gets the seat.


async def test_cancelled_before_its_grant() -> None:
    under = Under()
    first = under.seated()
    leaver, heir = under.ticket(), under.ticket()
    leaving, inheriting = await under.waiter(leaver), await under.waiter(heir)
    leaving.cancel()
    await ended(leaving)
    assert (leaver.place, heir.place) == (Place.GONE, Place.WAITING)
    under.admission_queue.leave(first)
    assert await inheriting is None
    assert under.is_empty()


async def test_cancelled_in_the_same_step_just_before_its_grant() -> None:
    under = Under()
    first = under.seated()
    leaver, heir = under.ticket(), under.ticket()
    leaving, inheriting = await under.waiter(leaver), await under.waiter(heir)
    leaving.cancel()
    under.admission_queue.leave(first)
    assert leaver.place is Place.SEATED, "the seat was given to one who has left already"
    await ended(leaving)
    assert heir.place is not Place.WAITING
    assert await inheriting is None
    assert under.is_empty()


async def test_cancelled_in_the_same_step_just_after_its_grant() -> None:
    under = Under()
    first = under.seated()
    leaver, heir = under.ticket(), under.ticket()
    leaving, inheriting = await under.waiter(leaver), await under.waiter(heir)
    under.admission_queue.leave(first)
    leaving.cancel()
    assert leaver.place is Place.SEATED
    await ended(leaving)
    assert await inheriting is None
    assert under.is_empty()


async def test_cancelled_while_it_holds_its_seat() -> None:
    under = Under()
    held, heir = under.ticket(), under.ticket()
    working = asyncio.Event()

    async def work() -> Failure | None:
        try:
            under.admission_queue.ask(held)
            working.set()
            await asyncio.Event().wait()
            return None
        finally:
            under.admission_queue.leave(held)

    leaving = asyncio.create_task(work())
    await working.wait()
    inheriting = await under.waiter(heir)
    leaving.cancel()
    await ended(leaving)
    assert await inheriting is None
    assert under.is_empty()


async def test_cancelled_before_its_first_step() -> None:
    under = Under()
    task = asyncio.create_task(under.call(under.ticket()))
    task.cancel()
    await ended(task)
    assert under.is_empty()


async def test_cancelled_in_the_same_step_as_it_is_turned_away() -> None:
    under = Under()
    first = under.seated()
    leaver = under.ticket()
    leaving = await under.waiter(leaver)
    leaving.cancel()
    under.admission_queue.refuse_all(Reason.DRAINING)
    await ended(leaving)
    assert leaver.place is Place.GONE
    under.admission_queue.leave(first)
    assert under.is_empty()


async def test_cancelled_in_the_same_step_as_its_wait_ends() -> None:
    under = Under()
    first = under.seated()
    leaver = under.ticket()
    leaving = await under.waiter(leaver)
    leaving.cancel()
    under.admission_queue._due(leaver)
    under.admission_queue._turn_away(leaver, Reason.QUEUE_TIMEOUT)
    await ended(leaving)
    under.admission_queue.leave(first)
    assert under.is_empty()


async def test_a_row_of_leavers_passes_the_seat_along() -> None:
    under = Under()
    first = under.seated()
    leavers = [await under.waiter(under.ticket()) for _ in range(5)]
    heir = await under.waiter(under.ticket())
    for leaver in leavers:
        leaver.cancel()
    under.admission_queue.leave(first)
    assert await heir is None
    for leaver in leavers:
        await ended(leaver)
    assert under.is_empty()


@pytest.mark.parametrize("moment", range(6))
async def test_cancelled_any_number_of_steps_after_the_release(moment: int) -> None:
    under = Under()
    first = under.seated()
    leaving, inheriting = [await under.waiter(under.ticket()) for _ in range(2)]
    under.admission_queue.leave(first)
    for _ in range(moment):
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert await inheriting is None
    assert under.is_empty()


# The end of a wait.


async def test_a_wait_that_ends_is_a_refusal_and_frees_the_place() -> None:
    under = Under()
    first = under.seated()
    refusal = await under.call(under.ticket(wait_s=0.01))
    assert refusal is not None
    assert refusal.reason is Reason.QUEUE_TIMEOUT
    assert refusal.message.startswith("role HEAVY is overloaded: no seat came free in ")
    assert "(1/1 running, 1/8 waiting)" in refusal.message
    under.admission_queue.leave(first)
    assert under.is_empty()


async def test_a_full_line_is_a_refusal_that_owes_nothing() -> None:
    under = Under()
    first = under.seated()
    waiting = [await under.waiter(under.ticket()) for _ in range(8)]
    refusal = await under.call(under.ticket())
    assert refusal is not None
    assert refusal.reason is Reason.QUEUE_FULL
    under.admission_queue.leave(first)
    assert await asyncio.gather(*waiting) == [None] * 8
    assert under.is_empty()


async def test_an_overdue_call_starts_before_its_wait_ends_where_nobody_knows_better() -> None:
    under = Under(host=None)
    first = under.seated(Role.PLANNER)
    held = under.ticket(Role.PLANNER, wait_s=0.2)
    asked = under.clock.now()
    assert under.admission_queue.ask(held) is None
    assert [waiter.hold for waiter in under.admission.waiters(asked)] == [Hold.PARALLELISM]
    assert await under.admission_queue.wait(held) is None
    assert under.clock.now() - asked >= 0.2 * 15 / 16 - 0.01
    assert (held.place, held.overdue) == (Place.SEATED, True)
    under.admission_queue.leave(held)
    under.admission_queue.leave(first)
    assert under.is_empty()


async def test_a_call_that_would_only_slow_others_is_refused_when_its_wait_ends() -> None:
    under = Under(host=1)
    first = under.seated(Role.PLANNER)
    refusal = await under.call(under.ticket(Role.PLANNER, wait_s=0.03))
    assert refusal is not None
    assert refusal.reason is Reason.QUEUE_TIMEOUT
    under.admission_queue.leave(first)
    assert under.is_empty()


async def test_a_seat_held_free_for_a_planner_that_does_not_come_is_given_after_a_moment() -> None:
    """Nothing else happens meanwhile: no call comes or ends."""
    under = Under(host=1, protected=True)
    now = under.clock.now()
    for number in range(20, -1, -1):
        at = now - 0.1 - number * 0.2
        planner = Ticket(Role.PLANNER, "m", at)
        under.admission.ask(planner, at)
        under.admission.leave(planner, at + 0.01)
    waiting = under.ticket()
    assert under.admission_queue.ask(waiting) is None
    assert [waiter.hold for waiter in under.admission.waiters(now)] == [Hold.RESERVED]
    assert await under.admission_queue.wait(waiting) is None
    assert under.clock.now() - now >= 0.09
    under.admission_queue.leave(waiting)
    assert under.is_empty()


async def test_a_call_held_by_a_cap_is_not_started_by_the_end_of_its_wait() -> None:
    under = Under(host=1)
    first = under.seated()
    refusal = await under.call(under.ticket(wait_s=0.03))
    assert refusal is not None
    assert under.admission.running(Role.HEAVY) == 1
    under.admission_queue.leave(first)
    assert under.is_empty()


async def test_no_patience_at_all_is_no_endless_wait() -> None:
    under = Under()
    first = under.seated()
    refusal = await under.call(under.ticket(wait_s=0.0))
    assert refusal is not None
    assert refusal.reason is Reason.QUEUE_TIMEOUT
    under.admission_queue.leave(first)


# Ending it all.


AWAY = Failure(ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED, "away", "Away")


async def test_who_waited_while_ollama_was_away_is_told_for_how_long() -> None:
    under = Under()
    first = under.seated()
    under.admission_queue.hold(AWAY)
    waiting = await under.waiter(under.ticket(wait_s=3.0))
    back = under.clock.now() + 1.0
    await until(lambda: under.clock.now() >= back)
    under.admission_queue.go_on()
    [ticket] = under.admission_queue._waiting
    assert under.admission_queue.gone_s(ticket) >= 0.5
    refusal = await waiting
    assert refusal is not None
    assert re.search(r"; Ollama was away for [\d.]+ s of that; retry in \d+ s$", refusal.message)
    # Who came after that is told nothing of it.
    refusal = await (await under.waiter(under.ticket(wait_s=0.1)))
    assert refusal is not None
    assert "away" not in refusal.message
    under.admission_queue.leave(first)


async def test_who_waited_while_ollama_hung_and_is_served_says_for_how_long() -> None:
    under = Under()
    first = under.seated()
    arrived = under.ticket()
    waiting = await under.waiter(arrived)
    under.admission_queue.hangs("http://127.0.0.1:11434")
    assert under.admission_queue.crowd(arrived).hold is Hold.MUTE
    later = under.clock.now() + 1.0
    await until(lambda: under.clock.now() >= later)
    assert under.admission_queue.gone_s(arrived) >= 0.5
    under.admission_queue.hangs("")
    assert under.admission_queue.crowd(arrived).hold is Hold.ROLE_CAP
    under.admission_queue.leave(first)
    assert await waiting is None
    assert under.admission_queue.gone_s(arrived) >= 0.5
    assert under.admission_queue.gone_s(under.ticket()) == 0.0


async def test_whose_wait_is_foreseen_to_be_too_long_while_ollama_is_away_is_told_that_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not that the role is overloaded: the line is only as long as that."""
    monkeypatch.setattr(Admission, "_foreseen_s", lambda *_: 100.0)
    monkeypatch.setattr(Admission, "_trusts_forecast", lambda *_: True)
    under = Under()
    first = under.seated()
    under.admission_queue.hold(AWAY)
    assert under.admission_queue.ask(under.ticket(wait_s=3.0)) is AWAY
    under.admission_queue.go_on()
    refusal = under.admission_queue.ask(under.ticket(wait_s=3.0))
    assert refusal is not None
    assert "is overloaded: expected wait 100 s, at most 3 s" in refusal.message
    under.admission_queue.leave(first)


async def test_who_finds_no_place_behind_a_hang_is_told_so() -> None:
    under = Under()
    first = under.seated()
    under.admission_queue.hangs("http://127.0.0.1:11434")
    waiting = [await under.waiter(under.ticket(wait_s=0.1)) for _ in range(8)]
    refusal = under.admission_queue.ask(under.ticket())
    assert refusal is not None
    assert refusal.reason is Reason.QUEUE_FULL
    told = [failure.message for failure in await asyncio.gather(*waiting) if failure is not None]
    assert len(told) == 8
    for message in (refusal.message, *told):
        assert "because Ollama at http://127.0.0.1:11434 answers nothing: it hangs" in message
    under.admission_queue.hangs("")
    refusal = await (await under.waiter(under.ticket(wait_s=0.1)))
    assert refusal is not None
    assert "hangs" not in refusal.message
    under.admission_queue.leave(first)


async def test_refuse_all_turns_away_everyone_in_line_and_nobody_who_is_seated() -> None:
    under = Under()
    first = under.seated()
    waiting = [await under.waiter(under.ticket()) for _ in range(3)]
    under.admission_queue.refuse_all(Reason.DRAINING)
    refusals = await asyncio.gather(*waiting)
    assert [refusal and refusal.reason for refusal in refusals] == [Reason.DRAINING] * 3
    assert first.place is Place.SEATED
    under.admission_queue.refuse_all(Reason.DRAINING)
    under.admission_queue.leave(first)
    assert under.is_empty()


async def test_a_seat_granted_in_the_same_step_is_not_taken_back_by_refuse_all() -> None:
    under = Under()
    first = under.seated()
    granted = await under.waiter(under.ticket())
    under.admission_queue.leave(first)
    under.admission_queue.refuse_all(Reason.DRAINING)
    assert await granted is None
    assert under.is_empty()


async def test_leaving_twice_gives_one_seat_back() -> None:
    under = Under()
    one, two = under.seated(Role.PLANNER), under.seated(Role.PLANNER)
    under.admission_queue.leave(one)
    under.admission_queue.leave(one)
    assert under.admission.running(Role.PLANNER) == 1
    under.admission_queue.leave(two)
    under.admission_queue.leave(two)
    assert under.is_empty()


async def test_leaving_without_having_asked_is_harmless() -> None:
    under = Under()
    under.admission_queue.leave(under.ticket())
    assert under.is_empty()


# What else it passes on.


async def test_models_that_were_loaded_decide_who_goes_first() -> None:
    under = Under()
    first = under.seated()
    cold = Ticket(Role.HEAVY, "n", under.clock.now(), max_wait_s=30)
    warm = under.ticket()
    tasks = [await under.waiter(cold), await under.waiter(warm)]
    under.admission_queue.resident({"m": True, "n": False}, {})
    under.admission_queue.leave(first)
    assert (cold.place, warm.place) == (Place.WAITING, Place.SEATED)
    assert await asyncio.gather(*tasks) == [None, None]
    assert under.is_empty()


async def test_a_host_that_computes_on_a_gpu_is_told_to_what_is_learned() -> None:
    under = Under()
    learned = under.admission.host().parallelism
    line = HostLine(under.admission_queue, DEFAULT_HOST)
    line.resident({"m": True}, {}, on_gpu=True)
    assert learned.on_gpu
    under.admission_queue.resident({"m": True}, {})
    assert not learned.on_gpu


async def test_a_first_byte_and_a_report_reach_what_is_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under = Under()
    reports: list[Report | None] = []
    learned = under.admission.host().parallelism
    monkeypatch.setattr(learned, "end", lambda *args: reports.append(args[-1]))
    under.admission_queue.resident({"m": False}, {})
    ticket = under.seated()
    assert ticket.flight is not None
    assert ticket.flight.loading
    under.admission_queue.first_byte(ticket)
    assert not ticket.flight.loading
    report = Report(tokens=9, eval_s=1.0)
    under.admission_queue.leave(ticket, report)
    under.admission_queue.leave(ticket, report)
    assert reports == [report]
