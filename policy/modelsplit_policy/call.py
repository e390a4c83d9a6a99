"""The life of one call, as a table.

A call waits for a decision (PENDING), may stand in line (QUEUED), holds a seat
(ADMITTED), has a request under way upstream (DISPATCHED) and answers the client
(STREAMING). It ends in exactly one of five final states.

What the table promises, and the tests check on it:

- A seat is held in ADMITTED, DISPATCHED and STREAMING. Entering that group takes the seat and
  leaving it gives the seat back, FALL_BACK included. (Of a retry at once the proxy keeps the
  first attempt's seat until the second stands in line, so that nobody comes between.)
- COMMIT is the only door into STREAMING, and FALL_BACK does not exist behind it: once the
  client has a byte, no second model may speak.
- Every state that is not final accepts CLIENT_GONE. Final states accept nothing.
- An event the table does not list is a bug of ours: it raises, and nothing changes.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from modelsplit_policy.failures import Reason


class State(StrEnum):
    PENDING = "pending"
    QUEUED = "queued"
    ADMITTED = "admitted"
    DISPATCHED = "dispatched"
    STREAMING = "streaming"
    COMPLETED = "completed"
    REJECTED = "rejected"
    FAILED = "failed"
    TRUNCATED = "truncated"
    ABANDONED = "abandoned"


class Event(StrEnum):
    ADMIT = "admit"
    ENQUEUE = "enqueue"
    REJECT = "reject"
    DISPATCH = "dispatch"
    COMMIT = "commit"
    FALL_BACK = "fall_back"
    FINISH = "finish"
    BREAK = "break"
    FAIL = "fail"
    CLIENT_GONE = "client_gone"


TRANSITIONS: Final = MappingProxyType(
    {
        (State.PENDING, Event.ADMIT): State.ADMITTED,
        (State.PENDING, Event.ENQUEUE): State.QUEUED,
        (State.PENDING, Event.REJECT): State.REJECTED,
        (State.PENDING, Event.CLIENT_GONE): State.ABANDONED,
        (State.QUEUED, Event.ADMIT): State.ADMITTED,
        (State.QUEUED, Event.REJECT): State.REJECTED,
        (State.QUEUED, Event.CLIENT_GONE): State.ABANDONED,
        (State.ADMITTED, Event.DISPATCH): State.DISPATCHED,
        (State.ADMITTED, Event.FAIL): State.FAILED,
        (State.ADMITTED, Event.CLIENT_GONE): State.ABANDONED,
        (State.DISPATCHED, Event.COMMIT): State.STREAMING,
        (State.DISPATCHED, Event.FALL_BACK): State.PENDING,
        (State.DISPATCHED, Event.FAIL): State.FAILED,
        (State.DISPATCHED, Event.CLIENT_GONE): State.ABANDONED,
        (State.STREAMING, Event.FINISH): State.COMPLETED,
        (State.STREAMING, Event.BREAK): State.TRUNCATED,
        (State.STREAMING, Event.CLIENT_GONE): State.ABANDONED,
    }
)

FINAL: Final = frozenset(
    {State.COMPLETED, State.REJECTED, State.FAILED, State.TRUNCATED, State.ABANDONED}
)
SEATED: Final = frozenset({State.ADMITTED, State.DISPATCHED, State.STREAMING})

# Where a client was when it left; elsewhere it waited for its first byte.
_LEFT: Final = MappingProxyType({State.STREAMING: Reason.STREAMING, State.QUEUED: Reason.QUEUED})


class IllegalTransitionError(Exception):
    """The table has no such edge. Always our own bug, never a client's fault."""


class Call:
    """One call's place in the table. ``step`` is the only way to move it."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.PENDING

    def __repr__(self) -> str:
        return f"<Call {self.state}>"

    @property
    def ended(self) -> bool:
        return self.state in FINAL

    @property
    def seatless(self) -> bool:
        """Whether it has no seat yet: it waits for a decision or stands in line."""
        return self.state is State.PENDING or self.state is State.QUEUED

    @property
    def client_is(self) -> Reason:
        """Where a client that leaves now is."""
        return _LEFT.get(self.state, Reason.BEFORE_FIRST_BYTE)

    def step(self, event: Event) -> State:
        """Move along ``event``'s edge; raise IllegalTransitionError if there is none."""
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise IllegalTransitionError(f"{event} in state {self.state}") from None
        return self.state

    def fall_back(self) -> None:
        """Another attempt follows. One that was turned down before its seat took no step."""
        if self.state is State.DISPATCHED:
            self.step(Event.FALL_BACK)

    def end_unanswered(self) -> None:
        """It ends before its client has a byte."""
        self.step(Event.REJECT if self.seatless else Event.FAIL)

    def end_by_error(self) -> None:
        """It ends wherever it is, by an error of ours."""
        if self.state is State.STREAMING:
            self.step(Event.BREAK)
        else:
            self.end_unanswered()


def diagram() -> str:
    """The table as Mermaid source; the picture in ARCHITECTURE.md is this text."""
    edges = (f"    {s} --> {t}: {e}" for (s, e), t in TRANSITIONS.items())
    starts = [f"    [*] --> {State.PENDING}"]
    ends = [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join(["stateDiagram-v2", *starts, *edges, *ends])
