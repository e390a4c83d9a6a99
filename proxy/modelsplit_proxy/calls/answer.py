"""The answer of one attempt, read from its head to its end.

A stream passes on as it comes; a JSON answer is held until it is whole, and so is a stream
that must be valid before the client sees any of it. What was passed on can only be broken
off; what was held can still be set back.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from modelsplit_policy import deadlines, overload
from modelsplit_policy.failures import ErrorCode, Failure, Reason, for_provider
from modelsplit_policy.hints import Absence
from modelsplit_policy.model_names import canonical
from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.calls.reply import OwnAnswer, Setback
from modelsplit_proxy.http.collect import BodyCopy, Collector
from modelsplit_proxy.http.relay import Relay
from modelsplit_proxy.http.upstream import UpstreamError
from modelsplit_proxy.protocol import answer_check, stream_end, upstream_failures
from modelsplit_proxy.protocol.held_answer import HeldAnswer
from modelsplit_proxy.protocol.splice import SplicedDown
from modelsplit_proxy.protocol.stream_end import Tail
from modelsplit_proxy.runtime.parts import parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_policy.deadlines import Bounds, Limits
    from modelsplit_proxy.calls.attempt_plan import AttemptPlan
    from modelsplit_proxy.calls.deadlines import Signs
    from modelsplit_proxy.calls.early_headers import EarlyHeaders
    from modelsplit_proxy.calls.missing_model import MissingModel
    from modelsplit_proxy.calls.reply import Reply
    from modelsplit_proxy.calls.telemetry import Telemetry
    from modelsplit_proxy.calls.validation import Validation
    from modelsplit_proxy.http.upstream import Exchange, UpstreamHead, UpstreamTarget
    from modelsplit_proxy.protocol.stream_end import StreamVerdict, Usage
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.runtime.lifecycle import Lifecycle

# A JSON answer is held until it is whole, so that one that breaks can still be replaced.
# Beyond this size (only embeddings get there) it is passed on as it comes.
HOLD_BYTES: Final = 8 * 1024 * 1024


@parts
class AnswerParts:
    """What outlives the answer."""

    target: UpstreamTarget
    lifecycle: Lifecycle
    probe: Signs
    missing_model: MissingModel


class AnswerReader:
    """Reads one answer. Made for one attempt, used once."""

    __slots__ = (
        "_attempt",
        "_early_headers",
        "_model",
        "_provider",
        "_record",
        "_reply",
        "_role",
        "_row",
        "_telemetry",
        "_validation",
        "limits",
        "parts",
    )

    def __init__(
        self,
        parts: AnswerParts,
        record: CallRecord,
        reply: Reply,
        plan: AttemptPlan,
        limits: Limits,
        *,
        validation: Validation | None,
        early_headers: EarlyHeaders | None,
        telemetry: Telemetry | None,
    ) -> None:
        self.parts = parts
        self._record = record
        self._reply = reply
        self._model = plan.candidate.model
        self.limits = limits
        self._validation = validation
        self._early_headers = early_headers
        self._telemetry = telemetry
        self._role = plan.role
        self._provider = plan.provider
        self._row = plan.row
        self._attempt = record.attempts[-1]

    async def run(
        self, exchange: Exchange, head: UpstreamHead, bounds: Callable[[], Bounds]
    ) -> Setback | None:
        """None: the client has its answer, whole or broken. Else it has seen nothing of it."""
        if head.status != 200 or not answer_check.is_stream(self._record.endpoint, head):
            return await self._hold(exchange, head, bounds)
        if exchange.is_empty:
            return self.set_back(upstream_failures.no_byte(self._provider), head)
        self._record.streamed = True
        if self._validation is not None and self._holds_streams(head):
            return await self._hold_stream(self._validation, exchange, head, bounds)
        await self._stream(exchange, head, bounds)
        return None

    # 1. The shapes of an answer.

    async def _hold(
        self, exchange: Exchange, head: UpstreamHead, bounds: Callable[[], Bounds]
    ) -> Setback | None:
        """A JSON answer: look at it whole before the client sees any of it."""
        collector = Collector(exchange, HOLD_BYTES, self._reply.down.hold)
        result = await collector.run(bounds)
        if isinstance(result, UpstreamError):
            return self.broken(result)
        if isinstance(result, Reason):
            return self.set_back(self.late(result))
        if collector.overflowed and head.status == 200:
            await self._spill(exchange, head, collector, bounds)
            return None
        return self._whole(head, collector.body)

    def _whole(self, head: UpstreamHead, body: bytes) -> Setback | None:
        """The answer is here: give it to the client, or say what is wrong with it."""
        record = self._record
        held = HeldAnswer(body)
        if head.status == 200:  # counted whatever becomes of it: it was computed
            self._attempt.usage = answer_check.usage_of(record.endpoint, held)
        failure = self._what_is_wrong(head, held)
        if failure is not None:
            if failure.reason is Reason.NOT_INSTALLED:
                ours = self._not_installed(body)
                after_s = failure.retry_after_s
                return self.set_back(replace(ours, retry_after_s=after_s, retry=failure.retry))
            if failure.reason is Reason.NO_ANSWER and head.status >= 400:
                return self.set_back(failure)  # another program's words, and its status
            return self.set_back(failure, head, body)
        if self._early_headers is not None and self._early_headers.committed:
            return self._whole_in_stream(body)
        if self._telemetry is not None and not head.get(b"content-encoding"):
            body = self._telemetry.whole(body)
        self._reply.commit(head, length=len(body), total=True)
        self._reply.down.write(body)
        self._reply.complete()
        return None

    def _what_is_wrong(self, head: UpstreamHead, held: HeldAnswer) -> Failure | None:
        record = self._record
        if head.status >= 400:
            return upstream_failures.failure_of_status(
                head,
                held.body,
                model=self._model,
                provider=self._provider,
                wall=record.started_wall,
                is_other=self._is_down and self.parts.probe.absence is Absence.OTHER,
            )
        if head.status != 200:
            return upstream_failures.no_success(head.status, self._provider)
        failure = answer_check.check_whole(record.endpoint, head, held, self._provider)
        if failure is not None or self._validation is None:
            return failure
        return self._validation.whole(held.body)

    def _whole_in_stream(self, body: bytes) -> Setback | None:
        """A whole answer where a stream has been begun early: one line, if lines it is."""
        as_last_line = self._record.endpoint.wire.as_last_line
        if as_last_line is not None:
            if self._telemetry is not None:
                body = self._telemetry.whole(body)
            self._reply.down.write(as_last_line(body))
            self._reply.complete()
            return None
        code = for_provider(ErrorCode.UPSTREAM_LOCAL, self._provider)
        text = "Ollama answered whole where a stream was asked for and had been begun"
        return self.set_back(Failure(code, Reason.STATUS, text, "Not A Stream"))

    async def _spill(
        self,
        exchange: Exchange,
        head: UpstreamHead,
        collector: Collector,
        bounds: Callable[[], Bounds],
    ) -> None:
        """Too large to hold: pass on what is here, then the rest as it comes."""
        down, bounded = self._reply.down, bounds()  # of the request, soon forgotten
        self._reply.commit(head, length=head.length, total=False)
        relay = Relay(exchange, down, None)
        down.write(collector.body)
        if not down.writing_paused:
            exchange.resume()
        result = await self._relayed(relay, bounded)
        if result is None:
            self._reply.complete()
        else:
            self._reply.break_off(self._of_host(self._break_failure(result)), None)

    async def _stream(
        self, exchange: Exchange, head: UpstreamHead, bounds: Callable[[], Bounds]
    ) -> None:
        record = self._record
        # An encoded stream passes unread.
        tail = None if head.get(b"content-encoding") else Tail()
        kept = None if tail is None or self._validation is None else BodyCopy(HOLD_BYTES)
        bounded = bounds()  # of the request, soon forgotten
        # Framed anew whatever the upstream's framing: an error can then still be told in-band.
        self._reply.commit(head, length=None, total=False)
        spliced = self._spliced() if tail is not None else None
        self._attempt.stream = tail
        relay = Relay(exchange, spliced or self._reply.down, tail, kept)
        ping = (
            None
            if bounded.ping_s is None
            else partial(self._ping, tail if spliced is None else None)
        )
        try:
            result = await self._relayed(relay, bounded, ping)
        finally:
            self._attempt.stream = None
        if spliced is not None:
            spliced.finish()
        verdict = None if tail is None else record.endpoint.wire.judge(tail)
        if tail is not None and verdict is not None:
            self._attempt.usage = self._usage(verdict, tail.pieces)
        # The dialect's own end marker decides, not how the connection fared after it.
        if verdict.complete if verdict is not None else result is None:
            self._observe(kept)
            self._reply.complete()
        else:
            failure = self._of_host(self._stream_failure(result, verdict))
            self._reply.break_off(failure, verdict)

    def _ping(self, tail: Tail | None, last: float) -> Reason | None:
        """In the silence after ``last``: show the client that it is waited for.

        Between two events, and where the bytes that it has are known: ``tail`` None, they
        are not. The reason, if the upstream hangs.
        """
        now = asyncio.get_running_loop().time()
        if deadlines.is_mute(now, last, self.parts.probe.mute_since):
            return Reason.UPSTREAM_MUTE
        down, ping = self._reply.down, self._record.endpoint.wire.ping
        between = tail is not None and not tail.open_event()
        if ping is not None and between and not down.writing_paused:
            down.write(ping)
        return None

    async def _relayed(
        self,
        relay: Relay,
        bounds: Bounds,
        ping: Callable[[float], Reason | None] | None = None,
    ) -> UpstreamError | Reason | None:
        try:
            return await relay.run(bounds, ping)
        except asyncio.CancelledError:
            if not self.parts.lifecycle.cutting:
                raise  # the client has left
            return Reason.DRAINING

    def _observe(self, kept: BodyCopy | None) -> None:
        """Check a stream that has gone out: too late to retry, not too late to count."""
        if self._validation is not None and kept is not None and not kept.overflowed:
            self._validation.stream(kept.body)

    def _holds_streams(self, head: UpstreamHead) -> bool:
        early = self._early_headers is not None and self._early_headers.committed
        readable = not head.get(b"content-encoding")
        return self._row.on_stream == "hold" and readable and not early

    async def _hold_stream(
        self,
        validation: Validation,
        exchange: Exchange,
        head: UpstreamHead,
        bounds: Callable[[], Bounds],
    ) -> Setback | None:
        """A stream that must be valid before the client sees any of it."""
        collector = Collector(exchange, HOLD_BYTES, self._reply.down.hold)
        result = await collector.run(bounds)
        if collector.overflowed:
            await self._spill(exchange, head, collector, bounds)
            return None
        body = collector.body
        tail = Tail()
        tail.feed(body)
        verdict = self._record.endpoint.wire.judge(tail)
        self._attempt.usage = self._usage(verdict, body.count(b"\n\n"))
        if not verdict.complete:
            return self.set_back(self._held_failure(result, verdict))
        unfit = validation.stream(body)
        if unfit is not None:
            return self.set_back(unfit, head, body)
        self._reply.commit(head, length=None, total=True)
        spliced = self._spliced()
        down = spliced or self._reply.down
        down.write(body)
        if spliced is not None:
            spliced.finish()
        self._reply.complete()
        return None

    def _usage(self, verdict: StreamVerdict, pieces: int) -> Usage:
        """What the stream says of itself; or what came of it, where it does not say how much."""
        usage = verdict.usage
        if usage.output_tokens is not None:
            return usage
        if verdict.complete and self._record.endpoint.wire.dialect is Dialect.OLLAMA:
            return usage  # which always says it, or says what is no number
        return stream_end.counted(usage, pieces, complete=verdict.complete)

    def _spliced(self) -> SplicedDown | None:
        """The way to the client where it asked for telemetry in the stream."""
        if self._telemetry is None:
            return None
        return SplicedDown(self._reply.down, self._telemetry.stream())

    # 2. What went wrong.

    def _stream_failure(
        self, result: UpstreamError | Reason | None, verdict: StreamVerdict | None
    ) -> Failure:
        error = None if verdict is None else verdict.error
        # What the upstream says of itself decides, not how the connection fared after it.
        if result is not None and error is None:
            return self._break_failure(result)
        code = for_provider(ErrorCode.STREAM_BROKEN_LOCAL, self._provider)
        if error is not None:
            text = f"Ollama failed mid-answer: {error[:120]}"
            reason = upstream_failures.reason_of_words(error) or Reason.ERROR_LINE
            return Failure(code, reason, text, "Stream Broken")
        text = "Ollama ended its answer without saying that it was done; ask again"
        return Failure(code, Reason.UNTERMINATED, text, "Stream Broken")

    def _held_failure(
        self, result: UpstreamError | Reason | None, verdict: StreamVerdict
    ) -> Failure:
        """The same of a stream whose client has seen nothing: as of any answer that is held."""
        if result is not None and verdict.error is None:
            return self._early_failure(result)
        code = for_provider(ErrorCode.UPSTREAM_LOCAL, self._provider)
        if verdict.error is not None:
            text = f"Ollama failed mid-answer: {verdict.error[:120]}"
            return Failure(code, Reason.STATUS, text, "Upstream Failed")
        text = "Ollama ended its answer without saying that it was done; ask again"
        return Failure(code, Reason.UNTERMINATED, text, "Answer Unterminated")

    def _is_clients_own(self) -> bool:
        """Whether the client itself named the model that was asked."""
        return canonical(self._record.requested_model) == canonical(self._model)

    def _not_installed(self, body: bytes) -> Failure:
        """Ollama cannot know whose choice the model was that it does not have."""
        if self._is_clients_own():
            return self.parts.missing_model.failure(self._record.requested_model, body)
        chosen_as = {self._row.primary: "model", self._row.fallback: "fallback"}
        return upstream_failures.not_installed(
            self._model,
            role=self._role,
            chosen_as=chosen_as.get(self._model, "model"),
            provider=self._provider,
            pulled_at=self.parts.missing_model.pulled_at,
        )

    def _early_failure(self, result: UpstreamError | Reason) -> Failure:
        """What ended an attempt before its client saw a byte."""
        if isinstance(result, Reason):
            return self.late(result)
        if result.failure is not None:
            return result.failure
        upstream = f"http://{self.parts.target.authority}"
        return upstream_failures.failure_of_error(
            result,
            upstream=upstream,
            steps=self.parts.target.steps,
            provider=self._provider,
            gone=self._is_down,
        )

    def _break_failure(self, result: UpstreamError | Reason) -> Failure:
        if isinstance(result, UpstreamError):
            if result.failure is not None:
                return result.failure
            return upstream_failures.failure_of_break(
                result,
                steps=self.parts.target.steps,
                provider=self._provider,
                gone=self._is_down,
            )
        return overload.cut_short() if result is Reason.DRAINING else self.late(result)

    def late(self, reason: Reason) -> Failure:
        return deadlines.failure_of(
            reason,
            self.limits,
            model=self._model,
            provider=self._provider,
            down=self._is_down,
            host=self._attempt.host,
            is_clients=self._record.deadline_was_clients,
        )

    @property
    def _is_down(self) -> bool:
        """Whether Ollama is known not to answer."""
        return self.parts.probe.up is False

    def _of_host(self, failure: Failure) -> Failure:
        """The same with the name of the host that was asked, where it is one of several."""
        attempt = self._attempt
        if attempt.host is None or attempt.dispatched is None:
            return failure
        return failure.of_host(attempt.host)

    def broken(self, error: UpstreamError) -> Setback:
        return self.set_back(self._early_failure(error))

    def set_back(
        self, failure: Failure, head: UpstreamHead | None = None, body: bytes = b""
    ) -> Setback:
        self._attempt.failure = failure = self._of_host(failure)
        return Setback(failure, None if head is None else OwnAnswer(head, body, self._role))
