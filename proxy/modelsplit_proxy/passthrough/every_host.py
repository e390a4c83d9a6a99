"""A change of models that is done on several hosts: one request to each, one answer of all.

A pull runs on all of them at once and is told as one (``protocol/pull_progress``). A copy and a
deletion are well where one host has done it and no other failed for another reason than that it
has no such model. A client that leaves ends it everywhere, as Ollama does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from modelsplit_policy.deadlines import Bounds
from modelsplit_policy.failures import said_back
from modelsplit_proxy.http import cors, headers
from modelsplit_proxy.http.collect import Collector
from modelsplit_proxy.http.downstream import date_line
from modelsplit_proxy.http.upstream import UpstreamError
from modelsplit_proxy.passthrough import exchange_failures
from modelsplit_proxy.protocol.pull_progress import PullProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import Request
    from modelsplit_proxy.http.upstream import Exchange
    from modelsplit_proxy.runtime.tasks import Tasks
    from modelsplit_proxy.watch.fleet import UpstreamHost

_ANSWER_BYTES: Final = 1024 * 1024
_LINE_BYTES: Final = 64 * 1024
_OK: Final = 200
_NOT_FOUND: Final = 404
_ERROR_MAX: Final = 300


class Change(NamedTuple):
    """One request for all. ``consumed``: as for ``Passthrough``. ``close``: ours to the client."""

    request: Request
    down: Downstream
    target: str
    body: bytes
    consumed: frozenset[bytes]
    close: bool


class EveryHost:
    """Made for one change, used once. ``asked_at``: as for ``exchange_failures``."""

    def __init__(
        self, tasks: Tasks, change: Change, hosts: Sequence[UpstreamHost], asked_at: str
    ) -> None:
        self._asked_at = asked_at
        self._tasks = tasks
        self._change = change
        self._hosts = tuple(hosts)
        self._progress = PullProgress()
        self._error: UpstreamError | None = None
        self._begun = False

    # A pull.

    async def pull(self, *, streams: bool) -> Failure | None:
        """``streams``: the client takes progress; else it is told the end alone."""
        pulls = [self._tasks.start(self._pull(host, streams), "pull") for host in self._hosts]
        try:
            await asyncio.gather(*pulls)
        finally:
            for pull in pulls:
                pull.cancel()
        if not self._begun and self._error is not None and not self._progress.is_done:
            return self._unreachable(self._error)
        self._end(streams=streams)
        return None

    async def _pull(self, host: UpstreamHost, streams: bool) -> None:
        progress, name = self._progress, str(host.name)
        try:
            await self._exchange(host, lambda line: self._line(name, line, streams))
        except UpstreamError as error:
            self._error = error
            progress.failed(name, str(error))
        progress.ended(name)

    def _line(self, host: str, line: bytes, streams: bool) -> None:
        told = self._progress.line(host, line)
        # Of progress the last counts: who takes none now is told later.
        if told and streams and not self._change.down.writing_paused:
            self._begin()
            self._change.down.write(told)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            lines = self._lines(b"application/x-ndjson")
            self._change.down.head(200, "OK", lines, length=None, close=self._change.close)

    def _end(self, *, streams: bool) -> None:
        down, last = self._change.down, self._progress.last()
        if streams:
            self._begin()
            down.write(last)
            down.end()
        else:
            self._answer(500 if self._progress.error else _OK, last)

    async def _exchange(self, host: UpstreamHost, on_line: Callable[[bytes], None]) -> None:
        """Ask one host and hand on each line of its answer. UpstreamError."""
        connection = await host.pool.acquire()
        exchange = connection.start(head_request=False)
        try:
            connection.write(self._request_bytes(host))
            await exchange.ready()
            await _Lines(exchange, on_line).run()
        finally:
            exchange.abort()

    # A copy, a deletion.

    async def change(self) -> Failure | None:
        """Ask all, and tell how it went."""
        tried = await asyncio.gather(*(self._ask(host) for host in self._hosts))
        answers = [answer for answer in tried if not isinstance(answer, UpstreamError)]
        bad = [
            (host, answer)
            for host, answer in zip(self._hosts, tried, strict=True)
            if isinstance(answer, UpstreamError) or answer[0] not in {_OK, _NOT_FOUND}
        ]
        done = [answer for answer in answers if answer[0] == _OK]
        if bad and not answers:
            first = bad[0][1]
            assert isinstance(first, UpstreamError)
            return self._unreachable(first)
        if bad:
            self._tell_failed(bad, len(done))
        else:
            self._answer(*(done or answers)[0])
        return None

    async def _ask(self, host: UpstreamHost) -> tuple[int, bytes] | UpstreamError:
        try:
            connection = await host.pool.acquire()
        except UpstreamError as error:
            return error
        exchange = connection.start(head_request=False)
        try:
            connection.write(self._request_bytes(host))
            head = await exchange.ready()
            collector = Collector(exchange, _ANSWER_BYTES)
            result = await collector.run(Bounds)
        except UpstreamError as error:
            return error
        finally:
            exchange.abort()
        return result if isinstance(result, UpstreamError) else (head.status, collector.body)

    def _tell_failed(
        self, bad: Sequence[tuple[UpstreamHost, tuple[int, bytes] | UpstreamError]], done: int
    ) -> None:
        told = [
            f"{host.name}: {answer}"
            if isinstance(answer, UpstreamError)
            else f"{host.name}: {said_back(answer[1].decode(errors='replace'), _ERROR_MAX)}"
            for host, answer in bad
        ]
        text = f"{'; '.join(told)}; done on {done} of {len(self._hosts)} hosts"
        self._answer(502, orjson.dumps({"error": text}))

    # All of them.

    def _unreachable(self, error: UpstreamError) -> Failure:
        targets = [host.target for host in self._hosts]
        return exchange_failures.with_all(error, targets, self._asked_at)

    def _request_bytes(self, host: UpstreamHost) -> bytes:
        request, body = self._change.request, self._change.body
        target = self._change.target.encode("utf-8", "surrogateescape")
        return b"".join(
            (
                b"%b %b HTTP/1.1\r\n" % (request.method.encode(), target),
                host.target.host_line,
                *headers.question_lines(request.raw_headers, self._change.consumed),
                headers.VIA_LINE,
                b"Content-Length: %d\r\n\r\n" % len(body),
                body,
            )
        )

    def _lines(self, content_type: bytes) -> list[bytes]:
        lines = [b"Content-Type: %b\r\n" % content_type, date_line(), headers.VIA_LINE]
        return lines + cors.lines(self._change.request.origin)

    def _answer(self, status: int, body: bytes) -> None:
        down, phrase = self._change.down, "OK" if status == _OK else "Failed"
        lines = self._lines(b"application/json; charset=utf-8")
        down.head(status, phrase, lines, length=len(body), close=self._change.close)
        down.write(body)
        down.end()


class _Lines:
    """A sink that hands on whole lines, the last one with or without its end."""

    def __init__(self, exchange: Exchange, on_line: Callable[[bytes], None]) -> None:
        self._exchange = exchange
        self._on_line = on_line
        self._held = b""
        self._done: asyncio.Future[UpstreamError | None] = (
            asyncio.get_running_loop().create_future()
        )

    async def run(self) -> None:
        """Until the answer has ended. UpstreamError if it broke."""
        self._exchange.attach(self)
        error = await self._done
        if error is not None:
            raise error

    def data(self, piece: bytes) -> None:
        *whole, self._held = (self._held + piece).split(b"\n")
        for line in whole:
            self._on_line(line)
        # No line of Ollama's is so long.
        self._held = self._held[:_LINE_BYTES]

    def ended(self, error: UpstreamError | None) -> None:
        if self._done.done():
            return
        if self._held and error is None:
            self._on_line(self._held)
        self._done.set_result(error)
