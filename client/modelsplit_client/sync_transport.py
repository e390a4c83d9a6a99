"""Calls and reports over httpx, for code that waits."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from modelsplit_client import clock, errors, reading
from modelsplit_client.jobs import Complaints
from modelsplit_client.patience import Patience
from modelsplit_client.reading import Reader
from modelsplit_client.settings import LIMITS, REPORT_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modelsplit_client.answers import Answer, Piece
    from modelsplit_client.calls import Call
    from modelsplit_client.jobs import Report
    from modelsplit_client.settings import Settings
    from modelsplit_client.telemetry import Telemetry

    Open = tuple[httpx.Response, Reader]

_LOG: Final = logging.getLogger("modelsplit_client")


class Transport:
    """What a client and its jobs send with."""

    def __init__(self, settings: Settings, http: httpx.Client | None) -> None:
        """``http``: somebody else's, which is not closed here; None: one of our own."""
        self._settings = settings
        self._owned = http is None
        self._http = http or httpx.Client(trust_env=False, limits=LIMITS)
        self._complaints = Complaints(settings.admin_url)

    def close(self) -> None:
        if self._owned:
            self._http.close()

    def answer(self, call: Call) -> Answer[Any]:
        """Raises CallError, ProxyConnectionError, ValueError."""
        response = self._respond(call)
        try:
            body = response.read()
        except httpx.HTTPError as error:
            raise self._settings.unanswered(error) from None
        finally:
            response.close()
        return reading.whole(self._settings.speaks, call, dict(response.headers), body)

    def stream(self, call: Call) -> Stream:
        """Asks nothing yet."""

        def opened() -> Open:
            response = self._respond(call)
            return response, Reader(self._settings.speaks, call, dict(response.headers))

        return Stream(opened)

    def report(self, report: Report) -> bool:
        """Whether anybody took it. What goes wrong is logged, and never raised."""
        url = self._settings.admin_url + report.path
        try:
            response = self._http.post(
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

    def _respond(self, call: Call) -> httpx.Response:
        """A response of success whose body has not been read, after the waiting asked for."""
        patience = Patience(self._settings.patience(call))
        while True:
            response = self._try(call)
            if isinstance(response, httpx.Response):
                return response
            pause = patience.pause(response, clock.now())
            if pause is None:
                raise response
            time.sleep(pause)

    def _try(self, call: Call) -> httpx.Response | errors.CallError:
        url, headers, content = self._settings.request(call)
        request = self._http.build_request(
            "POST", url, headers=headers, content=content, timeout=self._settings.timeout
        )
        try:
            response = self._http.send(request, stream=True, follow_redirects=False)
            if response.is_success:
                return response
            with contextlib.closing(response):
                body = response.read()
        except httpx.HTTPError as error:
            raise self._settings.unanswered(error) from None
        return errors.of_response(response.status_code, dict(response.headers), body)


class Stream:
    """An answer as it comes: ``with`` and ``for``, or ``for`` alone. Read once.

    Leaving the loop, or the ``with``, ends the call: modelsplit is told, and Ollama stops.
    """

    def __init__(self, opened: Callable[[], Open]) -> None:
        self._opened = opened
        self._open: Open | None = None
        self._answer: Answer[Any] | None = None

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Piece]:
        """The pieces. Raises what a call raises, also after pieces have come."""
        response, reader = self._begin()
        try:
            try:
                for data in response.iter_bytes():
                    yield from reader.feed(data)
            except httpx.HTTPError as error:
                if not reader.ended:
                    raise reader.broken(f"the answer broke off: {error}", "truncated") from error
            self._answer = reader.end()
        finally:
            response.close()

    def read(self) -> Answer[Any]:
        """The whole answer, once all of it is there."""
        if self._answer is None:
            for _ in self:
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

    def close(self) -> None:
        """End the call, if it has not ended."""
        if self._open is not None:
            self._open[0].close()

    def _begin(self) -> Open:
        if self._open is None:
            self._open = self._opened()
        return self._open


def _warn(sentence: str | None) -> None:
    # Not warnings.warn: where warnings are errors, a report would fail its job.
    if sentence is not None:
        _LOG.warning(sentence)
