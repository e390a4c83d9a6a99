"""The Health Guard: measurements in, levels and shedding out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.model import HealthPolicy
from modelsplit_policy.health import (
    MAY_SHED,
    SEVERITY,
    SHEDDING,
    Access,
    Band,
    HealthGuard,
    HealthRules,
    HealthTransition,
    Level,
    QueueState,
    Signal,
    Signals,
    Threshold,
    rules_of,
)
from modelsplit_policy.vocabulary import Role

WELL = Signals(upstream_up=True)
OK, DEGRADED, CRITICAL = Level.OK, Level.DEGRADED, Level.CRITICAL
RULES = HealthRules(
    lag=Band(Threshold(0.050, 0.030), Threshold(0.250, 0.150)),
    lag_samples=0,
    sheds=frozenset(MAY_SHED.values()),
)


def lag(ms: float) -> Signals:
    return replace(WELL, lag_p99_s=ms / 1000)


def line(waiting: int, oldest_s: float, role: Role = Role.EXECUTOR) -> QueueState:
    return QueueState(role, waiting, 64, oldest_s, 8.0)


def levels(*moments: tuple[float, Signals]) -> list[Level]:
    guard = HealthGuard(RULES)
    seen = []
    for now, signals in moments:
        guard.update(signals, now)
        seen.append(guard.level)
    return seen


def cause_of(signals: Signals) -> str:
    guard = HealthGuard(RULES)
    guard.update(signals, 0.0)
    return guard.cause


# --- Levels and causes --------------------------------------------------------------------


def test_a_bad_minute_from_start_to_end() -> None:
    guard = HealthGuard(RULES)
    assert guard.update(WELL, 0.0) is None
    assert (guard.level, guard.cause) == (OK, "")
    assert guard.update(lag(60), 1.0) == HealthTransition(
        OK, DEGRADED, "event-loop lag p99 60 ms (DEGRADED from 50 ms)", 1.0, DEGRADED
    )
    assert guard.update(lag(310), 2.0) == HealthTransition(
        DEGRADED, CRITICAL, "event-loop lag p99 310 ms (CRITICAL from 250 ms)", 2.0, CRITICAL
    )
    assert guard.update(lag(160), 3.0) is None
    assert guard.cause == "event-loop lag p99 160 ms (CRITICAL until 150 ms)"
    assert guard.update(lag(100), 4.0) is None
    assert guard.update(lag(100), 12.9) is None
    assert guard.update(lag(100), 13.0) == HealthTransition(
        CRITICAL,
        DEGRADED,
        "better for 10 s, was: event-loop lag p99 160 ms (CRITICAL until 150 ms); "
        "still: event-loop lag p99 100 ms (DEGRADED from 50 ms)",
        13.0,
        DEGRADED,
    )
    assert guard.update(lag(30), 22.9) is None
    assert guard.update(lag(30), 23.0) == HealthTransition(
        DEGRADED,
        OK,
        "better for 10 s, was: event-loop lag p99 100 ms (DEGRADED from 50 ms)",
        23.0,
        OK,
    )


def test_before_the_first_measurement_all_is_well() -> None:
    guard = HealthGuard(RULES)
    assert (guard.level, guard.shedding) == (OK, OK)
    assert all(guard.may_queue(role) for role in Role)


@pytest.mark.parametrize(
    ("signals", "cause"),
    [
        (lag(50), "event-loop lag p99 50 ms (DEGRADED from 50 ms)"),
        (
            replace(WELL, lines=(line(10, 1.0), line(56, 6.4, Role.CHAT))),
            "queue pressure 0.8, CHAT 56/64 waiting, oldest 6.4 of 8 s (DEGRADED from 0.75)",
        ),
        (replace(WELL, timeouts=5), "5 timeouts in 60 s (DEGRADED from 5)"),
        (replace(WELL, timeouts=15), "15 timeouts in 60 s (CRITICAL from 15)"),
        (
            replace(WELL, silence_s=900.0),
            "a seat is held for 900 s by a call whose answer has not begun (CRITICAL from 900 s)",
        ),
        (replace(WELL, models_open=1), "breakers open for 1 model (DEGRADED from 1)"),
        (replace(WELL, models_open=3), "breakers open for 3 models (CRITICAL from 3)"),
        (replace(WELL, provider_open=True), "the provider's breaker is open"),
        (replace(WELL, upstream_up=False), "the upstream is down"),
        (replace(WELL, upstream_up=None), ""),
        (replace(lag(60), timeouts=15), "15 timeouts in 60 s (CRITICAL from 15)"),
        (replace(lag(60), timeouts=5), "event-loop lag p99 60 ms (DEGRADED from 50 ms)"),
        (replace(lag(300), upstream_up=False), "the upstream is down"),
    ],
)
def test_the_worst_signal_is_the_cause_with_its_number(signals: Signals, cause: str) -> None:
    assert cause_of(signals) == cause


@pytest.mark.parametrize(
    ("one", "pressure"),
    [
        (line(64, 0.5), 0.0625),  # full, but it moves: a burst
        (line(1, 8.0), 1 / 64),  # late, but alone: a busy model
        (line(64, 8.0), 1.0),
        (line(0, 0.0), 0.0),
        (QueueState(Role.CHAT, 0, 0, 0.0, 0.0), 0.0),
    ],
)
def test_a_line_is_under_pressure_when_it_is_full_and_late(
    one: QueueState, pressure: float
) -> None:
    assert one.pressure == pressure


# --- Up at once, down slowly --------------------------------------------------------------


def test_one_bad_moment_holds_for_the_whole_time() -> None:
    assert levels((0, lag(300)), (1, WELL), (9.9, WELL), (10, WELL)) == [CRITICAL] * 3 + [OK]


def test_a_relapse_begins_the_time_anew() -> None:
    moments = ((0, lag(60)), (8, WELL), (9, lag(60)), (18, WELL), (19, WELL))
    assert levels(*moments) == [DEGRADED] * 4 + [OK]


def test_between_the_thresholds_a_bad_signal_stays_bad_and_a_good_one_good() -> None:
    assert levels((0, lag(40)), (20, lag(49))) == [OK, OK]
    assert levels((0, lag(60)), (20, lag(40)), (40, lag(31)), (60, lag(30))) == [DEGRADED] * 3 + [
        OK
    ]


def test_what_was_critical_is_degraded_until_it_is_well() -> None:
    assert levels((0, lag(300)), (1, lag(40)), (11, lag(40))) == [CRITICAL, CRITICAL, DEGRADED]


def test_two_bad_signals_in_turn_are_one_bad_time() -> None:
    timeouts = replace(WELL, timeouts=5)
    moments = ((0, lag(60)), (6, timeouts), (12, timeouts), (21.9, WELL), (22, WELL))
    assert levels(*moments) == [DEGRADED] * 4 + [OK]


def test_without_a_hold_the_level_follows_the_signals() -> None:
    guard = HealthGuard(replace(RULES, hold_s=0.0))
    guard.update(lag(300), 0.0)
    assert guard.level is CRITICAL
    guard.update(WELL, 0.001)
    assert guard.level is OK


# --- Showing is not shedding --------------------------------------------------------------


@pytest.mark.parametrize(
    "signals",
    [
        replace(WELL, upstream_up=False),
        replace(WELL, provider_open=True),
        replace(WELL, models_open=9),
    ],
    ids=["down", "provider breaker", "model breakers"],
)
def test_what_fails_fast_by_itself_is_shown_and_not_shed(signals: Signals) -> None:
    guard = HealthGuard(RULES)
    change = guard.update(signals, 0.0)
    assert change is not None
    assert (change.new, change.shedding) == (CRITICAL, OK)
    assert all(guard.may_queue(role) and guard.may_enter(role) for role in Role)


def test_load_behind_a_worse_signal_still_sheds_and_is_still_told() -> None:
    guard = HealthGuard(RULES)
    down = replace(WELL, upstream_up=False)
    guard.update(down, 0.0)
    assert guard.update(replace(down, timeouts=15), 1.0) == HealthTransition(
        CRITICAL, CRITICAL, "15 timeouts in 60 s (CRITICAL from 15)", 1.0, CRITICAL
    )
    assert guard.cause == "the upstream is down"
    assert guard.update(down, 11.0) == HealthTransition(
        CRITICAL,
        CRITICAL,
        "better for 10 s, was: 15 timeouts in 60 s (CRITICAL from 15)",
        11.0,
        OK,
    )


def test_the_signals_that_may_shed_are_the_ones_that_fewer_calls_cure() -> None:
    assert {Signal.LAG, Signal.QUEUE, Signal.TIMEOUTS} == set(MAY_SHED.values())


def test_as_shipped_a_late_loop_is_shown_and_sheds_nobody() -> None:
    guard = HealthGuard(HealthRules())
    guard.update(replace(lag(1500), lag_samples=600), 0.0)
    assert (guard.level, guard.shedding) == (CRITICAL, OK)
    guard.update(replace(lag(1500), lag_samples=600, timeouts=5), 1.0)
    assert guard.shedding is DEGRADED


def test_where_nothing_sheds_nobody_is_turned_away() -> None:
    guard = HealthGuard(replace(RULES, sheds=frozenset()))
    guard.update(replace(lag(300), timeouts=99), 0.0)
    assert (guard.level, guard.shedding) == (CRITICAL, OK)


# --- No verdict from little ---------------------------------------------------------------


@given(samples=st.integers(0, 700), lag_s=st.floats(0, 100))
def test_no_verdict_from_a_quantile_of_few_samples(samples: int, lag_s: float) -> None:
    guard = HealthGuard(HealthRules(sheds=frozenset(MAY_SHED.values())))
    guard.update(Signals(lag_p99_s=lag_s, lag_samples=samples), 0.0)
    judged = samples >= 300 and lag_s >= 0.25
    assert (guard.level is not OK) == (guard.shedding is not OK) == judged


def test_a_busy_host_is_no_late_loop() -> None:
    """The P99 beside eight busy threads on two cores, and one stall of a CPU quota."""
    for late_s in (0.04, 0.1):
        guard = HealthGuard(HealthRules())
        guard.update(Signals(lag_p99_s=late_s, lag_samples=600), 0.0)
        assert guard.level is OK


@given(max_queue=st.integers(0, 200), waiting=st.integers(0, 5))
def test_a_few_calls_in_line_are_no_pressure_however_short_the_line(
    max_queue: int, waiting: int
) -> None:
    guard = HealthGuard(HealthRules())
    guard.update(Signals(lines=(QueueState(Role.CHAT, waiting, max_queue, 60.0, 10.0),)), 0.0)
    assert guard.level is OK


def test_the_rules_are_the_policys() -> None:
    assert rules_of(HealthPolicy()) == HealthRules()
    policy = HealthPolicy(lag_samples=9, sheds=("event_loop_lag",), hold_ms=500, timeouts_ms=2000)
    rules = rules_of(policy)
    assert rules.sheds == frozenset({Signal.LAG})
    assert (rules.lag_samples, rules.hold_s, rules.timeouts_window_s) == (9, 0.5, 2.0)


def test_who_may_come_in() -> None:
    rows = []
    for level, signals in ((OK, WELL), (DEGRADED, lag(60)), (CRITICAL, lag(300))):
        guard = HealthGuard(RULES)
        guard.update(signals, 0.0)
        rows += [(level, role, guard.may_enter(role), guard.may_queue(role)) for role in Role]
    turned_away = [(level, role) for level, role, enter, _ in rows if not enter]
    seat_only = [(level, role) for level, role, enter, queue in rows if enter and not queue]
    assert turned_away == [(CRITICAL, Role.HEAVY), (CRITICAL, Role.CHAT)]
    assert seat_only == [
        (DEGRADED, Role.HEAVY),
        (DEGRADED, Role.CHAT),
        (CRITICAL, Role.EXECUTOR),
    ]


def test_the_shedding_table_is_whole_and_never_kinder_at_a_worse_level() -> None:
    assert set(SHEDDING) == {(level, role) for level in Level for role in Role}
    room = [Access.LINE, Access.SEAT, Access.NONE]
    for role in Role:
        steps = [room.index(SHEDDING[level, role]) for level in Level]
        assert steps == sorted(steps)


# --- Rules and words ----------------------------------------------------------------------


def test_a_level_must_be_left_below_where_it_is_entered() -> None:
    with pytest.raises(ValueError, match="left below"):
        Threshold(0.05, 0.05)


@pytest.mark.parametrize("critical", [Threshold(4, 3), Threshold(6, 1)])
def test_critical_must_lie_above_degraded(critical: Threshold) -> None:
    with pytest.raises(ValueError, match="above degraded"):
        Band(Threshold(5, 3), critical)


def test_the_repr_is_for_an_incident() -> None:
    guard = HealthGuard(RULES)
    assert repr(guard) == "<HealthGuard OK, shedding OK>"
    guard.update(replace(lag(60), upstream_up=False), 0.0)
    assert repr(guard) == "<HealthGuard CRITICAL, shedding DEGRADED: the upstream is down>"


# --- Whatever happens ---------------------------------------------------------------------

SIGNALS = st.builds(
    Signals,
    lag_p99_s=st.sampled_from([0.0, 0.03, 0.04, 0.06, 0.15, 0.2, 0.3]),
    upstream_up=st.sampled_from([True, None, False]),
    provider_open=st.booleans(),
    models_open=st.integers(0, 4),
    lines=st.lists(st.builds(line, st.integers(0, 64), st.floats(0, 9)), max_size=2).map(tuple),
    timeouts=st.integers(0, 20),
)
GAPS = st.sampled_from([0.0, 0.1, 1.0, 5.0, 9.9, 10.0, 25.0])


def worse(one: Signals, other: Signals) -> Signals:
    """Signals at least as bad as either."""
    down = False in {one.upstream_up, other.upstream_up}
    return Signals(
        lag_p99_s=max(one.lag_p99_s, other.lag_p99_s),
        upstream_up=not down,
        provider_open=one.provider_open or other.provider_open,
        models_open=max(one.models_open, other.models_open),
        lines=one.lines + other.lines,
        timeouts=max(one.timeouts, other.timeouts),
    )


@given(st.lists(st.tuples(GAPS, SIGNALS, SIGNALS), max_size=30))
def test_worse_signals_never_make_a_better_level(
    moments: list[tuple[float, Signals, Signals]],
) -> None:
    mild, bad, now = HealthGuard(RULES), HealthGuard(RULES), 0.0
    for gap, signals, more in moments:
        now += gap
        mild.update(signals, now)
        bad.update(worse(signals, more), now)
        assert SEVERITY[bad.level] >= SEVERITY[mild.level]
        assert SEVERITY[bad.shedding] >= SEVERITY[mild.shedding]


@given(st.lists(st.tuples(GAPS, SIGNALS), max_size=40))
def test_no_level_is_left_before_its_time(moments: list[tuple[float, Signals]]) -> None:
    """Down only after ``hold_s``, counted from the entry and from the last bad measurement."""
    guard, now = HealthGuard(RULES), 0.0
    entered: dict[Level, float] = {}
    bad_at: dict[Level, float] = {}
    for gap, signals in moments:
        now += gap
        old = guard.level
        change = guard.update(signals, now)
        alone = HealthGuard(RULES)
        alone.update(signals, now)
        assert SEVERITY[guard.level] >= SEVERITY[alone.level]
        assert SEVERITY[guard.level] >= SEVERITY[guard.shedding]
        assert bool(guard.cause) == (guard.level is not OK)
        assert (change is None) or (change.old, change.new) == (old, guard.level)
        for level in (DEGRADED, CRITICAL):
            stood, stands = (
                SEVERITY[old] >= SEVERITY[level],
                SEVERITY[guard.level] >= SEVERITY[level],
            )
            if stands and not stood:
                entered[level] = now
            if stood and not stands:
                assert now - entered[level] >= RULES.hold_s
                assert now - bad_at[level] >= RULES.hold_s
            if SEVERITY[alone.level] >= SEVERITY[level]:
                bad_at[level] = now
