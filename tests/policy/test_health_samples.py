"""What the Health Guard judges by, and what its verdict means at the door."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy import admission
from modelsplit_policy.admission import Shedding
from modelsplit_policy.blame import Circumstances
from modelsplit_policy.breaker import BreakerKey, BreakerState, BreakerView
from modelsplit_policy.config.parser import parse
from modelsplit_policy.failures import ERRORS, ErrorCode, Failure, Reason
from modelsplit_policy.health import HealthGuard, HealthRules, Level, QueueState, Signals
from modelsplit_policy.health_samples import Timeouts, not_closed, shedding, signals
from modelsplit_policy.tickets import Ticket
from modelsplit_policy.vocabulary import Host, Provider, Role
from support.policies import document

SHIPPED = Path(__file__).parents[2] / "config" / "model-policy.json"
RULES = parse(json.loads(SHIPPED.read_bytes()))
LATE = Failure(ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT, "late", "Upstream Timeout")
STALLED = Failure(ErrorCode.TIMEOUT_LOCAL, Reason.STALL, "silent", "Upstream Timeout")


def noted(failures: Iterable[Failure], *, clients: bool = False) -> int:
    timeouts = Timeouts(60.0)
    for failure in failures:
        timeouts.call_ended([failure], None, 100.0, Circumstances(clients))
    return timeouts.count(100.0)


# --- Timeouts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ErrorCode)
def test_only_what_ran_out_of_the_time_we_gave_counts(code: ErrorCode) -> None:
    failures = [Failure(code, reason, "x", "X") for reason in ERRORS[code].reasons]
    # A cloud's holds no seat here.
    is_timeout = code is ErrorCode.TIMEOUT_LOCAL
    # All but those of an upstream that is not there: to turn calls away would relieve nothing.
    assert noted(failures) == (len(failures) - 2 if is_timeout else 0)
    if is_timeout:
        assert noted([Failure(code, Reason.CONNECT_TIMEOUT, "x", "X")]) == 0
        assert noted([Failure(code, Reason.UPSTREAM_MUTE, "x", "X")]) == 0


def test_a_deadline_that_the_client_had_shortened_is_its_own() -> None:
    assert noted([LATE, STALLED], clients=True) == 1


def test_timeouts_are_forgotten_after_the_window() -> None:
    timeouts = Timeouts(60.0)
    for now in (0.0, 0.0, 40.0):
        timeouts.call_ended([LATE], LATE, now)
    assert [timeouts.count(now) for now in (40.0, 60.0, 60.1, 101.0)] == [3, 3, 1, 0]
    assert repr(timeouts) == "<Timeouts 0 in 60 s>"


@given(st.lists(st.floats(0.0, 30.0), max_size=50), st.floats(1.0, 100.0))
def test_so_many_as_are_no_older_than_the_window(steps: list[float], window_s: float) -> None:
    timeouts, now, at = Timeouts(window_s), 0.0, []
    for step in steps:
        now += step
        at.append(now)
        timeouts.call_ended([LATE], LATE, now)
        assert timeouts.count(now) == sum(moment >= now - window_s for moment in at)


def test_one_timeout_counts_once_wherever_it_is_told() -> None:
    """A head that went out early, a stream that was held: told in both places, it is one."""
    timeouts = Timeouts(60.0)
    timeouts.call_ended([LATE], LATE, 0.0)
    assert timeouts.count(0.0) == 1
    # A stream that broke off after its head has failed as a call, not as an attempt.
    timeouts.call_ended([], STALLED, 0.0)
    assert timeouts.count(0.0) == 2
    # Two attempts, two timeouts, equal or not.
    timeouts.call_ended([LATE, replace(LATE)], LATE, 0.0)
    assert timeouts.count(0.0) == 4


def test_the_same_body_of_the_same_client_counts_once() -> None:
    timeouts = Timeouts(60.0)
    for pair in (1, 1, 1, 2):
        timeouts.call_ended([LATE, replace(LATE)], LATE, 0.0, pair=pair)
    assert timeouts.count(0.0) == 4


def test_silence_while_an_answer_is_held_back_is_nobodys_failure() -> None:
    timeouts = Timeouts(60.0)
    timeouts.call_ended([], STALLED, 0.0, Circumstances(holds_back=True))
    assert timeouts.count(0.0) == 0


# --- The guard's inputs -----------------------------------------------------------------------


def view(
    model: str | None, state: BreakerState, provider: Provider = Provider.LOCAL
) -> BreakerView:
    return BreakerView(BreakerKey(provider, model), state, 5, 1.0, "")


def test_breakers_lines_and_what_was_measured_become_signals() -> None:
    seats = admission.from_policy(RULES)
    for number in range(3):
        seats.ask(Ticket(Role.HEAVY, "m", 100.0 + number, max_wait_s=10.0), 100.0 + number)
    breakers = [
        view(None, BreakerState.HALF_OPEN),
        view("one", BreakerState.OPEN),
        view("two", BreakerState.HALF_OPEN),
        view("three", BreakerState.CLOSED),
    ]
    assert [str(stopped.key) for stopped in not_closed(breakers)] == [
        "LOCAL",
        "LOCAL/one",
        "LOCAL/two",
    ]
    found = signals(seats, RULES, breakers, 105.0, timeouts=4, upstream_up=False, lag=(0.02, 7))
    row = RULES.roles[Role.HEAVY]
    heavy = QueueState(Role.HEAVY, 2, row.max_queue, 4.0, row.max_wait_ms / 1000)
    assert {line.role for line in found.lines} == set(Role) - {Role.CLOUD}
    assert [line for line in found.lines if line.waiting] == [heavy]
    assert found == Signals(0.02, False, True, 2, found.lines, 4, lag_samples=7)


def test_clouds_that_fail_count_as_one_model_and_not_as_ollama() -> None:
    breakers = [view(model, BreakerState.OPEN, Provider.CLOUD) for model in (None, "a", "b", "c")]
    seats = admission.from_policy(RULES)
    found = signals(seats, RULES, breakers, 0.0, timeouts=0, upstream_up=True, lag=(0.0, 0))
    assert (found.provider_open, found.models_open) == (False, 1)
    guard = HealthGuard(HealthRules())
    guard.update(found, 0.0)
    assert guard.level is Level.DEGRADED


def test_what_one_of_several_hosts_stops_is_no_sign_while_another_takes_it() -> None:
    hosts = {"a": {"url": "http://a"}, "b": {"url": "http://b"}}
    rules = parse(document((("hosts",), hosts)))
    seats = admission.from_policy(rules)

    def found(*stopped: tuple[str | None, str]) -> tuple[bool, int]:
        breakers = [
            BreakerView(
                BreakerKey(Provider.LOCAL, model, Host(host)), BreakerState.OPEN, 5, 1.0, ""
            )
            for model, host in stopped
        ]
        seen = signals(seats, rules, breakers, 0.0, timeouts=0, upstream_up=True, lag=(0.0, 0))
        return seen.provider_open, seen.models_open

    assert found((None, "a"), ("m", "a"), ("n", "b")) == (False, 0)
    assert found((None, "a"), ("m", "a"), ("m", "b"), (None, "b")) == (True, 1)
    # Where a model is on one host alone, there is no other for its calls.
    seats.note_installed(Host("a"), {"m": 1, "n": 1})
    seats.note_installed(Host("b"), {"n": 1})
    assert found(("m", "a"), ("n", "b")) == (False, 1)


def test_nothing_known_is_nothing_wrong() -> None:
    found = signals(
        admission.from_policy(RULES),
        RULES,
        (),
        0.0,
        timeouts=0,
        upstream_up=None,
        lag=(0.0, 0),
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
    guard.update(Signals(lag_p99_s=2.0, lag_samples=300), 0.0)
    assert shedding(guard) == Shedding()
    assert shedding(guard).health == (
        "CRITICAL: event-loop lag p99 2000 ms (CRITICAL from 1000 ms)"
    )


def test_whether_ollama_is_there_is_told_by_the_calls_themselves() -> None:
    guard = HealthGuard(HealthRules())
    guard.update(Signals(upstream_up=False), 0.0)
    assert shedding(guard).health == ""
    guard.update(Signals(upstream_up=True), 1.0)
    assert (guard.level, shedding(guard).health) == (Level.CRITICAL, ""), "it is back by now"
