"""Ports that stay the test's own.

One that was free a moment ago may be another process's by now, or the source of a connection,
even of one to that very port.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from modelsplit_sim.server import Sim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from modelsplit_sim.config import SimConfig


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A port that nobody else gets: connections are refused while the test does not listen on it.

    Who listens must say SO_REUSEADDR, as asyncio and the proxy do.
    """
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        yield place.getsockname()[1]


@contextlib.asynccontextmanager
async def stand_in(config: SimConfig | None = None) -> AsyncIterator[Sim]:
    """A running stand-in that can be stopped, and started again on its port."""
    with kept_port() as port:
        sim = Sim(config)
        await sim.start(port)
        try:
            yield sim
        finally:
            await sim.stop()
