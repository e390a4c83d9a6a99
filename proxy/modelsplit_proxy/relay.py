"""From the upstream's parser to the client's socket: the one streaming loop.

Each piece is passed on the moment it is accepted: one call from the read callback, no
task switch. A slow client pauses the upstream's socket; silence and deadlines are watched
by one timer that looks again when it fires, not by work on every piece.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modelsplit_policy.deadlines import UNBOUNDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_policy.deadlines import Bounds
    from modelsplit_policy.failures import Reason
    from modelsplit_proxy.edge import Downstream
    from modelsplit_proxy.splice import SplicedDown
    from modelsplit_proxy.tail import Tail
    from modelsplit_proxy.upstream import Exchange, UpstreamError


class Watch:
    """Ends a wait by silence or by deadline, whichever comes first.

    ``last``: loop time of the last piece, which whoever receives pieces keeps up to date.
    """

    __slots__ = ("_bounds", "_done", "_loop", "_timer", "held", "last")

    def __init__(self, bounds: Bounds, done: asyncio.Future[UpstreamError | Reason | None]) -> None:
        self._bounds = bounds
        self._done = done
        self._loop = done.get_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.held = False
        self.last = self._loop.time()
        self._arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        moment = self._bounds.next_look(self.last)
        if moment is not None:
            self._timer = self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self.held:
            # We stopped reading because the client is slow: not the upstream's silence.
            self.last = now
        reason = self._bounds.ended_by(now, self.last)
        if reason is None:
            self._arm()
        else:
            self._end(reason)

    def _end(self, reason: Reason) -> None:
        if not self._done.done():
            self._done.set_result(reason)


class Kept:
    """A copy of what passes, up to a limit."""

    __slots__ = ("_limit", "_pieces", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self.overflowed:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    @property
    def overflowed(self) -> bool:
        return self._size > self._limit

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)


class Relay:
    """Passes one answer's body on. A BodySink for the exchange, a Source for the client."""

    __slots__ = ("_done", "_down", "_exchange", "_kept", "_now", "_tail", "_watch")

    def __init__(
        self,
        exchange: Exchange,
        down: Downstream | SplicedDown,
        tail: Tail | None,
        kept: Kept | None = None,
    ) -> None:
        self._exchange = exchange
        self._down = down
        self._tail = tail
        self._kept = kept
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._done: asyncio.Future[UpstreamError | Reason | None] = loop.create_future()
        self._watch: Watch | None = None

    async def run(self, bounds: Bounds = UNBOUNDED) -> UpstreamError | Reason | None:
        """Relay until the upstream ends (None), breaks, stalls or runs out of time."""
        if bounds is not UNBOUNDED:
            self._watch = Watch(bounds, self._done)
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


class Collector:
    """Holds one answer's body until it is whole or too large to hold."""

    __slots__ = ("_done", "_exchange", "_limit", "_over", "_result", "pieces", "size")

    def __init__(self, exchange: Exchange, limit: int) -> None:
        self._exchange = exchange
        self._limit = limit
        self._over = False
        self._result: UpstreamError | None = None
        self._done: asyncio.Future[UpstreamError | Reason | None] | None = None
        self.pieces: list[bytes] = []
        self.size = 0

    @property
    def overflowed(self) -> bool:
        return self.size > self._limit

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    async def run(self, bounds: Callable[[], Bounds]) -> UpstreamError | Reason | None:
        """Collect until whole (None), broken, too late, or ``overflowed`` (None as well).

        ``bounds`` is asked should it come to waiting.
        """
        self._exchange.attach(self)
        if self._over:  # as most are: a small answer comes together with its head
            return self._result
        self._done = asyncio.get_running_loop().create_future()
        watch = Watch(bounds(), self._done)
        try:
            return await self._done
        finally:
            watch.stop()

    def data(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.size += len(piece)
        if self.size > self._limit:
            self._exchange.pause()
            self._finish(None)

    def ended(self, error: UpstreamError | None) -> None:
        self._finish(error)

    def _finish(self, result: UpstreamError | None) -> None:
        if self._over:
            return
        self._over, self._result = True, result
        if self._done is not None and not self._done.done():
            self._done.set_result(result)
