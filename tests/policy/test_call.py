"""One call's life: every walk through the table ends, and no seat is kept or given twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.call import (
    FINAL,
    SEATED,
    TRANSITIONS,
    Call,
    Event,
    IllegalTransitionError,
    State,
    diagram,
)

ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"
CHOICES = st.lists(st.integers(min_value=0), min_size=60, max_size=60)


def walked(*events: Event) -> Call:
    call = Call()
    for event in events:
        call.step(event)
    return call


def possible(state: State) -> list[Event]:
    return [event for event in Event if (state, event) in TRANSITIONS]


# --- Lives that happen ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("life", "end"),
    [
        ([Event.ADMIT, Event.DISPATCH, Event.COMMIT, Event.FINISH], State.COMPLETED),
        ([Event.ENQUEUE, Event.ADMIT, Event.DISPATCH, Event.COMMIT, Event.BREAK], State.TRUNCATED),
        ([Event.REJECT], State.REJECTED),
        ([Event.ENQUEUE, Event.REJECT], State.REJECTED),
        ([Event.ENQUEUE, Event.CLIENT_GONE], State.ABANDONED),
        ([Event.ADMIT, Event.DISPATCH, Event.FAIL], State.FAILED),
        (
            [
                *(Event.ADMIT, Event.DISPATCH, Event.FALL_BACK, Event.ENQUEUE),
                *(Event.ADMIT, Event.DISPATCH, Event.COMMIT, Event.FINISH),
            ],
            State.COMPLETED,
        ),
        ([Event.ADMIT, Event.DISPATCH, Event.FALL_BACK, Event.REJECT], State.REJECTED),
    ],
)
def test_a_call_ends_where_its_events_lead(life: list[Event], end: State) -> None:
    call = walked(*life)
    assert (call.state, call.ended) == (end, True)


def test_no_second_model_speaks_once_the_client_has_a_byte() -> None:
    call = walked(Event.ADMIT, Event.DISPATCH, Event.COMMIT)
    with pytest.raises(IllegalTransitionError, match="fall_back in state streaming"):
        call.step(Event.FALL_BACK)


def test_a_step_that_does_not_exist_changes_nothing() -> None:
    call = walked(Event.ENQUEUE)
    with pytest.raises(IllegalTransitionError):
        call.step(Event.COMMIT)
    assert repr(call) == "<Call queued>"
    assert call.step(Event.ADMIT) is State.ADMITTED


# --- Promises of the table --------------------------------------------------------------------


def test_streaming_has_one_door() -> None:
    doors = [edge for edge, target in TRANSITIONS.items() if target is State.STREAMING]
    assert doors == [(State.DISPATCHED, Event.COMMIT)]


@pytest.mark.parametrize("state", sorted(set(State) - FINAL))
def test_the_client_may_leave_at_any_time(state: State) -> None:
    assert TRANSITIONS[state, Event.CLIENT_GONE] is State.ABANDONED


@pytest.mark.parametrize("state", sorted(FINAL))
def test_nothing_happens_to_a_call_that_has_ended(state: State) -> None:
    assert possible(state) == []


def test_every_state_can_be_reached_and_every_event_is_used() -> None:
    assert {State.PENDING, *TRANSITIONS.values()} == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)


@given(choices=CHOICES)
def test_any_walk_with_one_fallback_ends_and_gives_its_seat_back(choices: list[int]) -> None:
    call, seats, fallbacks = Call(), 0, 0
    for choice in choices:
        if call.ended:
            break
        events = [e for e in possible(call.state) if e is not Event.FALL_BACK or not fallbacks]
        event = events[choice % len(events)]
        before = call.state
        after = call.step(event)
        fallbacks += event is Event.FALL_BACK
        # Entering the group takes a seat, leaving it gives the seat back.
        seats += (after in SEATED) - (before in SEATED)
        assert seats == (after in SEATED)
    assert call.ended
    assert seats == 0


# --- How it ends where it stands --------------------------------------------------------------


def standing(state: State) -> Call:
    call = Call()
    call.state = state
    return call


@pytest.mark.parametrize(
    ("state", "unanswered", "by_error"),
    [
        (State.PENDING, State.REJECTED, State.REJECTED),
        (State.QUEUED, State.REJECTED, State.REJECTED),
        (State.ADMITTED, State.FAILED, State.FAILED),
        (State.DISPATCHED, State.FAILED, State.FAILED),
        (State.STREAMING, None, State.TRUNCATED),
    ],
)
def test_a_call_without_a_seat_is_rejected_and_one_with_a_seat_has_failed(
    state: State, unanswered: State | None, by_error: State
) -> None:
    call = standing(state)
    if unanswered is None:
        with pytest.raises(IllegalTransitionError):
            call.end_unanswered()
    else:
        assert call.seatless is (unanswered is State.REJECTED)
        call.end_unanswered()
        assert call.state is unanswered
    call = standing(state)
    call.end_by_error()
    assert call.state is by_error


@pytest.mark.parametrize("state", sorted(set(State) - FINAL))
def test_only_what_was_dispatched_falls_back(state: State) -> None:
    call = standing(state)
    call.fall_back()
    assert call.state is (State.PENDING if state is State.DISPATCHED else state)


def test_a_client_that_leaves_was_in_line_or_waiting_or_reading() -> None:
    where = {state: standing(state).client_is for state in sorted(set(State) - FINAL)}
    assert where.pop(State.QUEUED) == "queued"
    assert where.pop(State.STREAMING) == "streaming"
    assert set(where.values()) == {"before_first_byte"}


# --- The picture ------------------------------------------------------------------------------


def test_the_diagram_has_one_arrow_for_each_edge_and_each_end() -> None:
    arrows = re.findall(r"^    (\S+) --> (\S+?)(?:: (\w+))?$", diagram(), re.MULTILINE)
    edges = {(s.value, t.value, e.value) for (s, e), t in TRANSITIONS.items()}
    ends = {(state.value, "[*]", "") for state in FINAL}
    assert set(arrows) == {("[*]", "pending", ""), *edges, *ends}
    assert len(arrows) == len(diagram().splitlines()) - 1


def test_architecture_md_shows_this_diagram() -> None:
    wanted = f"```mermaid\n{diagram()}\n```"
    assert ARCHITECTURE.exists(), f"ARCHITECTURE.md is missing; it has to contain\n{wanted}"
    assert wanted in ARCHITECTURE.read_text(), (
        f"the life of a call in ARCHITECTURE.md is not the table; paste this over it\n{wanted}"
    )
