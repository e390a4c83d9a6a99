"""Calls and reports over httpx, for coroutines on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from modelsplit_client import errors, reading
from modelsplit_client.jobs import Complaints
from modelsplit_client.patience import Patience
from modelsplit_client.reading import Reader
from modelsplit_client.settings import LIMITS, REPORT_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from modelsplit_client.answers import Answer, Piece
    from modelsplit_client.calls import Call
    from modelsplit_client.jobs import Report
    from modelsplit_client.settings import Settings
    from modelsplit_client.telemetry import Telemetry

    Open = tuple[httpx.Response, Reader]

_LOG: Final = logging.getLogger("modelsplit_client")


class AsyncTransport:
    """What a client and its jobs send with."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient | None) -> None:
        """``http``: somebody else's, which is not closed here; None: one of our own."""
        self._settings = settings
        self._owned = http is None
        self._http = http or httpx.AsyncClient(trust_env=False, limits=LIMITS)
        self._complaints = Complaints(settings.admin_url)
        self._reports: set[asyncio.Task[bool]] = set()

    async def close(self) -> None:
        """Wait for the reports under way, then close the connections."""
        await asyncio.gather(*self._reports)
        if self._owned:
            await self._http.aclose()

    async def answer(self, call: Call) -> Answer[Any]:
        """Raises CallError, ProxyConnectionError, ValueError."""
        response = await self._respond(call)
        try:
            body = await response.aread()
        except httpx.HTTPError as error:
            raise self._settings.unanswered(error) from None
        finally:
            await response.aclose()
        return reading.whole(self._settings.speaks, call, dict(response.headers), body)

    def stream(self, call: Call) -> AsyncStream:
        """Asks nothing yet."""

        async def opened() -> Open:
            response = await self._respond(call)
            return response, Reader(self._settings.speaks, call, dict(response.headers))

        return AsyncStream(opened)

    async def report(self, report: Report) -> bool:
        """Whether anybody took it. What goes wrong is logged, and never raised."""
        url = self._settings.admin_url + report.path
        try:
            response = await self._http.post(
                url,
                content=report.content,
                headers=self._settings.headers,
                timeout=REPORT_TIMEOUT,
            )
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            _warn(self._complaints.unreached(error))
            return False
        if not response.is_success:
            _warn(self._complaints.refused(response.status_code, response.content))
        return True

    async def report_surely(self, report: Report) -> None:
        """The same, also where who waits for it is cancelled: it then goes on by itself."""
        task = asyncio.get_running_loop().create_task(self.report(report))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)
        await asyncio.shield(task)

    async def _respond(self, call: Call) -> httpx.Response:
        """A response of success whose body has not been read, after the waiting asked for."""
        patience = Patience(self._settings.patience(call))
        while True:
            response = await self._try(call)
            if isinstance(response, httpx.Response):
                return response
            pause = patience.pause(response, asyncio.get_running_loop().time())
            if pause is None:
                raise response
            await asyncio.sleep(pause)

    async def _try(self, call: Call) -> httpx.Response | errors.CallError:
        url, headers, content = self._settings.request(call)
        request = self._http.build_request(
            "POST", url, headers=headers, content=content, timeout=self._settings.timeout
        )
        try:
            response = await self._http.send(request, stream=True, follow_redirects=False)
            if response.is_success:
                return response
            async with contextlib.aclosing(response):
                body = await response.aread()
        except httpx.HTTPError as error:
            raise self._settings.unanswered(error) from None
        return errors.of_response(response.status_code, dict(response.headers), body)


class AsyncStream:
    """An answer as it comes: ``async with`` and ``async for``, or the latter alone. Read once.

    Leaving the loop, or the ``async with``, ends the call: modelsplit is told, and Ollama stops.
    """

    def __init__(self, opened: Callable[[], Awaitable[Open]]) -> None:
        self._opened = opened
        self._open: Open | None = None
        self._answer: Answer[Any] | None = None

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """The pieces. Raises what a call raises, also after pieces have come."""
        response, reader = await self._begin()
        try:
            try:
                async for data in response.aiter_bytes():
                    for piece in reader.feed(data):
                        yield piece
            except httpx.HTTPError as error:
                if not reader.ended:
                    raise reader.broken(f"the answer broke off: {error}", "truncated") from error
            self._answer = reader.end()
        finally:
            await response.aclose()

    async def read(self) -> Answer[Any]:
        """The whole answer, once all of it is there."""
        if self._answer is None:
            async for _ in self:
                pass
        return self.answer

    @property
    def text(self) -> str:
        """What has come so far."""
        return "" if self._open is None else self._open[1].text

    @property
    def telemetry(self) -> Telemetry | None:
        """Who answers, and how long the call waited; all of it once the end has come.

        None: nothing has been asked yet.
        """
        if self._answer is not None:
            return self._answer.telemetry
        return None if self._open is None else self._open[1].telemetry

    @property
    def answer(self) -> Answer[Any]:
        """The whole answer. Raises RuntimeError before the stream has been read to its end."""
        if self._answer is None:
            raise RuntimeError("the stream has not been read to its end")
        return self._answer

    async def aclose(self) -> None:
        """End the call, if it has not ended."""
        if self._open is not None:
            await self._open[0].aclose()

    async def _begin(self) -> Open:
        if self._open is None:
            self._open = await self._opened()
        return self._open


def _warn(sentence: str | None) -> None:
    # Not warnings.warn: where warnings are errors, a report would fail its job.
    if sentence is not None:
        _LOG.warning(sentence)
