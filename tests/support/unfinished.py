"""A stream of an upstream that ends when the test says so, not after a while."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from support.calls import call
from support.scripted import is_own_question, response
from support.wire import Client

ROUTE = "/api/generate"
# For a process in front of it: however long the test takes to say so, nobody gives up.
PATIENT = ("--drain", "10m", "--stall-timeout", "1h")


class Unfinished:
    """An upstream whose answer to a call ends when the test says so."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        missing = (asyncio.IncompleteReadError, ConnectionError)
        with contextlib.closing(writer), contextlib.suppress(*missing):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if is_own_question(head):
                    writer.write(response(b'{"version":"0.0.0"}'))
                    continue
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
                    b"Connection: close\r\n\r\n" + piece(done=False)
                )
                await self.finish.wait()
                writer.write(piece(done=True))
                break


def piece(*, done: bool) -> bytes:
    return json.dumps({"model": "qwen3:4b", "response": "x", "done": done}).encode() + b"\n"


@contextlib.asynccontextmanager
async def unfinished() -> AsyncIterator[tuple[int, Unfinished]]:
    upstream = Unfinished()
    async with await asyncio.start_server(upstream.serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], upstream


async def begin(client: Client) -> None:
    """A stream, its first piece read."""
    await client.ask("POST", ROUTE, call(ROUTE, "planner", stream=True) | {"prompt": "x"})
    await anext(client.pieces(await client.head()))
