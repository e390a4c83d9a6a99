"""A client that speaks HTTP/1.1 byte by byte, and hides nothing."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Self

import orjson


@dataclass
class Answer:
    """One response as it came. ``whole``: its framing says that it is complete.

    ``trailers``: the lines after the last chunk.
    """

    status: int
    phrase: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    trailers: list[bytes] = field(default_factory=list)
    whole: bool = True

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        assert len(values) == 1, f"{name}: {values} in {self.headers}"
        return values[0]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [orjson.loads(line) for line in self.body.splitlines() if line]


class Client:
    """One connection. Requests on it follow each other."""

    def __init__(self, port: int, source: str | None = None) -> None:
        """``source``: the address to call from, which is who the proxy takes us for."""
        self._port = port
        self._local = None if source is None else (source, 0)
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def open(self) -> None:
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(
                "127.0.0.1", self._port, limit=2**20, local_addr=self._local
            )

    async def send(self, data: bytes) -> None:
        await self.open()
        assert self.writer is not None
        self.writer.write(data)
        await self.writer.drain()

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes | dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send one request and do not wait for its answer."""
        payload = orjson.dumps(body) if isinstance(body, dict) else body
        lines = [f"{method} {target} HTTP/1.1"]
        sent = {"Host": f"127.0.0.1:{self._port}"} | (headers or {})
        if payload is not None and "Transfer-Encoding" not in sent:
            sent.setdefault("Content-Length", str(len(payload)))
        lines += [f"{name}: {value}" for name, value in sent.items()]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (payload or b""))

    async def request(
        self,
        method: str,
        target: str,
        body: bytes | dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        await self.ask(method, target, body, headers)
        return await self.answer(head_request=method == "HEAD")

    async def answer(self, *, head_request: bool = False) -> Answer:
        """Read one response to its end, or as far as it goes."""
        answer = await self.head()
        async for piece in self.pieces(answer, head_request=head_request):
            answer.chunks.append(piece)
        answer.body = b"".join(answer.chunks)
        return answer

    async def head(self) -> Answer:
        assert self.reader is not None
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *rest = raw[:-4].decode("latin-1").split("\r\n")
        _, status, phrase = f"{first} ".split(" ", 2)
        pairs = [line.split(":", 1) for line in rest]
        return Answer(int(status), phrase.strip(), [(k, v.strip()) for k, v in pairs])

    async def pieces(self, answer: Answer, *, head_request: bool = False) -> AsyncIterator[bytes]:
        """The body as it is framed: one chunk, or one read, at a time."""
        assert self.reader is not None
        if head_request or answer.status in {204, 304} or 100 <= answer.status < 200:
            return
        try:
            if answer.get("Transfer-Encoding") == "chunked":
                while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
                    yield (await self.reader.readexactly(size + 2))[:-2]
                while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                    answer.trailers.append(line)
            elif (length := answer.get("Content-Length")) is not None:
                if int(length):
                    yield await self.reader.readexactly(int(length))
            else:
                while data := await self.reader.read(65536):
                    yield data
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            answer.whole = False
            if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                yield error.partial

    async def at_eof(self) -> bool:
        """Wait until the other side closes; True if it said nothing more."""
        assert self.reader is not None
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        """Leave, as a client that is done (FIN)."""
        if self.writer is not None:
            self.writer.close()
            try:
                await self.writer.wait_closed()
            except ConnectionError:
                return

    def reset(self) -> None:
        """Leave, as a client that crashed (RST)."""
        assert self.writer is not None
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on reading."""
        assert self.writer is not None
        self.writer.write_eof()
