"""A real Redis, on a socket of its own, that a test can stop, hold up and start again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from redis.asyncio import Redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# The program that the tests start. Valkey's, where this variable names it.
PROGRAM: Final = os.environ.get("MODELSPLIT_TEST_REDIS", "redis-server")
# Nothing that it said yes to is lost.
DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "always")
# All that it was told is lost with it.
FORGETFUL: Final = ("--appendonly", "no", "--save", "")


@dataclass
class RedisServer:
    """``home``: where its socket and its files are."""

    home: Path
    options: tuple[str, ...] = DURABLE
    tls_port: int = 0
    _child: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def socket(self) -> Path:
        return self.home / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def client(self) -> Redis:
        return Redis.from_url(self.url, decode_responses=True)

    async def start(self) -> None:
        """Until it answers."""
        command = (PROGRAM, "--port", "0", "--unixsocket", str(self.socket))
        if self.tls_port:
            command = (PROGRAM, "--port", "0", "--tls-port", str(self.tls_port))
        self._child = await asyncio.create_subprocess_exec(
            *command,
            *("--dir", str(self.home), "--maxmemory-policy", "noeviction", *self.options),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._child.stdout is not None
        told = []
        while b"eady to accept connections" not in (line := await self._child.stdout.readline()):
            told.append(line)
            assert line, f"{PROGRAM} has ended: {told}"

    async def kill(self) -> None:
        """As a power cut does."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
            # Whatever is in the pipe.
            await self._child.communicate()
            self._child = None

    def hold_up(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send_signal(number)


class Relay:
    """Between a proxy and the server; cut, it takes what is sent and passes nothing on.

    ``instead``: what is answered to whatever is asked, and the server is not; None: it is.
    ``drips``: and then a byte at a time, without an end.
    """

    def __init__(self, server: Path, own: Path) -> None:
        self._server, self._own = server, own
        self.instead: bytes | None = None
        self.drips = False
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._own}"

    def cut(self) -> None:
        self._is_cut = True

    def leads_to(self, server: Path) -> None:
        """From now on, as an address does that fails over to another server."""
        self._server = server
        self.mend()

    def mend(self) -> None:
        """Connections of before are lost."""
        self._is_cut = False
        for writer in self._writers:
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_unix_server(self._serve, self._own)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        self.mend()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_unix_connection(self._server)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._ask(reader, back, writer), self._pass(there, writer))
        finally:
            self._writers -= {writer, back}

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.instead is None:
                    self._unless_cut(data, server)
                else:
                    client.write(self.instead)
                    await self._drip(client)
        server.close()

    async def _drip(self, client: asyncio.StreamWriter) -> None:
        """Until the other side has left."""
        while self.drips and not client.is_closing():
            client.write(b"x")
            await asyncio.sleep(0)

    def _unless_cut(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if not self._is_cut:
            writer.write(data)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self._unless_cut(data, writer)
        writer.close()


@contextlib.asynccontextmanager
async def redis_server(home: Path, *options: str, tls_port: int = 0) -> AsyncIterator[RedisServer]:
    """``options``: instead of those that lose nothing. ``tls_port``: there, and nowhere else."""
    server = RedisServer(home, options or DURABLE, tls_port)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
