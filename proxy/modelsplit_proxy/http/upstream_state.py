"""The states of one connection to the upstream, as a table.

A connection rests between two exchanges (IDLE). ``start`` begins one: the answer's head is
awaited (HEAD), then its body is received, to a known end (BODY) or until the upstream closes
(BODY_TO_EOF). When the answer is whole the connection is either fit for another exchange
(WHOLE) or not (MUST_CLOSE). CLOSED is final.

What the table promises, and the tests check on it:

- Only IDLE accepts START, and only WHOLE leads back to IDLE: an answer that is not whole, or
  that was followed by a byte too many, is the last one of its connection.
- Body bytes are accepted in RECEIVING alone.
- Every state but CLOSED accepts CUT.
- An event that the table does not list is a bug of ours.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    BODY_TO_EOF = "body_to_eof"
    WHOLE = "whole"
    MUST_CLOSE = "must_close"
    CLOSED = "closed"


class Event(StrEnum):
    """What happens to a connection.

    SIZED and UNSIZED: a final head was read; its body has an end of its own, or ends with the
    connection. END: the answer is whole. END_CLOSING: it is, and the connection ends with it.
    SURPLUS: bytes that belong to no answer. REST: back to the pool. CUT: closed, by us or them.
    """

    START = "start"
    SIZED = "sized"
    UNSIZED = "unsized"
    END = "end"
    END_CLOSING = "end_closing"
    SURPLUS = "surplus"
    REST = "rest"
    CUT = "cut"


TRANSITIONS: Final = MappingProxyType(
    {
        (State.IDLE, Event.START): State.HEAD,
        (State.IDLE, Event.CUT): State.CLOSED,
        (State.HEAD, Event.SIZED): State.BODY,
        (State.HEAD, Event.UNSIZED): State.BODY_TO_EOF,
        (State.HEAD, Event.CUT): State.CLOSED,
        (State.BODY, Event.END): State.WHOLE,
        (State.BODY, Event.END_CLOSING): State.MUST_CLOSE,
        (State.BODY, Event.CUT): State.CLOSED,
        (State.BODY_TO_EOF, Event.END_CLOSING): State.MUST_CLOSE,
        (State.BODY_TO_EOF, Event.CUT): State.CLOSED,
        (State.WHOLE, Event.SURPLUS): State.MUST_CLOSE,
        (State.WHOLE, Event.REST): State.IDLE,
        (State.WHOLE, Event.CUT): State.CLOSED,
        (State.MUST_CLOSE, Event.SURPLUS): State.MUST_CLOSE,
        (State.MUST_CLOSE, Event.CUT): State.CLOSED,
    }
)
"""Where each event leads. Read by subscript: a function call less for each byte's way."""

RECEIVING: Final = frozenset({State.BODY, State.BODY_TO_EOF})
ENDED: Final = frozenset({State.WHOLE, State.MUST_CLOSE})


def diagram() -> str:
    """The table as Mermaid source; the picture in ARCHITECTURE.md is this text."""
    edges = (f"    {s} --> {t}: {e}" for (s, e), t in TRANSITIONS.items())
    return "\n".join(
        [
            "stateDiagram-v2",
            f"    [*] --> {State.IDLE}",
            *edges,
            f"    {State.CLOSED} --> [*]",
        ]
    )
