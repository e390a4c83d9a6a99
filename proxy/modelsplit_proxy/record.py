"""Everything known about one call: what its headers, its log line and its metrics say.

Filled while the call runs, read once when it ends. Never a prompt, a completion or a key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.call import Call, State
from modelsplit_policy.facts import Dialect, Role
from modelsplit_policy.prices import cost_usd
from modelsplit_proxy import budgetwords, errors
from modelsplit_proxy.clock import rfc3339
from modelsplit_proxy.tail import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.budgets import Standing
    from modelsplit_policy.facts import Context, Loading, Provider, RouteReason
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.prices import Price
    from modelsplit_policy.roles import Candidate, Route
    from modelsplit_policy.standing import Crowd, Seats

NO_USAGE: Final = Usage()


@dataclass(slots=True)
class Attempt:
    """One model asked. Monotonic seconds; None where that moment never came.

    ``sent``: its request was written to the upstream. ``price`` None: nobody knows it.
    ``seats``: the limits when it got its seat or was refused; ``crowd``: who was there when
    it found no free one, and when its wait ended for nothing. ``trial``: it tried an open
    breaker.
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

    @property
    def cost_usd(self) -> float | None:
        """An estimate in US dollars: 0.0 if nothing was sent, None if it cannot be known."""
        return self.cost_usd_by(self.ended)

    def cost_usd_by(self, ended: float | None) -> float | None:
        """The same, of an attempt that ends at ``ended``."""
        if not self.sent:
            return 0.0
        computed_s = None
        if ended is not None and self.dispatched is not None:
            computed_s = ended - self.dispatched
        usage = self.usage
        return cost_usd(self.price, usage.prompt_tokens, usage.output_tokens, computed_s)


@dataclass(frozen=True, slots=True)
class Variant:
    """The arm of an experiment that a call was given, whichever model answered it."""

    experiment: str
    arm: str


@dataclass(slots=True)
class CallRecord:
    """One call, from its first byte in to its last byte out.

    ``candidates``: who may answer, in order. ``no_fallback``: the client wanted none.
    ``unseated``: a second attempt that found no seat, and so does not count.
    """

    request_id: str
    route: str
    dialect: Dialect
    client: str
    started: float
    started_wall: float
    job_id: str | None = None
    requested_model: str = ""
    planned_model: str = ""
    role: Role | None = None
    context: Context | None = None
    provider: Provider | None = None
    route_reason: RouteReason | None = None
    variant: Variant | None = None
    candidates: tuple[Candidate, ...] = ()
    no_fallback: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    unseated: Attempt | None = None
    starts_at_fallback: bool = False
    call: Call = field(default_factory=Call)
    failure: Failure | None = None
    status: int | None = None
    streamed: bool = False
    client_retry: bool = False
    applied: tuple[str, ...] = ()
    budgets: dict[str, Standing] = field(default_factory=dict)
    budget_refused: str | None = None
    schema: str | None = None
    deadline_was_clients: bool = False
    loading: Loading | None = None
    ended: float | None = None
    _fields: dict[str, Any] | None = field(default=None, repr=False, compare=False)

    def routed(self, route: Route) -> None:
        self.role, self.context, self.provider = route.role, route.context, route.provider
        self.requested_model = route.requested_model
        self.planned_model = route.candidates[0].model
        self.route_reason = route.reason
        self.starts_at_fallback = route.starts_at_fallback
        # A call that only loads is nothing to compare an arm by.
        if route.experiment is not None and route.arm is not None and self.loading is None:
            self.variant = Variant(route.experiment.name, route.arm.name)
        self.candidates = route.candidates

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
        return self.planned_model or self.requested_model

    @property
    def attempt_number(self) -> int:
        """1 or 2: which attempt the answer, or the refusal, belongs to."""
        return max(1, len(self.attempts))

    @property
    def fallback_used(self) -> bool:
        return len(self.attempts) > 1 or self.starts_at_fallback

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
        """Time in line, over all attempts; a call turned away waited until then."""
        waited_s = 0.0
        for attempt in self.attempts:
            until = attempt.seated
            if until is None:
                until = attempt.ended or attempt.asked
            waited_s += until - attempt.asked
        return waited_s

    @property
    def llm_latency_s(self) -> float | None:
        """From dispatch to the end of the last attempt that reached the upstream."""
        for attempt in reversed(self.attempts):
            if attempt.dispatched is not None and attempt.ended is not None:
                return attempt.ended - attempt.dispatched
        return None

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
        if self.call.state is State.ABANDONED:
            return "client_gone"
        return "ok" if self.failure is None else self.failure.code

    def scene(self) -> errors.Scene:
        return errors.Scene(
            request_id=self.request_id,
            context=self.context,
            role=self.role,
            provider=self.provider,
            model=_short(self.model) or None,
            attempt=self.attempt_number,
            fallback_used=self.fallback_used,
        )

    def log_fields(self) -> dict[str, Any]:
        """The finished call as one flat object (§ Logs in docs/operations.md).

        Several readers want it, in threads of their own; once the call has ended it is put
        together once, or twice if they come in the same moment.
        """
        if self.ended is None:
            return self._put_together()
        if self._fields is None:
            self._fields = self._put_together()
        return self._fields

    def _put_together(self) -> dict[str, Any]:
        usage = self.usage
        out: dict[str, Any] = {
            "ts": rfc3339(self.started_wall + self.total_s),
            "event": "request",
            "request_id": self.request_id,
            "job_id": self.job_id,
            "client": self.client,
            "route": self.route,
            "dialect": self.dialect,
            "started_at": rfc3339(self.started_wall),
            "llm_role": self.role,
            "llm_context": self.context,
            "llm_provider": self.provider,
            "requested_model": _short(self.requested_model),
            "llm_model": _short(self.model),
            "llm_attempt": self.attempt_number,
            "fallback_used": self.fallback_used,
            "fallback_cause": self._fallback_cause(),
            "route_reason": self.route_reason,
            "status": self.status,
            "outcome": self.outcome,
            "state": self.call.state,
            "stream": self.streamed,
            "client_retry": self.client_retry,
            "loading": self.loading,
            "applied": self.applied,
            "budgets": tuple(map(budgetwords.fields, self.budgets.values())),
            "budget_refused": self.budget_refused,
            "schema": self.schema,
            "llm_queue_wait_ms": _ms(self.queue_wait_s),
            "llm_latency_ms": _ms(self.llm_latency_s),
            "ttfb_ms": _ms(self.first_byte_s),
            "job_e2e_latency_ms": _ms(self.total_s),
            "load_ms": _ms(usage.load_s),
            "prompt_tokens": usage.prompt_tokens,
            "output_tokens": usage.output_tokens,
            "finish_reason": usage.finish_reason,
            "cost_usd": _usd(self.cost_usd),
        }
        if self.role is Role.PLANNER and self.loading is None:
            out["planner_latency_ms"] = out["job_e2e_latency_ms"]
        if self.variant is not None:
            out |= {"experiment": self.variant.experiment, "variant": self.variant.arm}
        if self.failure is not None:
            out |= errors.fields(self.failure, self.scene())
            out["error"] = self.failure.message
        return out

    def _fallback_cause(self) -> str | None:
        if len(self.attempts) < 2 or self.attempts[0].failure is None:
            return None
        return self.attempts[0].failure.code


def _short(model: str) -> str:
    """A name from a client may be as long as its body; records keep as much as a name needs."""
    return model[:256]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _usd(dollars: float | None) -> float | None:
    # A token of the cheapest models costs a hundredth of a millionth of a dollar.
    return None if dollars is None else round(dollars, 9)
