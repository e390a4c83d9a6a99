"""One request to a provider and its answer, piece by piece, in the client's dialect.

To whoever relays it the answer looks like Ollama's own (``http/upstream``, ``Exchange``): it
begins, its body goes to a sink, it is complete or it broke. A client that is slow stops the
reading; one that leaves closes the connection, which makes the provider stop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
import orjson

from modelsplit_policy.failures import Reason
from modelsplit_proxy.http.upstream import Exchange, Fault, UpstreamHead
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.providers import answer, failures, rate_limits
from modelsplit_proxy.providers.answer import AnswerError, AnswerStream
from modelsplit_proxy.providers.events import BrokenAnswerError, EventReader, TooLongError
from modelsplit_proxy.providers.failures import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.providers.prepared import Prepared, Preparing
    from modelsplit_proxy.runtime.tasks import Tasks

# An error is told at once or not at all; a whole answer is no longer than this.
_ERROR_BYTES: Final = 64 * 1024
_ANSWER_BYTES: Final = 32 * 1024 * 1024
_NEVER_CONNECTED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_NOTHING: Final = Usage()


class ProviderCall:
    """The run of one call. ``status``: the provider's; None: none yet.

    ``is_sent``: the provider may have the request, or part of it. ``usage``: what it has used
    so far. ``limits``: header lines that tell of the provider's own.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        headers: Mapping[str, str],
        prepared: Prepared,
        parts: Preparing,
        tasks: Tasks,
    ) -> None:
        self._session = session
        self._url = url
        self._headers = headers
        self._prepared = prepared
        self._named = parts.named
        self._clock = parts.clock
        self._dialect = parts.dialect
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._stream: AnswerStream | None = None
        self._usage = _NOTHING
        self.status: int | None = None
        self.is_sent = True
        self.limits: list[bytes] = []
        self.exchange = Exchange(self, asyncio.get_running_loop())
        self._task = tasks.start(self._run(), f"call of {parts.named.provider}")

    @property
    def usage(self) -> Usage:
        return self._usage if self._stream is None else self._stream.usage

    # What the exchange asks.

    def pause(self) -> None:
        self._may_read.clear()

    def resume(self) -> None:
        self._may_read.set()

    def abandon(self, exchange: Exchange) -> None:
        del exchange
        self._task.cancel()

    # The run.

    async def _run(self) -> None:
        try:
            await self._ask()
        except ProviderError as error:
            self._fail(error)
        except AnswerError as error:
            self._fail(self._own_error(error))
        except BrokenAnswerError as error:
            self._fail(self._with_a_hole(str(error)))
        except _NEVER_CONNECTED as error:
            self.is_sent = False
            self._fail(self._broken(*_told(error)))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._fail(self._broken(*_told(error)))
        finally:
            # Whatever happened, somebody may wait for the answer; told twice, the first counts.
            self._fail(self._broken(Fault.PROTOCOL, "the call has ended"))

    async def _ask(self) -> None:
        async with self._session.post(
            self._url, data=self._prepared.body, headers=self._headers, allow_redirects=False
        ) as response:
            self.status = response.status
            if response.status != 200:
                raise await self._refused(response)
            if self._prepared.streams:
                await self._read_stream(response)
            else:
                await self._read_whole(response)

    async def _refused(self, response: aiohttp.ClientResponse) -> ProviderError:
        body = await _start_of(response)
        head = UpstreamHead(response.status, b"", list(response.raw_headers), None)
        self.limits = rate_limits.lines(head, self._clock.wall())
        failure = failures.of_status(head, body, self._named, self._clock.wall())
        return ProviderError(failure, status=response.status)

    async def _read_whole(self, response: aiohttp.ClientResponse) -> None:
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > _ANSWER_BYTES:
                raise ProviderError(failures.no_answer(self._named, "more than anybody can read"))
        try:
            message = orjson.loads(body)
        except orjson.JSONDecodeError:
            message = None
        if not isinstance(message, dict):
            raise ProviderError(failures.no_answer(self._named, "something else than a message"))
        message = self._dialect.message(message)
        whole = answer.whole(message, answers_by_tool=self._prepared.answers_by_tool)
        self._usage = answer.usage_of(whole)
        prepared = self._prepared
        given = bytes(body) if prepared.passes else prepared.writer.whole(whole)
        self._begin(b"application/json")
        self._give(given)
        self.exchange.on_complete()

    async def _read_stream(self, response: aiohttp.ClientResponse) -> None:
        prepared, events, dialect = self._prepared, EventReader(), self._dialect.events()
        self._stream = stream = AnswerStream(
            prepared.writer, answers_by_tool=prepared.answers_by_tool
        )
        self._begin(prepared.stream_type)
        async for piece in response.content.iter_any():
            try:
                for event in events.feed(piece):
                    given = b"".join(stream.feed(said) for said in dialect.read(event))
                    self._give(event.raw if prepared.passes else given)
            except TooLongError:
                raise self._broken(Fault.PROTOCOL, "an event has no end") from None
            if stream.is_whole:
                self.exchange.on_complete()
                return
            await self._may_read.wait()
        raise self._broken(Fault.TRUNCATED, "it ended without saying that it was done")

    # What becomes of it.

    def _begin(self, content_type: bytes) -> None:
        self.exchange.head = UpstreamHead(200, b"OK", [(b"Content-Type", content_type)], None)

    def _give(self, piece: bytes) -> None:
        if not piece:
            return
        if self.exchange.sink is None:
            self.exchange.on_early(piece)
        else:
            self.exchange.sink.data(piece)

    @property
    def _has_begun(self) -> bool:
        """Whether whoever relays it has seen anything of the answer."""
        return self.exchange.has_begun

    def _own_error(self, error: AnswerError) -> ProviderError:
        if self._has_begun:
            what = f"{error.kind}: {error}"
            return ProviderError(failures.broken(Reason.ERROR_LINE, self._named, what))
        return ProviderError(failures.of_error(error, self._named))

    def _with_a_hole(self, what: str) -> ProviderError:
        if self._stream is not None:
            return ProviderError(failures.broken(Reason.PROTOCOL, self._named, what))
        return ProviderError(failures.no_answer(self._named, f"no whole answer: {what}"))

    def _broken(self, fault: Fault, what: str) -> ProviderError:
        failure: Failure
        # Of an answer that it had begun, also where the client has seen nothing of it.
        if self.status == 200:
            reason = Reason.TRUNCATED if fault is Fault.CONNECT_TIMEOUT else Reason(fault.value)
            failure = failures.broken(reason, self._named, what)
        else:
            failure = failures.unreachable(fault, self._named, what)
        return ProviderError(failure, fault=fault)

    def _fail(self, error: ProviderError) -> None:
        self.exchange.on_error(error)


