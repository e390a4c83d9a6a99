"""What the client of one call gets: a head, a body, an end, or an error in its dialect.

Everything here is final. ``commit`` is the moment after which no second model may speak;
from then on a failure is told inside the answer, or breaks it visibly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from modelsplit_policy.call import Event, State
from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.calls import response_headers
from modelsplit_proxy.http import cors, headers
from modelsplit_proxy.http.downstream import date_line
from modelsplit_proxy.protocol import answer_check, error_body, upstream_failures
from modelsplit_proxy.runtime.parts import parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import Request
    from modelsplit_proxy.http.upstream import UpstreamHead
    from modelsplit_proxy.limits.budgets import BudgetKeeper
    from modelsplit_proxy.protocol.stream_end import StreamVerdict
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.lifecycle import Lifecycle


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """What the upstream itself said to a call of ``role``, whole."""

    head: UpstreamHead
    body: bytes
    role: Role


@dataclass(frozen=True, slots=True)
class Setback:
    """An attempt that gave the client nothing yet.

    With the upstream's own answer, if it sent one: that is what the client gets should no
    other attempt follow.
    """

    failure: Failure
    answer: OwnAnswer | None = None

    def in_our_words(self, failure: Failure) -> Setback:
        """The same, told by ``failure``; of what the upstream sent its status alone is left."""
        answer = self.answer
        return Setback(failure, answer and replace(answer, body=b""))


@parts
class ReplyParts:
    """What outlives the reply."""

    policy: Policy
    budget_keeper: BudgetKeeper
    clock: Clock
    lifecycle: Lifecycle


class Reply:
    """The one answer to one call."""

    __slots__ = (
        "_parts",
        "_record",
        "_request",
        "down",
        "on_commit",
    )

    def __init__(
        self, parts: ReplyParts, request: Request, down: Downstream, record: CallRecord
    ) -> None:
        self._parts = parts
        self._request = request
        self._record = record
        self.down = down
        # Told when no other model will be asked any more.
        self.on_commit: Callable[[], None] | None = None

    def commit(self, head: UpstreamHead, *, length: int | None, total: bool) -> None:
        """Begin with the upstream's head; nothing can be taken back from here on."""
        if self._record.call.state is State.STREAMING:
            return  # begun early
        self._commit()
        self._head(head, length=length, total=total)

    def commit_early(self, content_type: bytes, keep_alive: bytes) -> None:
        """Begin a stream before the upstream has said anything, to keep the client patient."""
        record = self._record
        self._commit()
        record.status = 200
        record.streamed = True
        lines = [b"Content-Type: %b\r\n" % content_type, date_line()]
        lines += self._tag_lines(total=False)
        close = self._parts.lifecycle.draining
        self.down.head(200, "OK", lines, length=None, close=close)
        self.down.write(keep_alive)

    def _commit(self) -> None:
        self._record.call.step(Event.COMMIT)
        if self.on_commit is not None:
            self.on_commit()

    def complete(self) -> None:
        """A clean end."""
        self.down.end()
        self._record.call.step(Event.FINISH)

    def break_off(self, failure: Failure, verdict: StreamVerdict | None) -> None:
        """Tell the client inside the stream; where that cannot be done, break the line.

        ``verdict`` None: the stream cannot be read, so nothing can be added to it.
        """
        record = self._record
        record.failure = failure
        record.call.step(Event.BREAK)
        if verdict is None or verdict.mid_line:
            self.down.abort()
            return
        if verdict.ending:
            self.down.write(verdict.ending)
        # A stream whose last line is the error has already said it.
        if verdict.error is None:
            self.down.write(record.endpoint.wire.error_in_stream(failure, record.scene()))
        self.down.end()

    def break_early(self, failure: Failure) -> None:
        """The same for a stream that holds nothing yet but what keeps the client patient."""
        record = self._record
        record.failure = failure
        record.call.step(Event.BREAK)
        self.down.write(record.endpoint.wire.error_in_stream(failure, record.scene()))
        self.down.end()

    def set_back(self, setback: Setback) -> None:
        """The call has failed before a byte: the upstream's own words, or ours."""
        self._record.failure = setback.failure
        answer = setback.answer
        if answer is not None and self._passes(answer, setback.failure):
            self._head(answer.head, length=len(answer.body), total=True)
            self.down.write(answer.body)
        else:
            status = setback.failure.status
            if answer is not None and answer.head.status >= 400:
                status = answer.head.status
            self._own_error(setback.failure, status)
        self.down.end()

    def _passes(self, answer: OwnAnswer, failure: Failure) -> bool:
        """Whether the upstream's own words are fit to be the client's."""
        if answer.head.status >= 400:
            return upstream_failures.explains(answer.body)
        if failure.code is ErrorCode.SCHEMA_INVALID:
            return self._parts.policy.roles[answer.role].on_schema_failure == "pass"
        # A 200 that is no whole answer (Ollama gave up) is a client's own affair only in CHAT,
        # and only if it is an answer at all and not the first half of one.
        gave_up = failure.reason is Reason.UNTERMINATED
        return answer.role is Role.CHAT and gave_up and answer_check.is_object(answer.body)

    def _head(self, head: UpstreamHead, *, length: int | None, total: bool) -> None:
        self._record.status = head.status
        lines = headers.tagged_base_lines(head.headers)
        lines += self._tag_lines(total=total)
        if self._record.failure is not None:
            lines += error_body.lines(self._record.failure)
        phrase = head.phrase.decode("latin-1")
        close = self._parts.lifecycle.draining
        self.down.head(head.status, phrase, lines, length=length, close=close)

    def _own_error(self, failure: Failure, status: int) -> None:
        record = self._record
        record.status = status
        body = record.endpoint.wire.error_body(failure, record.scene())
        lines = [b"Content-Type: application/json\r\n", date_line()]
        lines += self._tag_lines(total=True)
        lines += error_body.lines(failure)
        # A body we did not read to its end leaves the connection unusable.
        close = self._parts.lifecycle.draining or not self._request.content.is_eof()
        self.down.head(status, failure.phrase, lines, length=len(body), close=close)
        self.down.write(body)

    def _tag_lines(self, *, total: bool) -> list[bytes]:
        record, parts = self._record, self._parts
        lines = response_headers.lines(record, parts.clock.now(), total=total)
        lines += parts.budget_keeper.header_lines(record)
        if record.provider_limits:
            lines += record.provider_limits
        if record.host is not None and self._request.origin is not None:
            lines.append(cors.EXPOSE_HOST_LINE)
        return lines + cors.lines(self._request.origin, record.failure)
