"""Who runs next: the rule of ``admission``'s head comment, held to its word."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelsplit_policy.admission import PATIENCE_S, Admission, Shedding
from modelsplit_policy.failures import Failure, Reason
from modelsplit_policy.hosts import HostSeats
from modelsplit_policy.parallelism import Parallelism, Report
from modelsplit_policy.pools import PoolLimits
from modelsplit_policy.tickets import Hold, Place, Ticket
from modelsplit_policy.vocabulary import Role

PLANNER, EXECUTOR, HEAVY, CLOUD, CHAT = Role

POOLS = {
    PLANNER: PoolLimits(seats=2, max_queue=4, reserved=1),
    EXECUTOR: PoolLimits(seats=5, max_queue=4, ageing_s=4.0),
    HEAVY: PoolLimits(seats=1, max_queue=4, ageing_s=6.0),
    CLOUD: PoolLimits(seats=None, max_queue=4, counts_globally=False),
    CHAT: PoolLimits(seats=None, max_queue=4, ageing_s=3.0),
}
PLENTY = dict.fromkeys("mnop", 6)


def make(
    pools: dict[Role, PoolLimits] | None = None,
    *,
    seats: int = 6,
    models: dict[str, int] | None = None,
    host: int | None = 6,
    forecasts: bool = False,
) -> Admission:
    learned = Parallelism(cap=seats, host=host, models=PLENTY if host else {})
    hosts = [HostSeats(seats, models or {}, learned)]
    return Admission(POOLS | (pools or {}), hosts, forecasts=forecasts)


def ask(
    under_test: Admission, role: Role, now: float = 0.0, model: str = "m", **more: Any
) -> Ticket:
    ticket = Ticket(role, model, now, **more)
    under_test.ask(ticket, now)
    under_test.fill(now)
    return ticket


def leave(under_test: Admission, ticket: Ticket, now: float) -> list[Ticket]:
    under_test.leave(ticket, now)
    return under_test.fill(now)


def refused(under_test: Admission, role: Role, now: float = 0.0, **more: Any) -> Failure:
    refusal = under_test.ask(Ticket(role, "m", now, **more), now)
    assert refusal is not None
    return refusal


# Seats.


def test_a_role_runs_as_many_calls_as_its_cap_and_the_next_waits() -> None:
    under_test = make()
    places = [ask(under_test, PLANNER).place for _ in range(3)]
    assert places == [Place.SEATED, Place.SEATED, Place.WAITING]
    assert under_test.waiters(1.0)[0].hold is Hold.ROLE_CAP


def test_all_local_roles_share_the_global_cap_and_cloud_does_not_count() -> None:
    under_test = make()
    held = [ask(under_test, PLANNER) for _ in range(2)] + [
        ask(under_test, EXECUTOR) for _ in range(4)
    ]
    assert {ticket.place for ticket in held} == {Place.SEATED}
    assert ask(under_test, CHAT).place is Place.WAITING
    assert ask(under_test, CLOUD).place is Place.SEATED
    assert under_test.waiters(0.0)[0].hold is Hold.GLOBAL_CAP


def test_five_executors_and_a_heavy_call_cannot_keep_the_planner_out() -> None:
    under_test = make()
    for _ in range(5):
        assert ask(under_test, EXECUTOR).place is Place.SEATED
    heavy = ask(under_test, HEAVY)
    assert heavy.place is Place.WAITING
    assert under_test.waiters(0.0)[0].hold is Hold.RESERVED
    assert ask(under_test, PLANNER).place is Place.SEATED


def test_a_lent_seat_is_used_and_given_back_at_the_next_release() -> None:
    lending = {PLANNER: PoolLimits(seats=2, max_queue=4, reserved=1, lends=True)}
    under_test = make(lending)
    executors = [ask(under_test, EXECUTOR) for _ in range(5)]
    assert ask(under_test, HEAVY).place is Place.SEATED
    assert under_test.lent == 1
    chat = ask(under_test, CHAT, now=0.0)
    planner = ask(under_test, PLANNER, now=60.0)
    assert planner.place is Place.WAITING
    assert leave(under_test, executors[0], 61.0) == [planner]
    assert chat.place is Place.WAITING


def test_a_model_runs_as_many_calls_as_its_cap_whatever_the_role() -> None:
    under_test = make(models={"m": 1})
    assert ask(under_test, EXECUTOR).place is Place.SEATED
    waiting = ask(under_test, CHAT)
    assert waiting.place is Place.WAITING
    assert under_test.waiters(0.0)[0].hold is Hold.MODEL_CAP
    assert ask(under_test, CHAT, model="n").place is Place.SEATED


def test_a_full_line_refuses_at_once_with_the_numbers() -> None:
    under_test = make()
    for _ in range(6):
        ask(under_test, PLANNER)
    refusal = refused(under_test, PLANNER)
    assert refusal.reason is Reason.QUEUE_FULL
    assert "its queue is full (2/2 running, 4/4 waiting)" in refusal.message
    assert refusal.retry_after_s is not None
    assert 1 <= refusal.retry_after_s <= 30


def timed_out(under_test: Admission, ticket: Ticket) -> str:
    """What a waiting call is told whose time is over; and that its record says the same."""
    refusal = under_test.refusal(Reason.QUEUE_TIMEOUT, ticket, ticket.arrived + 8.0)
    held = ticket.held
    under_test.leave(ticket, ticket.arrived + 8.0)
    assert under_test.crowd(ticket).hold is held
    return refusal.message


def test_who_waits_in_vain_is_told_the_limit_that_held_it() -> None:
    alone = make(host=1)
    ask(alone, CHAT)
    message = timed_out(alone, ask(alone, HEAVY, model="n"))
    assert "in 8.0 s (1 at once known to be worth running, 1 running, 1/" in message

    capped = make(models={"m": 1})
    ask(capped, EXECUTOR)
    assert "(1/1 of m running, 1/" in timed_out(capped, ask(capped, CHAT))

    kept = make({PLANNER: PoolLimits(seats=2, max_queue=4, reserved=1)}, seats=2)
    ask(kept, EXECUTOR)
    assert "(free seats are kept for PLANNER, 1/" in timed_out(kept, ask(kept, CHAT))

    taken = make(seats=2)
    ask(taken, PLANNER)
    ask(taken, EXECUTOR)
    assert "(2/2 of all roles running, 1/" in timed_out(taken, ask(taken, CHAT))


def test_retry_after_follows_how_long_calls_take() -> None:
    slow = make()
    for number in range(30):
        ticket = ask(slow, PLANNER, now=number * 20.0)
        leave(slow, ticket, number * 20.0 + 12.0)
    for _ in range(6):
        ask(slow, PLANNER, now=1000.0)
    assert refused(slow, PLANNER, now=1000.0).retry_after_s == 30
    assert refused(make({PLANNER: PoolLimits(2, 0)}, seats=0), PLANNER).retry_after_s == 1


def test_how_long_a_host_that_hangs_keeps_calls_is_not_how_long_calls_take() -> None:
    under_test = make(host=None)
    before = ask(under_test, PLANNER)
    report = Report(tokens=100, eval_s=40.0, prompt_s=0.1, load_s=0.0, total_s=40.1)
    under_test.mute(is_mute=True)
    under_test.leave(before, 40.0, report)
    # Who comes while it hangs is held up too, even where it has answered all others by then.
    meanwhile = ask(under_test, PLANNER, now=41.0)
    under_test.mute(is_mute=False)
    under_test.leave(meanwhile, 60.0, report)
    assert under_test.expected_wait_s(Ticket(PLANNER, "m", 61.0), 9) == pytest.approx(
        make(host=None).expected_wait_s(Ticket(PLANNER, "m", 0.0), 9)
    )
    # From then on it is learned again.
    under_test.leave(ask(under_test, PLANNER, now=70.0), 100.0, report)
    assert under_test.expected_wait_s(Ticket(PLANNER, "m", 101.0), 9) > 9.0


def test_a_seat_given_back_twice_is_given_back_once() -> None:
    under_test = make()
    ticket = ask(under_test, HEAVY)
    leave(under_test, ticket, 1.0)
    leave(under_test, ticket, 2.0)
    assert under_test.running(HEAVY) == 0
    assert under_test.running_local == 0


# Order.


def test_planners_that_come_within_an_executors_ageing_go_first_and_no_later_ones() -> None:
    under_test = make({PLANNER: PoolLimits(seats=2, max_queue=9)}, seats=1)
    running = ask(under_test, CHAT, now=0.0)
    executor = ask(under_test, EXECUTOR, now=1.0)
    early = ask(under_test, PLANNER, now=4.9)
    late = ask(under_test, PLANNER, now=5.1)
    assert leave(under_test, running, 6.0) == [early]
    assert leave(under_test, early, 7.0) == [executor]
    assert leave(under_test, executor, 8.0) == [late]


def test_a_role_stands_for_its_longest_waiter_however_fair_its_line_is() -> None:
    """New clients keep coming to the head of the line; the role must not look young for it."""
    under_test = make({PLANNER: PoolLimits(seats=2, max_queue=9)}, seats=1)
    running = ask(under_test, CHAT, now=0.0)
    for _ in range(3):
        ask(under_test, EXECUTOR, now=0.0, client="burst")
    leave(under_test, running, 1.0)  # the first of the burst runs
    newcomer = ask(under_test, EXECUTOR, now=8.0, client="other")
    planner = ask(under_test, PLANNER, now=8.0)
    first = next(t for t in [newcomer, planner] if t.place is Place.WAITING)
    assert first is newcomer  # both wait
    running_now = under_test.running(EXECUTOR)
    assert running_now == 1


def test_of_two_calls_of_a_role_the_one_whose_model_is_loaded_goes_first_for_a_while() -> None:
    under_test = make(seats=1, pools={PLANNER: PoolLimits(seats=2, max_queue=4)})
    under_test.note_loaded({"m": True, "n": False})
    running = ask(under_test, CHAT, now=0.0)
    cold = ask(under_test, CHAT, now=0.1, model="n")
    warm = ask(under_test, CHAT, now=0.2, model="m")
    assert leave(under_test, running, 1.0) == [warm]
    ask(under_test, CHAT, now=1.1, model="m")
    assert leave(under_test, warm, 0.1 + PATIENCE_S) == [cold]


def test_a_call_at_the_front_of_its_role_takes_the_next_seat() -> None:
    under_test = make()
    held = [ask(under_test, PLANNER, now=0.0) for _ in range(2)]
    ask(under_test, PLANNER, now=1.0)
    retry = ask(under_test, PLANNER, now=2.0, front=True)
    assert leave(under_test, held[0], 3.0) == [retry]


# Usefulness.


def knowing(
    shares: dict[int, float],
    pools: dict[Role, PoolLimits] | None = None,
    *,
    forecasts: bool = False,
) -> Admission:
    """Models m, n and o; at n at once each runs at such a share of its speed alone."""
    under_test = make(pools, host=None, forecasts=forecasts)
    learned = under_test.host().parallelism
    work = Report(tokens=50, eval_s=1.0, prompt_s=0.0, load_s=0.0, total_s=1.0)
    now = -100.0
    for model in "mno" * 2:
        learned.end(learned.start(model, now, resident=True), now + 1.0, 1.0, work)
        now += 1.0
    for n, share in shares.items():
        took = work._replace(eval_s=1 / share, total_s=1 / share)
        flights = [learned.start(model, now, resident=True) for model in "mno"[:n]]
        for flight in flights:
            learned.end(flight, now + 1 / share, 1 / share, took)
        now += 1 / share
    return under_test


GUARDED = {PLANNER: PoolLimits(seats=2, max_queue=4, reserved=1, protected=True)}
FIERCE, NEUTRAL = {2: 1 / 6}, {2: 0.5}


def test_being_held_is_no_licence_to_start_where_one_more_costs_more_than_it_gains() -> None:
    under_test = knowing(FIERCE)
    running = ask(under_test, EXECUTOR, now=0.0)
    held = [ask(under_test, role, now=0.1, model="n") for role in (PLANNER, EXECUTOR, HEAVY)]
    assert under_test.waiters(0.2)[0].hold is Hold.PARALLELISM
    for ticket in held:
        under_test.due(ticket)
    assert under_test.fill(7.5) == []
    assert leave(under_test, running, 7.6) == [held[0]]


def test_a_role_that_would_rather_be_late_is_started_and_one_such_call_at_a_time() -> None:
    late = {CHAT: PoolLimits(seats=None, max_queue=4, ageing_s=3.0, starts_late=True)}
    under_test = knowing(FIERCE, late)
    running = ask(under_test, EXECUTOR, now=0.0)
    first, second = (ask(under_test, CHAT, now=0.1, model="n") for _ in range(2))
    for ticket in (first, second):
        under_test.due(ticket)
    assert under_test.fill(9.5) == [first]
    assert leave(under_test, running, 9.8) == []
    assert leave(under_test, first, 12.0) == [second]


def test_where_sharing_costs_nothing_in_all_an_overdue_call_starts_beside_one_other() -> None:
    under_test = knowing(NEUTRAL)
    ask(under_test, EXECUTOR, now=0.0)
    first = ask(under_test, PLANNER, now=0.1, model="n")
    second = ask(under_test, PLANNER, now=0.1, model="o")
    assert (first.place, second.place) == (Place.WAITING, Place.WAITING)
    for ticket in (first, second):
        under_test.due(ticket)
    assert under_test.fill(1.1) == [first]
    assert (first.overdue, under_test.host().overdue) == (True, 1)
    assert leave(under_test, first, 2.0) == [second]


def overdue_planner(beside_s: float | None, max_wait_s: float = 8.0) -> tuple[Admission, Ticket]:
    """Overdue on a host of which nothing is known, beside an executor that began at 0.

    ``beside_s``: how long such executors take; planners take 0.6 s.
    """
    under_test = knowing({}, GUARDED)
    leave(under_test, ask(under_test, PLANNER, now=-20.0, model="n"), -19.4)
    if beside_s is not None:
        leave(under_test, ask(under_test, EXECUTOR, now=-15.0), beside_s - 15.0)
    ask(under_test, EXECUTOR, now=0.0)
    planner = ask(under_test, PLANNER, now=0.1, model="n", max_wait_s=max_wait_s)
    under_test.due(planner)
    return under_test, planner


def test_where_nobody_knows_what_company_costs_an_overdue_call_waits_for_what_runs() -> None:
    """Two at once may be six times as slow: it would be later than behind the other."""
    under_test, planner = overdue_planner(beside_s=1.2)
    assert under_test.fill(0.5) == []
    assert under_test.look_at == pytest.approx(1.2 - 0.3), "the last half of the shorter call"
    assert under_test.fill(0.91) == [planner], "and it shows what company costs"


@pytest.mark.parametrize(
    ("beside_s", "max_wait_s", "starts"),
    [
        (5.0, 8.0, True),
        (3.0, 8.0, False),
        pytest.param(3.0, 2.0, True, id="its wait ends before"),
    ],
)
def test_beside_a_call_that_takes_much_longer_an_overdue_call_does_not_wait(
    beside_s: float, max_wait_s: float, starts: bool
) -> None:
    """Six times as slow beside it, it is about as late as behind what takes six times as long."""
    under_test, planner = overdue_planner(beside_s, max_wait_s)
    assert under_test.fill(1.1) == [planner] * starts


def test_while_another_planner_waits_none_shows_what_calls_of_other_roles_cost() -> None:
    under_test, first = overdue_planner(beside_s=1.2)
    second = ask(under_test, PLANNER, now=0.3, model="n", max_wait_s=8.0)
    assert under_test.fill(0.91) == []
    assert leave(under_test, second, 0.92) == [first]


def test_beside_a_planner_one_of_two_that_wait_may_show_what_company_costs() -> None:
    """Planners take little time, and of one model they often wait for one slot."""
    under_test = knowing({}, GUARDED)
    lengths(under_test, n=0.6)
    ask(under_test, PLANNER, now=0.0, model="n")
    first, second = (ask(under_test, PLANNER, now=0.1, model="n") for _ in range(2))
    for ticket in (first, second):
        under_test.due(ticket)
    assert under_test.fill(0.4) == [first]


def test_while_a_planner_waits_no_executor_shows_what_company_costs() -> None:
    under_test = knowing({}, GUARDED)
    lengths(under_test, n=0.6)
    ask(under_test, EXECUTOR, now=0.0)
    executor = ask(under_test, EXECUTOR, now=0.1, model="o", max_wait_s=8.0)
    planner = ask(under_test, PLANNER, now=7.5, model="n")
    under_test.due(executor)
    assert under_test.fill(7.7) == []
    assert leave(under_test, planner, 7.8) == [executor]


@pytest.mark.parametrize(("began", "starts"), [(6.9, True), (7.4, False)])
def test_beside_a_planner_that_has_waited_nobody_shows_what_company_costs(
    began: float, starts: bool
) -> None:
    under_test = knowing({}, GUARDED)
    lengths(under_test, n=0.6, m=1.0)
    before = ask(under_test, EXECUTOR, now=6.0)
    executor = ask(under_test, EXECUTOR, now=6.1, model="o", max_wait_s=1.5)
    planner = ask(under_test, PLANNER, now=6.5, model="n")
    assert leave(under_test, before, began) == [planner]
    under_test.due(executor)
    assert under_test.fill(7.55) == [executor] * starts


def test_beside_a_call_of_which_nobody_knows_how_long_it_takes_a_call_waits_to_its_end() -> None:
    under_test, planner = overdue_planner(beside_s=None)
    assert under_test.fill(1.1) == []
    assert under_test.look_at == pytest.approx(0.1 + planner.last_in_s) == pytest.approx(7.6)
    assert under_test.fill(7.61) == [planner]


def test_only_one_overdue_call_shows_what_company_costs() -> None:
    under_test = knowing({}, GUARDED)
    running = ask(under_test, EXECUTOR, now=0.0)
    planner = ask(under_test, PLANNER, now=0.1, model="n", max_wait_s=8.0)
    waiting = ask(under_test, EXECUTOR, now=0.2, model="o", max_wait_s=10.0)
    for ticket in (planner, waiting):
        under_test.due(ticket)
    assert under_test.fill(7.9) == [planner]
    assert leave(under_test, planner, 8.5) == [], "it failed: what it cost is not known yet"
    assert leave(under_test, running, 9.0) == [waiting]


def lengths(under_test: Admission, **seconds: float) -> None:
    """So long calls of these models take: planners of n, executors of m, heavy calls of o."""
    for role, model in ((PLANNER, "n"), (EXECUTOR, "m"), (HEAVY, "o")):
        if model in seconds:
            call = ask(under_test, role, now=-50.0, model=model)
            leave(under_test, call, seconds[model] - 50.0)


def test_an_overdue_call_that_has_no_company_any_more_holds_no_planner_back() -> None:
    under_test = knowing({}, GUARDED)
    lengths(under_test, n=1.0)
    running = ask(under_test, EXECUTOR, now=0.0)
    overdue = ask(under_test, EXECUTOR, now=0.1, model="o", max_wait_s=8.0)
    under_test.due(overdue)
    assert under_test.fill(7.9) == [overdue]
    planner = ask(under_test, PLANNER, now=8.0, model="n", max_wait_s=8.0)
    under_test.due(planner)
    assert under_test.fill(15.6) == [], "two run, and nobody knows what a third one costs"
    assert leave(under_test, running, 15.7) == [planner]
    assert under_test.host().overdue == 2, "one of them alone beside the other"


def test_a_call_that_would_harm_waits_for_an_overdue_one_though_it_runs_alone() -> None:
    late = {CHAT: PoolLimits(seats=None, max_queue=4, ageing_s=3.0, starts_late=True)}
    under_test = knowing(FIERCE, late)
    running = ask(under_test, EXECUTOR, now=0.0)
    first, second = (ask(under_test, CHAT, now=0.1, model="n") for _ in range(2))
    under_test.due(first)
    assert under_test.fill(9.5) == [first]
    assert leave(under_test, running, 9.8) == []
    under_test.due(second)
    assert under_test.fill(11.0) == [], "else there were two at once for ever"


def test_an_overdue_executor_beside_a_heavy_call_holds_no_planner_back() -> None:
    under_test = knowing(NEUTRAL, GUARDED)
    lengths(under_test, n=1.0, m=20.0, o=40.0)
    ask(under_test, HEAVY, now=0.0, model="o")
    executor = ask(under_test, EXECUTOR, now=0.1, max_wait_s=8.0)
    under_test.due(executor)
    assert under_test.fill(7.9) == [executor]
    planner, other = (ask(under_test, PLANNER, now=8.0, model="n") for _ in range(2))
    chat = ask(under_test, CHAT, now=8.0, model="p")
    for ticket in (planner, other, chat):
        under_test.due(ticket)
    assert under_test.fill(9.0) == [planner], "two take nothing from each other; of three it shows"
    assert leave(under_test, planner, 12.0) == [other], "one after the other"
    assert leave(under_test, executor, 13.0) == [], "a chat joins nobody"
    assert leave(under_test, other, 14.0) == [chat]


@pytest.mark.parametrize("shares", [{}, FIERCE])
def test_where_company_may_cost_something_a_planner_waits_its_hold(
    shares: dict[int, float],
) -> None:
    under_test = knowing(shares, GUARDED)
    lengths(under_test, n=1.0, m=20.0)
    ask(under_test, EXECUTOR, now=0.0)
    assert ask(under_test, PLANNER, now=1.0, model="n").place is Place.WAITING


@pytest.mark.parametrize(
    ("at", "place"), [(1.0, Place.SEATED), (8.9, Place.SEATED), (9.1, Place.WAITING)]
)
def test_where_company_takes_nothing_a_planner_does_not_wait_for_what_takes_longer_than_itself(
    at: float, place: Place
) -> None:
    under_test = knowing(NEUTRAL, GUARDED)
    lengths(under_test, n=4.0, m=13.0)
    ask(under_test, EXECUTOR, now=0.0)
    planner = ask(under_test, PLANNER, now=at, model="n")
    assert planner.place is place
    executor = ask(under_test, EXECUTOR, now=at, model="o")
    assert executor.place is Place.WAITING, "others wait until they are overdue"


def test_a_burst_of_planners_does_not_wait_for_one_of_them_to_show_it() -> None:
    under_test = knowing({}, GUARDED)
    running = ask(under_test, EXECUTOR, now=0.0)
    burst = [ask(under_test, PLANNER, now=0.1, model="n") for _ in range(3)]
    for ticket in burst:
        under_test.due(ticket)
    assert under_test.fill(1.1) == []
    assert leave(under_test, running, 1.5)[0] is burst[0]


def test_what_the_policy_gives_is_obeyed_by_overdue_calls_too() -> None:
    under_test = make(host=1)
    ask(under_test, EXECUTOR, now=0.0)
    held = ask(under_test, EXECUTOR, now=0.0)
    under_test.due(held)
    assert under_test.fill(7.5) == []


def test_no_probe_while_a_planner_waits_or_beside_more_than_half_of_one() -> None:
    """Each executor comes in the moment in which it would be a good probe otherwise."""
    under_test = knowing({}, GUARDED)
    for began in (0.0, 2.0):  # how long executors of both models take
        for model in "no":
            leave(under_test, ask(under_test, EXECUTOR, now=began, model=model), began + 1.0)
    leave(under_test, ask(under_test, PLANNER, now=-20.0), -19.0)
    planner = ask(under_test, PLANNER, now=10.0)
    assert ask(under_test, EXECUTOR, now=10.4, model="n").place is Place.WAITING
    [executor] = leave(under_test, planner, 11.0)
    late = ask(under_test, PLANNER, now=11.1)
    assert late.place is Place.WAITING
    assert ask(under_test, EXECUTOR, now=11.6, model="o").place is Place.WAITING
    assert [ticket.model for ticket in leave(under_test, late, 11.61)] == ["o"], "nobody minds now"
    leave(under_test, executor, 12.0)


@pytest.mark.parametrize(("known", "place"), [(True, Place.SEATED), (False, Place.WAITING)])
def test_a_call_of_which_nobody_knows_how_long_it_takes_is_no_probe(
    known: bool, place: Place
) -> None:
    """Also before the first planner: whoever comes meanwhile waits for it."""
    under_test = knowing({}, GUARDED)
    lengths(under_test, m=1.0)
    if known:
        lengths(under_test, o=3.0)
    ask(under_test, EXECUTOR, now=2.0)
    assert ask(under_test, HEAVY, now=2.1, model="o").place is place


@pytest.mark.parametrize(("apart_s", "probes"), [(20.0, True), (4.0, False)])
def test_no_probe_that_lasts_as_long_as_planners_stay_away(apart_s: float, probes: bool) -> None:
    """Also while too few have come to say when the next one does."""
    under_test = knowing({}, GUARDED)
    lengths(under_test, m=1.0, o=5.0)
    for at in (-2 * apart_s, -apart_s, 0.0):
        leave(under_test, ask(under_test, PLANNER, now=at, model="n"), at + 0.6)
    ask(under_test, EXECUTOR, now=20.0)
    heavy = ask(under_test, HEAVY, now=20.1, model="o")
    assert under_test.fill(20.9) == [heavy] * probes


def test_a_probe_runs_beside_the_end_of_another_call_once_planners_come_at_all() -> None:
    under_test = knowing({}, GUARDED)
    for number in range(4):
        leave(
            under_test,
            ask(under_test, EXECUTOR, now=float(number), model="no"[number % 2]),
            number + 0.9,
        )
    leave(under_test, ask(under_test, PLANNER, now=5.0), 6.0)
    ask(under_test, EXECUTOR, now=10.0, model="n")
    probe = ask(under_test, EXECUTOR, now=10.1, model="o")
    assert probe.place is Place.WAITING
    at = under_test.look_at
    assert at is not None
    assert 10.3 < at < 10.7
    assert under_test.fill(at + 0.01) == [probe]


def test_a_planner_is_no_probe_until_two_at_once_are_known_to_pay() -> None:
    """Planners come in bursts: all of them would wait for the first."""
    under_test = knowing({}, GUARDED)
    for began in (0.0, 2.0):
        leave(under_test, ask(under_test, PLANNER, now=began, model="n"), began + 1.0)
        leave(under_test, ask(under_test, EXECUTOR, now=began + 1.0), began + 2.0)
    ask(under_test, EXECUTOR, now=10.0)
    assert ask(under_test, PLANNER, now=10.6, model="n").place is Place.WAITING


def on_gpu() -> Admission:
    """A host that says that all is in its GPU. Planners and executors take 1 s, of p 20."""
    under_test = knowing({}, GUARDED)
    under_test.note_loaded({}, on_gpu=True)
    for role, model, length_s in (
        (PLANNER, "n", 1.0),
        (EXECUTOR, "n", 1.0),
        (EXECUTOR, "o", 1.0),
        (EXECUTOR, "p", 20.0),
    ):
        leave(under_test, ask(under_test, role, now=-50.0, model=model), length_s - 50.0)
    return under_test


def test_on_a_gpu_a_probe_does_not_wait_for_the_end_of_another_call() -> None:
    under_test = on_gpu()
    leave(under_test, ask(under_test, PLANNER, now=5.0), 6.0)
    ask(under_test, EXECUTOR, now=10.0, model="n")
    assert ask(under_test, EXECUTOR, now=10.1, model="o").place is Place.SEATED


def test_on_a_gpu_a_planner_may_be_the_first_probe() -> None:
    under_test = on_gpu()
    ask(under_test, EXECUTOR, now=10.0)
    assert ask(under_test, PLANNER, now=10.1, model="n").place is Place.SEATED


def test_on_a_gpu_an_overdue_call_does_not_rather_wait_for_what_runs() -> None:
    under_test = on_gpu()
    for at in (-4.0, -2.0, 0.0):  # too often for anybody to be a probe
        leave(under_test, ask(under_test, PLANNER, now=at), at + 0.5)
    ask(under_test, EXECUTOR, now=1.0, model="n")
    executor = ask(under_test, EXECUTOR, now=1.1, model="p")
    assert executor.place is Place.WAITING
    under_test.due(executor)
    assert under_test.fill(1.2) == [executor]


def test_a_host_that_no_longer_computes_on_its_gpu_is_no_longer_trusted() -> None:
    under_test = on_gpu()
    under_test.note_loaded({}, on_gpu=False)
    ask(under_test, EXECUTOR, now=10.0)
    assert ask(under_test, PLANNER, now=10.1, model="n").place is Place.WAITING


def test_where_two_at_once_pay_a_planner_finds_out_about_three_instead_of_waiting() -> None:
    under_test = knowing({2: 0.9}, GUARDED)
    for role, model in ((EXECUTOR, "m"), (HEAVY, "n")):
        ask(under_test, role, now=10.0, model=model)
    planner = ask(under_test, PLANNER, now=10.1, model="o")
    assert planner.place is Place.SEATED
    assert planner.flight is not None
    assert planner.flight.probe
    assert ask(under_test, EXECUTOR, now=10.2, model="p").place is Place.WAITING


def test_no_probe_while_somebodys_wait_is_about_to_end() -> None:
    under_test = knowing({})
    for _ in range(2):
        leave(under_test, ask(under_test, EXECUTOR, now=0.0, model="n"), 2.0)
    under_test.shedding = Shedding()
    ask(under_test, EXECUTOR, now=10.0)
    soon = Ticket(HEAVY, "m", 10.0, max_wait_s=1.0)
    under_test.ask(soon, 10.0)
    assert ask(under_test, EXECUTOR, now=10.1, model="n").place is Place.WAITING


def in_step(gap_s: float) -> Admission:
    """On a host worth one call at a time planners come every ``gap_s``, the last one at 0."""
    under_test = knowing(FIERCE, GUARDED)
    for number in range(-20, 1):
        at = number * gap_s
        leave(under_test, ask(under_test, PLANNER, now=at), at + 0.5)
    return under_test


def test_the_last_useful_seat_is_held_free_for_a_planner_that_is_about_to_come() -> None:
    under_test = in_step(3.0)
    executor = ask(under_test, EXECUTOR, now=2.6)
    assert executor.place is Place.WAITING
    assert under_test.waiters(2.6)[0].hold is Hold.RESERVED
    planner = ask(under_test, PLANNER, now=3.0)
    assert planner.place is Place.SEATED
    assert leave(under_test, planner, 3.5) == [executor]


def test_a_planner_that_is_not_likely_soon_keeps_no_seat_free() -> None:
    assert ask(in_step(3.0), EXECUTOR, now=1.0).place is Place.SEATED


def test_a_planner_that_does_not_come_keeps_the_seat_free_for_a_moment_only() -> None:
    under_test = in_step(3.0)
    executor = ask(under_test, EXECUTOR, now=2.6)
    at = under_test.look_at
    assert at is not None
    assert 3.0 < at < 3.2
    assert under_test.fill(at) == [executor]
    assert under_test.look_at is None


def test_a_call_whose_wait_is_about_to_end_still_keeps_to_the_caps() -> None:
    under_test = make(host=1)
    first = ask(under_test, HEAVY, now=0.0)
    second = ask(under_test, HEAVY, now=0.0)
    under_test.due(second)
    assert under_test.fill(9.0) == []
    assert leave(under_test, first, 9.1) == [second]


def test_within_what_is_useful_planners_simply_go_first() -> None:
    under_test = make(host=1)
    running = ask(under_test, EXECUTOR, now=0.0)
    ask(under_test, EXECUTOR, now=0.5)
    planner = ask(under_test, PLANNER, now=2.0)
    assert planner.place is Place.WAITING
    assert leave(under_test, running, 3.0) == [planner]


# What is foreseen, and what is shed.


def taught(*, forecasts: bool, calls: int = 16) -> Admission:
    """Two planners' seats, full, and planners known to take ten seconds; two wait."""
    under_test = make({PLANNER: PoolLimits(seats=2, max_queue=50)}, forecasts=forecasts)
    for number in range(calls):
        ticket = ask(under_test, PLANNER, now=number * 20.0)
        leave(under_test, ticket, number * 20.0 + 10.0)
    for _ in range(4):
        ask(under_test, PLANNER, now=1000.0)
    return under_test


