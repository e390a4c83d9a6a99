"""A machine in virtual time: runs calls as Ollama does on shared silicon, in no time at all.

Each model has slots; a call beyond them waits inside, as it does in Ollama. Calls that run
share the machine: with n at once each writes ``rate / (1 + contention * (n - 1))`` tokens a
second, so that contention 1 is a small CPU host and 0 a machine with room for all.
Admission decides who runs, exactly as in the process; only time and sockets are made up.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field

from modelsplit_policy.admission import Admission
from modelsplit_policy.failures import Failure, Reason
from modelsplit_policy.parallelism import Report
from modelsplit_policy.tickets import Place, Ticket
from modelsplit_policy.vocabulary import Role


@dataclass
class Job:
    """One call of a trace. Seconds; tokens. Filled in as it runs."""

    at: float
    role: Role
    model: str
    tokens: float
    client: str = ""
    patience_s: float = 1e9
    max_wait_s: float = 8.0
    max_hold_s: float = 1e9
    ticket: Ticket | None = None
    started: float | None = None
    working: float | None = None
    ended: float | None = None
    refused: Failure | None = None
    gone: bool = False
    left: float = 0.0

    @property
    def latency(self) -> float:
        return (self.ended if self.ended is not None else 1e9) - self.at

    @property
    def failed(self) -> bool:
        return self.refused is not None or self.gone


@dataclass
class Host:
    """The machine. ``slots``: NUM_PARALLEL, may be changed while it runs."""

    rate: float = 60.0
    contention: float = 1.0
    slots: int = 1
    work: list[Job] = field(default_factory=list)
    inside: dict[str, deque[Job]] = field(default_factory=dict)
    peak: int = 0

    def begin(self, job: Job, now: float) -> None:
        job.left = job.tokens
        self.inside.setdefault(job.model, deque()).append(job)
        self._fill(now)

    def end(self, job: Job, now: float) -> None:
        if job in self.work:
            self.work.remove(job)
        elif job in self.inside.get(job.model, ()):
            self.inside[job.model].remove(job)
        self._fill(now)

    def speed(self) -> float:
        n = len(self.work)
        return self.rate / (1 + self.contention * (n - 1)) if n else 0.0

    def advance(self, seconds: float) -> None:
        done = self.speed() * seconds
        for job in self.work:
            job.left -= done

    def next_end(self) -> float | None:
        """Seconds until the first running call is done."""
        if not self.work:
            return None
        return max(0.0, min(job.left for job in self.work) / self.speed())

    def _fill(self, now: float) -> None:
        for model, waiting in self.inside.items():
            while waiting and sum(j.model == model for j in self.work) < self.slots:
                job = waiting.popleft()
                job.working = now
                self.work.append(job)
        self.peak = max(self.peak, len(self.work))


class Run:
    """A trace through admission onto a host. ``admission`` None: straight to the host."""

    def __init__(self, admission: Admission | None, host: Host, jobs: list[Job]) -> None:
        self.admission = admission
        self.host = host
        self.jobs = sorted(jobs, key=lambda job: job.at)
        self.now = 0.0
        self._order = itertools.count()
        self._events: list[tuple[float, int, str, Job]] = []
        self._by_ticket: dict[Ticket, Job] = {}

    def run(self) -> list[Job]:
        for job in self.jobs:
            self._at(job.at, "arrive", job)
            self._at(job.at + job.patience_s, "leave", job)
        while self._events or self.host.work:
            self._step()
        return self.jobs

    def _at(self, when: float, what: str, job: Job) -> None:
        heapq.heappush(self._events, (when, next(self._order), what, job))

    def _step(self) -> None:
        ends = self.host.next_end()
        due = self._events[0][0] if self._events else float("inf")
        if ends is not None and self.now + ends <= due:
            self._advance(self.now + ends)
            done = min(self.host.work, key=lambda job: job.left)
            self._finish(done, completed=True)
            return
        if due == float("inf"):
            return
        when, _, what, job = heapq.heappop(self._events)
        self._advance(when)
        getattr(self, f"_{what}")(job)

    def _advance(self, to: float) -> None:
        self.host.advance(to - self.now)
        self.now = to

    def _arrive(self, job: Job) -> None:
        if self.admission is None:
            self._start(job)
            return
        job.ticket = ticket = Ticket(
            job.role, job.model, self.now, client=job.client, max_wait_s=job.max_wait_s
        )
        self._by_ticket[ticket] = job
        job.refused = self.admission.ask(ticket, self.now)
        if ticket.place is Place.SEATED:
            self._start(job)
        elif ticket.place is Place.WAITING:
            self._at(self.now + ticket.due_in_s, "due", job)
            self._at(self.now + job.max_wait_s, "expire", job)
        self._fill()

    def _due(self, job: Job) -> None:
        assert self.admission is not None
        assert job.ticket is not None
        self.admission.due(job.ticket)
        self._fill()

    def _expire(self, job: Job) -> None:
        assert self.admission is not None
        assert job.ticket is not None
        if job.ticket.place is Place.WAITING:
            job.refused = self.admission.refusal(Reason.QUEUE_TIMEOUT, job.ticket, self.now)
            self.admission.leave(job.ticket, self.now)
            self._fill()

    def _leave(self, job: Job) -> None:
        """The client's patience ends."""
        if job.ended is None and job.refused is None:
            job.gone = True
            self._finish(job, completed=False)

    def _start(self, job: Job) -> None:
        job.started = self.now
        self.host.begin(job, self.now)

    def _finish(self, job: Job, *, completed: bool) -> None:
        job.ended = self.now
        self.host.end(job, self.now)
        if self.admission is not None and job.ticket is not None:
            self.admission.leave(job.ticket, self.now, self._report(job) if completed else None)
            self._fill()

    def _report(self, job: Job) -> Report:
        assert job.started is not None
        assert job.working is not None
        return Report(
            tokens=int(job.tokens),
            eval_s=self.now - job.working,
            prompt_s=0.0,
            load_s=0.0,
            total_s=self.now - job.started,
        )

    def _fill(self) -> None:
        assert self.admission is not None
        for ticket in self.admission.fill(self.now):
            self._start(self._by_ticket[ticket])
