"""One call to a model, top to bottom: read, route, wait, ask, answer, record.

The order is the file's order. A call makes at most two attempts, each through the same
door: a seat, one exchange with the upstream, the seat back. Nothing is shown to the client
before the upstream has shown something worth showing; from then on nothing can be taken
back, and a failure is told inside the stream.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from modelsplit_policy import fallback
from modelsplit_policy.admission import Place, Ticket
from modelsplit_policy.call import Event, State
from modelsplit_policy.facts import Provider, Role
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.parallelism import Report
from modelsplit_policy.roles import Ask, bare_name
from modelsplit_proxy import answers, errors, headers, tags
from modelsplit_proxy.asked import NOTHING, AskedError, read_asked
from modelsplit_proxy.body import read_whole
from modelsplit_proxy.edge import date_line
from modelsplit_proxy.peek import BodyError, read_body
from modelsplit_proxy.record import CallRecord
from modelsplit_proxy.relay import Bounds, Collector, Relay
from modelsplit_proxy.tail import Tail, Verdict, judge
from modelsplit_proxy.upstream import UpstreamError

if TYPE_CHECKING:
    from aiohttp import web

    from modelsplit_policy.breaker import Allowed
    from modelsplit_policy.roles import Candidate, Route
    from modelsplit_proxy.edge import Downstream
    from modelsplit_proxy.peek import Body
    from modelsplit_proxy.record import Attempt
    from modelsplit_proxy.routes import Inference
    from modelsplit_proxy.services import Services
    from modelsplit_proxy.upstream import Exchange, UpstreamHead

# A JSON answer is held until it is whole, so that one that breaks can still be replaced.
# Beyond this size (only embeddings get there) it is passed on as it comes.
HOLD_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Setback:
    """An attempt that gave the client nothing yet.

    With the upstream's own answer, if it sent one: that is what the client gets should no
    other attempt follow.
    """

    failure: Failure
    head: UpstreamHead | None = None
    body: bytes = b""


class InferenceCall:
    """The run of one call. Made for one request, used once."""

    def __init__(
        self,
        services: Services,
        request: web.BaseRequest,
        down: Downstream,
        kind: Inference,
        *,
        target: str,
        request_id: str,
    ) -> None:
        self._services = services
        self._request = request
        self._target = target
        self._down = down
        self._asked = NOTHING
        self._waited_s = 0.0
        self._ticket: Ticket | None = None
        self._has_client_seat = False
        self._admitted: Allowed | None = None
        self.record = CallRecord(
            request_id=request_id,
            route=kind.label,
            dialect=kind.dialect,
            client=request.remote or "",
            started=services.clock.now(),
            started_wall=services.clock.wall(),
            client_retry=request.headers.get("x-stainless-retry-count", "0") != "0",
        )

    async def serve(self) -> None:
        """Answer the request. Whatever happens, the call ends once and is recorded once."""
        try:
            await self._run()
        except asyncio.CancelledError:
            self._client_gone()
            raise
        finally:
            self._finish()

    async def _run(self) -> None:
        prepared = await self._prepare()
        if isinstance(prepared, Failure):
            self.record.call.step(Event.REJECT)
            self._answer_setback(Setback(prepared))
            return
        body, route = prepared
        first: Setback | None = None
        for candidate in route.candidates:
            setback = await self._attempt(body, candidate)
            if setback is None:
                return
            # A second attempt that found no seat explains nothing; the first failure does.
            turned_away = self.record.call.state in {State.PENDING, State.QUEUED}
            first = setback if first is None or not turned_away else first
            if candidate is route.candidates[-1] or not fallback.is_cause(setback.failure):
                break
            # An open breaker turns a candidate down before it has taken a step.
            if self.record.call.state is State.DISPATCHED:
                self.record.call.step(Event.FALL_BACK)
        assert first is not None
        self._end_unanswered()
        self._answer_setback(first)

    # 1. Read and route.

    async def _prepare(self) -> tuple[Body, Route] | Failure:
        services = self._services
        try:
            self._asked = read_asked(self._request.headers)
            self.record.job_id = self._asked.job_id
            raw = await read_whole(self._request, self._down, services.max_body_bytes)
            body = read_body(raw)
        except (AskedError, BodyError) as error:
            return error.failure
        route = services.roles.route(self._ask(body))
        if isinstance(route, Failure):
            self.record.requested_model = body.model
            return route
        self.record.routed(route)
        refused = await self._refuse_early(route)
        return (body, route) if refused is None else refused

    def _ask(self, body: Body) -> Ask:
        asked = self._asked
        return Ask(
            model=body.model,
            role=asked.role,
            context=asked.context,
            retry_level=asked.retry_level,
            escalate=asked.escalate,
            no_fallback=asked.no_fallback,
        )

    async def _refuse_early(self, route: Route) -> Failure | None:
        """What says no before any line is joined."""
        if self._services.lifecycle.draining:
            return answers.draining()
        if not self._take_client_seat():
            return Failure(
                ErrorCode.RATE_LIMITED,
                Reason.CLIENT_CONCURRENCY,
                f"client {self.record.client} already has {self._services.client_seats.limit} "
                "calls here; retry when one has ended",
                "Client Busy",
                retry_after_s=1,
            )
        retry_after_s = await self._services.rate.take(self.record.client)
        if retry_after_s is not None:
            return Failure(
                ErrorCode.RATE_LIMITED,
                Reason.CLIENT_RATE,
                f"client {self.record.client} sends faster than {self._services.rate.text}; "
                f"retry in {retry_after_s} s",
                "Client Rate Limited",
                retry_after_s=retry_after_s,
            )
        if route.provider is Provider.CLOUD:
            return Failure(
                ErrorCode.BUDGET_NOT_APPROVED,
                Reason.NO_APPROVAL,
                f"{route.candidates[0].model[:60]} runs in the cloud and no approval is recorded; "
                "nothing was sent",
                "Cloud Not Approved",
            )
        return None

    def _take_client_seat(self) -> bool:
        self._has_client_seat = self._services.client_seats.enter(self.record.client)
        return self._has_client_seat

    # 2. One attempt: a seat, one exchange, the seat back.

    async def _attempt(self, body: Body, candidate: Candidate) -> Setback | None:
        """None: the client has its answer. Else what to say, or to try another model for."""
        record, services = self.record, self._services
        assert record.role is not None
        assert record.provider is not None
        attempt = record.attempt(candidate, services.clock.now())
        model = bare_name(candidate.model)
        stopped = services.fuses.check(record.provider, model)
        if stopped is not None:
            attempt.ended = attempt.asked
            return self._set_back(attempt, stopped)
        self._ticket = ticket = Ticket(
            role=record.role,
            model=model,
            arrived=attempt.asked,
            client=record.client,
            max_wait_s=self._wait_left_s(),
            max_hold_s=self._max_hold_s(),
        )
        try:
            refused = await self._take_seat(ticket, attempt)
            if refused is not None:
                return self._set_back(attempt, refused)
            return await self._dispatch(body, candidate, attempt)
        finally:
            attempt.ended = services.clock.now()
            services.gate.leave(ticket, self._report())

    def _report(self) -> Report | None:
        """What a call that ran to its end says of how fast it ran."""
        if self.record.call.state is not State.COMPLETED:
            return None
        usage = self.record.usage
        return Report(
            tokens=usage.output_tokens,
            eval_s=usage.eval_s,
            prompt_s=usage.prompt_eval_s,
            load_s=usage.load_s,
            total_s=usage.total_s,
        )

    async def _take_seat(self, ticket: Ticket, attempt: Attempt) -> Failure | None:
        gate, call, clock = self._services.gate, self.record.call, self._services.clock
        refusal = gate.ask(ticket)
        if ticket.place is Place.WAITING:
            attempt.ahead = ticket.ahead
            call.step(Event.ENQUEUE)
            refusal = await gate.wait(ticket)
        self._waited_s += clock.now() - attempt.asked
        if refusal is not None:
            return answers.failure_of_refusal(refusal, self._waited_s)
        attempt.seated = clock.now()
        call.step(Event.ADMIT)
        return None

    def _max_hold_s(self) -> float:
        role = self.record.role
        assert role is not None
        held_ms = self._services.policy.roles[role].max_hold_ms
        return math.inf if held_ms is None else held_ms / 1000

    def _wait_left_s(self) -> float:
        """The cap is on the whole call: a second attempt waits for what the first left."""
        role = self.record.role
        assert role is not None
        allowed_ms = self._services.policy.roles[role].max_wait_ms
        if self._asked.max_wait_ms is not None:
            allowed_ms = min(allowed_ms, self._asked.max_wait_ms)
        return max(0.0, allowed_ms / 1000 - self._waited_s)

    async def _dispatch(self, body: Body, candidate: Candidate, attempt: Attempt) -> Setback | None:
        """Ask the model's breaker once more, now that the call is about to be sent."""
        record, fuses = self.record, self._services.fuses
        assert record.provider is not None
        attempt.dispatched = self._services.clock.now()
        record.call.step(Event.DISPATCH)
        admitted = fuses.admit(record.provider, bare_name(candidate.model))
        if isinstance(admitted, Failure):
            return self._set_back(attempt, admitted)
        self._admitted = admitted
        try:
            return await self._exchange(body, candidate, attempt)
        finally:
            failure = attempt.failure or record.failure
            fuses.ended(
                admitted,
                failure,
                client_gone=failure is None and record.call.state is not State.COMPLETED,
                deadline_was_clients=record.deadline_was_clients,
            )

    async def _exchange(self, body: Body, candidate: Candidate, attempt: Attempt) -> Setback | None:
        timeout_s = self._timeout_s(candidate)
        deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        bounds = Bounds(deadline, self._services.stall_s)
        try:
            connection = await self._services.pool.acquire()
        except UpstreamError as error:
            return self._broken(attempt, error)
        exchange = connection.start(head_request=False)
        try:
            connection.write(self._request_bytes(body.with_model(candidate.model)))
            return await self._answer(exchange, bounds, candidate, attempt)
        finally:
            # Unless its answer is complete, this cuts the upstream off, which is what
            # makes Ollama stop computing for nobody.
            exchange.abort()

    def _timeout_s(self, candidate: Candidate) -> float | None:
        asked_ms = self._asked.timeout_ms
        if asked_ms is None:
            return candidate.timeout_s
        asked_s = asked_ms / 1000
        if candidate.timeout_s is not None and candidate.timeout_s <= asked_s:
            return candidate.timeout_s
        self.record.deadline_was_clients = True
        return asked_s

    def _request_bytes(self, body: bytes) -> bytes:
        return b"".join(
            (
                b"POST %b HTTP/1.1\r\n" % self._target.encode("utf-8", "surrogateescape"),
                b"Host: %b\r\n" % self._services.target.authority.encode("ascii"),
                *headers.request_lines(self._request.raw_headers),
                headers.VIA_LINE,
                b"Content-Length: %d\r\n\r\n" % len(body),
                body,
            )
        )

    # 3. The answer.

    async def _answer(
        self, exchange: Exchange, bounds: Bounds, candidate: Candidate, attempt: Attempt
    ) -> Setback | None:
        try:
            async with asyncio.timeout_at(bounds.deadline):
                head = await exchange.ready()
        except UpstreamError as error:
            return self._broken(attempt, error)
        except TimeoutError:
            return self._late(attempt, Reason.ROLE_TIMEOUT, candidate)
        attempt.first_byte = self._services.clock.now()
        self._reached()
        attempt.upstream_status = head.status
        if head.status < 400 and answers.is_stream(head):
            await self._stream(exchange, head, bounds, candidate)
            return None
        return await self._hold(exchange, head, bounds, candidate, attempt)

    def _reached(self) -> None:
        """The upstream answers: what waits to hear of that is told."""
        if self._ticket is not None:
            self._services.gate.first_byte(self._ticket)
        if self._admitted is not None:
            self._services.fuses.reached(self._admitted)

    async def _hold(
        self,
        exchange: Exchange,
        head: UpstreamHead,
        bounds: Bounds,
        candidate: Candidate,
        attempt: Attempt,
    ) -> Setback | None:
        """A JSON answer: look at it whole before the client sees any of it."""
        record = self.record
        collector = Collector(exchange, HOLD_BYTES)
        result = await collector.run(bounds)
        if isinstance(result, UpstreamError):
            return self._broken(attempt, result)
        if isinstance(result, Reason):
            return self._late(attempt, result, candidate)
        if collector.overflowed and head.status < 400:
            await self._spill(exchange, head, collector, bounds, candidate)
            return None
        assert record.provider is not None
        body = collector.body
        failure = answers.failure_of_status(
            head, body, model=candidate.model, provider=record.provider
        ) or answers.check_whole(record.dialect, record.route, body, record.provider)
        if failure is not None:
            return self._set_back(attempt, failure, head, body)
        record.usage = answers.usage_of(record.dialect, record.route, body)
        self._commit(head, length=len(body), total=True)
        self._down.write(body)
        self._complete()
        return None

    async def _spill(
        self,
        exchange: Exchange,
        head: UpstreamHead,
        collector: Collector,
        bounds: Bounds,
        candidate: Candidate,
    ) -> None:
        """Too large to hold: pass on what is here, then the rest as it comes."""
        self._commit(head, length=head.length, total=False)
        relay = Relay(exchange, self._down, None)
        for piece in collector.pieces:
            self._down.write(piece)
        if not self._down.writing_paused:
            exchange.resume()
        result = await relay.run(bounds)
        if result is None:
            self._complete()
        else:
            self._break(self._break_failure(result, candidate), None)

    async def _stream(
        self, exchange: Exchange, head: UpstreamHead, bounds: Bounds, candidate: Candidate
    ) -> None:
        record = self.record
        record.streamed = True
        opaque = bool(head.get(b"content-encoding"))
        tail = None if opaque else Tail()
        # Framed anew whatever the upstream's framing: an error can then still be told in-band.
        self._commit(head, length=None, total=False)
        result = await Relay(exchange, self._down, tail).run(bounds)
        verdict = None if tail is None else judge(record.dialect, tail)
        if verdict is not None:
            record.usage = verdict.usage
        # The dialect's own end marker decides, not how the connection fared after it.
        if verdict.complete if verdict is not None else result is None:
            self._complete()
        else:
            self._break(self._stream_failure(result, verdict, candidate), verdict)

    def _stream_failure(
        self,
        result: UpstreamError | Reason | None,
        verdict: Verdict | None,
        candidate: Candidate,
    ) -> Failure:
        if result is not None:
            return self._break_failure(result, candidate)
        error = None if verdict is None else verdict.error
        if error is not None:
            return _stream_broken(Reason.ERROR_LINE, f"Ollama failed mid-answer: {error[:120]}")
        return _stream_broken(
            Reason.UNTERMINATED, "Ollama ended the stream without saying that it was done"
        )

    def _break_failure(self, result: UpstreamError | Reason, candidate: Candidate) -> Failure:
        assert self.record.provider is not None
        if isinstance(result, UpstreamError):
            return answers.failure_of_break(result, provider=self.record.provider)
        return self._timeout(result, candidate)

    # 4. What the client gets.

    def _commit(self, head: UpstreamHead, *, length: int | None, total: bool) -> None:
        """From here on the client is being answered and nothing can be taken back."""
        self.record.call.step(Event.COMMIT)
        self._head(head, length=length, total=total)

    def _head(self, head: UpstreamHead, *, length: int | None, total: bool) -> None:
        self.record.status = head.status
        lines = headers.tagged_base_lines(head.headers)
        lines += self._tag_lines(total=total)
        if self.record.failure is not None:
            lines += errors.lines(self.record.failure)
        phrase = head.phrase.decode("latin-1")
        close = self._services.lifecycle.draining
        self._down.head(head.status, phrase, lines, length=length, close=close)

    def _tag_lines(self, *, total: bool) -> list[bytes]:
        origin = "Origin" in self._request.headers
        return tags.lines(self.record, self._services.clock.now(), total=total, origin=origin)

    def _complete(self) -> None:
        self._down.end()
        self.record.call.step(Event.FINISH)

    def _break(self, failure: Failure, verdict: Verdict | None) -> None:
        """Tell the client inside the stream; where that cannot be done, break the line."""
        record = self.record
        record.failure = failure
        record.call.step(Event.BREAK)
        if verdict is None or verdict.mid_line:
            self._down.abort()
            return
        # An Ollama stream whose last line is the error has already said it.
        if failure.reason is not Reason.ERROR_LINE:
            self._down.write(errors.in_band(record.dialect, failure, record.scene()))
        self._down.end()

    def _answer_setback(self, setback: Setback) -> None:
        """The call has failed before a byte: the upstream's own words, or ours."""
        record = self.record
        record.failure = setback.failure
        head = setback.head
        if head is not None and self._passes(head, setback.body):
            self._head(head, length=len(setback.body), total=True)
            self._down.write(setback.body)
        else:
            refused = head is not None and head.status >= 400
            status = head.status if head is not None and refused else setback.failure.status
            self._own_error(setback.failure, status)
        self._down.end()

    def _passes(self, head: UpstreamHead, body: bytes) -> bool:
        """Whether the upstream's own words are fit to be the client's."""
        if head.status >= 400:
            return answers.explains(body)
        # A 200 that is no answer (Ollama gave up) is a client's own affair only in CHAT.
        return self.record.role is Role.CHAT

    def _own_error(self, failure: Failure, status: int) -> None:
        record = self.record
        record.status = status
        body = errors.body(record.dialect, failure, record.scene())
        lines = [b"Content-Type: application/json\r\n", date_line()]
        lines += self._tag_lines(total=True)
        lines += errors.lines(failure)
        lines += headers.cors_lines(self._request.headers.get("Origin"))
        # A body we did not read to its end leaves the connection unusable.
        close = self._services.lifecycle.draining or not self._request.content.is_eof()
        self._down.head(status, failure.phrase, lines, length=len(body), close=close)
        self._down.write(body)

    # 5. How attempts and calls end.

    def _set_back(
        self,
        attempt: Attempt,
        failure: Failure,
        head: UpstreamHead | None = None,
        body: bytes = b"",
    ) -> Setback:
        attempt.failure = failure
        return Setback(failure, head, body)

    def _broken(self, attempt: Attempt, error: UpstreamError) -> Setback:
        assert self.record.provider is not None
        upstream = f"http://{self._services.target.authority}"
        return self._set_back(
            attempt,
            answers.failure_of_error(error, upstream=upstream, provider=self.record.provider),
        )

    def _late(self, attempt: Attempt, reason: Reason, candidate: Candidate) -> Setback:
        return self._set_back(attempt, self._timeout(reason, candidate))

    def _timeout(self, reason: Reason, candidate: Candidate) -> Failure:
        assert self.record.provider is not None
        bound_s = self._services.stall_s
        if reason is not Reason.STALL:
            bound_s = self._timeout_s(candidate) or 0.0
        return answers.failure_of_timeout(
            reason, bound_s=bound_s, model=candidate.model, provider=self.record.provider
        )

    def _end_unanswered(self) -> None:
        call = self.record.call
        turned_away = call.state in {State.PENDING, State.QUEUED}
        call.step(Event.REJECT if turned_away else Event.FAIL)

    def _client_gone(self) -> None:
        call = self.record.call
        if call.ended:
            return
        where = {State.STREAMING: Reason.STREAMING, State.QUEUED: Reason.QUEUED}
        reason = where.get(call.state, Reason.BEFORE_FIRST_BYTE)
        call.step(Event.CLIENT_GONE)
        self.record.status = 499
        self.record.failure = Failure(
            ErrorCode.CLIENT_GONE, reason, "the client closed the connection", "Client Gone"
        )

    def _finish(self) -> None:
        record = self.record
        record.ended = self._services.clock.now()
        if self._has_client_seat:
            self._services.client_seats.leave(record.client)
        if not record.call.ended:
            self._our_bug()
        self._services.metrics.finished(record)
        self._services.log.finished(record)

    def _our_bug(self) -> None:
        """An exception is on its way to the boundary, which answers; the record says so."""
        record = self.record
        record.failure = internal_failure()
        record.status = record.status or 500
        ending = {State.PENDING: Event.REJECT, State.QUEUED: Event.REJECT}
        ending[State.STREAMING] = Event.BREAK
        record.call.step(ending.get(record.call.state, Event.FAIL))


def internal_failure() -> Failure:
    return Failure(
        ErrorCode.INTERNAL,
        Reason.BUG,
        "modelsplit failed on this request; its log has the details under this request id",
        "Internal Error",
    )


def _stream_broken(reason: Reason, message: str) -> Failure:
    return Failure(ErrorCode.STREAM_BROKEN_LOCAL, reason, message, "Stream Broken")