def test_a_wait_that_is_expected_to_be_too_long_is_refused_at_once_with_the_numbers() -> None:
    refusal = refused(taught(forecasts=True), PLANNER, now=1000.0, max_wait_s=8.0)
    assert refusal.reason is Reason.QUEUE_TIMEOUT
    assert "expected wait 15 s, at most 8 s (2/2 running, 2/50 waiting)" in refusal.message
    assert refusal.retry_after_s == 15


def test_nothing_is_refused_by_forecast_below_sixteen_finished_calls_of_role_and_model() -> None:
    few = taught(forecasts=True, calls=15)
    assert ask(few, PLANNER, 1000.0, max_wait_s=8.0).place is Place.WAITING
    other = taught(forecasts=True)
    assert ask(other, PLANNER, 1000.0, model="n", max_wait_s=8.0).place is Place.WAITING


def foreseen(shares: dict[int, float], pools: dict[Role, PoolLimits] = GUARDED) -> Admission:
    """Planners of 1 s, known well enough to be foreseen, and an executor that takes 60 s."""
    under_test = knowing(shares, pools, forecasts=True)
    for number in range(16):
        leave(under_test, ask(under_test, PLANNER, number * 2.0, "n"), number * 2.0 + 1.0)
    for at in range(100, 1000, 100):
        leave(under_test, ask(under_test, EXECUTOR, float(at)), at + 60.0)
    ask(under_test, EXECUTOR, now=1000.0)
    return under_test


