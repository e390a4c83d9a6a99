"""The waiting side of admission: a future for each call in line.

``modelsplit_policy.admission`` decides; this module only makes calls wait for it. A seat
is owed back from ``ask`` on, and ``leave`` belongs in a ``finally``: a call that was granted
its seat in the same moment in which its client left still gives it back, and the next in
line gets it.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from modelsplit_policy import overload
from modelsplit_policy.failures import Reason
from modelsplit_policy.tickets import Hold, Place
from modelsplit_policy.vocabulary import DEFAULT_HOST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.parallelism import Report
    from modelsplit_policy.tickets import Crowd, Seats, Ticket
    from modelsplit_policy.vocabulary import Host, Role
    from modelsplit_proxy.runtime.clock import Clock


# So much of a wait explains why it ended for nothing.
_AWAY_MIN_S: Final = 0.5


class HostLine:
    """What one host tells the line: each as the method of ``AdmissionQueue`` of that name."""

    def __init__(self, queue: AdmissionQueue, host: Host) -> None:
        self._queue = queue
        self._host = host

    def __repr__(self) -> str:
        return f"<HostLine of {self._host}>"

    def resident(
        self, models: Mapping[str, bool], sizes: Mapping[str, int], *, on_gpu: bool = False
    ) -> None:
        self._queue.resident(models, sizes, self._host, on_gpu=on_gpu)

    def hold(self, away: Failure) -> None:
        self._queue.hold(away, self._host)

    def go_on(self) -> None:
        self._queue.go_on(self._host)

    def hangs(self, upstream: str) -> None:
        self._queue.hangs(upstream, self._host)

    def give_up(self) -> None:
        self._queue.give_up(self._host)

    def has(self, installed: Mapping[str, int]) -> None:
        self._queue.has(self._host, installed)


class AdmissionQueue:
    """Lets calls in one by one, as admission says."""

    def __init__(self, admission: Admission, clock: Clock) -> None:
        self._admission = admission
        self._clock = clock
        self._waiting: dict[Ticket, asyncio.Future[Failure | None]] = {}
        self._look: tuple[float, asyncio.TimerHandle] | None = None
        # Of each host that is away, what those are told whose wait ends for that.
        self._away: dict[Host, Failure] = {}
        # When Ollama was away or hung last, from and until.
        self._was_gone = (-math.inf, -math.inf)
        self._hanging: dict[Host, str] = {}
        # While all hosts hang, where one of them is.
        self._hangs = ""

    def __repr__(self) -> str:
        return f"<AdmissionQueue {len(self._waiting)} waiting, {self._admission!r}>"

    def ask(self, ticket: Ticket) -> Failure | None:
        """Take a seat or a place in line (``ticket.place`` says which), or be refused."""
        refusal = self._admission.ask(ticket, self._clock.now())
        if ticket.place is Place.WAITING:
            self._waiting[ticket] = asyncio.get_running_loop().create_future()
            self._fill()
        if refusal is not None and self._away and refusal.reason is Reason.QUEUE_TIMEOUT:
            return self._explained(refusal, ticket, self._clock.now())
        if refusal is not None and self._hangs:
            return overload.behind_a_hang(refusal, ticket.role, 0.0, self._hangs)
        return refusal

    async def wait(self, ticket: Ticket) -> Failure | None:
        """In line: wait for a seat, ``ticket.max_wait_s`` at most. None: seated."""
        loop = asyncio.get_running_loop()
        granted = self._waiting[ticket]
        due = loop.call_later(ticket.due_in_s, self._due, ticket)
        end = loop.call_later(ticket.max_wait_s, self._turn_away, ticket, Reason.QUEUE_TIMEOUT)
        try:
            return await granted
        finally:
            due.cancel()
            end.cancel()

    def leave(self, ticket: Ticket, report: Report | None = None) -> None:
        """Give back whatever ``ticket`` holds, a seat or a place in line; harmless twice."""
        self._waiting.pop(ticket, None)
        if ticket.place in {Place.WAITING, Place.SEATED}:
            self._admission.leave(ticket, self._clock.now(), report)
            if self._waiting:
                self._fill()

    def seats(self, ticket: Ticket) -> Seats:
        """What each limit on the ticket stands at."""
        return self._admission.standing(ticket)

    def crowd(self, ticket: Ticket) -> Crowd:
        """What holds the ticket back, and who runs and waits."""
        return self._admission.crowd(ticket)

    def first_byte(self, ticket: Ticket) -> None:
        """The call's answer has begun."""
        self._admission.first_byte(ticket, self._clock.now())

    def resident(
        self,
        models: Mapping[str, bool],
        sizes: Mapping[str, int],
        host: Host = DEFAULT_HOST,
        *,
        on_gpu: bool = False,
    ) -> None:
        """Whether a model is loaded, by canonical name; of others nobody knows.

        ``sizes``: bytes of memory that the loaded ones take. ``on_gpu``: all of it is known to
        be in a GPU.
        """
        self._admission.note_loaded(models, host, on_gpu=on_gpu)
        if self._admission.placement is not None:
            self._admission.note_taken(sizes, host)
        self._fill()

    def hold(self, away: Failure, host: Host = DEFAULT_HOST) -> None:
        """Nobody listens: seat nobody until ``go_on``. Whose wait ends meanwhile is told ``away``.

        Calls of the cloud have no seats of ours, and go on.
        """
        self._away[host] = away
        self._note_gone()
        self._admission.away(host, is_away=True)
        # Who was about to go there may go elsewhere.
        if self._admission.placement is not None:
            self._fill()

    def go_on(self, host: Host = DEFAULT_HOST) -> None:
        """Somebody listens again."""
        self._away.pop(host, None)
        self._note_gone()
        self._admission.away(host, is_away=False)
        self._fill()

    def hangs(self, upstream: str, host: Host = DEFAULT_HOST) -> None:
        """Somebody listens and answers nothing; empty: it answers. Who gets no seat is told so."""
        if upstream:
            self._hanging[host] = upstream
        else:
            self._hanging.pop(host, None)
        all_hang = len(self._hanging) == self._admission.host_count
        self._hangs = upstream or next(iter(self._hanging.values())) if all_hang else ""
        self._note_gone()
        self._admission.mute(host, is_mute=bool(upstream))
        if self._admission.placement is not None:
            self._fill()

    def give_up(self, host: Host = DEFAULT_HOST) -> None:
        """Nobody will: tell everyone who waited for it."""
        if host not in self._away:
            return
        for ticket in list(self._waiting):
            if self._admission.why(ticket) is Hold.AWAY:
                self._turn_away(ticket, Reason.QUEUE_TIMEOUT)
        self.go_on(host)

    def at(self, host: Host) -> HostLine:
        """What one host tells the line."""
        return HostLine(self, host)

    def has(self, host: Host, installed: Mapping[str, int]) -> None:
        """What a host has installed, by canonical name, and the memory that each takes."""
        self._admission.note_installed(host, installed)
        self._fill()

    def drain(self, host: Host, *, is_drained: bool) -> None:
        """Whether a host takes new calls; those it has go on."""
        self._admission.host(host).drained = is_drained
        self._fill()

    def may_run(self, role: Role, model: str) -> tuple[Host, ...]:
        """The hosts that may run a call; of several only."""
        choice = self._admission.placement
        hosts = () if choice is None else choice.may_run(role, model)
        return tuple(host.host for host in hosts)

    def has_other(self, ticket: Ticket) -> bool:
        """Whether a call that failed where it had its seat may be asked of another host now."""
        choice = self._admission.placement
        return choice is not None and choice.has_other(ticket, self._clock.now())

    def refuse_all(self, reason: Reason) -> None:
        """Turn away everyone in line."""
        for ticket in list(self._waiting):
            self._turn_away(ticket, reason)

    def _due(self, ticket: Ticket) -> None:
        self._admission.due(ticket)
        self._fill()

    def _turn_away(self, ticket: Ticket, reason: Reason) -> None:
        granted = self._waiting[ticket]
        if granted.done():
            return
        now = self._clock.now()
        refusal = self._admission.refusal(reason, ticket, now)
        if reason is Reason.QUEUE_TIMEOUT:
            refusal = self._explained(refusal, ticket, now)
        granted.set_result(refusal)
        self._admission.leave(ticket, now)
        self._fill()

    def _explained(self, refusal: Failure, ticket: Ticket, now: float) -> Failure:
        """Why a wait ended for nothing, where that is Ollama's doing."""
        is_away = self._admission.placement is None or ticket.held is Hold.AWAY
        if self._away and is_away:
            return next(reversed(self._away.values()))
        if self._hangs:
            return overload.behind_a_hang(refusal, ticket.role, now - ticket.arrived, self._hangs)
        if not is_away:
            return refusal
        gone_s = self.gone_s(ticket)
        return overload.after_an_outage(refusal, gone_s) if gone_s else refusal

    def gone_s(self, ticket: Ticket) -> float:
        """For how much of its wait Ollama was away or hung; 0: too little to explain it."""
        since, until = self._was_gone
        gone_s = min(until, self._clock.now()) - max(since, ticket.arrived)
        return gone_s if gone_s >= _AWAY_MIN_S else 0.0

    def _note_gone(self) -> None:
        is_gone = bool(self._away or self._hangs)
        if is_gone and self._was_gone[1] != math.inf:
            self._was_gone = (self._clock.now(), math.inf)
        elif not is_gone and self._was_gone[1] == math.inf:
            self._was_gone = (self._was_gone[0], self._clock.now())

    def _fill(self) -> None:
        # A waiter whose task was cancelled in this same moment runs its ``finally`` and
        # gives the seat back through ``leave``; nothing is lost by not waking it.
        for ticket in self._admission.fill(self._clock.now()):
            granted = self._waiting[ticket]
            if not granted.done():
                granted.set_result(None)
        self._look_again_at(self._admission.look_at)

    def _look_again_at(self, moment: float | None) -> None:
        """Somebody may be seated then though nothing happens before; None: nobody."""
        if self._look is not None:
            if self._look[0] == moment:
                return
            self._look[1].cancel()
            self._look = None
        if moment is not None and self._waiting:
            after_s = max(0.0, moment - self._clock.now())
            timer = asyncio.get_running_loop().call_later(after_s, self._looks)
            self._look = moment, timer

    def _looks(self) -> None:
        self._look = None
        self._fill()
