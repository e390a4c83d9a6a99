"""The connections to one upstream: reused when idle, opened when not."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from modelsplit_policy.vocabulary import DEFAULT_HOST
from modelsplit_proxy.http.upstream import Fault, UpstreamConnection, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_policy.vocabulary import Host

# Idle connections kept for reuse, and for how long. More can be open: nothing here ever
# waits for a connection, so no cap hides below admission.
MAX_IDLE: Final = 32
IDLE_S: Final = 60.0


class UpstreamPool:
    """Connections to one host: reused when idle, opened when not, never waited for.

    ``name`` and ``port``: where it listens. ``host``: which it is. A connection that nobody has
    used for ``IDLE_S`` is closed then, however many others are in use.
    """

    def __init__(
        self, name: str, port: int, *, connect_timeout_s: float, host: Host = DEFAULT_HOST
    ) -> None:
        self.host = host
        self._name = name
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        # The one that came back last is the last, and the next to be used.
        self._idle: list[UpstreamConnection] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._open: set[UpstreamConnection] = set()
        self._on_dropped: tuple[Callable[[], None], ...] = ()

    def __repr__(self) -> str:
        counts = f"{len(self._open)} open, {len(self._idle)} idle"
        return f"<UpstreamPool {self._name}:{self._port} {counts}>"

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def on_dropped(self, *listeners: Callable[[], None]) -> None:
        """Whom to tell that the other end has closed a connection: it may have ended."""
        self._on_dropped = listeners

    async def acquire(self) -> UpstreamConnection:
        """An idle connection that is still good, or a new one; UpstreamError if neither."""
        loop = asyncio.get_running_loop()
        while self._idle:
            connection = self._idle.pop()
            is_fresh = loop.time() - connection.idle_since < IDLE_S
            if is_fresh and connection.quiet():
                return connection
            connection.abort()
            if is_fresh:
                self._dropped()
        return await self._connect(loop)

    def give_back(self, connection: UpstreamConnection) -> None:
        if len(self._idle) >= MAX_IDLE:
            connection.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweep_in(IDLE_S)

    def forget(self, connection: UpstreamConnection, *, unfinished: bool) -> None:
        self._open.discard(connection)
        is_idle = connection in self._idle
        if is_idle:
            self._idle.remove(connection)
        if is_idle or unfinished:
            self._dropped()

    def _dropped(self) -> None:
        for dropped in self._on_dropped:
            dropped()

    def look_again(self) -> None:
        """Have everyone who waits for an answer to begin look again at what bounds the wait."""
        for connection in self._open:
            connection.look_again()

    def close(self) -> None:
        self._on_dropped = ()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in list(self._open):
            connection.abort()

    def _sweep_in(self, seconds: float) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long: taking the last first, nobody else looks at it."""
        self._sweeping = None
        oldest = asyncio.get_running_loop().time() - IDLE_S
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.pop(0).abort()
        if self._idle:
            self._sweep_in(self._idle[0].idle_since - oldest)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> UpstreamConnection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self, loop), self._name, self._port
                )
        except TimeoutError:
            text = f"no connection within {self._connect_timeout_s:g} s"
            raise UpstreamError(Fault.CONNECT_TIMEOUT, text) from None
        except socket.gaierror as error:
            raise UpstreamError(
                Fault.DNS, f"its name does not resolve ({error.strerror})"
            ) from None
        except OSError as error:
            raise UpstreamError(Fault.REFUSED, _connect_words(error)) from None
        self._open.add(connection)
        return connection


def _connect_words(error: OSError) -> str:
    return "connection refused" if isinstance(error, ConnectionRefusedError) else str(error)
