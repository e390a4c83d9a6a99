"""Whole calls, driven through policy alone: no event loop, no clock, no proxy.

The code that decides in production decides here, in virtual time. Each test is a transcript:
what happens, when, and what is decided about it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelsplit_policy import admission, deadlines
from modelsplit_policy.attempts import (
    BEFORE_A_SEAT,
    BEFORE_SENDING,
    Ask,
    Check,
    Tell,
    Tried,
    first_step,
    next_step,
    retries_at_once,
    wait_left_s,
    worth_asking,
)
from modelsplit_policy.breaker import Allowed, BreakerRules, Breakers
from modelsplit_policy.budgets import Budgets, Charge, Reservation
from modelsplit_policy.call import Call, Event, State
from modelsplit_policy.config.model import Policy
from modelsplit_policy.config.parser import parse
from modelsplit_policy.deadlines import Deadline, Limits, Look
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.health import HealthGuard, HealthRules, Level
from modelsplit_policy.health_samples import Timeouts, shedding, signals
from modelsplit_policy.loaded_models import Listed, LoadedModels
from modelsplit_policy.model_names import canonical
from modelsplit_policy.roles import Candidate, Roles, Route
from modelsplit_policy.roles import RouteRequest as Wish
from modelsplit_policy.tickets import Place, Ticket
from modelsplit_policy.vocabulary import Role

SHIPPED = Path(__file__).parents[2] / "config" / "model-policy.json"
FIRST, SECOND = "qwen3:4b", "qwen3:8b"
UNFIT = Failure(ErrorCode.SCHEMA_INVALID, Reason.SCHEMA, "it does not fit", "Schema Invalid")
STATUS = Failure(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS, "500", "Upstream Failed")
SPENT = Failure(ErrorCode.BUDGET_EXHAUSTED, Reason.CALLS, "no calls left", "Budget Exhausted")
STALL_S = 30.0


def rules(planner: Mapping[str, Any] | None = None, **changes: Any) -> Policy:
    """The shipped policy, with more for PLANNER and other keys as given."""
    document = json.loads(SHIPPED.read_bytes())
    document["roles"]["PLANNER"] |= planner or {}
    return parse(document | changes)


class House:
    """Everything that decides, for one host, and how late it is."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.now = 0.0
        self.roles = Roles(policy)
        self.admission = admission.from_policy(policy)
        self.breakers = Breakers(BreakerRules())
        self.budgets = Budgets(policy.budgets)
        self.known = LoadedModels()
        self.timeouts = Timeouts(HealthRules().timeouts_window_s)
        self.guard = HealthGuard(HealthRules())
        # Since when the host has left the question for its version open.
        self.mute_since: float | None = None

    def after(self, seconds: float) -> None:
        self.now += seconds

    def at(self, moment: float | None) -> None:
        """Time passes until then."""
        assert moment is not None
        assert moment >= self.now, "time goes back"
        self.now = moment

    def ps(self, *names: str) -> None:
        """The host is asked what it has loaded, and answers; all the policy's are installed."""
        self.known.asking()
        rows = self.policy.roles.values()
        models = {model for row in rows for model in (row.primary, row.fallback) if model}
        self.known.learn([Listed(model, f"sha of {model}") for model in models], self.now)
        self.known.observe([Listed(name, f"sha of {name}") for name in names], self.now)
        self.admission.note_loaded(self.known.known)

    def call(self, model: str = "planner") -> Rehearsed:
        route = self.roles.route(Wish(model))
        assert isinstance(route, Route)
        return Rehearsed(self, route)

    def judge(self) -> Level:
        """The Health Guard looks once, and the door follows it."""
        self.guard.update(
            signals(
                self.admission,
                self.policy,
                self.breakers.snapshot(self.now),
                self.now,
                timeouts=self.timeouts.count(self.now),
                upstream_up=True,
                lag=(0.0, 0),
            ),
            self.now,
        )
        self.admission.shedding = shedding(self.guard)
        return self.guard.level

    def seats(self) -> tuple[int, int]:
        return self.admission.running(Role.PLANNER), self.admission.waiting(Role.PLANNER)