def test_a_call_that_may_start_beside_what_runs_is_not_refused_for_what_runs() -> None:
    for shares in ({}, NEUTRAL):
        under_test = foreseen(shares)
        first, second = (
            ask(under_test, PLANNER, 1000.0 + n, model="n", max_wait_s=8.0, max_hold_s=1.0)
            for n in range(2)
        )
        assert first.place in (Place.WAITING, Place.SEATED)
        assert second.place is Place.WAITING, "it is foreseen to follow the first there"
    refusal = foreseen(FIERCE).ask(Ticket(PLANNER, "n", 1000.0, max_wait_s=8.0), 1000.0)
    assert refusal is not None
    assert "expected wait 26 s, at most 8 s" in refusal.message


def test_of_a_role_that_is_not_protected_only_the_first_may_start_beside_what_runs() -> None:
    under_test = foreseen(NEUTRAL, {})
    first = ask(under_test, PLANNER, 1000.0, model="n", max_wait_s=8.0)
    assert first.place is Place.WAITING
    assert under_test.ask(Ticket(PLANNER, "n", 1000.0, max_wait_s=8.0), 1000.0) is not None


def test_the_forecast_can_be_switched_off_and_lets_the_patient_wait() -> None:
    assert ask(taught(forecasts=False), PLANNER, 1000.0, max_wait_s=8.0).place is Place.WAITING
    assert ask(taught(forecasts=True), PLANNER, 1000.0, max_wait_s=60.0).place is Place.WAITING


