"""One call to a model, top to bottom: read, route, attempt, answer, record.

A call makes at most two attempts, each through the same door (``attempt``). Nothing is
shown to the client before the upstream has shown something worth showing; from then on
nothing can be taken back (``reply``).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from modelsplit_policy import egress, overload, roles
from modelsplit_policy.attempts import Tell, Tried, first_step, next_step, worth_asking
from modelsplit_policy.call import Event, State
from modelsplit_policy.endpoints import is_bound
from modelsplit_policy.failures import MESSAGE_MAX, NEVER_LEFT, ErrorCode, Failure, Reason
from modelsplit_policy.loading import loading_of
from modelsplit_policy.model_names import canonical
from modelsplit_policy.vocabulary import Provider, RouteReason
from modelsplit_proxy.calls.attempt import AttemptParts, AttemptRun, OutgoingRequest
from modelsplit_proxy.calls.reply import Reply, ReplyParts, Setback
from modelsplit_proxy.http.body import BodyError, read_whole
from modelsplit_proxy.protocol import upstream_failures
from modelsplit_proxy.protocol.answer_format import asks
from modelsplit_proxy.protocol.json_body import read_at_once, read_in_steps
from modelsplit_proxy.protocol.request_headers import NOTHING, AskedError, read_asked, trace_context
from modelsplit_proxy.records.record import CallRecord
from modelsplit_proxy.runtime.parts import parts
from modelsplit_proxy.runtime.tasks import in_steps

if TYPE_CHECKING:
    from modelsplit_policy.capabilities import Unable
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.roles import Candidate, Roles, Route
    from modelsplit_policy.vocabulary import Role
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import Request
    from modelsplit_proxy.limits.arrival_limit import ArrivalLimit
    from modelsplit_proxy.limits.client_keys import Caller
    from modelsplit_proxy.limits.client_seats import ClientSeats
    from modelsplit_proxy.protocol.endpoint import Endpoint
    from modelsplit_proxy.protocol.json_body import Body
    from modelsplit_proxy.records.call_ended import CallEnded
    from modelsplit_proxy.records.live import LiveCalls
    from modelsplit_proxy.records.record import Routing
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.lifecycle import Lifecycle
    from modelsplit_proxy.watch.installed_models import InstalledModels


@parts
class CallParts:
    """What outlives the call."""

    attempts: AttemptParts
    replies: ReplyParts
    policy: Policy
    roles: Roles
    installed: InstalledModels
    client_seats: ClientSeats
    rate: ArrivalLimit
    max_body_bytes: int
    ended: CallEnded
    live: LiveCalls
    clock: Clock
    lifecycle: Lifecycle
    is_traced: bool


class InferenceCall:
    """The run of one call. Made for one request, used once."""

    __slots__ = (
        "_asked",
        "_caller",
        "_has_client_seat",
        "_parts",
        "_reply",
        "_request",
        "_target",
        "record",
    )

    def __init__(
        self,
        parts: CallParts,
        request: Request,
        down: Downstream,
        endpoint: Endpoint,
        *,
        target: str,
        request_id: str,
        caller: Caller,
    ) -> None:
        self._parts = parts
        self._request = request
        self._target = target
        self._caller = caller
        self._asked = NOTHING
        self._has_client_seat = False
        self.record = CallRecord(
            request_id=request_id,
            endpoint=endpoint,
            client=request.remote or "" if caller.key is None else caller.key.name,
            started=parts.clock.now(),
            started_wall=parts.clock.wall(),
            client_retry=request.headers.get("x-stainless-retry-count", "0") != "0",
        )
        if parts.is_traced:
            self.record.trace_context = trace_context(request.headers)
        self.record.key_name = None if caller.key is None else caller.key.name
        self._reply = Reply(parts.replies, request, down, self.record)

    async def serve(self, refused: Failure | None = None) -> None:
        """Answer the request. Whatever happens, the call ends once and is recorded once.

        ``refused``: it was turned away at the door, and nothing of it is read.
        """
        self._parts.live.enter(self.record)
        try:
            await self._run(refused)
        except asyncio.CancelledError:
            if self._parts.lifecycle.cutting:
                self._cut_short()
            else:
                self._client_gone()
                raise
        finally:
            self._finish()

    async def _run(self, refused: Failure | None) -> None:
        prepared = refused or await self._prepare()
        if isinstance(prepared, Failure):
            self.record.call.step(Event.REJECT)
            self._reply.set_back(Setback(prepared))
            return
        sent, route, routing = prepared
        self._reply.on_commit = sent.forget
        setback = await self._attempts(sent, route, routing)
        if setback is not None:
            self.record.call.end_unanswered()
            self._reply.set_back(setback)

    async def _attempts(
        self, sent: OutgoingRequest, route: Route, routing: Routing
    ) -> Setback | None:
        """Ask the candidates in turn. None: the client is answered. Else what to tell it."""
        record, parts = self.record, self._parts
        candidates = self._worth_asking(route, routing, sent)
        setbacks: list[Setback] = []
        tried: list[Tried] = []
        last: AttemptRun | None = None
        ask = first_step(candidates)
        try:
            while True:
                avoid = last.host if ask.elsewhere and last is not None else None
                run = AttemptRun(
                    parts.attempts, record, routing, self._reply, sent, ask.candidate, avoid
                )
                setback = await run.run(
                    waited_s=ask.waited_s,
                    after=last if ask.front else None,
                    before=tried[-1].failure if tried else None,
                )
                if setback is None:
                    if parts.installed.missing and record.call.state is State.COMPLETED:
                        parts.installed.has(ask.candidate.model)
                    return None
                if setback.failure.reason is Reason.NOT_INSTALLED:
                    parts.installed.lacks(ask.candidate.model)
                last = run
                setbacks.append(setback)
                tried.append(Tried(setback.failure, not record.call.seatless, run.waited_s))
                unable = partial(self._unable, sent, route.role)
                step = next_step(candidates, record.loading, tried, unable, run.may_go_elsewhere)
                if isinstance(step, Tell):
                    break
                record.call.fall_back()
                ask = step
        finally:
            if last is not None:
                last.release()
        record.unable = step.unable
        is_surprise = len(tried) > 1 and tried[-1].failure.reason is Reason.UPSTREAM_REJECTED
        if step.unable is not None or is_surprise:
            parts.installed.want()
        if step.attempt < len(setbacks) - 1:
            record.unseated = record.attempts.pop()
            record.host = record.attempts[-1].host
            routing.provider = route.provider
        return self._without_a_second(setbacks, step, route)

    def _without_a_second(self, setbacks: list[Setback], step: Tell, route: Route) -> Setback:
        """What the client is told; where its second model is missing, that too, in our words."""
        told, last = setbacks[step.attempt], setbacks[-1]
        missing = None
        if step.unable is not None and not step.unable.lacks:
            missing = upstream_failures.not_installed(
                step.unable.model,
                role=route.role,
                chosen_as="fallback",
                provider=Provider.LOCAL,
                pulled_at=self._parts.installed.pulled_at,
            )
        elif len(setbacks) > 1 and last.failure.reason is Reason.NOT_INSTALLED:
            missing = last.failure
        if missing is None or told.failure.reason in NEVER_LEFT:
            return told
        if setbacks[0].failure.reason is Reason.NOT_INSTALLED:
            return self._without_a_model(told, route)
        if told.failure is missing:
            return told
        return told.in_our_words(told.failure.and_then(missing.message))

    def _without_a_model(self, told: Setback, route: Route) -> Setback:
        """None is installed: all are named, but where the client itself named the first one."""
        if route.provider is not Provider.LOCAL:
            return told
        if canonical(route.candidates[0].model) == canonical(route.requested_model):
            return told
        models = dict.fromkeys(candidate.model for candidate in route.candidates)
        pulled_at = self._parts.installed.pulled_at
        text = upstream_failures.none_installed(route.role, models, pulled_at)
        if len(text) > MESSAGE_MAX:  # A command that is cut is none.
            return told
        return told.in_our_words(replace(told.failure, message=text))

    def _unable(self, sent: OutgoingRequest, role: Role, candidate: Candidate) -> Unable | None:
        """Why a candidate is known to be of no use to this call; None: it may be."""
        record, parts = self.record, self._parts
        if parts.attempts.plans.of(role, candidate).provider is Provider.CLOUD:
            return None  # whose models are not ours to know
        needs = None if record.loading is not None else record.endpoint.needs
        needed = () if needs is None else tuple(needs(sent.body.fields.plain))
        return parts.installed.unable(candidate.model, needed)

    def _worth_asking(
        self, route: Route, routing: Routing, sent: OutgoingRequest
    ) -> tuple[Candidate, ...]:
        """The candidates, without a primary whose cold start the policy wants avoided."""
        parts = self._parts
        if not parts.policy.roles[route.role].prefer_resident_fallback:
            return route.candidates
        candidates = worth_asking(
            route,
            prefers_resident=True,
            loaded=parts.attempts.known.loaded_models.loaded,
            has_room=lambda model: parts.attempts.budget_keeper.has_room(
                model, route.role, route.provider
            ),
            unable=partial(self._unable, sent, route.role),
        )
        if candidates is not route.candidates:
            routing.starts_at_fallback = True
            routing.reason = RouteReason.FALLBACK
        return candidates

    # 1. Read and route.

    async def _prepare(self) -> tuple[OutgoingRequest, Route, Routing] | Failure:
        parts = self._parts
        try:
            self.record.asked = self._asked = read_asked(self._request.headers)
            self.record.job_id = self._asked.job_id
            self.record.purpose = self._asked.purpose
            raw = await read_whole(self._request, self._reply.down, parts.max_body_bytes)
            body = self._read_at_once(raw)
            if body is None:
                body = await in_steps(read_in_steps(raw))
        except (AskedError, BodyError) as error:
            return error.failure
        self.record.loading = loading_of(self.record.endpoint.facts, body.fields)
        # Of most bodies this look, which costs no call, is all; ``plain`` is empty of long ones.
        for name in self.record.endpoint.format_names:
            if name in body.fields.plain or not body.fields.plain:
                self.record.schema_asked = asks(body.fields, self.record.endpoint.format_names)
                break
        route = self._route(body)
        if isinstance(route, Failure):
            self.record.requested_model = body.model
            return route
        if route.candidates[1:] and await self._has_no_second(route, body):
            route = route.of_one_model()
        routing = self.record.routed(route)
        if route.provider is Provider.CLOUD and not self._is_asked_here(route):
            self.record.loading = None  # sent to Ollama's cloud, whatever it asks
        refused = await self._refuse_early(route, body)
        if refused is not None:
            return refused
        consumed = self._caller.consumed
        sent = OutgoingRequest(self._request, self._target, self._asked, body, consumed)
        return sent, route, routing

    async def _leaves(self, route: Route, candidate: Candidate, body: Body) -> Failure | None:
        """Why a call to this model would leave the machine unasked, through Ollama; None: it stays.

        One to a model of the cloud is asked for elsewhere whether it may.
        """
        parts, searches = self._parts, self.record.endpoint.searches
        if parts.attempts.plans.of(route.role, candidate).provider is Provider.CLOUD:
            return None
        if searches is not None and searches(body):
            return egress.searching(route.role)
        if await parts.installed.runs_elsewhere(candidate.model):
            return egress.stored_here(candidate.model)
        return None

    def _is_asked_here(self, route: Route) -> bool:
        """Whether its first model is one of a cloud's own API."""
        return self._parts.attempts.plans.of(route.role, route.candidates[0]).cloud is not None

    def _read_at_once(self, raw: bytes) -> Body | None:
        read_form = self.record.endpoint.read_form
        if read_form is None:
            return read_at_once(raw)
        content_type = self._request.headers.get("Content-Type", "")
        return read_form(raw, content_type, self._target.partition("?")[2])

    def _route(self, body: Body) -> Route | Failure:
        table = self._parts.roles
        plain = table.plain(body.model) if self._asked is NOTHING else None
        return plain or table.route(self._ask(body))

    async def _has_no_second(self, route: Route, body: Body) -> bool:
        """Whether no other model may answer, or it would leave the machine unasked."""
        endpoint = self.record.endpoint
        self.record.bound = is_bound(endpoint.facts, body.fields)
        if self.record.bound:
            return True
        installed = self._parts.installed
        if endpoint.searches is None and not (installed.elsewhere or installed.unsure):
            return False
        return await self._leaves(route, route.candidates[1], body) is not None

    def _is_bound(self, body: Body) -> bool:
        self.record.bound = is_bound(self.record.endpoint.facts, body.fields)
        return self.record.bound

    def _ask(self, body: Body) -> roles.RouteRequest:
        asked = self._asked
        return roles.RouteRequest(
            model=body.model,
            role=asked.role,
            context=asked.context,
            retry_level=asked.retry_level,
            escalate=asked.escalate,
            no_fallback=asked.no_fallback,
            job=asked.job_id or "",
            client=self.record.client,
            request=self.record.request_id,
            loads=self.record.loading is not None,
            bound=self._is_bound(body),
        )

    async def _refuse_early(self, route: Route, body: Body) -> Failure | None:
        """What says no before any line is joined."""
        parts, client = self._parts, self.record.client
        if parts.lifecycle.draining:
            return overload.draining()
        installed, searches = parts.installed, self.record.endpoint.searches
        if searches is not None or installed.elsewhere or installed.unsure:
            leaves = await self._leaves(route, route.candidates[0], body)
            if leaves is not None:
                return leaves
        denied = self._caller.denied_role(route.role)
        if denied is None and route.provider is Provider.CLOUD:
            denied = self._caller.denied_role(roles.needed_for(parts.policy, route))
        if denied is not None:
            return denied
        self._has_client_seat = parts.client_seats.enter(client)
        if not self._has_client_seat:
            return Failure(
                ErrorCode.RATE_LIMITED,
                Reason.CLIENT_CONCURRENCY,
                f"client {client} already has {parts.client_seats.limit(client)} calls here "
                "(clients.max_concurrent, or its key's); retry when one has ended",
                "Client Busy",
                retry_after_s=1,
            )
        retry_after_s = await parts.rate.take(client)
        if retry_after_s is not None:
            return Failure(
                ErrorCode.RATE_LIMITED,
                Reason.CLIENT_RATE,
                f"client {client} sends faster than {parts.rate.text(client)} "
                f"(clients.rate_per_s, or its key's); retry in {retry_after_s} s",
                "Client Rate Limited",
                retry_after_s=retry_after_s,
            )
        return None

    # 2. How calls end.

    def _cut_short(self) -> None:
        """We are leaving, not the client: it is told."""
        call = self.record.call
        if call.state is State.STREAMING:
            self._reply.break_early(overload.cut_short())
        elif not call.ended:
            call.end_unanswered()
            self._reply.set_back(Setback(overload.cut_short()))

    def _client_gone(self) -> None:
        call = self.record.call
        if call.ended:
            return
        reason, text = call.client_is, "the client closed the connection"
        if self._reply.down.client_stalled:
            reason = Reason.CLIENT_STALLED
            text = "the client took nothing of its answer for longer than --client-send-timeout"
        call.step(Event.CLIENT_GONE)
        self.record.status = 499
        self.record.failure = Failure(ErrorCode.CLIENT_GONE, reason, text, "Client Gone")

    def _finish(self) -> None:
        record = self.record
        record.ended = self._parts.clock.now()
        self._parts.live.leave(record)
        if self._has_client_seat:
            self._parts.client_seats.leave(record.client)
        if not record.call.ended:
            self._our_bug()
        self._parts.ended.tell(record)

    def _our_bug(self) -> None:
        """An exception is on its way to the boundary, which answers; the record says so."""
        record = self.record
        record.failure = internal_failure()
        record.status = record.status or 500
        record.call.end_by_error()


def internal_failure() -> Failure:
    return Failure(
        ErrorCode.INTERNAL,
        Reason.BUG,
        "modelsplit failed on this request; its log has the details under this request id",
        "Internal Error",
    )