async def _start_of(response: aiohttp.ClientResponse) -> bytes:
    """A body as far as it may say why; it may come in pieces."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _ERROR_BYTES:
            break
    return bytes(body[:_ERROR_BYTES])


def at_once(body: bytes) -> Exchange:
    """An answer that nobody had to be asked for."""
    exchange = Exchange(_Nowhere(), asyncio.get_running_loop())
    exchange.head = UpstreamHead(200, b"OK", [(b"Content-Type", b"application/json")], None)
    exchange.on_early(body)
    exchange.on_complete()
    return exchange


class _Nowhere:
    """Carries what is complete already."""

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def abandon(self, exchange: Exchange) -> None:
        del exchange


# Each kind of error: what it is, and what is said of it (None: the library's own word). The first
# that fits; what a library adds, such as addresses and headers, is not said.
_ERRORS: Final[tuple[tuple[type[Exception], Fault, str | None], ...]] = (
    (aiohttp.ConnectionTimeoutError, Fault.CONNECT_TIMEOUT, "it does not answer"),
    (TimeoutError, Fault.CONNECT_TIMEOUT, "it does not answer"),
    (aiohttp.ClientConnectorDNSError, Fault.DNS, "nobody knows its name"),
    (aiohttp.ClientConnectorCertificateError, Fault.PROTOCOL, None),
    (aiohttp.ClientSSLError, Fault.PROTOCOL, "it does not speak TLS as we do"),
    (aiohttp.ClientHttpProxyError, Fault.PROTOCOL, "the proxy on the way refused"),
    (aiohttp.ClientConnectorError, Fault.REFUSED, "it takes no connection"),
    (aiohttp.ClientPayloadError, Fault.TRUNCATED, "it closed the connection mid-answer"),
    (aiohttp.ServerDisconnectedError, Fault.RESET, "it closed the connection unanswered"),
    (OSError, Fault.RESET, "it broke the connection"),
    (Exception, Fault.PROTOCOL, "it sent malformed HTTP"),
)


def _told(error: Exception) -> tuple[Fault, str]:
    fault, words = next((fault, words) for kind, fault, words in _ERRORS if isinstance(error, kind))
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        words = f"its certificate is not to be trusted ({_certificate(error)})"
    return fault, words or type(error).__name__


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    inner = error.certificate_error
    return str(getattr(inner, "verify_message", "") or type(inner).__name__)
