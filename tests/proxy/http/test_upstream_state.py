"""One upstream connection's life: it is reused only after an answer that was whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelsplit_proxy.http.upstream_state import (
    ENDED,
    RECEIVING,
    TRANSITIONS,
    ConnectionEvent,
    ConnectionState,
    diagram,
)

ARCHITECTURE = Path(__file__).parents[3] / "ARCHITECTURE.md"


def walked(*events: ConnectionEvent) -> ConnectionState:
    state = ConnectionState.IDLE
    for event in events:
        state = TRANSITIONS[state, event]
    return state


@pytest.mark.parametrize(
    ("life", "end"),
    [
        (
            [
                ConnectionEvent.START,
                ConnectionEvent.SIZED,
                ConnectionEvent.END,
                ConnectionEvent.REST,
            ],
            ConnectionState.IDLE,
        ),
        (
            [ConnectionEvent.START, ConnectionEvent.SIZED, ConnectionEvent.END_CLOSING],
            ConnectionState.MUST_CLOSE,
        ),
        (
            [ConnectionEvent.START, ConnectionEvent.UNSIZED, ConnectionEvent.END_CLOSING],
            ConnectionState.MUST_CLOSE,
        ),
        (
            [
                ConnectionEvent.START,
                ConnectionEvent.SIZED,
                ConnectionEvent.END,
                ConnectionEvent.SURPLUS,
                ConnectionEvent.SURPLUS,
            ],
            ConnectionState.MUST_CLOSE,
        ),
        ([ConnectionEvent.START, ConnectionEvent.CUT], ConnectionState.CLOSED),
    ],
)
def test_a_connection_is_where_its_events_lead(
    life: list[ConnectionEvent], end: ConnectionState
) -> None:
    assert walked(*life) is end


def test_only_a_whole_answer_leads_back_to_the_pool() -> None:
    assert [
        state for (state, _), after in TRANSITIONS.items() if after is ConnectionState.IDLE
    ] == [ConnectionState.WHOLE]


def test_an_exchange_begins_on_an_idle_connection_only() -> None:
    assert [state for state, event in TRANSITIONS if event is ConnectionEvent.START] == [
        ConnectionState.IDLE
    ]


def test_an_answer_ends_only_after_its_head() -> None:
    endings = {(s, e) for s, e in TRANSITIONS if TRANSITIONS[s, e] in ENDED and s not in ENDED}
    assert {state for state, _ in endings} == RECEIVING


def test_every_state_but_the_last_can_be_cut() -> None:
    assert {state for state, event in TRANSITIONS if event is ConnectionEvent.CUT} == set(
        ConnectionState
    ) - {ConnectionState.CLOSED}


def test_what_was_cut_does_nothing_more() -> None:
    assert not [event for state, event in TRANSITIONS if state is ConnectionState.CLOSED]


def test_the_picture_in_the_architecture_is_the_table() -> None:
    pictures = re.findall(r"```mermaid\n(.*?)\n```", ARCHITECTURE.read_text("utf-8"), re.DOTALL)
    assert diagram() in pictures
