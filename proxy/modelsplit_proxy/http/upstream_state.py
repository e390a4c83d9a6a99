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


class ConnectionState(StrEnum):
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    BODY_TO_EOF = "body_to_eof"
    WHOLE = "whole"
    MUST_CLOSE = "must_close"
    CLOSED = "closed"


class ConnectionEvent(StrEnum):
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
        (ConnectionState.IDLE, ConnectionEvent.START): ConnectionState.HEAD,
        (ConnectionState.IDLE, ConnectionEvent.CUT): ConnectionState.CLOSED,
        (ConnectionState.HEAD, ConnectionEvent.SIZED): ConnectionState.BODY,
        (ConnectionState.HEAD, ConnectionEvent.UNSIZED): ConnectionState.BODY_TO_EOF,
        (ConnectionState.HEAD, ConnectionEvent.CUT): ConnectionState.CLOSED,
        (ConnectionState.BODY, ConnectionEvent.END): ConnectionState.WHOLE,
        (ConnectionState.BODY, ConnectionEvent.END_CLOSING): ConnectionState.MUST_CLOSE,
        (ConnectionState.BODY, ConnectionEvent.CUT): ConnectionState.CLOSED,
        (ConnectionState.BODY_TO_EOF, ConnectionEvent.END_CLOSING): ConnectionState.MUST_CLOSE,
        (ConnectionState.BODY_TO_EOF, ConnectionEvent.CUT): ConnectionState.CLOSED,
        (ConnectionState.WHOLE, ConnectionEvent.SURPLUS): ConnectionState.MUST_CLOSE,
        (ConnectionState.WHOLE, ConnectionEvent.REST): ConnectionState.IDLE,
        (ConnectionState.WHOLE, ConnectionEvent.CUT): ConnectionState.CLOSED,
        (ConnectionState.MUST_CLOSE, ConnectionEvent.SURPLUS): ConnectionState.MUST_CLOSE,
        (ConnectionState.MUST_CLOSE, ConnectionEvent.CUT): ConnectionState.CLOSED,
    }
)
"""Where each event leads. Read by subscript: a function call less for each byte's way."""

RECEIVING: Final = frozenset({ConnectionState.BODY, ConnectionState.BODY_TO_EOF})
ENDED: Final = frozenset({ConnectionState.WHOLE, ConnectionState.MUST_CLOSE})


def diagram() -> str:
    """The table as Mermaid source; the picture in ARCHITECTURE.md is this text."""
    edges = (f"    {s} --> {t}: {e}" for (s, e), t in TRANSITIONS.items())
    return "\n".join(
        [
            "stateDiagram-v2",
            f"    [*] --> {ConnectionState.IDLE}",
            *edges,
            f"    {ConnectionState.CLOSED} --> [*]",
        ]
    )
