"""A raw HTTP/1.1 client that hides nothing: the tests' own eyes."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from modelsplit_sim import Sim


@dataclass
class Answer:
    """One response as it came over the wire; chunks only when it was chunked."""

    status_line: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    clean_end: bool = False
    interim: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.status_line.split()[1])

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines() if line]


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, sim: Sim) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", sim.port, limit=2**24))

    def send(self, method: str, path: str, body: Any = None, headers: tuple[str, ...] = ()) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else _encode(body)
        lines = [f"{method} {path} HTTP/1.1"]
        if not any(line.lower().startswith("host:") for line in headers):
            lines.append("Host: 127.0.0.1")
        lines += headers
        if data and not any(line.lower().startswith("transfer-enc") for line in headers):
            lines.append(f"Content-Length: {len(data)}")
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + data)

    async def head(self) -> Answer:
        """The next response head; interim responses are noted."""
        interim: list[str] = []
        while True:
            raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *rest = raw.rstrip("\r\n").split("\r\n")
            if not first.startswith("HTTP/1.1 100"):
                break
            interim.append(first)
        headers = [(name, value.strip()) for name, _, value in (x.partition(":") for x in rest)]
        return Answer(first, headers, interim=interim)

    async def chunk(self) -> bytes:
        """The next chunk's data; empty for the final one."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def answer(self, method: str = "POST") -> Answer:
        answer = await self.head()
        if method == "HEAD" or answer.status == 204:
            answer.clean_end = True
        elif answer.header("Transfer-Encoding") == "chunked":
            await self._chunked(answer)
        elif (length := answer.header("Content-Length")) is not None:
            answer.body = await self.reader.read(0) + await self._exactly(answer, int(length))
        else:
            answer.body = await self.reader.read()
            answer.clean_end = True
        return answer

    async def _exactly(self, answer: Answer, length: int) -> bytes:
        try:
            data = await self.reader.readexactly(length)
        except asyncio.IncompleteReadError as short:
            return short.partial
        answer.clean_end = True
        return data

    async def _chunked(self, answer: Answer) -> None:
        try:
            while data := await self.chunk():
                answer.chunks.append(data)
            answer.clean_end = True
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass
        answer.body = b"".join(answer.chunks)

    async def ask(
        self, method: str, path: str, body: Any = None, headers: tuple[str, ...] = ()
    ) -> Answer:
        self.send(method, path, body, headers)
        return await self.answer(method)

    def half_close(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def _encode(body: Any) -> bytes:
    return json.dumps(body).encode()


@asynccontextmanager
async def connect(sim: Sim) -> AsyncIterator[Client]:
    client = await Client.to(sim)
    try:
        yield client
    finally:
        client.close()


async def ask(
    sim: Sim, method: str, path: str, body: Any = None, headers: tuple[str, ...] = ()
) -> Answer:
    """One request on a connection of its own."""
    async with connect(sim) as client:
        return await client.ask(method, path, body, headers)


async def post(sim: Sim, path: str, **fields: Any) -> Answer:
    return await ask(sim, "POST", path, fields)
