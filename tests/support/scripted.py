"""An upstream that says exactly the bytes it was given, whatever it is asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


def is_own_question(head: bytes) -> bool:
    """True for what the proxy asks on its own account; a client's request carries Via."""
    asks = head.startswith(
        (b"GET /api/version ", b"GET /api/ps ", b"GET /api/tags ", b"POST /api/show ")
    )
    return asks and b"\r\nvia:" not in head.lower()


@dataclass
class Scripted:
    """``answers``: one raw response per request, the last one for ever. ``asked``: the heads."""

    answers: list[bytes]
    hang_up: bool = False
    port: int = 0
    asked: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_length(head))
                writer.write(self._answer(head))
                await writer.drain()
                if self.hang_up and self.asked:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    def _answer(self, head: bytes) -> bytes:
        if is_own_question(head):
            return response(b'{"version":"0.0.0"}')
        self.asked.append(head)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def response(
    body: bytes, *headers: str, status: str = "200 OK", content_type: str = "application/json"
) -> bytes:
    """A response with a length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


@contextlib.asynccontextmanager
async def scripted(*answers: bytes, hang_up: bool = False) -> AsyncIterator[Scripted]:
    """``hang_up``: each answer ends with the connection."""
    upstream = Scripted(list(answers), hang_up)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
