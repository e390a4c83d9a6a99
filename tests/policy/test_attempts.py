"""Which attempt follows which, and what is told when none does."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.attempts import (
    BEFORE_A_SEAT,
    BEFORE_ANY_ATTEMPT,
    BEFORE_SENDING,
    Ask,
    Check,
    Tell,
    Tried,
    explains,
    first_step,
    may_follow,
    next_step,
    retries_at_once,
    wait_left_s,
    worth_asking,
)
from modelsplit_policy.capabilities import Unable
from modelsplit_policy.config.model import ArmPolicy
from modelsplit_policy.failures import BUDGET, ERRORS, ErrorCode, Failure, Reason
from modelsplit_policy.fallback import is_cause
from modelsplit_policy.roles import Candidate, Route
from modelsplit_policy.vocabulary import Context, Loading, Provider, Role, RouteReason

FIRST, SECOND = Candidate("qwen3:4b", 15.0), Candidate("qwen3:8b", 30.0)
BOTH = (FIRST, SECOND)


def failed(code: ErrorCode, reason: Reason) -> Failure:
    return Failure(code, reason, "x", "X")


BROKEN = failed(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS)
LATE = failed(ErrorCode.TIMEOUT_LOCAL, Reason.ROLE_TIMEOUT)
UNFIT = failed(ErrorCode.SCHEMA_INVALID, Reason.SCHEMA)
CUT = failed(ErrorCode.SCHEMA_INVALID, Reason.CUT)
ABSENT = failed(ErrorCode.MODEL_NOT_FOUND, Reason.NOT_INSTALLED)
STOPPED = failed(ErrorCode.OVERLOAD_THROTTLED, Reason.BREAKER_OPEN)
FULL = failed(ErrorCode.OVERLOAD_THROTTLED, Reason.QUEUE_FULL)
SPENT = failed(ErrorCode.BUDGET_EXHAUSTED, Reason.CALLS)
REJECTED = failed(ErrorCode.BAD_REQUEST, Reason.UPSTREAM_REJECTED)
LOCKED = failed(ErrorCode.UNAUTHORIZED, Reason.UPSTREAM_REJECTED)
FORBIDDEN = failed(ErrorCode.FORBIDDEN, Reason.UPSTREAM_REJECTED)
METERED = failed(ErrorCode.RATE_LIMITED, Reason.UPSTREAM_REJECTED)
FAILURES = [Failure(code, reason, "x", "X") for code in ERRORS for reason in ERRORS[code].reasons]


# --- The next attempt -------------------------------------------------------------------------


def test_the_first_candidate_is_asked_first_and_stands_in_line_like_anybody() -> None:
    assert first_step(BOTH) == Ask(FIRST, waited_s=0.0, front=False)


@pytest.mark.parametrize("failure", [BROKEN, LATE, ABSENT, STOPPED])
def test_the_second_follows_a_failure_it_may_be_spared(failure: Failure) -> None:
    assert next_step(BOTH, None, [Tried(failure, seated=True, waited_s=1.5)]) == Ask(SECOND, 1.5)


@pytest.mark.parametrize("failure", [FULL, SPENT, REJECTED])
def test_no_attempt_follows_a_no_that_is_the_seconds_too(failure: Failure) -> None:
    assert next_step(BOTH, None, [Tried(failure, seated=False)]) == Tell(0)


def test_without_a_second_candidate_the_first_attempt_is_told() -> None:
    assert next_step((FIRST,), None, [Tried(BROKEN, seated=True)]) == Tell(0)


@pytest.mark.parametrize("useless", [Unable(SECOND.model), Unable(SECOND.model, ("tools",))])
@pytest.mark.parametrize("failure", [BROKEN, LATE, UNFIT, ABSENT])
def test_a_second_model_that_is_known_to_be_of_no_use_is_not_asked(
    failure: Failure, useless: Unable
) -> None:
    asked: list[Candidate] = []

    def unable(candidate: Candidate) -> Unable | None:
        asked.append(candidate)
        return useless

    step = next_step(BOTH, None, [Tried(failure, seated=True)], unable)
    assert step == Tell(0, useless)
    assert asked == [SECOND]


@pytest.mark.parametrize("failure", [FULL, SPENT, REJECTED, CUT])
def test_nobody_is_judged_where_no_attempt_would_follow(failure: Failure) -> None:
    def unable(candidate: Candidate) -> Unable | None:
        raise AssertionError(candidate)

    assert next_step(BOTH, None, [Tried(failure, seated=True)], unable) == Tell(0)
    assert next_step((FIRST,), None, [Tried(BROKEN, seated=True)], unable) == Tell(0)


def test_after_an_answer_that_does_not_fit_the_second_goes_ahead_of_the_line() -> None:
    assert retries_at_once(UNFIT)
    assert next_step(BOTH, None, [Tried(UNFIT, True, 2.0)]) == Ask(SECOND, 2.0, front=True)


def test_an_answer_cut_at_its_own_length_would_be_cut_again() -> None:
    assert not retries_at_once(CUT)
    assert next_step(BOTH, None, [Tried(CUT, seated=True)]) == Tell(0)


@pytest.mark.parametrize(("failure", "follows"), [(BROKEN, False), (ABSENT, True)])
def test_an_unload_goes_to_the_second_only_where_the_first_is_not_installed(
    failure: Failure, *, follows: bool
) -> None:
    step = next_step(BOTH, Loading.UNLOAD, [Tried(failure, seated=True)])
    assert step == (Ask(SECOND) if follows else Tell(0))
    assert may_follow(failure, Loading.UNLOAD) is follows
    assert may_follow(failure, Loading.LOAD)


# --- What is told -----------------------------------------------------------------------------


@pytest.mark.parametrize("second", [LATE, BROKEN, UNFIT])
def test_of_two_that_were_tried_the_second_is_told(second: Failure) -> None:
    assert next_step(BOTH, None, [Tried(BROKEN, True), Tried(second, True)]) == Tell(1)


@pytest.mark.parametrize("second", [REJECTED, ABSENT, LOCKED, FORBIDDEN, METERED])
@pytest.mark.parametrize("first", [BROKEN, LATE, UNFIT, ABSENT])
def test_a_second_model_that_turns_the_request_away_explains_nothing(
    first: Failure, second: Failure
) -> None:
    """Its client did not ask for it, and must not be told never to try again."""
    assert not explains(Tried(second, seated=True))
    assert next_step(BOTH, None, [Tried(first, True), Tried(second, True)]) == Tell(0)


def test_nor_does_one_whose_breaker_opened_while_it_waited_for_its_seat() -> None:
    assert next_step(BOTH, None, [Tried(BROKEN, True), Tried(STOPPED, True)]) == Tell(0)


@pytest.mark.parametrize("second", [FULL, STOPPED])
def test_a_second_that_found_no_seat_explains_nothing(second: Failure) -> None:
    assert next_step(BOTH, None, [Tried(BROKEN, True), Tried(second, False)]) == Tell(0)


@pytest.mark.parametrize("code", sorted(BUDGET))
@pytest.mark.parametrize("seated", [True, False])
def test_nor_does_one_that_a_budget_refused_seated_or_not(code: ErrorCode, *, seated: bool) -> None:
    for reason in ERRORS[code].reasons:
        tried = [Tried(BROKEN, True), Tried(failed(code, reason), seated)]
        assert next_step(BOTH, None, tried) == Tell(0)


def test_a_first_that_found_no_seat_is_what_there_is_to_tell() -> None:
    assert next_step(BOTH, None, [Tried(FULL, seated=False)]) == Tell(0)


@given(st.lists(st.sampled_from(FAILURES), min_size=2, max_size=2), st.booleans(), st.booleans())
def test_every_call_ends_and_is_told_by_an_attempt_of_its_own(
    failures: list[Failure], one: bool, other: bool
) -> None:
    """Whatever goes wrong: at most two attempts, and the second only for a cause."""
    for candidates, loads in product([BOTH, (FIRST,)], [None, *Loading]):
        tried: list[Tried] = []
        step: Ask | Tell = first_step(candidates)
        for failure, seated in zip(failures, (one, other), strict=True):
            if isinstance(step, Tell):
                break
            assert step.candidate is candidates[len(tried)]
            assert step.waited_s == 1.0 * len(tried)
            tried.append(Tried(failure, seated, 1.0))
            step = next_step(candidates, loads, tried)
        assert isinstance(step, Tell)
        assert step.attempt in range(len(tried))
        if len(tried) == 2:
            assert is_cause(failures[0])
            assert step.attempt == (1 if explains(tried[1]) else 0)
            assert other or step.attempt == 0


# --- The wait ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own_s", "asked_s", "waited_s", "left_s"),
    [
        (8.0, None, 0.0, 8.0),
        (8.0, 20.0, 0.0, 8.0),
        (8.0, 3.0, 0.0, 3.0),
        (8.0, 3.0, 2.0, 1.0),
        (8.0, None, 9.0, 0.0),
        (8.0, 0.0, 0.0, 0.0),
    ],
)
def test_the_wait_is_one_for_all_attempts_and_a_client_may_shorten_it(
    own_s: float, asked_s: float | None, waited_s: float, left_s: float
) -> None:
    assert wait_left_s(own_s, asked_s, waited_s) == left_s


# --- The fallback that is loaded --------------------------------------------------------------


def route(candidates: tuple[Candidate, ...] = BOTH, arm: ArmPolicy | None = None) -> Route:
    return Route(
        Role.PLANNER,
        Context.PLANNER,
        Provider.LOCAL,
        "planner",
        candidates,
        RouteReason.ALIAS,
        arm=arm,
    )


@pytest.mark.parametrize("first", [True, False, None])
@pytest.mark.parametrize("second", [True, False, None])
@pytest.mark.parametrize("prefers", [True, False])
@pytest.mark.parametrize("room", [True, False])
def test_a_cold_primary_is_left_out_where_the_fallback_is_loaded_and_has_room(
    first: bool | None, second: bool | None, *, prefers: bool, room: bool
) -> None:
    left_out = prefers and room and first is False and second is True
    known = {FIRST.model: first, SECOND.model: second}
    asked = worth_asking(
        route(),
        prefers_resident=prefers,
        loaded=known.__getitem__,
        has_room=lambda model: room and model == SECOND.model,
        unable=lambda _: None,
    )
    assert asked == ((SECOND,) if left_out else BOTH)


@pytest.mark.parametrize(
    "call", [route(arm=ArmPolicy(name="a", model=FIRST.model, weight=1)), route((FIRST,))]
)
def test_an_arm_and_a_primary_without_a_fallback_are_asked_cold(call: Route) -> None:
    asked = worth_asking(
        call,
        prefers_resident=True,
        loaded=lambda _: False,
        has_room=lambda _: True,
        unable=lambda _: None,
    )
    assert asked == call.candidates


def test_a_loaded_fallback_that_cannot_serve_the_request_is_not_preferred() -> None:
    asked = worth_asking(
        route(),
        prefers_resident=True,
        loaded={FIRST.model: False, SECOND.model: True}.__getitem__,
        has_room=lambda _: True,
        unable=lambda candidate: Unable(candidate.model, ("tools",)),
    )
    assert asked == BOTH


# --- The order of no --------------------------------------------------------------------------


def test_whoever_may_say_no_is_asked_in_this_order() -> None:
    assert [str(check) for check in (*BEFORE_ANY_ATTEMPT, *BEFORE_A_SEAT)] == [
        "drain",
        "role",
        "client seats",
        "client rate",
        "breaker",
        "budget",
        "seat",
    ]
    assert set(Check) == {*BEFORE_ANY_ATTEMPT, *BEFORE_A_SEAT}
    assert BEFORE_SENDING == (Check.BUDGET, Check.BREAKER)
