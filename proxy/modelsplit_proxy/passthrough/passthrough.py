"""Everything that is not a call to a model: any path, any method, both ways as it comes.

Never queued, never tagged, nothing buffered: an upload goes up as fast as the upstream
takes it and an answer comes down as fast as the client takes it, at the same time. Ollama
answers some uploads before they end (a blob it already has); that answer is passed on at
once and the rest of the upload is let go.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.http import cors, headers
from modelsplit_proxy.http.aiohttp_server import web
from modelsplit_proxy.http.body import malformed
from modelsplit_proxy.http.relay import Relay
from modelsplit_proxy.http.upstream import UpstreamError
from modelsplit_proxy.passthrough import exchange_failures
from modelsplit_proxy.protocol import upstream_failures
from modelsplit_proxy.runtime.parts import parts

if TYPE_CHECKING:
    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import Request
    from modelsplit_proxy.http.upstream import Exchange, UpstreamConnection, UpstreamTarget
    from modelsplit_proxy.http.upstream_pool import UpstreamPool
    from modelsplit_proxy.runtime.lifecycle import Lifecycle
    from modelsplit_proxy.runtime.tasks import Tasks

# Questions about metadata are answered at once or something is wrong; the bound is far
# above a slow disk. Pulls, pushes and uploads may rightly take hours.
_QUESTION_TIMEOUT_S: Final = 60.0
_QUESTIONS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@parts
class PassthroughParts:
    """What outlives the request. ``tags``: header lines of ours that each answer has."""

    pool: UpstreamPool
    target: UpstreamTarget
    lifecycle: Lifecycle
    tasks: Tasks
    tags: tuple[bytes, ...] = ()


class Passthrough:
    """One request on its way through. Made for one request, used once."""

    def __init__(
        self,
        parts: PassthroughParts,
        request: Request,
        target: str,
        down: Downstream,
        *,
        consumed: frozenset[bytes],
        taken: bytes = b"",
    ) -> None:
        """``consumed``: request headers that stop here (``client_keys.Caller``).

        ``taken``: what has been read of the body already.
        """
        self._parts = parts
        self._request = request
        self._target = target
        self._down = down
        self._consumed = consumed
        self._taken = taken
        self._malformed: Failure | None = None

    async def serve(self) -> Failure | None:
        """Relay the request; a Failure is what to answer when nothing could be relayed."""
        try:
            connection = await self._parts.pool.acquire()
        except UpstreamError as error:
            return self._failure(error)
        uploads = bool(self._taken) or self._request.has_body
        exchange = connection.start(
            head_request=self._request.method == "HEAD", body_follows=uploads
        )
        upload: asyncio.Task[None] | None = None
        try:
            connection.write(self._head_bytes())
            if uploads:
                upload = self._parts.tasks.start(self._upload(connection, exchange), "upload")
            return await self._relay(exchange)
        finally:
            if upload is not None and not upload.done():
                upload.cancel()
            exchange.abort()

    async def _relay(self, exchange: Exchange) -> Failure | None:
        timeout_s = _QUESTION_TIMEOUT_S if self._request.method in _QUESTIONS else None
        try:
            async with asyncio.timeout(timeout_s):
                head = await exchange.ready()
        except UpstreamError as error:
            return self._failure(error)
        except TimeoutError:
            shown = self._target_bytes().decode("ascii", "replace")
            return upstream_failures.first_byte_timeout(_QUESTION_TIMEOUT_S, shown)
        lines = [*headers.relayed_lines(head.headers), headers.VIA_LINE, *self._parts.tags]
        lines += cors.lines(self._request.origin)
        close = self._parts.lifecycle.draining or not self._request.content.is_eof()
        phrase = head.phrase.decode("latin-1")
        self._down.head(head.status, phrase, lines, length=head.length, close=close)
        result = await Relay(exchange, self._down, None).run()
        if result is None:
            self._down.end()
        else:
            self._down.abort()
        return None

    def _head_bytes(self) -> bytes:
        request = self._request
        framing = b""
        if request.content_length is not None:
            framing = b"Content-Length: %d\r\n" % request.content_length
        elif self._taken or request.has_body:
            framing = b"Transfer-Encoding: chunked\r\n"
        return b"".join(
            (
                b"%b %b HTTP/1.1\r\n" % (request.method.encode(), self._target_bytes()),
                self._parts.target.host_line,
                *headers.request_lines(request.raw_headers, self._consumed),
                headers.VIA_LINE,
                framing,
                b"\r\n",
            )
        )

    async def _upload(self, connection: UpstreamConnection, exchange: Exchange) -> None:
        """Send the body on, piece by piece, no faster than the upstream takes it."""
        request = self._request
        if not self._taken and request.headers.get("Expect", "").lower() == "100-continue":
            self._down.continue_()
        chunked = request.content_length is None
        try:
            while piece := self._taken or await request.content.readany():
                self._taken = b""
                connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await connection.drain()
                if exchange.complete or not connection.open:
                    return
        except web.RequestPayloadError as error:
            # The client's framing broke: what it sent so far must not look whole.
            self._malformed = malformed(error)
            connection.abort()
            return
        except OSError:
            # The client has left, and this request's handler is being cancelled for it.
            return
        if chunked:
            connection.write(b"0\r\n\r\n")
        connection.sent()

    def _target_bytes(self) -> bytes:
        return self._target.encode("utf-8", "surrogateescape")

    def _failure(self, error: UpstreamError) -> Failure:
        if self._malformed is not None:
            return self._malformed
        return exchange_failures.with_one(error, self._parts.target)