class Rehearsed:
    """One call. Each method is one thing that happens to it; the time is the house's."""

    def __init__(self, house: House, route: Route) -> None:
        self.house = house
        self.route = route
        self.row = house.policy.roles[route.role]
        self.call = Call()
        self.candidates = worth_asking(
            route,
            prefers_resident=self.row.prefer_resident_fallback,
            loaded=house.known.loaded,
            has_room=lambda model: house.budgets.check(house.now, self._charge(model)) is None,
            unable=lambda _: None,
        )
        self.step: Ask | Tell = first_step(self.candidates)
        self.tried: list[Tried] = []
        self.failures: list[Failure] = []
        self.holds: Ticket | None = None
        self._begin()

    # What happens.

    def asks_for_a_seat(self) -> Failure | None:
        """Breaker, budget, seat, as policy orders it; None: seated, or in line."""
        checks: dict[Check, Callable[[], Failure | None]] = {
            Check.BREAKER: self._breaker_would_refuse,
            Check.BUDGET: self._budget_would_refuse,
            Check.SEAT: self._takes_seat,
        }
        for check in BEFORE_A_SEAT:
            no = checks[check]()
            if no is not None:
                return no
        return None

    def is_seated(self) -> None:
        """The line has moved, and this call with it."""
        assert self.ticket.place is Place.SEATED
        self.call.step(Event.ADMIT)

    def is_sent(self) -> Failure | None:
        """Charged and past its breaker: it goes upstream, and its clocks run."""
        checks: dict[Check, Callable[[], Failure | None]] = {
            Check.BUDGET: self._is_charged,
            Check.BREAKER: self._passes_breaker,
        }
        for check in BEFORE_SENDING:
            no = checks[check]()
            if no is not None:
                return no
        limits = Limits(
            self.candidate.timeout_s,
            self.house.policy.load_timeout_ms / 1000,
            STALL_S,
            first_byte_s=self.row.first_byte_timeout_ms / 1000,
        )
        self.limits = limits
        self.deadline = Deadline(limits, self.house.now)
        return None

    def looks(self, *, asked: bool = False) -> Look:
        loaded = self.house.known.loaded(self.candidate.model)
        mute_since = self.house.mute_since
        return self.deadline.look(self.house.now, loaded, asked=asked, mute_since=mute_since)

    def begins_to_answer(self) -> None:
        self.deadline.begun(self.house.now)
        self.house.admission.first_byte(self.ticket, self.house.now)
        self.house.breakers.reached(self.allowed, self.house.now)

    def commits(self) -> None:
        self.call.step(Event.COMMIT)

    def is_late(self, reason: Reason) -> Failure:
        return deadlines.failure_of(
            reason,
            self.limits,
            model=self.candidate.model,
            provider=self.route.provider,
            down=self.house.mute_since is not None,
        )

    def completes(self) -> None:
        self.call.step(Event.FINISH)
        self._ends(None)
        self._leaves()

    def breaks(self, failure: Failure) -> None:
        """After its first byte: nothing can be taken back."""
        self.call.step(Event.BREAK)
        self.failures.append(failure)
        self._ends(failure)
        self._leaves()

    def is_set_back(self, failure: Failure, *, waited_s: float = 0.0) -> Ask | Tell:
        """The attempt gave the client nothing: what follows?"""
        self.failures.append(failure)
        self.tried.append(Tried(failure, not self.call.seatless, waited_s))
        self._ends(failure)
        if not retries_at_once(failure):
            self._leaves()
        self.step = next_step(self.candidates, None, self.tried)
        if isinstance(self.step, Ask):
            self.call.fall_back()
            if retries_at_once(failure):
                self.holds = self.ticket
            self._begin()
        else:
            self._leaves()
            self.call.end_unanswered()
        return self.step

    def stands_in(self, state: State) -> bool:
        return self.call.state is state

    @property
    def told(self) -> Failure:
        assert isinstance(self.step, Tell)
        return self.failures[self.step.attempt]

    @property
    def candidate(self) -> Candidate:
        assert isinstance(self.step, Ask)
        return self.step.candidate

    # How it is decided.

    def _begin(self) -> None:
        assert isinstance(self.step, Ask)
        self.allowed: Allowed = Allowed(False, ())
        self.reservation: Reservation | None = None
        self.is_out = False
        self.ticket = Ticket(
            self.route.role,
            canonical(self.step.candidate.model),
            self.house.now,
            max_wait_s=wait_left_s(self.row.max_wait_ms / 1000, None, self.step.waited_s),
            front=self.step.front,
        )

    def _charge(self, model: str) -> Charge:
        return Charge(canonical(model), self.route.role, self.route.provider)

    def _breaker_would_refuse(self) -> Failure | None:
        model = canonical(self.candidate.model)
        return self.house.breakers.check(self.route.provider, model, self.house.now)

    def _budget_would_refuse(self) -> Failure | None:
        no = self.house.budgets.check(self.house.now, self._charge(self.candidate.model))
        return None if no is None else SPENT

    def _takes_seat(self) -> Failure | None:
        house = self.house
        refusal = house.admission.ask(self.ticket, house.now)
        if self.holds is not None:  # the attempt before kept its seat until this one stands first
            house.admission.leave(self.holds, house.now)
            self.holds = None
        if self.ticket.place is Place.WAITING and self.ticket not in house.admission.fill(
            house.now
        ):
            self.call.step(Event.ENQUEUE)
        elif refusal is None:
            self.call.step(Event.ADMIT)
        return refusal

    def _is_charged(self) -> Failure | None:
        verdict = self.house.budgets.reserve(self.house.now, self._charge(self.candidate.model))
        if not isinstance(verdict, Reservation):
            return SPENT
        self.reservation = verdict
        return None

    def _passes_breaker(self) -> Failure | None:
        self.call.step(Event.DISPATCH)
        model = canonical(self.candidate.model)
        verdict = self.house.breakers.admit(self.route.provider, model, self.house.now)
        if isinstance(verdict, Failure):
            return verdict
        self.allowed, self.is_out = verdict, True
        return None

    def _ends(self, failure: Failure | None) -> None:
        house = self.house
        if failure is not None:
            house.timeouts.call_ended([failure], failure, house.now)
        if self.is_out:
            completed = self.stands_in(State.COMPLETED)
            house.breakers.call_ended(self.allowed, failure, house.now, completed=completed)
        elif self.reservation is not None:
            house.budgets.give_back(self.reservation)

    def _leaves(self) -> None:
        self.house.admission.leave(self.ticket, self.house.now)


