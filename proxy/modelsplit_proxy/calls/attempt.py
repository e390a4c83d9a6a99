"""One model asked once: a seat, one exchange with the upstream, the seat back.

The order is the file's order. The attempt ends in one of two ways: the client has its
answer (None), or the client has seen nothing yet and a ``Setback`` says what happened. A
setback may be followed by another attempt; an answer, whole or broken, may not.
"""

from __future__ import annotations

import asyncio
from itertools import accumulate
from typing import TYPE_CHECKING, Final
from zlib import crc32

from modelsplit_policy import egress
from modelsplit_policy.attempts import Tried, explains, retries_at_once, wait_left_s
from modelsplit_policy.blame import USUAL, Circumstances, pair_of
from modelsplit_policy.call import Event, State
from modelsplit_policy.deadlines import Deadline, is_clients, role_bound
from modelsplit_policy.failures import Failure
from modelsplit_policy.go_json import Fields
from modelsplit_policy.held_back import may_hold_back
from modelsplit_policy.hints import Absence
from modelsplit_policy.loading import needs_seat
from modelsplit_policy.parallelism import Report
from modelsplit_policy.shaping import NOTHING, answer_bound, apply
from modelsplit_policy.tickets import Place, Ticket
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.calls.answer import AnswerParts, AnswerReader
from modelsplit_proxy.calls.deadlines import ELSEWHERE, LateError, first_byte
from modelsplit_proxy.calls.early_headers import EarlyHeaders, asks_for_stream
from modelsplit_proxy.calls.telemetry import Telemetry
from modelsplit_proxy.calls.validation import Validation
from modelsplit_proxy.http import headers
from modelsplit_proxy.http.upstream import UpstreamError
from modelsplit_proxy.limits.egress_store import Leaving
from modelsplit_proxy.protocol.json_body import Body
from modelsplit_proxy.records.record import NAME_MAX
from modelsplit_proxy.runtime.parts import parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.breaker import Allowed
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.deadlines import Bounds, Limits
    from modelsplit_policy.roles import Candidate
    from modelsplit_policy.vocabulary import Host
    from modelsplit_proxy.calls.attempt_plan import AttemptPlans
    from modelsplit_proxy.calls.deadlines import Known
    from modelsplit_proxy.calls.reply import Reply, Setback
    from modelsplit_proxy.http.request import Request
    from modelsplit_proxy.http.upstream import Exchange, UpstreamConnection, UpstreamHead
    from modelsplit_proxy.http.upstream_pool import UpstreamPool
    from modelsplit_proxy.limits.admission_queue import AdmissionQueue
    from modelsplit_proxy.limits.breakers import BreakerKeeper
    from modelsplit_proxy.limits.budgets import AttemptCharge, BudgetKeeper
    from modelsplit_proxy.protocol.request_headers import Asked
    from modelsplit_proxy.providers.clouds import CloudModel
    from modelsplit_proxy.providers.prepared import Prepared
    from modelsplit_proxy.providers.redaction import Redactor
    from modelsplit_proxy.records.record import CallRecord, Routing
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.watch.fleet import Fleet
    from modelsplit_proxy.watch.installed_models import InstalledModels
    from modelsplit_proxy.watch.presence import Presence

# What tells two bodies apart that are not the same: their first and their last bytes.
_END_BYTES: Final = 4096
# A request of more goes in two writes, without a copy.
_ONE_WRITE_BYTES: Final = 64 * 1024

# Of a prompt, in how many pieces of what size it is told from another.
_MARK_BYTES: Final = 1024
_MARKS_MOST: Final = 64

_FORGOTTEN: Final = Body(b"", Fields(b"", {}), "", None)


@parts
class LocalHost:
    """A host that runs models of ours. ``shown``: its name, as it is told; None: it has none."""

    name: Host
    shown: str | None
    pool: UpstreamPool
    known: Known
    presence: Presence
    answers: AnswerParts


