"""The Health Guard at work: what is counted, what is applied, what the log says."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelsplit_policy import admission
from modelsplit_policy.admission import Admission, Shedding
from modelsplit_policy.breaker import BreakerRules, Breakers
from modelsplit_policy.call import Event
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.health import HealthGuard, HealthRules, Level, Signal
from modelsplit_policy.tickets import Place, Ticket
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.limits.breakers import BreakerKeeper
from modelsplit_proxy.records.live import LiveCalls
from modelsplit_proxy.records.record import CallRecord
from modelsplit_proxy.runtime.loop_lag import LoopLag
from modelsplit_proxy.watch import health
from modelsplit_proxy.watch.health import HealthMonitor, Watched
from modelsplit_proxy.watch.upstream_probe import UpstreamProbe
from support.harness import policy
from support.records import PLANNER, QUEUE_FULL, answered, begun, fallen_back, routed, turned_away

LATE = Failure(ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT, "late", "Upstream Timeout")
STALLED = Failure(ErrorCode.TIMEOUT_LOCAL, Reason.STALL, "silent", "Upstream Timeout")
BROKEN = Failure(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS, "500", "Upstream Failed")
AWAY = Failure(ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED, "refused", "Unreachable")


class Hands:
    """A clock that somebody moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        raise AssertionError("health is of monotonic time")


class Under:
    """A monitor, and what it watches."""

    def __init__(self) -> None:
        self.clock = Hands()
        shipped = policy().policy
        self.admission: Admission = admission.from_policy(shipped)
        self.breakers = BreakerKeeper(Breakers(BreakerRules()), self.clock)
        self.probe = SimpleNamespace(up=True)
        self.lag = LoopLag()
        self.live = LiveCalls(self.clock)
        rules = HealthRules()
        watched = Watched(
            shipped,
            self.admission,
            self.breakers,
            cast("UpstreamProbe", self.probe),
            self.lag,
            self.live,
            self.clock,
        )
        self.monitor = HealthMonitor(HealthGuard(rules), rules, watched)

    def look(self) -> Level:
        self.monitor.look()
        return self.monitor.guard.level

    def timeouts(self, count: int) -> None:
        for _ in range(count):
            self.monitor.call_ended(late())

    def recent(self) -> int:
        return self.monitor.timeouts.count(self.clock.now())

    def breaks(self, failure: Failure, model: str = "m") -> None:
        """Enough failures to open a breaker."""
        for _ in range(5):
            allowed = self.breakers.admit(Provider.LOCAL, model)
            assert not isinstance(allowed, Failure)
            self.breakers.ended(allowed, failure, completed=False)


def late(failure: Failure = LATE, **changes: Any) -> CallRecord:
    """A call whose one attempt ran out of time before its first byte."""
    record = routed(**changes)
    attempt = record.attempt(SimpleNamespace(model="qwen3:4b"), 100.0)  # type: ignore[arg-type]
    attempt.failure = record.failure = failure
    for event in (Event.ADMIT, Event.DISPATCH, Event.FAIL):
        record.call.step(event)
    return record


def test_nothing_wrong_is_nothing_said(caplog: pytest.LogCaptureFixture) -> None:
    under = Under()
    assert [under.look() for _ in range(3)] == [Level.OK] * 3
    assert (under.monitor.guard.troubles, under.monitor.guard.held) == ((), None)
    assert under.admission.shedding == Shedding()
    assert caplog.messages == []
    assert repr(under.monitor) == "<HealthMonitor <HealthGuard OK, shedding OK>>"


def test_levels_are_applied_to_admission_and_told_once_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "modelsplit")
    under = Under()
    under.timeouts(5)
    under.look()
    under.look()
    assert under.admission.shedding == Shedding(wait=frozenset({Role.HEAVY, Role.CHAT}))
    under.timeouts(10)
    under.look()
    assert under.admission.shedding == Shedding(
        enter=frozenset({Role.HEAVY, Role.CHAT}),
        wait=frozenset({Role.HEAVY, Role.CHAT, Role.EXECUTOR}),
    )
    guard = under.monitor.guard
    assert (guard.level, guard.shedding) == (Level.CRITICAL, Level.CRITICAL)
    assert guard.cause == guard.shedding_cause == "15 timeouts in 60 s (CRITICAL from 15)"
    assert [trouble.signal for trouble in guard.troubles] == [Signal.TIMEOUTS]
    under.clock.at += 61.0
    under.look()
    under.clock.at += 10.0
    under.look()
    assert under.admission.shedding == Shedding()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]
    degraded, critical, over = caplog.messages
    assert degraded == (
        "overloaded, HEAVY, CHAT calls are refused where no seat is free: "
        "5 timeouts in 60 s (DEGRADED from 5)"
    )
    assert critical == (
        "overloaded, HEAVY, CHAT calls are refused; EXECUTOR calls are refused where no seat "
        "is free: 15 timeouts in 60 s (CRITICAL from 15)"
    )
    assert over == "no longer overloaded: calls of all roles are let in again"


def test_a_planner_is_never_turned_away() -> None:
    under = Under()
    under.timeouts(100)
    assert under.look() is Level.CRITICAL
    tickets = [Ticket(Role.PLANNER, "m", under.clock.now(), max_wait_s=8) for _ in range(3)]
    for ticket in tickets:
        assert under.admission.ask(ticket, under.clock.now()) is None
    assert tickets[2].place is Place.WAITING
    refusal = under.admission.ask(Ticket(Role.CHAT, "m", under.clock.now()), under.clock.now())
    assert refusal is not None
    assert refusal.reason is Reason.SHED


