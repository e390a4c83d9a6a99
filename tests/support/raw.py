"""An upstream written byte by byte, for what the stand-in is too well-behaved to do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from support.scripted import is_own_question, response

Script = Callable[["Peer"], Awaitable[None]]


@dataclass(eq=False)
class Peer:
    """One connection from the proxy. ``number`` counts those that asked, from 1."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    upstream: RawUpstream
    number: int = 0

    async def head(self) -> bytes:
        """The next request's head; the proxy's own probes are answered on the way."""
        while True:
            head = await self.reader.readuntil(b"\r\n\r\n")
            if not is_own_question(head):
                break
            self.send(response(b'{"version":"0.0.0"}'))
        if self.number == 0:
            self.upstream.peers.append(self)
            self.number = len(self.upstream.peers)
        self.upstream.heads.append(head)
        self.upstream.changed.set()
        return head

    async def request(self) -> tuple[bytes, bytes]:
        """The next request, head and body."""
        head = await self.head()
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            return head, await self._chunked()
        _, found, rest = lowered.partition(b"content-length:")
        length = int(rest.split(b"\r\n", 1)[0]) if found else 0
        return head, await self.reader.readexactly(length)

    async def _chunked(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return body

    def send(self, data: bytes) -> None:
        """Write; ConnectionError once the proxy has left, where uvloop says RuntimeError."""
        if self.writer.is_closing():
            raise ConnectionResetError("the proxy has left")
        self.writer.write(data)

    async def flush(self) -> None:
        """Wait until the proxy has taken most of what was sent."""
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the proxy has left."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def finish(self) -> None:
        """FIN after what was sent."""
        self.writer.close()

    def reset(self) -> None:
        """RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class RawUpstream:
    """Runs ``script`` for every connection. ``heads``: the requests' heads, in order."""

    script: Script
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.script(Peer(reader, writer, self))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the proxy left, or the test is over
        except Exception as error:  # noqa: BLE001 - raised again where the test ends
            self.failures.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def asked(self, count: int = 1) -> None:
        """Wait until ``count`` requests have come."""
        while len(self.heads) < count:
            self.changed.clear()
            await self.changed.wait()

    async def end(self) -> None:
        running = list(self._tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@contextlib.asynccontextmanager
async def raw_upstream(script: Script, port: int = 0) -> AsyncIterator[RawUpstream]:
    """Listen on ``port`` and run ``script`` for each connection; its failures are the test's."""
    upstream = RawUpstream(script)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", port, limit=2**20)
    upstream.port = server.sockets[0].getsockname()[1]
    # Accepted sockets inherit it. Left alone, the kernel's grow to tens of megabytes when
    # they like, and a test of what is held on the way would measure the kernel.
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
    try:
        yield upstream
    finally:
        server.close()
        await upstream.end()
        for failure in upstream.failures:
            raise failure


def says(*answers: bytes, close: bool = False) -> Script:
    """One raw answer per request, in order over all connections, the last one for ever.

    ``close``: FIN after each.
    """

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.send(answers[min(len(peer.upstream.heads), len(answers)) - 1])
            await peer.flush()
            if close:
                peer.finish()
                return

    return script


def in_two_pieces(read: asyncio.Event) -> Script:
    """A stream of Ollama's whose second and last piece is sent once the first has been ``read``."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n")
        peer.send(b"Transfer-Encoding: chunked\r\n\r\n")
        peer.send(chunk(b'{"response":"a","done":false}\n'))
        await read.wait()
        peer.send(chunk(b'{"response":"b","done":true}\n') + chunk(b""))

    return script


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
