"""A question about models that is put to Ollama in other words, or answered with more.

Small answers only: one is held until it is whole, changed, and framed anew. Whatever
cannot be read (compressed, not JSON, too large, not a 200) is passed on as it came.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from modelsplit_policy.deadlines import Bounds
from modelsplit_proxy.http import cors, headers
from modelsplit_proxy.http.collect import Collector
from modelsplit_proxy.http.downstream import date_line
from modelsplit_proxy.http.relay import Relay
from modelsplit_proxy.http.upstream import UpstreamError
from modelsplit_proxy.passthrough import exchange_failures
from modelsplit_proxy.passthrough.last_good import Whole
from modelsplit_proxy.protocol import upstream_failures
from modelsplit_proxy.runtime.parts import parts

if TYPE_CHECKING:
    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import Request
    from modelsplit_proxy.http.upstream import Exchange, UpstreamHead, UpstreamTarget
    from modelsplit_proxy.http.upstream_pool import UpstreamPool
    from modelsplit_proxy.passthrough.intercept import Question, Wording
    from modelsplit_proxy.passthrough.last_good import LastGood
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.lifecycle import Lifecycle
    from modelsplit_proxy.watch.installed_models import InstalledModels

# A list of a thousand models is half a megabyte.
_LIMIT_BYTES: Final = 4 * 1024 * 1024
# A question is answered within a second, if need be by what was true before.
_PATIENCE_S: Final = 0.8
_TIMEOUT_S: Final = 60.0


@parts
class QuestionParts:
    """What outlives the question. ``tags``: header lines of ours that each answer has."""

    pool: UpstreamPool
    target: UpstreamTarget
    last_good: LastGood
    installed: InstalledModels
    clock: Clock
    lifecycle: Lifecycle
    tags: tuple[bytes, ...] = ()


class Questioning:
    """One question on its way. Made for one request, used once."""

    def __init__(
        self,
        parts: QuestionParts,
        request: Request,
        down: Downstream,
        question: Question,
        *,
        consumed: frozenset[bytes],
    ) -> None:
        """``consumed``: request headers that stop here (``client_keys.Caller``)."""
        self._parts = parts
        self._request = request
        self._down = down
        self._question = question
        self._consumed = consumed

    async def serve(self) -> Failure | None:
        """Answer the client; a Failure is what to answer when nothing could be."""
        if self._question.answer is not None:
            lines = [b"Content-Type: application/json\r\n", date_line(), headers.VIA_LINE]
            self._send(200, "OK", lines, self._question.answer)
            return None
        label, now = self._question.keep_as, self._parts.clock.now()
        before = None if label is None else self._parts.last_good.recall(label, now)
        bound_s = _TIMEOUT_S if before is None else _PATIENCE_S
        try:
            return await self._ask_in_turn(bound_s)
        except UpstreamError as error:
            return exchange_failures.with_one(error, self._parts.target)
        except TimeoutError:
            if before is None:
                return upstream_failures.first_byte_timeout(
                    bound_s, self._question.wordings[0].target
                )
            self._answer_as(before)
            return None

    def _answer_as(self, before: Whole) -> None:
        """Say what was true, and how long ago."""
        age = b"Age: %d\r\n" % (self._parts.clock.now() - before.at)
        self._send(200, "OK", [*before.lines, age], before.body)

    async def _ask_in_turn(self, bound_s: float) -> Failure | None:
        for wording in self._question.wordings:
            async with asyncio.timeout(bound_s) as bound:
                if await self._ask(wording, bound):
                    return None
        return self._question.missing

    async def _ask(self, wording: Wording, bound: asyncio.Timeout) -> bool:
        """Ask once and answer. False: Ollama does not have it, and nothing has been said yet."""
        connection = await self._parts.pool.acquire()
        exchange = connection.start(head_request=False)
        try:
            connection.write(self._request_bytes(wording))
            head = await exchange.ready()
            if head.status == 404 and self._question.missing is not None:
                self._parts.installed.lacks(wording.model)
                return False
            await self._answer(exchange, head, bound)
            return True
        finally:
            exchange.abort()

    def _request_bytes(self, wording: Wording) -> bytes:
        length = b"Content-Length: %d\r\n" % len(wording.body) if wording.body else b""
        target = wording.target.encode("utf-8", "surrogateescape")
        return b"".join(
            (
                b"%b %b HTTP/1.1\r\n" % (wording.method.encode(), target),
                self._parts.target.host_line,
                *headers.question_lines(self._request.raw_headers, self._consumed),
                headers.VIA_LINE,
                length,
                b"\r\n",
                wording.body,
            )
        )

    async def _answer(self, exchange: Exchange, head: UpstreamHead, bound: asyncio.Timeout) -> None:
        change = self._question.change
        if change is None or not _readable(head):
            bound.reschedule(None)
            await self._pass(exchange, head)
            return
        collector = Collector(exchange, _LIMIT_BYTES, self._down.hold)
        result = await collector.run(Bounds)
        if isinstance(result, UpstreamError):
            raise result
        if collector.overflowed:
            bound.reschedule(None)
            await self._pass(exchange, head, collector.body)
            return
        if self._question.lists_installed:
            self._parts.installed.seen(collector.body)
        changed = change(collector.body)
        if changed is None:
            self._send(200, head.phrase.decode("latin-1"), self._lines(head), collector.body)
            return
        self._changed(head, changed)

    def _changed(self, head: UpstreamHead, body: bytes) -> None:
        lines = [*headers.rewritten_lines(head.headers), headers.VIA_LINE, *self._parts.tags]
        if self._question.keep_as is not None:
            kept = Whole(tuple(lines), body, self._parts.clock.now())
            self._parts.last_good.note(self._question.keep_as, kept)
        self._send(200, head.phrase.decode("latin-1"), lines, body)

    async def _pass(self, exchange: Exchange, head: UpstreamHead, held: bytes = b"") -> None:
        """Everything as it came: what is here already, then the rest."""
        down = self._down
        phrase = head.phrase.decode("latin-1")
        lines = self._lines(head) + self._cors()
        down.head(head.status, phrase, lines, length=head.length, close=self._close)
        relay = Relay(exchange, down, None)
        down.write(held)
        if held and not down.writing_paused:
            exchange.resume()
        if await relay.run() is None:
            down.end()
        else:
            down.abort()

    def _send(self, status: int, phrase: str, lines: list[bytes], body: bytes) -> None:
        lines = lines + self._cors()
        self._down.head(status, phrase, lines, length=len(body), close=self._close)
        self._down.write(body)
        self._down.end()

    def _lines(self, head: UpstreamHead) -> list[bytes]:
        return [*headers.relayed_lines(head.headers), headers.VIA_LINE, *self._parts.tags]

    def _cors(self) -> list[bytes]:
        return cors.lines(self._request.origin)

    @property
    def _close(self) -> bool:
        return self._parts.lifecycle.draining or not self._request.content.is_eof()


def _readable(head: UpstreamHead) -> bool:
    encoding = head.get(b"content-encoding").lower()
    return (
        head.status == 200
        and encoding in {b"", b"identity"}
        and head.get(b"content-type").lower().startswith(b"application/json")
    )
