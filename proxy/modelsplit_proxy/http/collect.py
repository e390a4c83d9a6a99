"""Holding an answer's body: until it is whole, or a copy of what passes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.http.bounds import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_policy.deadlines import Bounds
    from modelsplit_policy.failures import Reason
    from modelsplit_proxy.http.read_budget import HeldBytes
    from modelsplit_proxy.http.upstream import Exchange, UpstreamError


# An answer of so much is held without asking anybody.
SMALL_BYTES: Final = 64 * 1024


class BodyCopy:
    """A copy of what passes, up to a limit."""

    __slots__ = ("_held", "_limit", "overflowed")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # One buffer: as objects of their own, many small pieces would take twenty times as much.
        self._held = bytearray()
        self.overflowed = False

    def add(self, piece: bytes) -> None:
        if self.overflowed:
            return
        self._held += piece
        if len(self._held) > self._limit:
            self.overflowed = True
            self._held.clear()

    @property
    def body(self) -> bytes:
        return bytes(self._held)


class Collector:
    """Holds one answer's body until it is whole, or too large to hold.

    ``hold``: where it is charged if it is no small one (None: nowhere); without room there it is
    too large as well.
    """

    __slots__ = ("_done", "_exchange", "_held", "_hold", "_limit", "_over", "_result", "overflowed")

    def __init__(self, exchange: Exchange, limit: int, hold: HeldBytes | None = None) -> None:
        self._exchange = exchange
        self._hold = hold
        self._limit = limit
        self._over = False
        self._result: UpstreamError | None = None
        self._done: asyncio.Future[UpstreamError | Reason | None] | None = None
        # One buffer, as in ``BodyCopy``.
        self._held = bytearray()
        self.overflowed = False

    @property
    def body(self) -> bytes:
        """What has come so far."""
        return bytes(self._held)

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
        self._held += piece
        size = len(self._held)
        if size > self._limit or (size > SMALL_BYTES and not self._fits(size)):
            self.overflowed = True
            self._exchange.pause()
            self._finish(None)

    def ended(self, error: UpstreamError | None) -> None:
        self._finish(error)

    def _fits(self, size: int) -> bool:
        return self._hold is None or self._hold.set(size)

    def _finish(self, result: UpstreamError | None) -> None:
        if self._over:
            return
        self._over, self._result = True, result
        if self._done is not None and not self._done.done():
            self._done.set_result(result)