def test_one_in_sixteen_forecasts_is_put_to_the_test() -> None:
    under_test = taught(forecasts=True)
    places = []
    for _ in range(32):
        ticket = Ticket(PLANNER, "m", 1000.0, max_wait_s=8.0)
        under_test.ask(ticket, 1000.0)
        places.append(ticket.place)
    assert places.count(Place.WAITING) == 2
    assert (under_test.forecast.refused, under_test.forecast.checked) == (32, 2)
    assert under_test.forecast.wrong == 0


def test_shed_roles_are_turned_away_from_the_line_or_entirely() -> None:
    under_test = make()
    under_test.shedding = Shedding(enter=frozenset({CHAT}), wait=frozenset({CHAT, EXECUTOR}))
    assert refused(under_test, CHAT).reason is Reason.SHED
    for _ in range(5):
        assert ask(under_test, EXECUTOR).place is Place.SEATED
    assert refused(under_test, EXECUTOR).reason is Reason.SHED
    assert ask(under_test, PLANNER).place is Place.SEATED


def test_its_repr_is_what_one_wants_to_see_in_an_incident() -> None:
    under_test = make(host=2)
    for _ in range(3):
        ask(under_test, PLANNER)
    text = repr(under_test)
    assert "2/6 local" in text
    assert "PLANNER 2/2+1" in text
    assert "host 2/2" in text