@parts
class AttemptParts:
    """What outlives the attempt.

    ``host``: who is asked where there is no choice; ``hosts``: all of several by name, empty: there
    is one. ``known``: of all of them.
    """

    host: LocalHost
    hosts: Mapping[Host, LocalHost]
    fleet: Fleet | None
    cloud_answers: AnswerParts
    policy: Policy
    plans: AttemptPlans
    admission_queue: AdmissionQueue
    known: Known
    breakers: BreakerKeeper
    budget_keeper: BudgetKeeper
    installed: InstalledModels
    clock: Clock


def marks_of(raw: bytes) -> tuple[int, ...]:
    """Of a body, a number for each beginning of it that is some kilobytes long (``placement``).

    A conversation's next request begins with the same bytes, for clients write the same keys in the
    same order; where one does not, nothing is known of it.
    """
    ends = range(_MARK_BYTES, min(len(raw), _MARKS_MOST * _MARK_BYTES) + 1, _MARK_BYTES)
    pieces = (raw[end - _MARK_BYTES : end] for end in ends)
    return tuple(accumulate(pieces, lambda mark, piece: crc32(piece, mark), initial=0))[1:]


class OutgoingRequest:
    """What the client sent, ready to be sent on. ``consumed``: headers that stop here."""

    __slots__ = ("_ends", "asked", "body", "consumed", "request", "target")

    def __init__(
        self,
        request: Request,
        target: str,
        asked: Asked,
        body: Body,
        consumed: frozenset[bytes] = frozenset(),
    ) -> None:
        self.request = request
        self.target = target
        self.asked = asked
        self.body = body
        self.consumed = consumed
        self._ends = b""

    def forget(self) -> None:
        """It will not be sent again: a long body need not live as long as its answer."""
        raw = self.body.raw
        self._ends = raw[:_END_BYTES] + raw[-_END_BYTES:]
        self.body = _FORGOTTEN
        connection = self.request.connection
        if connection.body_hold.size:
            connection.forget_body()

    def pair(self, client: str) -> int:
        """A digest of who asks what, the same at any time; to be asked for rarely."""
        raw = self.body.raw
        return pair_of(client, self._ends or raw[:_END_BYTES] + raw[-_END_BYTES:])


