"""A whole run in virtual time: the policy's own code decides, a virtual host computes.

Roles, admission, attempts, deadlines, what is loaded and what is learned are the code that
decides in the process; only time, sockets and the machine are made up. Without a policy the
calls go straight to the host, as they would with no proxy.

Thousands of calls a second; the same seed gives the same run.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from modelsplit_policy import admission as seats
from modelsplit_policy import overload
from modelsplit_policy.attempts import Ask, Tell, Tried, first_step, next_step, wait_left_s
from modelsplit_policy.deadlines import Deadline, Limits, failure_of
from modelsplit_policy.failures import Failure, Reason
from modelsplit_policy.model_names import canonical
from modelsplit_policy.parallelism import Report
from modelsplit_policy.roles import Roles, Route
from modelsplit_policy.roles import RouteRequest as Wish
from modelsplit_policy.tickets import Place, Ticket
from modelsplit_policy.vocabulary import Provider, Role

from .virtual_host import VirtualHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.config.model import Policy

    from .host_shape import HostShape
    from .virtual_host import Work
    from .virtual_traffic import Arrival

_STALL_S = 60.0


class Line(Protocol):
    """What lets calls in: admission, or something it is compared with."""

    def ask(self, ticket: Ticket, now: float) -> Failure | None: ...
    def leave(self, ticket: Ticket, now: float, report: Report | None = None) -> None: ...
    def fill(self, now: float) -> list[Ticket]: ...


@dataclass(slots=True, eq=False)
class VirtualCall:
    """One call and what became of it. Moments of the run; ``ended`` None: it still goes on.

    ``busy_s``: how long it kept the host, waits inside Ollama included, all attempts.
    ``upstream_wait_s``: of the last attempt, inside Ollama. ``refused``: no seat, and why.
    ``gone``: its client left.
    """

    arrival: Arrival
    role: Role
    client: str = ""
    ended: float | None = None
    seated: float | None = None
    busy_s: float = 0.0
    wasted_s: float = 0.0
    upstream_wait_s: float = 0.0
    refused: Reason | None = None
    failed: Failure | None = None
    gone: bool = False

    @property
    def ok(self) -> bool:
        return not (self.gone or self.refused or self.failed)

    @property
    def latency_s(self) -> float:
        return (self.ended or 0.0) - self.arrival.at


class _Run:
    """What one call is doing."""

    __slots__ = ("ask", "call", "candidates", "deadline", "limits", "ticket", "tried", "work")

    def __init__(self, call: VirtualCall) -> None:
        self.call = call
        self.candidates: Sequence[Any] = ()
        self.tried: list[Tried] = []
        self.ask: Ask | None = None
        self.ticket: Ticket | None = None
        self.work: Work | None = None
        self.deadline: Deadline | None = None
        self.limits: Limits | None = None


class VirtualRun:
    """One run. ``line`` None: no proxy, and ``models`` says where each role's calls go."""

    def __init__(
        self,
        policy: Policy,
        shape: HostShape,
        arrivals: Iterable[Arrival],
        *,
        line: Line | str | None = "admission",
        models: dict[str, str] | None = None,
        seed: int = 0,
        chat_model: str = "qwen3:8b",
    ) -> None:
        self._policy = policy
        self._roles = Roles(policy)
        self._chat_model = chat_model
        self._models = models
        self.admission: Admission | None = None
        if line == "admission":
            self.admission = line = seats.from_policy(policy)
        self._line: Any = line
        self.host = VirtualHost(shape, seed, self._loaded_at_first())
        self.calls = [VirtualCall(arrival, Role(arrival.role)) for arrival in arrivals]
        self.now = 0.0
        self.finished = 0
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = itertools.count()
        self._by_ticket: dict[Ticket, _Run] = {}
        self._look_at: float | None = None
        # Told of each finished call.
        self.listeners: list[Callable[[], None]] = []
        self._told: frozenset[str] | None = None
        rows = policy.roles.values()
        named = {model for row in rows for model in (row.primary, row.fallback) if model}
        self._installed = frozenset(map(canonical, {*named, chat_model}))

    def __repr__(self) -> str:
        return f"<VirtualRun {self.finished}/{len(self.calls)} at {self.now:.3f}>"

    def run(self) -> list[VirtualCall]:
        """Play it to its end."""
        for call in self.calls:
            self._at(call.arrival.at, self._arrive, _Run(call))
        self._tell_loaded()
        while True:
            due = self._events[0][0] if self._events else float("inf")
            happens = self.host.next_at()
            if happens <= due:
                if happens == float("inf"):
                    return self.calls
                self._advance(happens)
                continue
            self._advance(due)
            _, _, event, subject = heapq.heappop(self._events)
            event(subject)

    # Time.

    def _at(self, when: float, event: Callable[[Any], None], subject: Any) -> None:
        heapq.heappush(self._events, (when, next(self._order), event, subject))

    def _advance(self, to: float) -> None:
        self.now = to
        for work in self.host.advance(to):
            self._done(work.payload)
        self._tell_loaded()

    def _loaded_at_first(self) -> list[str]:
        if self._models is not None:
            return list(dict.fromkeys(self._models.values()))
        rows = self._policy.roles
        names = [
            rows[role].primary or self._chat_model
            for role in (Role.PLANNER, Role.EXECUTOR, Role.HEAVY)
        ]
        return [canonical(name) for name in names]

    def _tell_loaded(self) -> None:
        if self.admission is None:
            return
        loaded = self.host.loaded
        if loaded != self._told:
            self._told = loaded
            self.admission.note_loaded(
                {model: model in loaded for model in self._installed | loaded}
            )
            self._fill()

    # A call.

    def _arrive(self, run: _Run) -> None:
        call = run.call
        self._at(self.now + call.arrival.patience_s, self._client_leaves, run)
        if self._line is None:
            assert self._models is not None
            self._send(run, self._models[call.role])
            return
        wish = Wish(self._chat_model) if call.role is Role.CHAT else Wish(call.role.lower())
        route = self._roles.route(wish)
        assert isinstance(route, Route)
        run.candidates = route.candidates
        self._attempt(run, first_step(route.candidates))

    def _attempt(self, run: _Run, ask: Ask) -> None:
        row = self._policy.roles[run.call.role]
        run.ask = ask
        hold = row.max_hold_ms
        run.ticket = ticket = Ticket(
            run.call.role,
            canonical(ask.candidate.model),
            self.now,
            client=run.call.client,
            max_wait_s=wait_left_s(row.max_wait_ms / 1000, None, ask.waited_s),
            max_hold_s=float("inf") if hold is None else hold / 1000,
            front=ask.front,
        )
        self._by_ticket[ticket] = run
        refusal = self._line.ask(ticket, self.now)
        if refusal is not None:
            self._refuse(run, refusal)
        elif ticket.place is Place.SEATED:
            self._seated(run)
        else:
            self._wait(run, ticket)
        self._fill()

    def _wait(self, run: _Run, ticket: Ticket) -> None:
        if self.admission is not None:
            self._at(self.now + ticket.due_in_s, self._due, ticket)
        self._at(self.now + ticket.max_wait_s, self._wait_ends, run)

    def _due(self, ticket: Ticket) -> None:
        assert self.admission is not None
        if ticket.place is Place.WAITING:
            self.admission.due(ticket)
            self._fill()

    def _wait_ends(self, run: _Run) -> None:
        ticket = run.ticket
        if ticket is not None and ticket.place is Place.WAITING:
            refusal = self._line.refusal(Reason.QUEUE_TIMEOUT, ticket, self.now)
            self._leave(run)
            self._refuse(run, refusal)
            self._fill()

    def _refuse(self, run: _Run, refusal: Failure) -> None:
        if run.ticket is not None:
            self._by_ticket.pop(run.ticket, None)
        run.call.refused = refusal.reason
        self._end(run)

    def _seated(self, run: _Run) -> None:
        assert run.ask is not None
        run.call.seated = self.now
        limits = Limits(run.ask.candidate.timeout_s, self._policy.load_timeout_ms / 1000, _STALL_S)
        run.limits, run.deadline = limits, Deadline(limits, self.now)
        self._send(run, canonical(run.ask.candidate.model))
        self._look(run)

    def _send(self, run: _Run, model: str) -> None:
        arrival = run.call.arrival
        run.work = work = self.host.work(model, arrival.tokens, arrival.pace, run)
        self.host.send(work)

    def _look(self, run: _Run) -> None:
        """Whoever waits for an answer looks whether a bound has ended it."""
        work, deadline, ticket = run.work, run.deadline, run.ticket
        if work is None or deadline is None or ticket is None or ticket.place is not Place.SEATED:
            return
        loaded = work.model in self.host.loaded
        look = deadline.look(self.now, loaded)
        if look.asks:
            look = deadline.look(self.now, loaded, asked=True)
        if look.ended_by is not None:
            self._late(run, look.ended_by)
        elif look.until is not None:
            self._at(look.until, self._look, run)

    def _late(self, run: _Run, reason: Reason) -> None:
        assert run.limits is not None
        assert run.ask is not None
        failure = failure_of(
            reason, run.limits, model=run.ask.candidate.model, provider=Provider.LOCAL
        )
        waited_s = (run.call.seated or 0.0) - (run.ticket.arrived if run.ticket else 0.0)
        run.tried.append(Tried(failure, seated=True, waited_s=waited_s))
        self._stop(run)
        self._leave(run)
        step = next_step(run.candidates, None, run.tried)
        if isinstance(step, Tell):
            run.call.failed = failure
            self._end(run)
            self._fill()
        else:
            self._attempt(run, step)

    def _done(self, run: _Run) -> None:
        """The answer is whole."""
        work, call = run.work, run.call
        assert work is not None
        report = Report(*self.host.report(work))
        call.upstream_wait_s = (work.begun or 0.0) - work.sent - work.load_s
        self._stop(run)
        self._leave(run, report)
        self._end(run)
        self.finished += 1
        for listener in self.listeners:
            listener()
        self._fill()

    def _client_leaves(self, run: _Run) -> None:
        call = run.call
        if call.ended is not None:
            return
        call.gone = True
        if run.work is not None:
            call.wasted_s += self.now - run.work.begun if run.work.begun is not None else 0.0
        self._stop(run)
        self._leave(run)
        self._end(run)
        self._fill()

    def _stop(self, run: _Run) -> None:
        work, run.work = run.work, None
        if work is not None:
            run.call.busy_s += self.now - work.sent
            self.host.leave(work)

    def _leave(self, run: _Run, report: Report | None = None) -> None:
        ticket = run.ticket
        if ticket is not None and self._line is not None:
            self._by_ticket.pop(ticket, None)
            self._line.leave(ticket, self.now, report)

    def _end(self, run: _Run) -> None:
        run.call.ended = self.now

    def _fill(self) -> None:
        if self._line is None:
            return
        for ticket in self._line.fill(self.now):
            self._seated(self._by_ticket[ticket])
        if self.admission is not None:
            look_at = self.admission.look_at
            if look_at is not None and look_at != self._look_at:
                self._look_at = look_at
                self._at(look_at, self._look_again, None)

    def _look_again(self, nothing: None) -> None:
        """A seat that was held free need not be any longer."""
        del nothing
        self._fill()


class PlainCaps:
    """What admission is compared with: caps on roles and on all, first come first served."""

    def __init__(self, caps: dict[Role, int], all_at_once: int) -> None:
        """``caps``: of the roles that have one."""
        self._caps = caps
        self._all = all_at_once
        self._running: dict[Role, int] = dict.fromkeys(Role, 0)
        self._line: dict[Ticket, None] = {}

    def ask(self, ticket: Ticket, now: float) -> None:
        del now
        ticket.place = Place.WAITING
        self._line[ticket] = None

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

    def refusal(self, reason: Reason, ticket: Ticket, now: float) -> Failure:
        running = (self._running[ticket.role], self._caps.get(ticket.role, self._all))
        return overload.no_seat(
            reason,
            ticket.role,
            held=f"{running[0]}/{running[1]} running",
            waiting=(len(self._line), len(self._line)),
            retry_after_s=1,
            waited_s=now - ticket.arrived,
        )
