"""A real Redis, on a socket of its own, that a test can stop, hold up and start again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from redis.asyncio import Redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# Nothing that it said yes to is lost.
DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "always")
# All that it was told is lost with it.
FORGETFUL: Final = ("--appendonly", "no", "--save", "")


@dataclass
class RedisServer:
    """``home``: where its socket and its files are."""

    home: Path
    options: tuple[str, ...] = DURABLE
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
        command = ("redis-server", "--port", "0", "--unixsocket", str(self.socket))
        self._child = await asyncio.create_subprocess_exec(
            *command,
            *("--dir", str(self.home), "--maxmemory-policy", "noeviction", *self.options),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._child.stdout is not None
        while b"ready to accept connections" not in await self._child.stdout.readline():
            assert self._child.returncode is None, "redis-server has ended"

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


@contextlib.asynccontextmanager
async def redis_server(home: Path, *options: str) -> AsyncIterator[RedisServer]:
    """``options``: instead of those that lose nothing."""
    server = RedisServer(home, options or DURABLE)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
