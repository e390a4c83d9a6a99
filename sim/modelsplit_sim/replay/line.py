"""What lets calls in at a proxy: admission, or something that it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from modelsplit_policy import overload
from modelsplit_policy.tickets import Place
from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.failures import Failure, Reason
    from modelsplit_policy.parallelism import Report
    from modelsplit_policy.tickets import Ticket


class Line(Protocol):
    """As ``Admission``, of which these are a part, has them."""

    @property
    def look_at(self) -> float | None: ...
    def ask(self, ticket: Ticket, now: float) -> Failure | None: ...
    def leave(self, ticket: Ticket, now: float, report: Report | None = None) -> None: ...
    def fill(self, now: float) -> list[Ticket]: ...
    def due(self, ticket: Ticket) -> None: ...
    def first_byte(self, ticket: Ticket, now: float) -> None: ...
    def note_loaded(self, loaded: Mapping[str, bool]) -> None: ...
    def refusal(self, reason: Reason, ticket: Ticket, now: float) -> Failure: ...


class PlainCaps:
    """Caps on roles and on all calls, first come first served; nothing is learned."""

    look_at: float | None = None

    def __init__(self, caps: Mapping[Role, int], all_at_once: int) -> None:
        """``caps``: of the roles that have one."""
        self._caps = caps
        self._all = all_at_once
        self._running: dict[Role, int] = dict.fromkeys(Role, 0)
        self._line: dict[Ticket, None] = {}

    def __repr__(self) -> str:
        return f"<PlainCaps {sum(self._running.values())} running, {len(self._line)} waiting>"

    def ask(self, ticket: Ticket, now: float) -> Failure | None:
        del now
        ticket.place = Place.WAITING
        self._line[ticket] = None
        return None

    def leave(self, ticket: Ticket, now: float, report: Report | None = None) -> None:
        del now, report
        if ticket.place is Place.SEATED:
            self._running[ticket.role] -= 1
        self._line.pop(ticket, None)
        ticket.place = Place.GONE

    def fill(self, now: float) -> list[Ticket]:
        seated = []
        for ticket in list(self._line):
            cap = self._caps.get(ticket.role)
            if sum(self._running.values()) >= self._all:
                break
            if cap is not None and self._running[ticket.role] >= cap:
                continue
            del self._line[ticket]
            ticket.place, ticket.seated = Place.SEATED, now
            self._running[ticket.role] += 1
            seated.append(ticket)
        return seated

    def due(self, ticket: Ticket) -> None:
        """Nobody starts early."""

    def first_byte(self, ticket: Ticket, now: float) -> None:
        """Nothing is learned."""

    def note_loaded(self, loaded: Mapping[str, bool]) -> None:
        """Nothing is learned."""

    def refusal(self, reason: Reason, ticket: Ticket, now: float) -> Failure:
        running, most = self._running[ticket.role], self._caps.get(ticket.role, self._all)
        return overload.no_seat(
            reason,
            ticket.role,
            held=f"{running}/{most} running",
            waiting=(len(self._line), len(self._line)),
            retry_after_s=1,
            waited_s=now - ticket.arrived,
        )