def why(no: Failure | None) -> str | None:
    return None if no is None else no.reason


def test_two_attempts_a_load_and_a_timeout() -> None:
    """The planner's model is cold and then too slow; the fallback is loaded for it, and answers."""
    budget = {"name": "both", "role": "PLANNER", "calls": 10, "window": "1h"}
    house = House(rules(budgets=[budget], load_timeout_ms=60_000))
    house.ps()
    call = house.call()
    assert [candidate.model for candidate in call.candidates] == [FIRST, SECOND]

    # 0 s: seated and sent. Nothing is loaded, so the role's clock stands still.
    assert call.asks_for_a_seat() is None
    assert call.stands_in(State.ADMITTED)
    assert call.is_sent() is None
    assert call.looks() == Look(0.1, hurried=True)
    assert house.known.hurry()
    assert house.known.next_question() == 0.5, "as often as is gentle"

    # 12 s: it is loaded, and has the role's 15 s from now.
    house.at(12.0)
    house.ps(FIRST)
    house.known.relax()
    assert call.looks() == Look(27.0)
    assert house.known.next_question() == 17.5

    # 27 s: out of time. Asked once more: it is no load that takes so long.
    house.at(27.0)
    assert call.looks() == Look(27.0, asks=True)
    house.ps(FIRST)
    late = call.looks(asked=True).ended_by
    assert late is Reason.ROLE_TIMEOUT
    step = call.is_set_back(call.is_late(late))
    assert step == Ask(Candidate(SECOND, 30.0))
    assert call.stands_in(State.PENDING)
    assert house.seats() == (0, 0)

    # Then the fallback: it is not loaded either, begins at 40 s and is whole at 45 s.
    assert call.asks_for_a_seat() is None
    assert call.is_sent() is None
    assert call.looks().hurried
    house.at(40.0)
    call.begins_to_answer()
    assert call.deadline.bounds().next_look(last=40.0) == 70.0
    call.commits()
    house.at(45.0)
    call.completes()

    assert call.stands_in(State.COMPLETED)
    assert house.seats() == (0, 0)
    assert [str(view.key) for view in house.breakers.snapshot(45.0)] == ["LOCAL/qwen3:4b"]
    (standing,) = house.budgets.standing(45.0)
    assert standing.calls == 2, "both were sent, so both count"
    assert house.timeouts.count(45.0) == 1
    assert house.judge() is Level.OK


