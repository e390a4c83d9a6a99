"""An Ollama that hangs, as when its process is stopped: it takes connections and says nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass
class Way:
    """The way to an upstream. From ``hang`` to ``go_on`` whatever is sent waits, both ways."""

    to: int
    port: int = 0
    _going: asyncio.Event = field(default_factory=asyncio.Event)
    _pumps: set[asyncio.Task[None]] = field(default_factory=set)

    def hang(self) -> None:
        self._going.clear()

    def go_on(self) -> None:
        self._going.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.to)
        for source, sink in ((reader, back), (there, writer)):
            pump = asyncio.get_running_loop().create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._going.wait()
                sink.write(data)
                await sink.drain()
            await self._going.wait()
        except ConnectionError:
            pass  # one of the two has left
        finally:
            sink.close()

    async def end(self) -> None:
        pumps = list(self._pumps)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


@contextlib.asynccontextmanager
async def way(to: int) -> AsyncIterator[Way]:
    """A way to the upstream on that port, open at first."""
    opened = Way(to)
    opened.go_on()
    server = await asyncio.start_server(opened.serve, "127.0.0.1", 0)
    opened.port = server.sockets[0].getsockname()[1]
    try:
        yield opened
    finally:
        server.close()
        await opened.end()
