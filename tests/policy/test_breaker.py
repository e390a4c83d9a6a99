"""Circuit breakers: calls in, verdicts and steps out, on a clock that moves when told."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelsplit_policy.blame import USUAL, Blame, Circumstances
from modelsplit_policy.breaker import (
    _BY_BLAME,
    _OF_A_TRIAL,
    LESSONS,
    MODELS_MAX,
    TRANSITIONS,
    Allowed,
    BreakerEvent,
    BreakerKey,
    BreakerRules,
    Breakers,
    BreakerState,
    BreakerTransition,
    BreakerView,
    Outcome,
    Scope,
    outcome_of,
    rules_of,
)
from modelsplit_policy.config.model import BreakersPolicy
from modelsplit_policy.failures import ERRORS, ErrorCode, Failure, Reason
from modelsplit_policy.overload import retry_after
from modelsplit_policy.vocabulary import Provider

if TYPE_CHECKING:
    from collections.abc import Iterable

REFUSED = (Outcome.FAILURE, Scope.PROVIDER, "connection refused")
STATUS = (Outcome.FAILURE, Scope.MODEL, "status 500")
WELL = (Outcome.SUCCESS, Scope.MODEL, "")
LEFT = (Outcome.IGNORE, Scope.PROVIDER, "the client left")
BUSY = (Outcome.IGNORE, Scope.MODEL, "upstream busy")

HASTY = Circumstances(deadline_was_clients=True)

Ending = tuple[Outcome, Scope, str]


class Stopped(NamedTuple):
    """The breaker that refuses, for how long, and why."""

    key: BreakerKey
    retry_after_s: float
    why: str


def refusing(breakers: Breakers, model: str | None, now: float) -> Stopped:
    """Of those that a call asks, the one that lets nobody pass for longest."""
    asked = {BreakerKey(Provider.LOCAL), BreakerKey(Provider.LOCAL, model)}
    views = [view for view in breakers.snapshot(now) if view.key in asked]
    view = max(views, key=lambda view: view.trial_in_s)
    assert view.state is not BreakerState.CLOSED
    return Stopped(view.key, view.trial_in_s, view.why)


class Traffic:
    """Calls to the local provider, with every step the breakers made on their account."""

    def __init__(self, **rules: float) -> None:
        self.breakers = Breakers(BreakerRules(**rules))  # type: ignore[arg-type]
        self.now = 1000.0
        self.log: list[str] = []

    def after(self, seconds: float) -> Traffic:
        self.now += seconds
        return self

    def ask(self, model: str | None = "qwen3:8b") -> Allowed | Failure:
        verdict = self.breakers.admit(Provider.LOCAL, model, self.now)
        if isinstance(verdict, Allowed):
            self._note(verdict.transitions)
        return verdict

    def admitted(self, model: str | None = "qwen3:8b") -> Allowed:
        verdict = self.ask(model)
        assert isinstance(verdict, Allowed), verdict
        return verdict

    def refused(self, model: str | None = "qwen3:8b") -> Stopped:
        verdict = self.ask(model)
        assert isinstance(verdict, Failure), verdict
        assert (verdict.code, verdict.reason) == ("E_OVERLOAD_THROTTLED", Reason.BREAKER_OPEN)
        stopped = refusing(self.breakers, model, self.now)
        assert verdict.message.startswith(f"calls to {stopped.key} are stopped for now: ")
        assert stopped.why in verdict.message
        assert verdict.retry_after_s == retry_after(stopped.retry_after_s)
        return stopped

    def end(self, call: Allowed, ending: Ending) -> None:
        outcome, scope, why = ending
        self._note(self.breakers.ended(call, outcome, scope, self.now, why))

    def reach(self, call: Allowed) -> None:
        self._note(self.breakers.reached(call, self.now))

    def call(self, *endings: Ending, model: str | None = "qwen3:8b") -> Traffic:
        """One call after another, each ending as said."""
        for ending in endings:
            self.end(self.admitted(model), ending)
        return self

    def open(self, ending: Ending, model: str | None = "qwen3:8b") -> Traffic:
        return self.call(*[ending] * 5, model=model)

    def shown(self) -> tuple[BreakerView, ...]:
        return self.breakers.snapshot(self.now)

    def _note(self, steps: Iterable[BreakerTransition]) -> None:
        self.log += [f"{s.key}: {s.old} -> {s.new}: {s.why}" for s in steps]


# --- The life of a breaker ----------------------------------------------------------------


def test_a_down_time_from_the_first_refusal_to_the_recovery() -> None:
    traffic = Traffic()
    traffic.call(WELL, REFUSED, REFUSED, REFUSED, REFUSED)
    assert traffic.log == []
    traffic.call(REFUSED)
    assert traffic.refused() == Stopped(
        BreakerKey(Provider.LOCAL), 1.0, "5 failures in a row, last: connection refused"
    )
    trial = traffic.after(1.0).admitted()
    assert trial.trial
    assert traffic.refused().retry_after_s == 1.0
    traffic.end(trial, REFUSED)
    traffic.after(1.0).call(WELL)
    assert traffic.log == [
        "LOCAL: closed -> open: 5 failures in a row, last: connection refused",
        "LOCAL: open -> half_open: trial after 5 failures in a row, last: connection refused",
        "LOCAL: half_open -> open: the trial failed, 6 failures in a row, last: connection refused",
        "LOCAL: open -> half_open: trial after 6 failures in a row, last: connection refused",
        "LOCAL: half_open -> closed: the trial succeeded",
    ]
    assert traffic.shown() == ()


def test_a_success_ends_the_streak() -> None:
    traffic = Traffic().call(*[REFUSED] * 4, WELL, *[REFUSED] * 4)
    traffic.call(*[STATUS] * 4, WELL, *[STATUS] * 4)
    assert traffic.log == []


def test_a_streak_older_than_the_memory_starts_afresh() -> None:
    traffic = Traffic(memory_s=60).call(*[STATUS] * 4).after(61).call(STATUS)
    (view,) = traffic.shown()
    assert (view.state, view.failures) == (BreakerState.CLOSED, 1)
    assert traffic.after(61).shown() == ()


def test_a_streak_within_the_memory_goes_on() -> None:
    traffic = Traffic(memory_s=60)
    for _ in range(5):
        traffic.after(59).call(STATUS)
    assert traffic.refused().why == "5 failures in a row, last: status 500"


def test_the_rest_of_the_open_time_is_the_advice() -> None:
    traffic = Traffic(open_s=4).open(REFUSED).after(2.5)
    assert traffic.refused().retry_after_s == 1.5


@pytest.mark.parametrize(("failures", "why"), [(1, "1 failure"), (2, "2 failures in a row")])
def test_a_cause_nobody_gave_is_not_made_up(failures: int, why: str) -> None:
    traffic = Traffic(failures=failures)
    traffic.call(*[(Outcome.FAILURE, Scope.MODEL, "")] * failures)
    assert traffic.refused().why == why


# --- Provider and model -------------------------------------------------------------------


def test_a_broken_model_leaves_the_others_alone() -> None:
    traffic = Traffic().open(STATUS, "gemma3:12b")
    assert traffic.refused("gemma3:12b").key == BreakerKey(Provider.LOCAL, "gemma3:12b")
    assert not traffic.admitted("qwen3:8b").trial
    assert not traffic.admitted(None).trial


def test_a_provider_that_is_down_stops_every_model_but_not_the_cloud() -> None:
    traffic = Traffic().call(*[REFUSED] * 3, model="a").call(*[REFUSED] * 2, model="b")
    assert traffic.refused("c").key == BreakerKey(Provider.LOCAL)
    assert traffic.refused(None).key == BreakerKey(Provider.LOCAL)
    assert isinstance(traffic.breakers.admit(Provider.CLOUD, "c", traffic.now), Allowed)


def test_a_model_that_fails_shows_that_its_provider_is_there() -> None:
    traffic = Traffic().call(*[REFUSED] * 4, STATUS, *[REFUSED] * 4)
    assert traffic.log == []


def test_a_busy_answer_shows_it_too() -> None:
    traffic = Traffic().open(REFUSED).after(1).call(BUSY)
    assert traffic.log[-1] == "LOCAL: half_open -> closed: the trial succeeded: upstream busy"


def test_both_breakers_must_agree_before_a_trial_is_given_away() -> None:
    traffic = Traffic(open_s=4).open(STATUS, "a").after(2).open(REFUSED, "b").after(2)
    # The model's time is served, the provider's is not.
    assert traffic.refused("a") == Stopped(
        BreakerKey(Provider.LOCAL), 2.0, "5 failures in a row, last: connection refused"
    )
    trial = traffic.after(2).admitted("a")
    assert [step.key.model for step in trial.transitions] == [None, "a"]
    traffic.end(trial, WELL)
    assert traffic.shown() == ()


def test_of_two_refusals_the_longer_is_told() -> None:
    traffic = Traffic(open_s=1)
    calls = [traffic.admitted("a") for _ in range(10)]
    for call in calls[:5]:
        traffic.end(call, REFUSED)
    traffic.after(0.5)
    for call in calls[5:]:
        traffic.end(call, STATUS)
    assert traffic.refused("a") == Stopped(
        BreakerKey(Provider.LOCAL, "a"), 1.0, "5 failures in a row, last: status 500"
    )


def test_a_provider_that_is_not_there_is_told_before_what_its_model_did() -> None:
    breakers = Breakers(BreakerRules(open_s=1))
    broken = Failure(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS, "Ollama answered 500", "Failed")
    away = Failure(ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED, "is it running?", "Away")
    calls = [breakers.admit(Provider.LOCAL, "a", 0.0) for _ in range(10)]
    for call, (at, failure) in zip(calls, [(0.0, away)] * 5 + [(0.5, broken)] * 5, strict=True):
        assert isinstance(call, Allowed)
        breakers.call_ended(call, failure, at, completed=False)
    told = breakers.check(Provider.LOCAL, "a", 0.6)
    assert told is not None
    assert (told.reason, told.retry_after_s, told.unsent) == (Reason.CONNECT_REFUSED, 1, True)


def test_a_models_open_time_doubles_and_a_providers_does_not() -> None:
    for ending, expected in ((STATUS, [1, 2, 4, 8, 10, 10]), (REFUSED, [1, 1, 1, 1, 1, 1])):
        traffic = Traffic().open(ending)
        waits = []
        for _ in range(6):
            waits.append(traffic.refused().retry_after_s)
            traffic.after(waits[-1]).call(ending)
        assert waits == expected


def test_a_recovery_resets_the_doubling() -> None:
    traffic = Traffic().open(STATUS).after(1).call(STATUS).after(2).call(WELL).open(STATUS)
    assert traffic.refused().retry_after_s == 1.0


# --- Trials -------------------------------------------------------------------------------


def test_what_calm_calls_are_told_is_remembered_for_so_many_names_of_some_length() -> None:
    breakers = Breakers(BreakerRules())
    first = breakers.admit(Provider.LOCAL, "m", 0.0)
    assert breakers.admit(Provider.LOCAL, "m", 1.0) is first
    for number in range(2 * MODELS_MAX):
        breakers.admit(Provider.LOCAL, f"m{number}", 2.0)
    assert len(breakers._calm) <= MODELS_MAX
    endless = "m" * 257
    assert breakers.admit(Provider.LOCAL, endless, 3.0) is not breakers.admit(
        Provider.LOCAL, endless, 3.0
    )
    assert breakers.admit(Provider.LOCAL, "m", 4.0) == first


def test_one_trial_at_a_time() -> None:
    traffic = Traffic().open(STATUS).after(1)
    trial = traffic.admitted()
    traffic.after(100).refused()
    traffic.end(trial, WELL)
    assert not traffic.admitted().trial


def test_a_trial_whose_client_left_gives_its_place_to_the_next() -> None:
    traffic = Traffic().open(STATUS).after(1).call(LEFT, LEFT)
    assert traffic.admitted().trial
    assert (
        traffic.log[2:]
        == [
            "LOCAL/qwen3:8b: half_open -> open: the trial said nothing: the client left",
            "LOCAL/qwen3:8b: open -> half_open: trial after 5 failures in a row, last: status 500",
        ]
        * 2
    )


def test_a_models_trial_that_does_not_reach_the_provider_says_nothing_of_the_model() -> None:
    traffic = Traffic().open(STATUS).after(1).call(REFUSED)
    views = {view.key.model: (view.state, view.failures) for view in traffic.shown()}
    assert views == {None: (BreakerState.CLOSED, 1), "qwen3:8b": (BreakerState.OPEN, 5)}


def test_a_providers_trial_lasts_until_the_upstream_answers_not_until_it_is_done() -> None:
    traffic = Traffic().open(REFUSED).after(1)
    trial = traffic.admitted()
    traffic.refused()
    traffic.reach(trial)
    traffic.admitted()
    assert (
        traffic.log[-1] == "LOCAL: half_open -> closed: the trial succeeded: the upstream answered"
    )
    traffic.end(trial, LEFT)
    assert traffic.shown() == ()


def test_a_models_trial_goes_on_when_the_upstream_answers() -> None:
    traffic = Traffic().open(STATUS).after(1)
    trial = traffic.admitted()
    traffic.reach(trial)
    traffic.refused()
    traffic.end(trial, STATUS)
    assert traffic.refused().retry_after_s == 2.0


def test_calls_from_before_the_outage_say_nothing_about_after() -> None:
    traffic = Traffic()
    before = [traffic.admitted() for _ in range(8)]
    for call in before[:5]:
        traffic.end(call, STATUS)
    traffic.end(before[5], WELL)
    traffic.refused()
    trial = traffic.after(1).admitted()
    traffic.end(before[6], STATUS)
    traffic.end(before[7], WELL)
    traffic.refused()
    traffic.end(trial, STATUS)
    assert traffic.refused().retry_after_s == 2.0


def test_a_trial_that_ends_twice_ends_once() -> None:
    traffic = Traffic().open(STATUS).after(1)
    trial = traffic.admitted()
    traffic.end(trial, LEFT)
    traffic.end(trial, WELL)
    assert traffic.shown()[0].state is BreakerState.OPEN


def test_asking_before_queueing_takes_no_trial() -> None:
    traffic = Traffic().open(STATUS)
    check = traffic.breakers.check
    assert check(Provider.LOCAL, "qwen3:8b", traffic.now) == traffic.ask()
    traffic.after(1)
    assert check(Provider.LOCAL, "qwen3:8b", traffic.now) is None
    assert check(Provider.LOCAL, "qwen3:8b", traffic.now) is None
    assert traffic.admitted().trial


# --- Memory -------------------------------------------------------------------------------


def test_an_open_breaker_nobody_asks_is_forgotten() -> None:
    for model, key in (("a", "LOCAL/a"), (None, "LOCAL")):
        traffic = Traffic(memory_s=60).open(STATUS if model else REFUSED, model).after(61.5)
        assert traffic.shown() == ()
        assert not traffic.admitted(model).trial
        assert traffic.log[-1] == f"{key}: open -> closed: nobody asked for 60 s"


def test_a_trial_under_way_is_never_forgotten() -> None:
    traffic = Traffic(memory_s=60).open(STATUS).after(1)
    traffic.admitted()
    traffic.after(600).refused()
    assert traffic.shown()[0].state is BreakerState.HALF_OPEN


def test_nor_is_one_that_took_long_and_said_nothing() -> None:
    traffic = Traffic(memory_s=60).open(STATUS).after(1)
    trial = traffic.admitted()
    traffic.after(600).end(trial, LEFT)
    assert traffic.admitted().trial


def test_well_models_take_no_memory() -> None:
    traffic = Traffic()
    for number in range(1000):
        traffic.call(WELL, STATUS, WELL, BUSY, LEFT, model=f"m{number}")
    assert len(traffic.breakers._kept) == 0


def test_the_model_that_failed_longest_ago_is_forgotten_first() -> None:
    traffic = Traffic().open(STATUS, "open").call(STATUS, model="once")
    for number in range(MODELS_MAX):
        traffic.after(0.001).call(STATUS, model=f"m{number}")
    models = [view.key.model for view in traffic.shown()]
    assert models == [f"m{number}" for number in range(MODELS_MAX)]
    assert traffic.log[1:] == ["LOCAL/open: open -> closed: 256 models failed since"]


def test_a_trial_under_way_outlives_the_models_at_rest() -> None:
    traffic = Traffic().open(STATUS, "tried").after(1)
    trial = traffic.admitted("tried")
    for number in range(2 * MODELS_MAX):
        traffic.call(STATUS, model=f"m{number}")
    assert len(traffic.breakers._kept) == MODELS_MAX
    traffic.refused("tried")
    traffic.end(trial, WELL)
    traffic.admitted("tried")


def test_where_every_model_is_on_trial_the_oldest_goes_all_the_same() -> None:
    traffic = Traffic(failures=1)
    for number in range(MODELS_MAX):
        traffic.call(STATUS, model=f"m{number}")
    traffic.after(1)
    trials = [traffic.admitted(f"m{number}") for number in range(MODELS_MAX)]
    traffic.call(STATUS, model="one more")
    assert "LOCAL/m0: half_open -> closed: 256 models failed since" in traffic.log
    traffic.end(trials[0], STATUS)
    assert not traffic.admitted("m0").trial


# --- What an operator sees ----------------------------------------------------------------


def test_the_snapshot_tells_what_to_expect() -> None:
    traffic = Traffic().open(STATUS, "a").call(REFUSED, model="b").after(0.25)
    assert traffic.shown() == (
        BreakerView(
            BreakerKey(Provider.LOCAL, "a"),
            BreakerState.OPEN,
            5,
            0.75,
            "5 failures in a row, last: status 500",
        ),
        BreakerView(
            BreakerKey(Provider.LOCAL),
            BreakerState.CLOSED,
            1,
            0.0,
            "1 failure, last: connection refused",
        ),
    )
    assert traffic.after(5).shown()[0].trial_in_s == 0.0


def test_the_repr_is_for_an_incident() -> None:
    traffic = Traffic()
    traffic.call(REFUSED, WELL)
    assert repr(traffic.breakers) == "<Breakers all closed>"
    traffic.open(STATUS, "a").call(REFUSED, model="b").after(1).admitted("a")
    assert repr(traffic.breakers) == (
        "<Breakers LOCAL/a half_open (5 failures in a row, last: status 500), "
        "LOCAL closed (1 failure, last: connection refused)>"
    )


@pytest.mark.parametrize(
    "wrong", [{"failures": 0}, {"open_s": 0}, {"open_s": 11}, {"memory_s": 0}], ids=str
)
def test_rules_that_make_no_breaker_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no circuit breaker"):
        BreakerRules(**wrong)  # type: ignore[arg-type]


# --- The tables ---------------------------------------------------------------------------


def test_half_open_is_entered_by_a_try_and_left_by_every_ending_of_a_trial() -> None:
    into = [event for (_, event), state in TRANSITIONS.items() if state is BreakerState.HALF_OPEN]
    assert into == [BreakerEvent.TRY]
    assert all((BreakerState.HALF_OPEN, event) in TRANSITIONS for event in _OF_A_TRIAL.values())
    assert set(_OF_A_TRIAL) == set(Outcome)


def test_every_ending_teaches_something_definite() -> None:
    assert set(LESSONS) == {(outcome, scope) for outcome in Outcome for scope in Scope}
    provider_fails = [key for key, (provider, _) in LESSONS.items() if provider is Outcome.FAILURE]
    model_fails = [key for key, (_, model) in LESSONS.items() if model is Outcome.FAILURE]
    assert provider_fails == [(Outcome.FAILURE, Scope.PROVIDER)]
    assert model_fails == [(Outcome.FAILURE, Scope.MODEL)]


def failure(code: ErrorCode, reason: Reason) -> Failure:
    return Failure(code, reason, "it went wrong", "Wrong")


BAD = {
    "E_UNREACHABLE connect_refused": Scope.PROVIDER,
    "E_UNREACHABLE dns": Scope.PROVIDER,
    "E_UNREACHABLE reset": Scope.PROVIDER,
    "E_UNREACHABLE protocol": Scope.MODEL,
    "E_UNREACHABLE truncated": Scope.MODEL,
    "E_UPSTREAM status": Scope.MODEL,
    "E_UPSTREAM no_answer": Scope.MODEL,
    "E_UPSTREAM unterminated": Scope.MODEL,
    "E_UPSTREAM runner_failed": Scope.MODEL,
    "E_STREAM_BROKEN reset": Scope.MODEL,
    "E_STREAM_BROKEN protocol": Scope.MODEL,
    "E_STREAM_BROKEN truncated": Scope.MODEL,
    "E_STREAM_BROKEN unterminated": Scope.MODEL,
    "E_STREAM_BROKEN error_line": Scope.MODEL,
    "E_STREAM_BROKEN runner_failed": Scope.MODEL,
    "E_TIMEOUT connect_timeout": Scope.PROVIDER,
    "E_TIMEOUT load_timeout": Scope.MODEL,
    "E_TIMEOUT role_timeout": Scope.MODEL,
    "E_TIMEOUT first_byte_timeout": Scope.MODEL,
    "E_TIMEOUT upstream_mute": Scope.PROVIDER,
    "E_TIMEOUT stall": Scope.MODEL,
}


def test_every_failure_of_the_vocabulary_has_its_place() -> None:
    """What is on the list above fails as it says there; nothing else is a failure."""
    assert set(_BY_BLAME) == set(Blame)
    seen: dict[str, Scope] = {}
    for code, spec in ERRORS.items():
        for reason in spec.reasons:
            outcome, scope = outcome_of(failure(code, reason), client_gone=False)
            if outcome is Outcome.FAILURE:
                family = code.removesuffix("_LOCAL").removesuffix("_CLOUD")
                assert seen.setdefault(f"{family} {reason}", scope) is scope
    assert seen == BAD


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ErrorCode.OVERLOAD_THROTTLED, Reason.UPSTREAM_BUSY),
        (ErrorCode.MODEL_NOT_FOUND, Reason.NOT_INSTALLED),
        (ErrorCode.UPSTREAM_LOCAL, Reason.UPSTREAM_REJECTED),
        (ErrorCode.BAD_REQUEST, Reason.UPSTREAM_REJECTED),
        (ErrorCode.RATE_LIMITED, Reason.UPSTREAM_REJECTED),
    ],
)
def test_an_upstream_that_answers_no_is_there(code: ErrorCode, reason: Reason) -> None:
    assert outcome_of(failure(code, reason), client_gone=False) == (Outcome.IGNORE, Scope.MODEL)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ErrorCode.OVERLOAD_THROTTLED, Reason.DRAINING),
        (ErrorCode.OVERLOAD_THROTTLED, Reason.BREAKER_OPEN),
        (ErrorCode.OVERLOAD_THROTTLED, Reason.SHED),
        (ErrorCode.BAD_REQUEST, Reason.BAD_JSON),
        (ErrorCode.RATE_LIMITED, Reason.CLIENT_RATE),
        (ErrorCode.CLIENT_GONE, Reason.STREAMING),
        (ErrorCode.INTERNAL, Reason.BUG),
    ],
)
def test_our_own_no_says_nothing(code: ErrorCode, reason: Reason) -> None:
    assert outcome_of(failure(code, reason), client_gone=False) == (Outcome.IGNORE, Scope.PROVIDER)


def test_a_client_that_left_says_nothing_whatever_broke() -> None:
    broken = failure(ErrorCode.STREAM_BROKEN_LOCAL, Reason.RESET)
    assert outcome_of(broken, client_gone=True) == (Outcome.IGNORE, Scope.PROVIDER)
    assert outcome_of(None, client_gone=True) == (Outcome.IGNORE, Scope.PROVIDER)
    assert outcome_of(None, client_gone=False) == (Outcome.SUCCESS, Scope.MODEL)


def test_a_deadline_the_client_shortened_is_its_own_affair() -> None:
    late = failure(ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT)
    silent = failure(ErrorCode.TIMEOUT_LOCAL, Reason.STALL)
    assert outcome_of(late, client_gone=False, circumstances=HASTY)[0] is Outcome.IGNORE
    assert outcome_of(silent, client_gone=False, circumstances=HASTY)[0] is Outcome.FAILURE


@pytest.mark.parametrize(
    ("wrong", "completed", "clients", "counted"),
    [
        (None, True, False, 0),
        (None, False, False, 0),
        ((ErrorCode.UPSTREAM_LOCAL, Reason.STATUS), False, False, 1),
        ((ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT), False, False, 1),
        ((ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT), False, True, 0),
        ((ErrorCode.SCHEMA_INVALID, Reason.SCHEMA), True, False, 0),
    ],
    ids=["whole", "left", "500", "late", "impatient", "unfit"],
)
def test_a_call_that_has_ended_is_a_failure_of_its_model_or_nobodys(
    wrong: tuple[ErrorCode, Reason] | None, *, completed: bool, clients: bool, counted: int
) -> None:
    traffic, steps = Traffic(), tuple[BreakerTransition, ...]()
    for _ in range(5):
        steps = traffic.breakers.call_ended(
            traffic.admitted(),
            None if wrong is None else failure(*wrong),
            traffic.now,
            completed=completed,
            circumstances=HASTY if clients else USUAL,
        )
    assert len(steps) == counted
    assert [view.failures for view in traffic.shown()] == [5] * counted
    if counted:
        assert wrong is not None
        assert steps[0].why == f"5 failures in a row, last: {wrong[0]} {wrong[1]}"


@pytest.mark.parametrize("completed", [True, False])
def test_a_trial_ends_with_its_call_and_a_client_that_left_gives_it_back(
    *, completed: bool
) -> None:
    traffic = Traffic().open(STATUS)
    trial = traffic.after(1.0).admitted()
    assert trial.trial
    traffic.breakers.call_ended(trial, None, traffic.now, completed=completed)
    again = traffic.admitted()
    assert again.trial is not completed


# --- Whatever happens ---------------------------------------------------------------------

MODELS = st.sampled_from([None, "a", "b", "c"])
ENDINGS = st.sampled_from(sorted(LESSONS))


@given(st.lists(st.tuples(MODELS, ENDINGS.filter(lambda ending: ending[0] != Outcome.FAILURE))))
def test_without_failures_nothing_ever_opens(
    calls: list[tuple[str | None, tuple[Outcome, Scope]]],
) -> None:
    traffic = Traffic(failures=1)
    for model, (outcome, scope) in calls:
        traffic.after(0.1).call((outcome, scope, ""), model=model)
    assert (traffic.log, traffic.shown()) == ([], ())


class AnyTraffic(RuleBasedStateMachine):
    """Calls that overlap and end in any order; the steps are replayed and must add up."""

    def __init__(self) -> None:
        super().__init__()
        self.given = BreakerRules(failures=2, open_s=1.0, open_max_s=4.0, memory_s=20.0)
        self.breakers = Breakers(self.given)
        self.now = 0.0
        self.out: list[Allowed] = []
        self.states: dict[BreakerKey, BreakerState] = {}
        self.trials: dict[BreakerKey, Allowed | None] = {}

    def replay(self, steps: tuple[BreakerTransition, ...], call: Allowed | None = None) -> None:
        for step in steps:
            assert self.states.get(step.key, BreakerState.CLOSED) is step.old
            assert step.old is not step.new
            assert step.why
            self.states[step.key] = step.new
            if step.new is BreakerState.HALF_OPEN:
                assert step.key not in self.trials
                self.trials[step.key] = call
            else:
                self.trials.pop(step.key, None)

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0, 2.0, 4.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(model=MODELS)
    def a_call_comes(self, model: str | None) -> None:
        foretold = self.breakers.check(Provider.LOCAL, model, self.now)
        verdict = self.breakers.admit(Provider.LOCAL, model, self.now)
        if isinstance(verdict, Failure):
            assert verdict == foretold
            stopped = refusing(self.breakers, model, self.now)
            assert 0 < stopped.retry_after_s <= self.given.open_max_s
            assert self.states[stopped.key] is not BreakerState.CLOSED
            assert stopped.why in verdict.message
            return
        assert foretold is None
        self.replay(verdict.transitions, verdict)
        assert verdict.trial == (verdict in self.trials.values())
        self.out.append(verdict)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def an_answer_begins(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.out))
        self.replay(self.breakers.reached(call, self.now))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), ending=ENDINGS)
    def a_call_ends(self, data: st.DataObject, ending: tuple[Outcome, Scope]) -> None:
        call = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        on_trial = [key for key, trial in self.trials.items() if trial is call]
        self.replay(self.breakers.ended(call, *ending, self.now, "so it went"))
        for key in on_trial:
            assert self.states[key] is not BreakerState.HALF_OPEN

    @precondition(lambda self: self.trials)
    @rule(data=st.data())
    def a_trials_client_leaves(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.trials, key=str)))
        call = self.trials[key]
        assert call is not None
        self.out.remove(call)
        self.replay(self.breakers.ended(call, Outcome.IGNORE, Scope.PROVIDER, self.now))
        refused = self.breakers.check(key.provider, key.model, self.now)
        assert refused is None or refusing(self.breakers, key.model, self.now).key != key

    @invariant()
    def a_trial_is_possible_once_the_time_is_served(self) -> None:
        later = self.now + self.given.open_max_s
        for model in (None, "a", "b", "c"):
            asked = {BreakerKey(Provider.LOCAL), BreakerKey(Provider.LOCAL, model)}
            refused = self.breakers.check(Provider.LOCAL, model, later)
            assert (refused is not None) == bool(asked & self.trials.keys())

    @invariant()
    def the_provider_is_never_shut_for_longer_than_its_open_time(self) -> None:
        if BreakerKey(Provider.LOCAL) not in self.trials:
            later = self.now + self.given.open_s
            assert self.breakers.check(Provider.LOCAL, None, later) is None

    @invariant()
    def the_snapshot_agrees_with_the_steps(self) -> None:
        shown = {view.key: view.state for view in self.breakers.snapshot(self.now)}
        assert all(
            self.states.get(key, BreakerState.CLOSED) is state for key, state in shown.items()
        )
        assert self.trials.keys() == {k for k, s in shown.items() if s is BreakerState.HALF_OPEN}


TestAnyTraffic = AnyTraffic.TestCase
TestAnyTraffic.settings = settings(max_examples=150, stateful_step_count=40)


@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(0, 400), ENDINGS), min_size=600, max_size=900))
def test_memory_is_bounded(calls: list[tuple[int, tuple[Outcome, Scope]]]) -> None:
    traffic = Traffic(failures=2, open_s=0.001)
    for number, (outcome, scope) in calls:
        verdict = traffic.after(0.01).ask(f"m{number}")
        if isinstance(verdict, Allowed):
            traffic.end(verdict, (outcome, scope, ""))
        assert len(traffic.breakers._kept) <= MODELS_MAX + len(Provider)


# --- Whose failures they are --------------------------------------------------------------


class Crowd:
    """Calls of several clients to one model."""

    def __init__(self, **rules: float) -> None:
        self.breakers = Breakers(BreakerRules(**rules))  # type: ignore[arg-type]
        self.now = 0.0

    def ask(self, pair: int, model: str = "m") -> Allowed | Failure:
        return self.breakers.admit(Provider.LOCAL, model, self.now, pair=lambda: pair)

    def ends(self, pair: int, wrong: Failure | None, model: str = "m") -> bool:
        """One call, if it is let through; whether it was."""
        allowed = self.ask(pair, model)
        if isinstance(allowed, Failure):
            return False
        completed = wrong is None
        self.breakers.call_ended(allowed, wrong, self.now, completed=completed, pair=lambda: pair)
        return True

    def state(self, model: str | None = "m") -> BreakerState:
        key = BreakerKey(Provider.LOCAL, model)
        states = [view.state for view in self.breakers.snapshot(self.now) if view.key == key]
        return states[0] if states else BreakerState.CLOSED


BROKEN = failure(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS)
CRASHED = failure(ErrorCode.UPSTREAM_LOCAL, Reason.RUNNER_FAILED)
RESET = failure(ErrorCode.UNREACHABLE_LOCAL, Reason.RESET)
AWAY = failure(ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED)
UNFIT = failure(ErrorCode.SCHEMA_INVALID, Reason.SCHEMA)


@pytest.mark.parametrize("wrong", [BROKEN, RESET], ids=["model", "provider"])
def test_one_client_with_one_body_opens_nothing(wrong: Failure) -> None:
    crowd = Crowd()
    assert all(crowd.ends(1, wrong) for _ in range(50))
    assert (crowd.state(), crowd.state(None)) == (BreakerState.CLOSED, BreakerState.CLOSED)


@pytest.mark.parametrize(("wrong", "model"), [(BROKEN, "m"), (RESET, None)])
def test_five_failures_of_two_open_it(wrong: Failure, model: str | None) -> None:
    crowd = Crowd()
    for pair in (1, 1, 1, 1, 2):
        assert crowd.state(model) is BreakerState.CLOSED
        assert crowd.ends(pair, wrong)
    assert crowd.state(model) is BreakerState.OPEN
    assert not crowd.ends(3, None)


@pytest.mark.parametrize(("wrong", "model"), [(CRASHED, "m"), (AWAY, None)])
def test_what_no_request_can_cause_needs_no_second_client(
    wrong: Failure, model: str | None
) -> None:
    crowd = Crowd()
    for _ in range(5):
        assert crowd.ends(1, wrong)
    assert crowd.state(model) is BreakerState.OPEN


def test_a_bad_client_beside_a_good_one_stops_neither() -> None:
    crowd = Crowd()
    for _ in range(20):
        assert crowd.ends(1, BROKEN)
        assert crowd.ends(2, None)


def test_a_trial_goes_to_somebody_else() -> None:
    crowd = Crowd(open_s=1.0)
    for pair in (1, 1, 1, 1, 2):
        crowd.ends(pair, BROKEN)
    crowd.now = 1.5
    refused = crowd.ask(1)
    assert isinstance(refused, Failure)
    assert refused.retry_after_s == 1
    assert crowd.breakers.check(Provider.LOCAL, "m", crowd.now, pair=lambda: 2) is not None
    trial = crowd.ask(3)
    assert isinstance(trial, Allowed)
    assert trial.trial


def test_a_trial_goes_to_one_of_them_where_nobody_else_comes() -> None:
    crowd = Crowd(open_s=1.0)
    for pair in (1, 1, 1, 1, 2):
        crowd.ends(pair, BROKEN)
    crowd.now = 2.0
    trial = crowd.ask(1)
    assert isinstance(trial, Allowed)
    assert trial.trial


def test_a_trial_that_was_answered_and_did_not_fit_closes() -> None:
    """What an answer says is no matter of health."""
    crowd = Crowd(open_s=1.0)
    for pair in range(5):
        crowd.ends(pair, BROKEN)
    crowd.now = 1.0
    assert crowd.ends(9, UNFIT)
    assert crowd.state() is BreakerState.CLOSED


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([BROKEN, RESET, CRASHED, AWAY, UNFIT, None])),
        max_size=60,
    )
)
def test_nothing_opens_by_what_one_pair_alone_may_have_caused(
    calls: list[tuple[int, Failure | None]],
) -> None:
    crowd = Crowd(open_s=1e9, open_max_s=1e9, memory_s=1e10)
    for pair, wrong in calls:
        crowd.ends(pair, wrong)
    for key, uncertain in (("m", BROKEN), (None, RESET)):
        if crowd.state(key) is not BreakerState.CLOSED:
            certain = CRASHED if key == "m" else AWAY
            pairs = {pair for pair, wrong in calls if wrong is uncertain}
            assert len(pairs) >= 2 or any(wrong is certain for _, wrong in calls)


# --- Whoever else asks the provider -------------------------------------------------------


def test_an_answer_to_somebody_else_closes_what_nobody_listening_has_opened() -> None:
    crowd = Crowd(open_s=30.0, open_max_s=30.0)
    for pair in range(5):
        crowd.ends(pair, AWAY)
    assert not crowd.ends(9, None)
    (step,) = crowd.breakers.answered(Provider.LOCAL)
    assert (step.old, step.new, step.why) == (
        BreakerState.OPEN,
        BreakerState.CLOSED,
        "the provider answers",
    )
    assert all(crowd.ends(pair, None) for pair in range(9))
    assert crowd.breakers.answered(Provider.LOCAL) == ()


def test_it_says_nothing_of_models_nor_of_connections_that_were_cut() -> None:
    crowd = Crowd(open_s=30.0, open_max_s=30.0)
    for pair in range(5):
        crowd.ends(pair, BROKEN)
    for pair in range(5):
        crowd.ends(pair, RESET, "n")
    assert crowd.breakers.answered(Provider.LOCAL) == ()
    assert (crowd.state(), crowd.state(None)) == (BreakerState.OPEN, BreakerState.OPEN)


def test_a_provider_that_was_away_and_is_back_starts_with_a_clean_slate() -> None:
    crowd = Crowd(open_s=30.0, open_max_s=30.0)
    for pair in range(5):
        crowd.ends(pair, BROKEN)
    for pair in range(5):
        crowd.ends(pair, RESET, "n")
    for pair in range(2):
        crowd.ends(pair, BROKEN, "o")
    steps = crowd.breakers.answered(Provider.LOCAL, returned=True)
    assert sorted(str(step.key) for step in steps) == ["LOCAL", "LOCAL/m"]
    assert crowd.breakers.snapshot(crowd.now) == ()
    assert all(crowd.ends(1, None, model) for model in "mno")


def test_a_trial_under_way_when_the_provider_is_back_decides_nothing_any_more() -> None:
    crowd = Crowd(open_s=1.0)
    for pair in range(5):
        crowd.ends(pair, AWAY)
    crowd.now = 1.0
    trial = crowd.ask(9)
    assert isinstance(trial, Allowed)
    assert crowd.breakers.answered(Provider.LOCAL, returned=True)
    assert crowd.ends(1, None)
    assert crowd.breakers.call_ended(trial, AWAY, crowd.now, completed=False) == ()
    assert crowd.ends(1, None)


def test_the_rules_are_the_policys() -> None:
    assert rules_of(BreakersPolicy()) == BreakerRules()
    rules = rules_of(BreakersPolicy(failures=2, pairs=1, open_ms=20_000, memory_ms=5))
    assert rules == BreakerRules(2, 1, 20.0, 20.0, 0.005)