def test_a_fallback_that_finds_no_seat_explains_nothing() -> None:
    """The first model fails, others have come meanwhile: its failure is what the client reads."""
    house = House(rules({"max_concurrent": 1, "reserved": 0, "max_queue": 1}))
    house.ps(FIRST, SECOND)
    call, next_in_line, late_comer = house.call(), house.call(), house.call()
    assert call.asks_for_a_seat() is None
    assert next_in_line.asks_for_a_seat() is None
    assert next_in_line.stands_in(State.QUEUED)
    assert why(late_comer.asks_for_a_seat()) == "queue_full", "one runs and one waits"

    assert call.is_sent() is None
    house.after(1.0)
    assert call.is_set_back(STATUS) == Ask(Candidate(SECOND, 30.0))
    assert house.admission.fill(house.now) == [next_in_line.ticket]
    next_in_line.is_seated()
    crowd = house.call()
    assert crowd.asks_for_a_seat() is None

    no = call.asks_for_a_seat()
    assert no is not None
    assert no.message.startswith("role PLANNER is overloaded: its queue is full (1/1 running, 1/1")
    assert call.is_set_back(no) == Tell(0)
    assert call.told is STATUS
    assert call.stands_in(State.REJECTED)
    assert house.seats() == (1, 1)


def test_a_fallback_without_budget_explains_nothing_either() -> None:
    budget = {"name": "second", "models": [SECOND], "calls": 1, "window": "1h"}
    house = House(rules(budgets=[budget]))
    house.ps(FIRST, SECOND)
    house.budgets.reserve(0.0, house.call()._charge(SECOND))
    call = house.call()
    assert call.asks_for_a_seat() is None
    assert call.is_sent() is None
    call.is_set_back(STATUS)
    no = call.asks_for_a_seat()
    assert no is SPENT
    assert call.is_set_back(no) == Tell(0)
    assert call.told is STATUS
    assert house.seats() == (0, 0)


def test_after_an_answer_that_does_not_fit_the_retry_goes_ahead_and_keeps_the_seat() -> None:
    house = House(rules({"max_concurrent": 1, "reserved": 0}))
    house.ps(FIRST, SECOND)
    call, waiter = house.call(), house.call()
    assert call.asks_for_a_seat() is None
    assert waiter.asks_for_a_seat() is None
    assert call.is_sent() is None
    house.after(2.0)
    call.begins_to_answer()
    assert call.is_set_back(UNFIT) == Ask(Candidate(SECOND, 30.0), front=True)
    assert house.seats() == (1, 1), "it keeps its seat, and the waiter its place"

    assert call.asks_for_a_seat() is None
    assert call.stands_in(State.ADMITTED)
    assert waiter.ticket.place is Place.WAITING, "nobody came between"
    assert call.is_sent() is None
    house.after(3.0)
    call.begins_to_answer()
    call.commits()
    call.completes()
    assert call.stands_in(State.COMPLETED)
    assert house.breakers.snapshot(house.now) == (), "an answer that does not fit is an answer"
    assert house.admission.fill(house.now) == [waiter.ticket]


def test_a_stream_that_falls_silent_is_broken_off_and_no_second_model_speaks() -> None:
    house = House(rules())
    house.ps(FIRST, SECOND)
    call = house.call()
    assert call.asks_for_a_seat() is None
    assert call.is_sent() is None
    house.at(1.0)
    call.begins_to_answer()
    call.commits()
    bounds = call.deadline.bounds()._replace(deadline=None)  # CHAT's: only silence ends it

    # Pieces at 1 s and 20 s, and then none.
    assert bounds.next_look(last=1.0) == 31.0
    house.at(31.0)
    assert bounds.ended_by(house.now, last=20.0) is None
    house.at(bounds.next_look(last=20.0))
    reason = bounds.ended_by(house.now, last=20.0)
    assert reason is Reason.STALL
    call.breaks(call.is_late(reason))
    assert call.stands_in(State.TRUNCATED)
    assert house.seats() == (0, 0)
    assert house.timeouts.count(50.0) == 1


