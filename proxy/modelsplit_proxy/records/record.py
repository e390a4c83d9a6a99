"""Everything known about one call: what its headers, its log line and its metrics say.

Filled while the call runs, read once when it ends. Never a prompt, a completion or a key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.budgets import computed_nothing
from modelsplit_policy.call import Call, State
from modelsplit_policy.prices import FREE, cost_usd
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.protocol import error_body
from modelsplit_proxy.protocol.request_headers import NOTHING
from modelsplit_proxy.protocol.stream_end import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.budgets import Standing
    from modelsplit_policy.capabilities import Unable
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.prices import Price
    from modelsplit_policy.roles import Candidate, Route
    from modelsplit_policy.tickets import Crowd, Placed, Seats
    from modelsplit_policy.vocabulary import Context, Loading, Purpose, Role, RouteReason
    from modelsplit_proxy.protocol.endpoint import Endpoint
    from modelsplit_proxy.protocol.request_headers import Asked
    from modelsplit_proxy.protocol.stream_end import Tail

# A name from a client may be as long as its body; records keep as much as a name needs.
NAME_MAX: Final = 256
# What every call has; what few have, or empty; and all else that its log line says (``values``).
# A tuple with names would take twice as long to make as the values in it.
Finished = tuple[tuple[Any, ...], tuple[Any, ...], dict[str, Any]]

NO_USAGE: Final = Usage()
# Asked of every call; to look it up in the enumeration costs as much as a call.
_ABANDONED: Final = State.ABANDONED


@dataclass(slots=True)
class Attempt:
    """One model asked. Monotonic seconds; None where that moment never came.

    ``sent``: its request was written to the upstream. ``price`` None: nobody knows it.
    ``seats``: the limits when it got its seat or was refused; ``crowd``: who was there when
    it found no free one, and when its wait ended for nothing. ``trial``: it tried an open
    breaker. ``returned``: when it had a seat, found nobody who listened, and went back in line.
    ``gone_s``: for how much of its wait for a seat Ollama was away or hung.
    ``stream``: what has come of its stream, while it comes. ``host``: the name of the host that it
    went to; None: there is one, or it went to none. ``placed``: what decided for that host.
    """

    model: str
    asked: float
    ahead: int = 0
    seated: float | None = None
    dispatched: float | None = None
    first_byte: float | None = None
    ended: float | None = None
    failure: Failure | None = None
    upstream_status: int | None = None
    sent: bool = False
    usage: Usage = NO_USAGE
    price: Price | None = None
    seats: Seats | None = None
    crowd: Crowd | None = None
    crowd_at_end: Crowd | None = None
    trial: bool = False
    returned: tuple[float, ...] = ()
    gone_s: float = 0.0
    stream: Tail | None = None
    host: str | None = None
    placed: Placed | None = None

    @property
    def cost_usd(self) -> float | None:
        """An estimate in US dollars: 0.0 if nothing was computed, None if it cannot be known."""
        return self.cost_usd_by(self.ended)

    def cost_usd_by(self, ended: float | None) -> float | None:
        """The same, of an attempt that ends at ``ended``."""
        if not self.sent or self.price is FREE:
            return 0.0
        # Of whose 503 it is nothing is known here: as of a cloud's.
        if computed_nothing(self.upstream_status, Provider.CLOUD):
            return 0.0
        computed_s = None
        if ended is not None and self.dispatched is not None:
            computed_s = ended - self.dispatched
        usage = self.usage
        prompt_tokens: float | None = usage.billed_prompt_tokens
        if prompt_tokens is None:
            prompt_tokens = usage.prompt_tokens
        return cost_usd(self.price, prompt_tokens, usage.output_tokens, computed_s)


@dataclass(frozen=True, slots=True)
class Variant:
    """The arm of an experiment that a call was given, whichever model answered it."""

    experiment: str
    arm: str


@dataclass(slots=True)
class Routing:
    """Whose call it is, who may answer it and why: of a call that has been given a route.

    ``provider``: of the model asked last, or to be asked first. ``candidates``: who may
    answer, in order.
    """

    role: Role
    context: Context
    provider: Provider
    reason: RouteReason
    candidates: tuple[Candidate, ...]
    starts_at_fallback: bool
    variant: Variant | None


@dataclass(slots=True)
class CallRecord:
    """One call, from its first byte in to its last byte out.

    ``routing`` None: it was turned away before it had a role, and no model was asked.
    ``asked``: what its headers ask for. ``schema_asked``: its body asks for JSON or a schema,
    whether or not the answer is held to that. ``bound``: no other model's answer would be a right
    one. ``queue_position``: its place in line when it was
    refused, 0 when its turn had come before an early head; None: of no interest.
    ``holds_back``, ``pair``: of a call that failed, whether Ollama may have held its answer
    back, and a digest of who asked what; None: it was not sent.
    ``unseated``: a second attempt that was not sent, or turned away, and so does not count.
    ``unable``: why a second model was not asked at all, being known to be of no use.
    ``key_name``: whose key its client sent; None: none.
    ``untranslated``: what of the request a cloud's API could not be told; ``redacted``: what was
    taken out before it left, how often each; ``provider_limits``: header lines of the cloud's own.
    ``trace_context``: the headers that say which trace it belongs to; None: it is not traced.
    ``host``: the one of several hosts that answered, or was asked last.
    ``values``: what ``values.finished`` made of the call when it had ended.
    """

    request_id: str
    endpoint: Endpoint
    client: str
    started: float
    started_wall: float
    job_id: str | None = None
    purpose: Purpose | None = None
    requested_model: str = ""
    routing: Routing | None = None
    asked: Asked = NOTHING
    schema_asked: bool = False
    bound: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    unseated: Attempt | None = None
    unable: Unable | None = None
    queue_position: int | None = None
    call: Call = field(default_factory=Call)
    failure: Failure | None = None
    status: int | None = None
    streamed: bool = False
    client_retry: bool = False
    applied: tuple[str, ...] = ()
    untranslated: tuple[str, ...] = ()
    redacted: dict[str, int] | None = None
    provider_limits: list[bytes] | None = None
    key_name: str | None = None
    budgets: dict[str, Standing] = field(default_factory=dict)
    budget_refused: str | None = None
    schema: str | None = None
    deadline_was_clients: bool = False
    holds_back: bool = False
    pair: int | None = None
    loading: Loading | None = None
    ended: float | None = None
    trace_context: dict[str, str] | None = None
    host: str | None = None
    values: Finished | None = field(default=None, repr=False, compare=False)

    def routed(self, route: Route) -> Routing:
        """Note the route that the call was given."""
        self.requested_model = route.requested_model
        variant = None
        # A call that only loads is nothing to compare an arm by.
        if route.experiment is not None and route.arm is not None and self.loading is None:
            variant = Variant(route.experiment.name, route.arm.name)
        self.routing = routing = Routing(
            route.role,
            route.context,
            route.provider,
            route.reason,
            route.candidates,
            route.starts_at_fallback,
            variant,
        )
        return routing

    def attempt(self, candidate: Candidate, now: float, price: Price | None = None) -> Attempt:
        attempt = Attempt(candidate.model, now, price=price)
        self.attempts.append(attempt)
        return attempt

    def note_budgets(self, standings: Iterable[Standing], refused: str | None = None) -> None:
        """Where the budgets that concern an attempt stood; ``refused``: which one had no room."""
        self.budgets |= {standing.name: standing for standing in standings}
        self.budget_refused = refused

    @property
    def model(self) -> str:
        """The model that answered, was asked last, or would have been asked."""
        if self.attempts:
            return self.attempts[-1].model
        routing = self.routing
        return self.requested_model if routing is None else routing.candidates[0].model

    @property
    def attempt_number(self) -> int:
        """1 or 2: which attempt the answer, or the refusal, belongs to."""
        return len(self.attempts) or 1

    @property
    def fallback_used(self) -> bool:
        if len(self.attempts) > 1:
            return True
        return self.routing is not None and self.routing.starts_at_fallback

    @property
    def usage(self) -> Usage:
        """What the last attempt's answer says of itself."""
        return self.attempts[-1].usage if self.attempts else NO_USAGE

    @property
    def cost_usd(self) -> float | None:
        """What all attempts cost together, an estimate; None if that of one is unknown."""
        return self.cost_usd_by(None)

    def cost_usd_by(self, now: float | None) -> float | None:
        """The same; an attempt that has not ended ends at ``now``."""
        total = 0.0
        for attempt in self.attempts:
            cost = attempt.cost_usd_by(now if attempt.ended is None else attempt.ended)
            if cost is None:
                return None
            total += cost
        return total

    @property
    def queue_wait_s(self) -> float:
        """Time in line, over all attempts; a call turned away waited until then.

        A second attempt that does not count stood in line all the same.
        """
        waited_s = 0.0
        unseated = self.unseated
        if unseated is not None:
            until = unseated.ended if unseated.seated is None else unseated.seated
            waited_s = (until or unseated.asked) - unseated.asked
        for attempt in self.attempts:
            until = attempt.seated
            if until is None:
                until = attempt.ended or attempt.asked
            waited_s += until - attempt.asked
        return waited_s

    @property
    def llm_latency_s(self) -> float | None:
        """From dispatch to the end of the last attempt that reached the upstream."""
        for attempt in self.attempts[::-1]:
            if attempt.dispatched is not None and attempt.ended is not None:
                return attempt.ended - attempt.dispatched
        return None

    @property
    def upstream_wait_s(self) -> float | None:
        """Inside the upstream, of the last attempt; None: unknown."""
        return self.attempts[-1].usage.upstream_wait_s if self.attempts else None

    @property
    def first_byte_s(self) -> float | None:
        """From the call's start to its first byte back."""
        first = self.attempts[-1].first_byte if self.attempts else None
        return None if first is None else first - self.started

    @property
    def total_s(self) -> float:
        return (self.ended if self.ended is not None else self.started) - self.started

    @property
    def outcome(self) -> str:
        """``ok``, ``client_gone`` or the error code."""
        if self.call.state is _ABANDONED:
            return "client_gone"
        return "ok" if self.failure is None else str(self.failure.code)

    def scene(self) -> error_body.Scene:
        routing = self.routing
        return error_body.Scene(
            request_id=self.request_id,
            context=None if routing is None else routing.context,
            role=None if routing is None else routing.role,
            provider=None if routing is None else routing.provider,
            model=self.model[:NAME_MAX] or None,
            attempt=self.attempt_number,
            fallback_used=self.fallback_used,
        )
