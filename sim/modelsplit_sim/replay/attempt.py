"""One call at the proxy, and each of its attempts: what has become of them so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.blame import USUAL
from modelsplit_policy.call import Call
from modelsplit_policy.vocabulary import DEFAULT_HOST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelsplit_policy.attempts import Ask, Tried
    from modelsplit_policy.blame import Circumstances
    from modelsplit_policy.breaker import Allowed
    from modelsplit_policy.budgets import Reservation
    from modelsplit_policy.deadlines import Deadline, Limits
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.roles import Candidate, Route
    from modelsplit_policy.tickets import Ticket
    from modelsplit_policy.vocabulary import Host, Provider
    from modelsplit_sim.virtual_host import Answered, Work

    from .demand import Demand


class AttemptRun:
    """One model asked once. Moments of the run; None: that moment has not come.

    ``over``: whatever still fires for it is void. ``hurries``: somebody is told to ask often
    what is loaded, because of it.
    """

    __slots__ = (
        "allowed",
        "answered",
        "asked",
        "begun",
        "call",
        "candidate",
        "cost_usd",
        "deadline",
        "dispatched",
        "ended",
        "failure",
        "host",
        "hurries",
        "limits",
        "model",
        "number",
        "over",
        "provider",
        "reservation",
        "seated",
        "ticket",
        "upstream_wait_s",
        "work",
    )

    deadline: Deadline
    limits: Limits

    def __init__(self, call: CallRun, ask: Ask, model: str, provider: Provider, now: float) -> None:
        self.call = call
        self.candidate: Candidate = ask.candidate
        self.model = model
        self.provider = provider
        self.number = len(call.attempts)
        self.asked = now
        self.seated: float | None = None
        self.dispatched: float | None = None
        self.begun: float | None = None
        self.ended: float | None = None
        self.ticket: Ticket | None = None
        self.allowed: Allowed | None = None
        self.reservation: Reservation | None = None
        self.work: Work | None = None
        self.answered: Answered | None = None
        self.upstream_wait_s: float | None = None
        self.failure: Failure | None = None
        self.cost_usd: float | None = None
        self.host: Host = DEFAULT_HOST
        self.hurries = False
        self.over = False

    def __repr__(self) -> str:
        return f"<AttemptRun {self.number} of {self.call!r}, {self.model}>"

    @property
    def waited_s(self) -> float:
        """How long it stood in line."""
        until = self.seated if self.seated is not None else self.ended
        return 0.0 if until is None else until - self.asked


class CallRun:
    """One call that came to the proxy. ``retry``: how often its client had tried before.

    ``failure``: what its client was told; ``gone``: its client left; neither: it was answered.
    ``unfit``: answered with what does not fit its schema. ``checked``: held to one.
    """

    __slots__ = (
        "arrived",
        "attempts",
        "candidates",
        "checked",
        "circumstances",
        "demand",
        "ended",
        "failure",
        "gone",
        "has_client_seat",
        "holds",
        "number",
        "retry",
        "route",
        "state",
        "tried",
        "unfit",
    )

    # Once it has been routed.
    route: Route

    def __init__(self, demand: Demand, number: int, retry: int, now: float) -> None:
        self.demand = demand
        self.number = number
        self.retry = retry
        self.arrived = now
        self.state = Call()
        self.candidates: Sequence[Candidate] = ()
        self.circumstances: Circumstances = USUAL
        self.attempts: list[AttemptRun] = []
        self.tried: list[Tried] = []
        # The seat of an attempt whose answer did not fit, until the next one stands in line.
        self.holds: AttemptRun | None = None
        self.has_client_seat = False
        self.ended: float | None = None
        self.failure: Failure | None = None
        self.gone = False
        self.unfit = False
        self.checked = False

    def __repr__(self) -> str:
        return f"<CallRun {self.number} {self.state!r}>"

    @property
    def ok(self) -> bool:
        return self.failure is None and not self.gone

    @property
    def latency_s(self) -> float:
        """From its arrival to its end; for one that has ended."""
        assert self.ended is not None
        return self.ended - self.arrived

    @property
    def waited_s(self) -> float:
        """How long it stood in line, all attempts together."""
        return sum(attempt.waited_s for attempt in self.attempts)

    @property
    def busy_s(self) -> float:
        """How long it kept the host, waits inside Ollama included, all attempts together."""
        return sum(
            attempt.ended - attempt.dispatched
            for attempt in self.attempts
            if attempt.dispatched is not None and attempt.ended is not None
        )

    @property
    def wasted_s(self) -> float:
        """How long the host computed for a client that has left; of one that has not: 0."""
        work = self.attempts[-1].work if self.gone and self.attempts else None
        if work is None or work.begun is None or self.ended is None:
            return 0.0
        return self.ended - work.begun

    @property
    def fallback_used(self) -> bool:
        return len(self.attempts) > 1 or (bool(self.attempts) and self.route.starts_at_fallback)
