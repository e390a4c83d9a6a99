"""From the upstream's parser to the client's socket: the one streaming loop.

Each piece is passed on the moment it is accepted: one call from the read callback, no
task switch. A slow client pauses the upstream's socket; silence and deadlines are watched
by one timer that looks again when it fires, not by work on every piece.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from modelsplit_policy.deadlines import UNBOUNDED
from modelsplit_proxy.http.bounds import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_policy.deadlines import Bounds
    from modelsplit_policy.failures import Reason
    from modelsplit_proxy.http.collect import BodyCopy
    from modelsplit_proxy.http.request import AnswerSource
    from modelsplit_proxy.http.upstream import Exchange, UpstreamError


class Writer(Protocol):
    """Where the pieces go: the client, or what puts something between them on the way to it."""

    @property
    def writing_paused(self) -> bool: ...
    def feed_from(self, source: AnswerSource | None) -> None: ...
    def write(self, data: bytes) -> None: ...


class Listener(Protocol):
    """Reads along. Called for each piece before it is passed on: must not block."""

    def feed(self, piece: bytes) -> None: ...


class Relay:
    """Passes one answer's body on. A BodySink for the exchange, a Source for the client."""

    __slots__ = ("_done", "_down", "_exchange", "_kept", "_now", "_tail", "_watch")

    def __init__(
        self,
        exchange: Exchange,
        down: Writer,
        tail: Listener | None,
        kept: BodyCopy | None = None,
    ) -> None:
        self._exchange = exchange
        self._down = down
        self._tail = tail
        self._kept = kept
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._done: asyncio.Future[UpstreamError | Reason | None] = loop.create_future()
        self._watch: Watch | None = None

    async def run(
        self, bounds: Bounds = UNBOUNDED, ping: Callable[[float], Reason | None] | None = None
    ) -> UpstreamError | Reason | None:
        """Relay until the upstream ends (None), breaks, stalls or runs out of time.

        ``ping``: as for ``Watch``.
        """
        if bounds is not UNBOUNDED:
            self._watch = Watch(bounds, self._done, ping)
        self._down.feed_from(self)
        if self._down.writing_paused:
            self.pause()  # by an earlier answer that the client has not taken yet
        try:
            self._exchange.attach(self)
            return await self._done
        finally:
            self._down.feed_from(None)
            if self._watch is not None:
                self._watch.stop()

    # BodySink

    def data(self, piece: bytes) -> None:
        if self._tail is not None:
            self._tail.feed(piece)
        if self._kept is not None:
            self._kept.add(piece)
        if self._watch is not None:
            self._watch.last = self._now()
        self._down.write(piece)

    def ended(self, error: UpstreamError | None) -> None:
        if not self._done.done():
            self._done.set_result(error)

    # Source

    def pause(self) -> None:
        if self._watch is not None:
            self._watch.held = True
        self._exchange.pause()

    def resume(self) -> None:
        if self._watch is not None:
            self._watch.held = False
            self._watch.last = self._now()
        self._exchange.resume()
