"""The waiting side of admission: a future for each call in line.

``modelsplit_policy.admission`` decides; this module only makes calls wait for it. A seat
is owed back from ``ask`` on, and ``leave`` belongs in a ``finally``: a call that was granted
its seat in the same moment in which its client left still gives it back, and the next in
line gets it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modelsplit_policy.admission import Place
from modelsplit_policy.failures import Reason

if TYPE_CHECKING:
    from modelsplit_policy.admission import Admission, Refusal, Ticket
    from modelsplit_proxy.clock import Clock


class Gate:
    """Lets calls in one by one, as admission says."""

    def __init__(self, admission: Admission, clock: Clock) -> None:
        self._admission = admission
        self._clock = clock
        self._waiting: dict[Ticket, asyncio.Future[Refusal | None]] = {}

    def __repr__(self) -> str:
        return f"<Gate {len(self._waiting)} waiting, {self._admission!r}>"

    def ask(self, ticket: Ticket) -> Refusal | None:
        """Take a seat or a place in line (``ticket.place`` says which), or be refused."""
        return self._admission.ask(ticket, self._clock.now())

    async def wait(self, ticket: Ticket, max_wait_s: float) -> Refusal | None:
        """In line: wait for a seat, ``max_wait_s`` at most. None: seated."""
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[Refusal | None] = loop.create_future()
        self._waiting[ticket] = granted
        timer = loop.call_later(max_wait_s, self._expire, ticket)
        try:
            return await granted
        finally:
            timer.cancel()
            del self._waiting[ticket]

    def leave(self, ticket: Ticket) -> None:
        """Give back whatever ``ticket`` holds, a seat or a place in line; harmless twice."""
        if ticket.place in {Place.WAITING, Place.SEATED}:
            self._wake(self._admission.leave(ticket, self._clock.now()))

    def refuse_all(self, reason: Reason) -> None:
        """Turn away everyone in line."""
        for ticket in list(self._waiting):
            self._turn_away(ticket, reason)

    def _expire(self, ticket: Ticket) -> None:
        self._turn_away(ticket, Reason.QUEUE_TIMEOUT)

    def _turn_away(self, ticket: Ticket, reason: Reason) -> None:
        granted = self._waiting[ticket]
        if granted.done():
            return
        refusal = self._admission.refusal(reason, ticket.role)
        self._wake(self._admission.leave(ticket, self._clock.now()))
        granted.set_result(refusal)

    def _wake(self, seated: list[Ticket]) -> None:
        # A waiter whose task was cancelled in this same moment runs its ``finally`` and
        # gives the seat back through ``leave``; nothing is lost by not waking it.
        for ticket in seated:
            granted = self._waiting[ticket]
            if not granted.done():
                granted.set_result(None)