def test_five_timeouts_stop_a_model_the_guard_sheds_and_a_trial_lets_it_back() -> None:
    house = House(rules({"fallback": None, "fallback_timeout_ms": None}))
    house.ps(FIRST)
    for _ in range(5):
        call = house.call()
        assert call.asks_for_a_seat() is None
        assert call.is_sent() is None
        house.at(call.looks().until)
        assert call.looks().asks
        reason = call.looks(asked=True).ended_by
        assert reason is not None
        assert call.is_set_back(call.is_late(reason)) == Tell(0)
    assert why(house.call().asks_for_a_seat()) == "breaker_open"
    assert house.judge() is Level.DEGRADED
    assert Role.CHAT in house.admission.shedding.wait

    house.after(1.0)
    trial = house.call()
    assert trial.asks_for_a_seat() is None
    assert trial.is_sent() is None
    assert trial.allowed.trial
    assert why(house.call().asks_for_a_seat()) == "breaker_open", "one trial at a time"
    trial.begins_to_answer()
    trial.commits()
    trial.completes()
    assert house.call().asks_for_a_seat() is None


def test_a_cold_planner_goes_to_the_fallback_that_is_loaded() -> None:
    house = House(rules({"prefer_resident_fallback": True}))
    house.ps(SECOND)
    call = house.call()
    assert [candidate.model for candidate in call.candidates] == [SECOND]
    assert call.asks_for_a_seat() is None
    assert call.is_sent() is None
    assert call.looks() == Look(30.0)


def test_a_host_that_hangs_costs_each_call_its_time_once_and_opens_the_providers_breaker() -> None:
    """It is stopped at 0 s, with one planner's model loaded; at 3 s its version is asked for."""
    parallel = {name: {"parallel": 6} for name in (FIRST, "llama3.2:1b")}
    together: dict[str, Any] = {"global": {"max_concurrent": 6, "parallel": 6}}
    house = House(rules(None, models=parallel, **together))
    house.ps(FIRST)
    planner, chat = house.call(), house.call("llama3.2:1b")
    for call in (planner, chat):
        assert call.asks_for_a_seat() is None
        assert call.is_sent() is None
    assert (planner.looks(), chat.looks()) == (Look(15.0), Look(900.0))
    house.at(8.0)
    house.mute_since = 3.0
    assert (planner.looks(), chat.looks()) == (Look(15.0), Look(33.0))

    # 15.5 s: the role is out of time, and no second model is asked.
    house.at(15.0)
    assert planner.looks().asks
    house.at(15.5)
    late = planner.looks(asked=True).ended_by
    assert late is Reason.ROLE_TIMEOUT
    assert planner.is_set_back(planner.is_late(late)) == Tell(0)
    assert planner.told.reason is Reason.UPSTREAM_MUTE

    # 33 s: nothing has come for half a minute, of the version either.
    house.at(33.0)
    late = chat.looks().ended_by
    assert late is Reason.UPSTREAM_MUTE
    assert chat.is_set_back(chat.is_late(late)) == Tell(0)
    assert house.seats() == (0, 0)

    for _ in range(3):
        call = house.call()
        assert call.asks_for_a_seat() is None
        assert call.is_sent() is None
        call.is_set_back(call.is_late(Reason.ROLE_TIMEOUT))
    assert why(house.call().asks_for_a_seat()) == "upstream_mute"
    assert [str(view.key) for view in house.breakers.snapshot(house.now)] == ["LOCAL"]


def test_a_prompt_that_is_read_for_ten_minutes_by_a_host_that_answers_is_not_cut() -> None:
    house = House(rules())
    call = house.call("llama3.2:1b")
    assert call.asks_for_a_seat() is None
    assert call.is_sent() is None
    for minute in range(1, 11):
        house.at(60.0 * minute)
        assert call.looks() == Look(900.0)
    call.begins_to_answer()
    assert call.deadline.bounds().deadline is None