# Who stands where.


def test_who_waits_is_told_with_place_hold_and_expected_wait() -> None:
    under_test = taught(forecasts=True)
    late = ask(under_test, PLANNER, now=1000.0, request_id="late", max_wait_s=60.0)
    rows = under_test.waiters(1001.0)
    assert [row.place for row in rows] == [1, 2, 3]
    assert (rows[-1].request_id, rows[-1].hold) == ("late", Hold.ROLE_CAP)
    expected = [row.expected_s for row in rows]
    assert expected == [pytest.approx(seconds, rel=0.1) for seconds in (5.0, 10.0, 15.0)]
    assert late.position is None
    other = ask(under_test, EXECUTOR, now=1001.0)
    assert other.place is Place.SEATED


def test_a_wait_of_which_too_little_is_known_is_not_guessed() -> None:
    under_test = make(host=1)
    ask(under_test, EXECUTOR)
    ask(under_test, EXECUTOR)
    assert [row.expected_s for row in under_test.waiters(1.0)] == [None]


def test_who_runs_is_told_with_role_model_and_host() -> None:
    under_test = make()
    ask(under_test, PLANNER, now=1.0, request_id="a")
    ask(under_test, CLOUD, now=2.0, model="far", request_id="b")
    first, second = under_test.runners(3.0)
    assert (first.request_id, first.role, first.host, first.running_s) == (
        "a",
        PLANNER,
        "default",
        2,
    )
    assert (second.request_id, second.host, second.overdue) == ("b", None, False)


