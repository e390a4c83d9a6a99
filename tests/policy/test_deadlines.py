"""Deadlines as values: at any moment, which bound ends an attempt, and when to look again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy import fallback
from modelsplit_policy.breaker import Outcome, Scope, outcome_of
from modelsplit_policy.deadlines import (
    LOOK_EVERY_S,
    MUTE_S,
    PING_S,
    UNBOUNDED,
    Bounds,
    Deadline,
    Limits,
    Look,
    early_head_in,
    failure_of,
    is_clients,
    is_mute,
    role_bound,
)
from modelsplit_policy.failures import Reason
from modelsplit_policy.vocabulary import Provider

LIMITS = Limits(role_s=10.0, load_s=60.0, stall_s=30.0)
ROLE, LOAD, TOTAL = Reason.ROLE_TIMEOUT, Reason.LOAD_TIMEOUT, Reason.TOTAL_TIMEOUT


def sent(limits: Limits = LIMITS) -> Deadline:
    """An attempt that is sent at second 100."""
    return Deadline(limits, 100.0)


# --- Before the first byte --------------------------------------------------------------------


@pytest.mark.parametrize("loaded", [True, None])
def test_of_a_loaded_model_the_roles_clock_runs_at_once(loaded: bool | None) -> None:
    deadline = sent()
    assert deadline.look(100.0, loaded) == Look(110.0)
    assert deadline.look(109.9, loaded) == Look(110.0)


def test_a_role_that_is_out_of_time_asks_once_more_before_it_gives_up() -> None:
    deadline = sent()
    assert deadline.look(110.0, True) == Look(110.0, asks=True)
    assert deadline.look(110.4, True, asked=True) == Look(110.0, ended_by=ROLE)


def test_where_nothing_is_known_then_either_the_role_is_out_of_time() -> None:
    deadline = sent()
    assert deadline.look(110.0, None).asks
    assert deadline.look(110.5, None, asked=True).ended_by is ROLE


def test_old_knowledge_does_not_cost_a_load() -> None:
    """The model was evicted without our knowing: it is being loaded as we look again."""
    deadline = sent()
    assert deadline.look(110.0, True).asks
    assert deadline.look(110.1, False, asked=True) == Look(110.1 + LOOK_EVERY_S, hurried=True)
    assert deadline.look(125.0, True) == Look(135.0)
    assert repr(deadline) == f"<Deadline {LIMITS}, computing>"


def test_during_a_load_the_roles_clock_stands_still() -> None:
    deadline = sent()
    assert deadline.look(100.0, False) == Look(100.1, hurried=True)
    assert deadline.look(140.0, False) == Look(140.1, hurried=True)
    assert repr(deadline) == f"<Deadline {LIMITS}, loading>"
    assert deadline.look(141.0, True) == Look(151.0)
    assert deadline.look(151.0, True).asks


def test_a_load_that_nobody_can_see_the_end_of_goes_on() -> None:
    deadline = sent()
    deadline.look(100.0, False)
    assert deadline.look(130.0, None).hurried


def test_a_load_has_its_own_bound_and_looks_no_later_than_that() -> None:
    deadline = sent()
    deadline.look(100.0, False)
    assert deadline.look(159.95, False) == Look(160.0, hurried=True)
    assert deadline.look(160.0, False) == Look(160.0, ended_by=LOAD)


def test_a_load_that_is_noticed_late_is_bounded_from_when_it_was_sent() -> None:
    deadline = sent()
    deadline.look(110.0, True)
    deadline.look(110.1, False, asked=True)
    assert deadline.look(160.0, False).ended_by is LOAD


def test_beyond_the_bound_of_a_load_nobody_asks() -> None:
    deadline = sent(LIMITS._replace(load_s=5.0))
    assert deadline.look(110.0, True) == Look(110.0, ended_by=ROLE)


def test_a_load_bound_that_passes_during_the_question_is_the_loads() -> None:
    deadline = sent(LIMITS._replace(load_s=10.2))
    assert deadline.look(110.0, True).asks
    assert deadline.look(110.5, False, asked=True).ended_by is LOAD


def test_an_answer_that_ends_a_load_starts_the_roles_clock_for_its_rest() -> None:
    deadline = sent()
    deadline.look(100.0, False)
    deadline.begun(140.0)
    assert deadline.bounds() == Bounds(150.0, ROLE, 30.0)


def test_an_answer_of_a_loaded_model_moves_no_clock() -> None:
    deadline = sent()
    deadline.look(100.0, True)
    deadline.begun(104.0)
    assert deadline.at() == (110.0, ROLE)
    assert deadline.bounds() == Bounds(110.0, ROLE, 30.0)


def test_without_a_role_bound_only_the_load_is_bounded() -> None:
    deadline = sent(LIMITS._replace(role_s=None))
    assert deadline.look(100.0, False).hurried
    assert deadline.look(159.0, True) == Look(None)
    assert deadline.look(math.inf, True) == Look(None)
    assert deadline.bounds() == Bounds(None, ROLE, 30.0)


@pytest.mark.parametrize("loaded", [True, False, None])
def test_the_total_ends_either_wait_if_it_comes_first(*, loaded: bool | None) -> None:
    deadline = sent(LIMITS._replace(total_at=108.0, total_s=20.0))
    assert deadline.look(107.9, loaded).ended_by is None
    last = deadline.look(108.0, loaded)
    assert (last.ended_by, last.asks) == (TOTAL, False), "no news changes anything about it"
    assert deadline.at() == (108.0, TOTAL)


def test_the_total_shortens_and_never_lengthens() -> None:
    later = LIMITS._replace(total_at=500.0, total_s=450.0)
    assert sent(later).at() == (110.0, ROLE)
    assert sent(later._replace(role_s=None)).at() == (500.0, TOTAL)
    loading = sent(later)
    loading.look(100.0, False)
    assert loading.look(160.0, False).ended_by is LOAD


numbers = st.floats(0.01, 100.0)
knowledge = st.sampled_from([True, False, None])


@given(
    st.none() | numbers,
    numbers,
    st.none() | numbers,
    st.lists(knowledge, min_size=1, max_size=8),
    st.lists(knowledge, min_size=1, max_size=8),
)
def test_whatever_is_known_when_it_ends_and_for_no_other_reason_than_its_bounds(
    role_s: float | None,
    load_s: float,
    total_s: float | None,
    known: list[bool | None],
    learned: list[bool | None],
) -> None:
    """Looked at whenever it says so: time never goes back, and nobody is asked for ever."""
    deadline = Deadline(Limits(role_s, load_s, 1.0, total_s, total_s or 0.0), 0.0)
    now, asked, questions, looks = 0.0, False, 0, 0
    while True:
        news = learned if asked else known
        look = deadline.look(now, news.pop(0) if len(news) > 1 else news[0], asked=asked)
        if look.ended_by is not None or look.until is None:
            break
        assert not (look.asks and look.hurried)
        assert look.asks or look.until > now, "a wait that is over before it begins"
        questions += look.asks
        now = now if look.asks else look.until
        asked = look.asks
        looks += 1
        assert looks < 5000
    if look.until is None:
        assert (role_s, total_s) == (None, None)
        return
    # A role's time after a load's, and no more, however often the model comes and goes.
    role, total = (math.inf if bound is None else bound for bound in (role_s, total_s))
    assert now <= min(load_s + role, total) + 1e-9
    assert questions <= 1 + load_s / role
    assert look.until in {total, load_s} or look.ended_by is ROLE
    if look.ended_by is TOTAL:
        assert look.until == total


# --- The first byte ---------------------------------------------------------------------------

CHAT = Limits(role_s=None, load_s=120.0, stall_s=60.0, first_byte_s=900.0)
FIRST_BYTE, MUTE = Reason.FIRST_BYTE_TIMEOUT, Reason.UPSTREAM_MUTE


def test_a_prompt_that_is_read_for_ten_minutes_is_never_cut_while_ollama_answers() -> None:
    deadline = sent(CHAT)
    assert deadline.look(100.0, True) == Look(1000.0)
    for minute in range(1, 11):
        look = deadline.look(100.0 + minute * 60.0, True, mute_since=None)
        assert (look.ended_by, look.asks) == (None, False)
    assert deadline.look(1000.0, True).ended_by is FIRST_BYTE


def test_after_its_first_byte_an_answer_may_take_as_long_as_it_takes() -> None:
    deadline = sent(CHAT)
    deadline.look(100.0, True)
    deadline.begun(700.0)
    assert deadline.bounds() == Bounds(None, ROLE, 60.0)


def test_the_time_for_the_first_byte_begins_when_the_model_is_loaded() -> None:
    deadline = sent(CHAT)
    assert deadline.look(100.0, False).hurried
    assert deadline.look(200.0, True) == Look(1100.0)


def test_the_sooner_of_the_role_and_the_first_byte_ends_the_wait() -> None:
    assert sent(CHAT._replace(role_s=15.0)).look(100.0, True) == Look(115.0)
    short = sent(CHAT._replace(role_s=15.0, first_byte_s=5.0))
    assert short.look(100.0, True) == Look(105.0)
    assert short.look(105.0, True).asks, "it may be loading after all"
    assert short.look(105.1, True, asked=True).ended_by is FIRST_BYTE
    assert short.bounds().deadline == 115.0
    total = sent(CHAT._replace(total_at=110.0, total_s=10.0))
    assert total.look(110.0, True).ended_by is TOTAL


@pytest.mark.parametrize("loaded", [True, False, None])
@pytest.mark.parametrize("role_s", [None, 60.0])
def test_a_mute_upstream_ends_the_wait_once_both_have_said_nothing_for_so_long(
    role_s: float | None, *, loaded: bool | None
) -> None:
    deadline = sent(CHAT._replace(role_s=role_s))
    deadline.look(100.0, loaded)
    assert deadline.look(103.0, loaded, mute_since=102.0).until in {102.0 + MUTE_S, 103.1}
    assert deadline.look(131.9, loaded, mute_since=102.0).ended_by is None
    assert deadline.look(132.0, loaded, mute_since=102.0).ended_by is MUTE


@pytest.mark.parametrize(("mute_since", "ends"), [(40.0, 105.0), (72.0, 105.0), (80.0, 110.0)])
def test_an_attempt_has_a_time_of_its_own_though_the_upstream_was_mute_before(
    mute_since: float, ends: float
) -> None:
    """Five seconds: what has been mute for half a minute need not be found so once more."""
    deadline = sent(CHAT)
    look = deadline.look(100.0, True, mute_since=mute_since)
    assert look.until == pytest.approx(ends)
    assert look.ended_by is None
    assert deadline.look(104.9, True, mute_since=mute_since).ended_by is None
    assert deadline.look(ends + 0.1, True, mute_since=mute_since).ended_by is MUTE
    assert deadline.look(104.0, True, mute_since=None) == Look(1000.0), "it is back"


def test_a_role_that_is_out_of_time_is_so_however_mute_the_upstream_is() -> None:
    deadline = sent(CHAT._replace(role_s=15.0))
    assert deadline.look(100.0, True, mute_since=99.0) == Look(115.0)
    assert deadline.look(115.0, True, mute_since=99.0).asks
    assert deadline.look(115.5, True, asked=True, mute_since=99.0).ended_by is ROLE


@pytest.mark.parametrize("loaded", [True, False, None])
def test_what_runs_elsewhere_is_never_being_loaded(*, loaded: bool | None) -> None:
    cloud = sent(LIMITS._replace(load_s=0.0))
    assert cloud.look(100.0, loaded) == Look(110.0)
    assert cloud.look(110.0, loaded) == Look(110.0, ended_by=ROLE)


# --- Once the answer has begun ----------------------------------------------------------------


def test_silence_and_the_deadline_end_an_answer() -> None:
    bounds = Bounds(deadline=110.0, late=TOTAL, stall_s=3.0)
    assert bounds.next_look(last=100.0) == 103.0
    assert bounds.next_look(last=108.0) == 110.0
    assert bounds.ended_by(102.9, last=100.0) is None
    assert bounds.ended_by(103.0, last=100.0) is Reason.STALL
    assert bounds.ended_by(110.0, last=109.9) is TOTAL
    assert bounds.ended_by(111.0, last=100.0) is TOTAL, "late is late, silent or not"


def test_without_bounds_nothing_ends_it() -> None:
    assert UNBOUNDED.next_look(last=0.0) is None
    assert UNBOUNDED.ended_by(1e9, last=0.0) is None
    assert Bounds(stall_s=2.0).next_look(last=1.0) == 3.0
    assert Bounds(deadline=9.0).next_look(last=1.0) == 9.0


@given(st.none() | numbers, st.none() | numbers, numbers)
def test_looked_at_then_and_not_before_a_bound_has_ended_it(
    deadline: float | None, stall_s: float | None, last: float
) -> None:
    bounds = Bounds(deadline, ROLE, stall_s)
    moment = bounds.next_look(last)
    if moment is None:
        assert bounds.ended_by(math.inf, last) is None
    else:
        assert bounds.ended_by(math.nextafter(moment, math.inf) + 1e-9, last) is not None
        assert bounds.ended_by(moment - 1e-6, last) is None


def test_an_answer_that_may_be_held_back_has_a_longer_silence_and_pings_in_it() -> None:
    bounds = Bounds(deadline=None, stall_s=60.0).held_back(600.0)
    assert (bounds.stall_s, bounds.ping_s) == (600.0, PING_S)
    assert bounds.next_look(last=100.0) == 100.0 + PING_S
    assert not bounds.pings(114.0, last=100.0, pinged=0.0)
    assert bounds.pings(115.0, last=100.0, pinged=0.0)
    assert bounds.next_look(last=100.0, pinged=115.0) == 130.0
    assert bounds.ended_by(699.0, last=100.0) is None
    assert bounds.ended_by(700.0, last=100.0) is Reason.STALL
    assert bounds.next_look(last=100.0, pinged=695.0) == 700.0
    assert Bounds(stall_s=900.0).held_back(600.0).stall_s == 900.0, "it never shortens"
    assert UNBOUNDED.held_back(600.0) == UNBOUNDED


def test_an_answer_of_one_that_hangs_is_not_held_back() -> None:
    assert not is_mute(200.0, last=100.0, mute_since=None)
    assert not is_mute(139.0, last=100.0, mute_since=110.0)
    assert is_mute(140.0, last=100.0, mute_since=110.0)
    assert not is_mute(140.0, last=120.0, mute_since=110.0)


# --- The numbers ------------------------------------------------------------------------------


def test_every_bound_has_its_number_and_its_sentence() -> None:
    limits = Limits(role_s=1.5, load_s=2.0, stall_s=3.0, total_at=9.0, total_s=4.0)
    failures = [
        failure_of(reason, limits, model="m", provider=Provider.LOCAL)
        for reason in (ROLE, LOAD, TOTAL, Reason.STALL)
    ]
    assert [failure.message for failure in failures] == [
        "m was not done within the role's 1.5 s (its timeout in the policy)",
        "m was not loaded within load_timeout_ms, 2 s",
        "the call was not done within the role's total of 4 s (total_timeout_ms)",
        "m fell silent for 3 s in the middle of its answer; ask again",
    ]
    assert {(failure.code, failure.status) for failure in failures} == {("E_TIMEOUT_LOCAL", 504)}
    failures = [
        failure_of(reason, limits._replace(first_byte_s=5.0), model="m", provider=Provider.LOCAL)
        for reason in (FIRST_BYTE, MUTE)
    ]
    assert [failure.message for failure in failures] == [
        "m did not begin its answer within 5 s (first_byte_timeout_ms)",
        (
            "m does not answer, and for 30 s Ollama does not tell its version either: it hangs; "
            "restart it"
        ),
    ]
    clients = failure_of(ROLE, limits, model="m", provider=Provider.LOCAL, is_clients=True)
    assert clients.message == (
        "m was not done within the 1.5 s that its client gave it (X-LLM-Timeout-Ms)"
    )
    cloud = failure_of(ROLE, limits, model="m" * 300, provider=Provider.CLOUD)
    assert cloud.code == "E_TIMEOUT_CLOUD"
    assert len(cloud.message) <= 200


@pytest.mark.parametrize("reason", [ROLE, LOAD, FIRST_BYTE, Reason.STALL])
def test_what_was_not_done_in_time_by_an_upstream_that_answers_nothing_is_its_own_fault(
    reason: Reason,
) -> None:
    failure = failure_of(reason, CHAT, model="m" * 300, provider=Provider.LOCAL, down=True)
    assert (failure.code, failure.reason) == ("E_TIMEOUT_LOCAL", MUTE)
    assert not fallback.is_cause(failure), "the other model is behind the same silence"
    assert outcome_of(failure, client_gone=False) == (Outcome.FAILURE, Scope.PROVIDER)
    assert len(failure.message) <= 200
    total = failure_of(TOTAL, CHAT, model="m", provider=Provider.LOCAL, down=True)
    assert total.reason is TOTAL


@pytest.mark.parametrize(
    ("own_s", "asked_s", "bound_s", "clients"),
    [
        (15.0, None, 15.0, False),
        (15.0, 20.0, 15.0, False),
        (15.0, 15.0, 15.0, False),
        (15.0, 2.0, 2.0, True),
        (None, 2.0, 2.0, True),
        (None, None, None, False),
    ],
)
def test_a_client_may_shorten_the_roles_time_and_not_stretch_it(
    own_s: float | None, asked_s: float | None, bound_s: float | None, *, clients: bool
) -> None:
    assert role_bound(own_s, asked_s) == bound_s
    assert is_clients(own_s, asked_s) is clients


def test_an_early_head_is_due_so_long_after_the_call_began_and_at_once_if_that_is_over() -> None:
    assert early_head_in(10.0, started=100.0, now=100.0) == 10.0
    assert early_head_in(10.0, started=100.0, now=104.0) == 6.0
    assert early_head_in(10.0, started=100.0, now=130.0) == 0.0
