"""How much more work this proxy could take, as a load balancer in front of several asks it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from modelsplit_proxy.admin.parts import HeadroomParts


@dataclass(frozen=True, slots=True)
class Headroom:
    """``ready``: calls would not fail for a reason that concerns them all.

    ``seats``: calls at once that are worth running, as far as is known; ``free``: of these, so
    many are not taken. ``oldest_wait_s``: 0 if nobody waits.
    """

    ready: bool
    draining: bool
    seats: int
    free: int
    waiting: int
    oldest_wait_s: float

    def lines(self) -> tuple[bytes, ...]:
        """As header lines."""
        oldest_ms = round(self.oldest_wait_s * 1000)
        text = (
            f"X-LLM-Seats-Free: {self.free}\r\n"
            f"X-LLM-Waiting: {self.waiting}\r\n"
            f"X-LLM-Oldest-Wait-Ms: {oldest_ms}\r\n"
        )
        return (text.encode(),)

    def fields(self) -> dict[str, int]:
        """As plain values, for JSON."""
        return {
            "seats": self.seats,
            "free": self.free,
            "waiting": self.waiting,
            "oldest_wait_ms": round(self.oldest_wait_s * 1000),
        }

    def agent_line(self) -> bytes:
        """As HAProxy's agent-check reads it (its manual, ``agent-check``).

        The percentage is of the server's weight. It is never 0, which would keep calls away
        that may wait: a line here is still better than no server at all.
        """
        if self.draining:
            return b"drain\n"
        if not self.ready:
            return b"down #Ollama is away\n"
        percent = 0 if self.waiting else 100 * self.free // max(1, self.seats)
        return b"up ready %d%%\n" % max(1, percent)


def measured(parts: HeadroomParts) -> Headroom:
    """As it is now."""
    admission, now = parts.admission, parts.clock.now()
    seats = min(admission.global_seats, admission.useful)
    draining = parts.lifecycle.draining
    return Headroom(
        ready=not draining and parts.probe.up is not False and not parts.probe.shut,
        draining=draining,
        seats=seats,
        free=max(0, seats - admission.running_local),
        waiting=sum(map(admission.waiting, Role)),
        oldest_wait_s=max(admission.oldest_wait_s(role, now) for role in Role),
    )


class AgentServer:
    """Answers each connection with one line of text, and closes it."""

    def __init__(self, measure: Callable[[], Headroom]) -> None:
        self._measure = measure
        self._server: asyncio.Server | None = None

    async def listen(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Answer(self._measure), sock=sock)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


class _Answer(asyncio.Protocol):
    """One connection of an agent-check. What it may send is not looked at."""

    def __init__(self, measure: Callable[[], Headroom]) -> None:
        self._measure = measure

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        writable = cast("asyncio.WriteTransport", transport)
        writable.write(self._measure().agent_line())
        writable.close()
