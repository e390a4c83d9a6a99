"""What the Health Guard judges by, and what its verdict means at the door."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy import admission
from modelsplit_policy.admission import Shedding
from modelsplit_policy.breaker import BreakerKey, BreakerView, State
from modelsplit_policy.config.parser import parse
from modelsplit_policy.failures import ERRORS, ErrorCode, Failure, Reason
from modelsplit_policy.health import HealthGuard, HealthRules, QueueState, Signals
from modelsplit_policy.health_samples import Timeouts, not_closed, shedding, signals
from modelsplit_policy.tickets import Ticket
from modelsplit_policy.vocabulary import Provider, Role

SHIPPED = Path(__file__).parents[2] / "config" / "model-policy.json"
RULES = parse(json.loads(SHIPPED.read_bytes()))
LATE = Failure(ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT, "late", "Upstream Timeout")
STALLED = Failure(ErrorCode.TIMEOUT_CLOUD, Reason.STALL, "silent", "Upstream Timeout")


def noted(failures: Iterable[Failure], *, clients: bool = False) -> int:
    timeouts = Timeouts(60.0)
    for failure in failures:
        timeouts.note(failure, 100.0, deadline_was_clients=clients)
    return timeouts.count(100.0)


# --- Timeouts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ErrorCode)
def test_only_what_ran_out_of_the_time_we_gave_counts(code: ErrorCode) -> None:
    failures = [Failure(code, reason, "x", "X") for reason in ERRORS[code].reasons]
    is_timeout = code in {ErrorCode.TIMEOUT_LOCAL, ErrorCode.TIMEOUT_CLOUD}
    assert noted(failures) == (len(failures) if is_timeout else 0)


def test_a_deadline_that_the_client_had_shortened_is_its_own() -> None:
    assert noted([LATE, STALLED], clients=True) == 1


def test_timeouts_are_forgotten_after_the_window() -> None:
    timeouts = Timeouts(60.0)
    for now in (0.0, 0.0, 40.0):
        timeouts.note(LATE, now, deadline_was_clients=False)
    assert [timeouts.count(now) for now in (40.0, 60.0, 60.1, 101.0)] == [3, 3, 1, 0]
    assert repr(timeouts) == "<Timeouts 0 in 60 s>"


@given(st.lists(st.floats(0.0, 30.0), max_size=50), st.floats(1.0, 100.0))
def test_so_many_as_are_no_older_than_the_window(steps: list[float], window_s: float) -> None:
    timeouts, now, at = Timeouts(window_s), 0.0, []
    for step in steps:
        now += step
        at.append(now)
        timeouts.note(LATE, now, deadline_was_clients=False)
        assert timeouts.count(now) == sum(moment >= now - window_s for moment in at)


# --- The guard's inputs -----------------------------------------------------------------------


def view(model: str | None, state: State) -> BreakerView:
    return BreakerView(BreakerKey(Provider.LOCAL, model), state, 5, 1.0, "")


def test_breakers_lines_and_what_was_measured_become_signals() -> None:
    seats = admission.from_policy(RULES)
    for number in range(3):
        seats.ask(Ticket(Role.HEAVY, "m", 100.0 + number, max_wait_s=10.0), 100.0 + number)
    breakers = [
        view(None, State.HALF_OPEN),
        view("one", State.OPEN),
        view("two", State.HALF_OPEN),
        view("three", State.CLOSED),
    ]
    assert [str(stopped.key) for stopped in not_closed(breakers)] == [
        "LOCAL",
        "LOCAL/one",
        "LOCAL/two",
    ]
    found = signals(seats, RULES, breakers, 105.0, timeouts=4, upstream_up=False, lag_p99_s=0.02)
    row = RULES.roles[Role.HEAVY]
    heavy = QueueState(Role.HEAVY, 2, row.max_queue, 4.0, row.max_wait_ms / 1000)
    assert {line.role for line in found.lines} == set(Role) - {Role.CLOUD}
    assert [line for line in found.lines if line.waiting] == [heavy]
    assert found == Signals(0.02, False, True, 2, found.lines, 4)


def test_nothing_known_is_nothing_wrong() -> None:
    found = signals(
        admission.from_policy(RULES),
        RULES,
        (),
        0.0,
        timeouts=0,
        upstream_up=None,
        lag_p99_s=0.0,
    )
    guard = HealthGuard(HealthRules())
    assert guard.update(found, 0.0) is None
    assert shedding(guard) == Shedding()
    assert shedding(guard).health == ""


# --- The verdict at the door ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeouts", "enter", "wait", "health"),
    [
        (
            5,
            frozenset(),
            frozenset({Role.HEAVY, Role.CHAT}),
            "DEGRADED: 5 timeouts in 60 s (DEGRADED from 5)",
        ),
        (
            15,
            frozenset({Role.HEAVY, Role.CHAT}),
            frozenset({Role.HEAVY, Role.CHAT, Role.EXECUTOR}),
            "CRITICAL: 15 timeouts in 60 s (CRITICAL from 15)",
        ),
    ],
)
def test_who_is_turned_away_at_a_level(
    timeouts: int, enter: frozenset[Role], wait: frozenset[Role], health: str
) -> None:
    guard = HealthGuard(HealthRules())
    guard.update(Signals(timeouts=timeouts), 0.0)
    door = shedding(guard)
    assert (door.enter, door.wait, door.health) == (enter, wait, health)


def test_what_is_shown_and_sheds_nobody_is_in_the_words_all_the_same() -> None:
    guard = HealthGuard(HealthRules())
    guard.update(Signals(upstream_up=False), 0.0)
    assert shedding(guard) == Shedding()
    assert shedding(guard).health == "CRITICAL: the upstream is down"