# Timeouts.


@pytest.mark.parametrize(
    ("record", "counted"),
    [
        (late(), 1),
        (late(STALLED), 1),
        (late(BROKEN), 0),
        (late(deadline_was_clients=True), 0),
        (late(STALLED, deadline_was_clients=True), 1),
        (answered(), 0),
        (fallen_back(), 0),
        (turned_away(QUEUE_FULL), 0),
        (begun(), 0),
    ],
    ids=["late", "stall", "500", "impatient", "stall, impatient", "ok", "second", "full", "early"],
)
def test_only_what_ran_out_of_the_time_we_gave_is_a_timeout(
    record: CallRecord, counted: int
) -> None:
    under = Under()
    under.monitor.call_ended(record)
    assert under.recent() == counted


def test_each_attempt_that_ran_out_of_time_counts_also_where_the_call_was_saved() -> None:
    under = Under()
    saved, both = fallen_back(), fallen_back()
    saved.attempts[0].failure = LATE
    for attempt in both.attempts:
        attempt.failure = LATE
    both.failure = LATE
    under.monitor.call_ended(saved)
    assert under.recent() == 1
    under.monitor.call_ended(both)
    assert under.recent() == 3


def test_a_stream_that_stalled_counts_once() -> None:
    under = Under()
    record = answered()
    record.streamed, record.failure = True, STALLED
    under.monitor.call_ended(record)
    assert under.recent() == 1


def test_a_timeout_behind_an_early_head_or_in_a_held_stream_counts_once() -> None:
    under = Under()
    record = late()
    record.streamed = True
    record.failure = record.attempts[0].failure
    under.monitor.call_ended(record)
    assert under.recent() == 1


def test_timeouts_are_forgotten_after_a_minute() -> None:
    under = Under()
    under.timeouts(3)
    under.clock.at += 40.0
    under.timeouts(1)
    under.clock.at += 20.0
    assert under.recent() == 4
    under.clock.at += 0.1
    assert under.recent() == 1


# The other signals.


def test_a_late_loop_is_shown_once_enough_is_known() -> None:
    under = Under()
    under.lag.observe(3.0)
    assert under.look() is Level.OK
    for _ in range(300):
        under.lag.observe(0.3)
    assert under.look() is Level.DEGRADED
    assert under.monitor.guard.shedding is Level.OK
    assert "event-loop lag p99 300 ms" in under.monitor.guard.cause


def test_a_seat_that_is_held_without_an_answer_is_shown_and_sheds_nobody() -> None:
    under = Under()
    record = routed()
    record.attempt(PLANNER.candidates[0], under.clock.now()).dispatched = under.clock.now()
    under.live.enter(record)
    assert under.look() is Level.OK
    under.clock.at += 600.0
    assert under.look() is Level.DEGRADED
    assert "a seat is held for 600 s" in under.monitor.guard.cause
    assert under.monitor.guard.shedding is Level.OK


def test_an_upstream_that_is_down_is_shown_and_sheds_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    under = Under()
    under.probe.up = False
    assert under.look() is Level.CRITICAL
    assert under.admission.shedding == Shedding()
    assert caplog.messages == [], "the verdict says that Ollama is away"


def test_open_breakers_are_shown_and_shed_nobody() -> None:
    under = Under()
    under.breaks(BROKEN, "one")
    assert under.look() is Level.DEGRADED
    assert under.monitor.guard.cause == "breakers open for 1 model (DEGRADED from 1)"
    assert [str(view.key) for view in under.monitor.open_breakers()] == ["LOCAL/one"]
    for model in ("two", "three"):
        under.breaks(BROKEN, model)
    assert under.look() is Level.CRITICAL
    assert under.admission.shedding == Shedding()


def test_the_providers_own_breaker_is_critical() -> None:
    under = Under()
    under.breaks(AWAY)
    assert under.look() is Level.CRITICAL
    assert under.monitor.guard.cause == "the provider's breaker is open"


def test_a_breaker_that_has_only_counted_is_not_open() -> None:
    under = Under()
    allowed = under.breakers.admit(Provider.LOCAL, "m")
    assert not isinstance(allowed, Failure)
    under.breakers.ended(allowed, BROKEN, completed=False)
    assert len(under.breakers.snapshot()) == 1
    assert under.monitor.open_breakers() == []
    assert under.look() is Level.OK


def test_a_line_that_is_full_and_slow_sheds() -> None:
    under = Under()
    for number in range(1 + 32):
        ticket = Ticket(Role.HEAVY, "m", under.clock.now(), client=str(number), max_wait_s=10)
        assert under.admission.ask(ticket, under.clock.now()) is None
    assert under.look() is Level.OK, "a full line that moves is a burst"
    under.clock.at += 8.0
    assert under.look() is Level.DEGRADED
    assert under.monitor.guard.cause.startswith("queue pressure 0.8, HEAVY 32/32 waiting")
    under.clock.at += 1.6
    assert under.look() is Level.CRITICAL


async def test_it_looks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_EVERY_S", 0.001)
    under = Under()
    seen, thrice = [], asyncio.Event()

    def look() -> None:
        seen.append(1)
        if len(seen) == 3:
            thrice.set()

    monkeypatch.setattr(under.monitor, "look", look)
    task = asyncio.create_task(under.monitor.watch())
    await thrice.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