def test_a_refused_call_knows_its_place() -> None:
    under_test = make()
    for _ in range(6):
        ask(under_test, PLANNER)
    full = Ticket(PLANNER, "m", 0.0)
    under_test.ask(full, 0.0)
    assert full.position == 5


# Whatever happens.


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Calls come, are served, leave and run out of time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.under_test = make(
            {PLANNER: PoolLimits(2, 6, reserved=1), CHAT: PoolLimits(3, 6, ageing_s=3.0)},
            models={"n": 1},
            host=None,
        )
        self.now = 0.0
        self.waiting: list[Ticket] = []
        self.seated: list[Ticket] = []

    def settle(self) -> None:
        for ticket in self.under_test.fill(self.now):
            assert ticket in self.waiting, "seated somebody who did not wait"
            self.waiting.remove(ticket)
            self.seated.append(ticket)

    @rule(
        role=st.sampled_from(list(Role)),
        model=st.sampled_from("mno"),
        client=st.sampled_from("ab"),
        front=st.booleans(),
    )
    def arrive(self, role: Role, model: str, client: str, front: bool) -> None:
        ticket = Ticket(role, model, self.now, client=client, max_wait_s=8.0, front=front)
        refusal = self.under_test.ask(ticket, self.now)
        assert (refusal is not None) == (ticket.place is Place.GONE)
        if ticket.place is Place.SEATED:
            self.seated.append(ticket)
        elif ticket.place is Place.WAITING:
            self.waiting.append(ticket)
        self.settle()

    @precondition(lambda self: self.seated)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.seated))
        self.seated.remove(ticket)
        self.under_test.leave(ticket, self.now)
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(ticket)
        self.under_test.leave(ticket, self.now)
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def come_due(self, data: st.DataObject) -> None:
        self.under_test.due(data.draw(st.sampled_from(self.waiting)))
        self.settle()

    @rule(seconds=st.floats(0.01, 5.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(models=st.dictionaries(st.sampled_from("mno"), st.booleans()))
    def load(self, models: dict[str, bool]) -> None:
        self.under_test.note_loaded(models)
        self.settle()

    @invariant()
    def no_cap_is_exceeded(self) -> None:
        local = [ticket for ticket in self.seated if ticket.role is not CLOUD]
        assert len(local) <= 6
        assert sum(ticket.model == "n" for ticket in local) <= 1
        for role, cap in {PLANNER: 2, EXECUTOR: 5, HEAVY: 1, CHAT: 3}.items():
            assert sum(ticket.role is role for ticket in self.seated) <= cap
        assert sum(ticket.role is not PLANNER for ticket in local) <= 5, "a reserved seat is taken"

    @invariant()
    def no_seat_is_lost_or_doubled(self) -> None:
        for role in Role:
            seated = sum(ticket.role is role for ticket in self.seated)
            assert self.under_test.running(role) == seated
            waiting = sum(ticket.role is role for ticket in self.waiting)
            assert self.under_test.waiting(role) == waiting
        assert all(ticket.place is Place.SEATED for ticket in self.seated)
        assert all(ticket.place is Place.WAITING for ticket in self.waiting)

    @invariant()
    def nobody_waits_for_no_reason(self) -> None:
        """Work-conserving: a hard limit, usefulness, or a turn about to be taken."""
        for waiter in self.under_test.waiters(self.now):
            assert waiter.hold is not Hold.TURN

    @invariant()
    def overdue_calls_are_no_crowd(self) -> None:
        """One call that is overdue and one that probes, beside what is known to be useful."""
        learned = self.under_test.host().parallelism
        assert learned.running <= learned.host + 2


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=150, stateful_step_count=60)