class AttemptRun:
    """The run of one attempt. Made for one candidate, used once."""

    __slots__ = (
        "_admitted",
        "_attempt",
        "_avoid",
        "_before",
        "_charge",
        "_cleared",
        "_deadline",
        "_early_headers",
        "_held_back",
        "_host",
        "_left",
        "_limits",
        "_parts",
        "_plan",
        "_prepared",
        "_reader",
        "_record",
        "_reply",
        "_routing",
        "_sent",
        "_ticket",
        "_waits_again",
    )

    def __init__(
        self,
        parts: AttemptParts,
        record: CallRecord,
        routing: Routing,
        reply: Reply,
        sent: OutgoingRequest,
        candidate: Candidate,
        avoid: Host | None = None,
    ) -> None:
        """``avoid``: the host that failed the attempt before, to be asked if there is no other."""
        self._parts = parts
        self._host = parts.host
        self._avoid = avoid
        self._record = record
        self._routing = routing
        self._reply = reply
        self._sent = sent
        self._plan = plan = parts.plans.of(routing.role, candidate)
        routing.provider = plan.provider
        self._attempt = record.attempt(candidate, parts.clock.now(), plan.price)
        usual = plan.row.total_timeout_ms is None and sent.asked.timeout_ms is None
        self._limits = plan.limits if usual else self._read_limits()
        self._early_headers = (
            None if plan.row.early_headers_after_ms is None else self._read_early_headers()
        )
        self._reader = AnswerReader(
            parts.host.answers if plan.cloud is None else parts.cloud_answers,
            record,
            reply,
            plan,
            self._limits,
            validation=self._read_validation() if plan.row.validate_output else None,
            early_headers=self._early_headers,
            telemetry=Telemetry(record, routing, parts.clock) if sent.asked.telemetry else None,
        )
        self._deadline: Deadline
        self._held_back: bool | None = None
        self._ticket: Ticket | None = None
        # The one that was given back.
        self._left: Ticket | None = None
        self._waits_again = False
        self._admitted: Allowed | None = None
        self._before: Failure | None = None
        # What it would load is not here, and nothing leaves for that.
        counted = plan.counted and (plan.cloud is None or record.loading is None)
        self._charge = self._read_charge() if counted else None
        self._prepared: Prepared | None = None
        self._cleared: bytes | None = None

    async def run(
        self, *, waited_s: float, after: AttemptRun | None, before: Failure | None = None
    ) -> Setback | None:
        """None: the client is being answered. Else what to say, or to try another model for.

        ``waited_s``: how long the call has stood in line before. ``after``: the attempt
        before this one, if it still holds its seat: it gives it back when this one stands
        first in line, so that nobody comes between. ``before``: what that attempt failed of.
        """
        attempt, parts = self._attempt, self._parts
        self._before = before
        if self._record.loading is not None and not self._needs_seat():
            return await self._run_unseated()
        plan = self._plan
        stopped = None if plan.provider is Provider.LOCAL else self._prepare_to_leave()
        if stopped is None:
            stopped = (
                parts.breakers.check(plan.provider, plan.model, self._pair, plan.breaker_host)
                if parts.fleet is None or plan.provider is Provider.CLOUD
                else self._stopped_everywhere()
            )
        if stopped is None and self._charge is not None:
            stopped = await self._charge.check()
        if stopped is not None:
            attempt.ended = attempt.asked
            if after is not None:
                after.release()
            return self._reader.set_back(stopped)
        self._ticket = ticket = self._claim(waited_s, front=after is not None)
        keeps_seat = False
        try:
            refused = await self._take_seat(ticket, after)
            if refused is not None:
                return self._reader.set_back(refused)
            setback = await self._dispatch()
            while self._waits_again:
                setback = await self._once_more(waited_s)
            keeps_seat = setback is not None and retries_at_once(setback.failure)
            return setback
        finally:
            attempt.ended = parts.clock.now()
            if self._charge is not None:
                self._charge.close(attempt)
            if not keeps_seat:
                self.release()

    async def _once_more(self, waited_s: float) -> Setback | None:
        """Nobody listened, and the call may wait for that: the seat back, and in line again.

        Nothing was sent, so it is the same attempt; and it came before those in line.
        """
        attempt, now = self._attempt, self._parts.clock.now()
        self._waits_again = False
        attempt.failure = None
        attempt.returned += (now,)
        attempt.seated = attempt.dispatched = attempt.seats = None
        self._avoid = None if self._ticket is None else self._ticket.host
        if self._charge is not None:
            self._charge.close(attempt)
        self.release()
        self._record.call.fall_back()
        waited_s += now - attempt.asked
        self._ticket = ticket = self._claim(waited_s, front=True)
        refused = await self._take_seat(ticket, None)
        return await self._dispatch() if refused is None else self._reader.set_back(refused)

    def _prepare_to_leave(self) -> Failure | None:
        """Make the request ready for a cloud; a Failure: it stays here."""
        record, plan = self._record, self._plan
        refused = plan.unserved or egress.refusal(
            self._parts.policy,
            plan.role,
            plan.candidate.model,
            client=record.key_name,
            condition=self._sent.asked.escalate,
        )
        if refused is not None:
            return refused
        if plan.cloud is not None:
            return self._translate(plan.cloud)
        return None if plan.redactor is None else self._redact(plan.redactor)

    def _redact(self, redactor: Redactor) -> Failure | None:
        """Take out of a request to Ollama's own cloud what the policy takes out."""
        cleared = redactor.redacted_bytes(self._body_bytes())
        if cleared is None:
            return egress.unreadable(self._plan.candidate.model)
        self._cleared, self._record.redacted = cleared
        return None

    def _translate(self, cloud: CloudModel) -> Failure | None:
        """Put the request into the words of who is asked in place of Ollama."""
        record, plan, sent, parts = self._record, self._plan, self._sent, self._parts
        model = plan.candidate.model
        tokens = parts.budget_keeper.output_tokens(record, plan.role, model, sent.body.fields)
        prepared = cloud.prepare(record.endpoint, self._body_bytes(), tokens)
        if isinstance(prepared, Failure):
            return prepared
        record.untranslated, record.redacted = prepared.untranslated, prepared.redacted
        self._prepared = prepared
        return None

    def _needs_seat(self) -> bool:
        if self._plan.cloud is not None:
            return False
        resident = self._parts.known.loaded_models.loaded(self._plan.model) is True
        fields = self._sent.body.fields
        return needs_seat(self._record.loading, fields, resident=resident)

    async def _run_unseated(self) -> Setback | None:
        """The same where nothing is computed: no line, and no breaker, which knows of answers."""
        attempt, call, clock = self._attempt, self._record.call, self._parts.clock
        call.step(Event.ADMIT)
        call.step(Event.DISPATCH)
        attempt.seated = attempt.asked
        attempt.dispatched = clock.now()
        if self._parts.fleet is not None and self._plan.cloud is None:
            self._goes_where_it_is_loaded(self._parts.fleet)
        try:
            return await (self._exchange() if self._plan.cloud is None else self._leave())
        finally:
            attempt.ended = clock.now()

    @property
    def host(self) -> Host | None:
        """The one of several hosts that the attempt was sent to; None: none, or there is one."""
        return self._host.name if self._attempt.host is not None and self._attempt.sent else None

    def may_go_elsewhere(self) -> bool:
        """Whether another host may be asked for the same: its client takes a second attempt."""
        ticket = self._ticket or self._left
        asked = self._sent.asked
        if self.host is None or ticket is None or asked.no_fallback:
            return False
        return self._parts.admission_queue.has_other(ticket)

    def _stopped_everywhere(self) -> Failure | None:
        """What the breakers say where those of all hosts that may run it refuse it."""
        plan, parts = self._plan, self._parts
        hosts = parts.admission_queue.may_run(plan.role, plan.model)
        return parts.breakers.check_all(plan.provider, plan.model, hosts, self._pair)

    def _goes_to(self, host: LocalHost) -> None:
        self._host = host
        self._attempt.host = self._record.host = host.shown
        if self._plan.cloud is None:
            self._reader.parts = host.answers

    def _goes_where_it_is_loaded(self, fleet: Fleet) -> None:
        """A call that needs no seat goes where it is no work, or to anyone who may run it."""
        plan = self._plan
        allowed = self._parts.admission_queue.may_run(plan.role, plan.model)
        host = fleet.with_loaded(plan.model, allowed) or fleet.anyone()
        self._goes_to(self._parts.hosts[host.name])

    def release(self) -> None:
        """Give the seat back; harmless twice."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._left = ticket
            self._parts.admission_queue.leave(ticket, self._report())

    @property
    def waited_s(self) -> float:
        """How long this attempt stood in line."""
        attempt = self._attempt
        until = attempt.seated if attempt.seated is not None else attempt.ended or attempt.asked
        return until - attempt.asked

    # 1. The seat.

    def _claim(self, waited_s: float, *, front: bool) -> Ticket:
        plan, asked_ms = self._plan, self._sent.asked.max_wait_ms
        asked_s = None if asked_ms is None else asked_ms / 1000
        return Ticket(
            role=plan.role,
            model=plan.model,
            arrived=self._attempt.asked,
            client=self._record.client,
            request_id=self._record.request_id,
            max_wait_s=wait_left_s(plan.max_wait_s, asked_s, waited_s),
            max_hold_s=plan.max_hold_s,
            front=front,
            sample=self._record.loading is None,
            avoid=self._avoid,
            marks=() if self._parts.fleet is None else marks_of(self._sent.body.raw),
        )

    async def _take_seat(self, ticket: Ticket, after: AttemptRun | None) -> Failure | None:
        admission_queue, call, clock = (
            self._parts.admission_queue,
            self._record.call,
            self._parts.clock,
        )
        attempt = self._attempt
        refusal = admission_queue.ask(ticket)
        if after is not None:
            after.release()
        if ticket.place is not Place.SEATED and not attempt.returned:
            attempt.crowd = admission_queue.crowd(ticket)
        if ticket.place is Place.WAITING:
            if not attempt.returned:
                attempt.ahead = ticket.ahead
            call.step(Event.ENQUEUE)
            refusal = await admission_queue.wait(ticket)
            if refusal is not None:
                attempt.crowd_at_end = admission_queue.crowd(ticket)
            attempt.gone_s = admission_queue.gone_s(ticket)
        attempt.seats = admission_queue.seats(ticket)
        if refusal is not None:
            self._record.queue_position = ticket.position
            return refusal
        attempt.seated = clock.now()
        call.step(Event.ADMIT)
        if self._parts.fleet is not None:
            self._is_seated(self._parts.fleet, ticket)
        return None

    def _is_seated(self, fleet: Fleet, ticket: Ticket) -> None:
        """Go to the host of the seat; a model of Ollama's cloud to any that is there."""
        if ticket.host is not None:
            self._goes_to(self._parts.hosts[ticket.host])
            self._attempt.placed = ticket.placed
        elif self._plan.cloud is None:
            self._goes_to(self._parts.hosts[fleet.anyone().name])

    def _report(self) -> Report | None:
        """What a call that ran to its end says of how fast it ran."""
        if self._record.call.state is not State.COMPLETED or self._record.loading is not None:
            return None
        usage = self._record.usage
        return Report(
            tokens=usage.output_tokens,
            eval_s=usage.eval_s,
            prompt_s=usage.prompt_eval_s,
            load_s=usage.load_s,
            total_s=usage.total_s,
        )

    # 2. The exchange.

    async def _why_it_leaves(self, model: str) -> Failure | None:
        """Why a call would leave this machine, or may; None: it stays.

        What it is called by may have become another model while the call stood in line.
        """
        leaves = await self._parts.installed.runs_elsewhere(model)
        if leaves is not None:
            return egress.stored_here(model) if leaves else None
        probe = self._parts.known.probe
        # Where nobody listens, nobody sends it on, and the call finds that out itself.
        is_away = probe.up is False and probe.absence is not Absence.HANGS
        return None if is_away else egress.untold(model)

    async def _dispatch(self) -> Setback | None:
        """Have the call counted and ask the model's breaker once more: it is about to be sent."""
        record, plan, breakers = self._record, self._plan, self._parts.breakers
        installed = self._parts.installed
        if (installed.elsewhere or installed.unsure) and plan.provider is Provider.LOCAL:
            leaves = await self._why_it_leaves(plan.model)
            if leaves is not None:
                return self._reader.set_back(leaves)
        if self._charge is not None:
            refused = await self._charge.reserve()
            if refused is not None:
                return self._reader.set_back(refused)
        self._attempt.dispatched = self._parts.clock.now()
        record.call.step(Event.DISPATCH)
        is_elsewhere = self._parts.fleet is None or plan.provider is Provider.CLOUD
        host = plan.breaker_host if is_elsewhere else self._host.name
        admitted = breakers.admit(plan.provider, plan.model, self._pair, host)
        if isinstance(admitted, Failure):
            return self._reader.set_back(admitted)
        self._admitted = admitted
        self._attempt.trial = admitted.trial
        exchange = self._exchange if plan.provider is Provider.LOCAL else self._leave
        try:
            return await exchange()
        finally:
            # Whoever waits for the provider has learned nothing that a breaker does not know.
            failure = None if self._waits_again else self._attempt.failure or record.failure
            breakers.ended(
                admitted,
                failure,
                completed=record.call.state is State.COMPLETED,
                circumstances=USUAL if failure is None else self._circumstances(),
                pair=self._pair,
            )

    def _pair(self) -> int:
        """Who asks what."""
        return self._sent.pair(self._record.client)

    def _circumstances(self) -> Circumstances:
        """Of a failure; the record keeps what the body, soon forgotten, says of it."""
        record = self._record
        record.holds_back = self._held_back is True
        record.pair = self._pair()
        return Circumstances(record.deadline_was_clients, record.holds_back)

    async def _exchange(self) -> Setback | None:
        deadline = Deadline(self._limits, asyncio.get_running_loop().time())
        try:
            connection = await self._host.pool.acquire()
        except UpstreamError as error:
            waits = self._host.presence.call_failed(error)
            # A call of the cloud has no seat of ours that is held back.
            if self._ticket is not None and self._ticket.host is not None:
                self._waits_again = waits or self._moves_on(self._ticket)
            return self._reader.broken(error)
        exchange = connection.start(head_request=False)
        try:
            self._attempt.sent = True
            self._write_request(connection)
            setback = await self._answer(exchange, deadline, self._host.known)
            return (
                setback
                if self._early_headers is None
                else self._in_band(setback, self._early_headers)
            )
        finally:
            # Unless its answer is complete, this cuts the upstream off, which is what
            # makes Ollama stop computing for nobody.
            exchange.abort()

    async def _leave(self) -> Setback | None:
        """The same with a cloud, which is written down."""
        cloud, keeper, attempt = self._plan.cloud, self._parts.budget_keeper, self._attempt
        if cloud is not None:
            return await self._exchange_elsewhere(cloud)
        size = len(self._cleared or self._body_bytes())
        leaving = self._leaving(egress.OLLAMA, size, self._record.redacted or {})
        keeper.leaves(leaving)
        try:
            return await self._exchange()
        finally:
            keeper.has_left(leaving, attempt)

    def _moves_on(self, ticket: Ticket) -> bool:
        """Whether a call that could not be sent is asked of another host: once of each."""
        parts = self._parts
        if parts.fleet is None or len(self._attempt.returned) >= len(parts.hosts):
            return False
        return parts.admission_queue.has_other(ticket)

    async def _exchange_elsewhere(self, cloud: CloudModel) -> Setback | None:
        """The same with a cloud's own API, which answers in the client's dialect here."""
        attempt, sent = self._attempt, self._sent
        deadline = Deadline(self._limits, asyncio.get_running_loop().time())
        if self._prepared is None:  # it only loads, or unloads
            answer = cloud.loaded(self._record.endpoint, self._record.loading)
            return await self._reader.run(answer, await answer.ready(), self._bounds)
        prepared = self._prepared
        named = cloud.parts.named
        leaving = self._leaving(named.provider, len(prepared.body), prepared.redacted)
        self._parts.budget_keeper.leaves(leaving)
        call = cloud.ask(prepared, sent.request.headers)
        attempt.sent = True
        try:
            setback = await self._answer(call.exchange, deadline, ELSEWHERE)
            early = self._early_headers
            return setback if early is None else self._in_band(setback, early)
        finally:
            call.exchange.abort()
            attempt.sent, attempt.upstream_status = call.is_sent, call.status
            attempt.usage = call.usage
            self._record.provider_limits = call.limits
            self._parts.budget_keeper.has_left(leaving, attempt)

    def _leaving(self, provider: str, size: int, redacted: Mapping[str, int]) -> Leaving:
        """What is written down of a request that leaves. ``redacted``: how often what was."""
        record, charge = self._record, self._charge
        approval = None if charge is None or charge.approval is None else charge.approval.id
        return Leaving(
            request_id=record.request_id,
            attempt=len(record.attempts),
            wall=self._parts.clock.wall(),
            role=self._plan.role,
            client=record.client,
            why=self._routing.reason,
            condition=self._sent.asked.escalate or None,
            approval=approval,
            provider=provider,
            model=self._plan.candidate.model[:NAME_MAX],
            size=size,
            redacted=sum(redacted.values()),
        )

    def _in_band(self, setback: Setback | None, early_headers: EarlyHeaders) -> Setback | None:
        """After an early head a setback can only be told inside the stream."""
        if setback is None or not early_headers.committed:
            return setback
        failure = setback.failure
        if self._before is not None and not explains(Tried(failure, seated=True)):
            failure = self._before
        self._reply.break_early(failure)
        return None

    def _write_request(self, connection: UpstreamConnection) -> None:
        sent, upstream = self._sent, self._host.answers.target
        body = self._cleared or self._body_bytes()
        size = len(body)
        target = sent.target.encode("utf-8", "surrogateescape")
        head = (
            b"POST %b HTTP/1.1\r\n%b" % (target, upstream.host_line),
            *headers.request_lines(sent.request.raw_headers, sent.consumed),
            b"%bContent-Length: %d\r\n\r\n" % (headers.VIA_LINE, size),
        )
        if size <= _ONE_WRITE_BYTES:
            connection.write(b"".join((*head, body)))
        else:  # a copy would live until the upstream has taken it
            connection.write(b"".join(head))
            connection.write(body)

    def _body_bytes(self) -> bytes:
        """The client's bytes naming the candidate, unless the policy shapes the request."""
        body, model, plan = self._sent.body, self._plan.candidate.model, self._plan
        shape = plan.shape if model == body.model else plan.chosen
        changes = None
        self._record.applied = ()
        if shape != NOTHING:
            changes, self._record.applied = apply(shape, self._record.endpoint.facts, body.fields)
        if changes is None:
            return body.with_model(model)
        return body.fields.rewritten(changes | {"model": model})

    # 3. The answer.

    async def _answer(self, exchange: Exchange, deadline: Deadline, known: Known) -> Setback | None:
        try:
            if self._early_headers is not None:
                self._early_headers.start()
            head = await first_byte(exchange, deadline, known, self._plan.model)
        except UpstreamError as error:
            return self._reader.broken(error)
        except LateError as late:
            return self._reader.set_back(self._reader.late(late.reason))
        finally:
            if self._early_headers is not None:
                self._early_headers.stop()
        self._begun(head)
        self._deadline = deadline
        return await self._reader.run(exchange, head, self._bounds)

    def _begun(self, head: UpstreamHead) -> None:
        """The upstream answers: what waits to hear of that is told."""
        self._attempt.first_byte = self._parts.clock.now()
        self._attempt.upstream_status = head.status
        if self._ticket is not None:
            self._parts.admission_queue.first_byte(self._ticket)
        if self._admitted is not None:
            self._parts.breakers.reached(self._admitted)

    # 4. The bounds.

    def _read_limits(self) -> Limits:
        plan, total_ms = self._plan, self._plan.row.total_timeout_ms
        asked_ms = self._sent.asked.timeout_ms
        own_s, asked_s = plan.limits.role_s, None if asked_ms is None else asked_ms / 1000
        if is_clients(own_s, asked_s):
            self._record.deadline_was_clients = True
        limits = plan.limits._replace(role_s=role_bound(own_s, asked_s))
        if total_ms is None:
            return limits
        left_s = total_ms / 1000 - (self._parts.clock.now() - self._record.started)
        total_at = asyncio.get_running_loop().time() + max(0.0, left_s)
        return limits._replace(total_at=total_at, total_s=total_ms / 1000)

    def _bounds(self) -> Bounds:
        """What ends the answer now that it has begun; asked for while the request is known."""
        bounds = self._deadline.bounds()
        if self._held_back is None:
            self._held_back = may_hold_back(self._sent.body.fields)
        if not self._held_back:
            return bounds
        bounds = bounds.held_back(self._plan.held_back_s)
        assert bounds.stall_s is not None
        self._reader.limits = self._limits._replace(stall_s=bounds.stall_s)
        return bounds

    def _read_charge(self) -> AttemptCharge | None:
        body = self._sent.body
        return self._parts.budget_keeper.attempt_charge(
            self._record, self._routing, self._plan.candidate, body.fields, len(body.raw)
        )

    def _read_validation(self) -> Validation | None:
        if self._record.loading is not None:
            return None
        record, fields = self._record, self._sent.body.fields
        validation = Validation(record, self._plan.candidate.model, fields)
        if not validation.wanted:
            return None
        plan = self._plan
        asked_for = plan.candidate.model == self._sent.body.model
        shape = plan.shape if asked_for else plan.chosen
        validation.bound = answer_bound(shape, record.endpoint.facts, fields)
        return validation

    def _read_early_headers(self) -> EarlyHeaders | None:
        after_ms = self._plan.row.early_headers_after_ms
        if after_ms is None or not asks_for_stream(self._record.endpoint, self._sent.body.fields):
            return None
        return EarlyHeaders(self._reply, self._record, self._parts.clock, after_ms / 1000)
