"""Answers as they stand on the wire."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.http.downstream import date_line
from modelsplit_proxy.http.request import Request
from support.serving import GET, say, serving

if TYPE_CHECKING:
    from modelsplit_proxy.http.downstream import Downstream

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("version", "method", "status", "length", "wire"),
    [
        ("1.1", "GET", 200, None, CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"),
        ("1.1", "GET", 200, 3, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        ("1.1", "HEAD", 200, 3, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
        ("1.1", "HEAD", 200, None, b"HTTP/1.1 200 OK\r\n\r\n"),
        ("1.1", "GET", 204, None, b"HTTP/1.1 204 OK\r\n\r\n"),
        ("1.1", "GET", 204, 3, b"HTTP/1.1 204 OK\r\n\r\n"),
        ("1.1", "GET", 304, 3, b"HTTP/1.1 304 OK\r\nContent-Length: 3\r\n\r\n"),
        ("1.0", "GET", 200, None, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"),
        ("1.0", "GET", 200, 3,
         b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"),
    ],
)  # fmt: skip
async def test_how_an_answer_is_framed(
    version: str, method: str, status: int, length: int | None, wire: bytes
) -> None:
    async def serve(request: Request, down: Downstream) -> None:
        del request
        down.head(status, "OK", [], length=length, close=False)
        for piece in (b"a", b"", b"bc"):
            down.write(piece)
        down.end()

    async with serving(serve) as up, up.client() as client:
        await client.send(f"{method} / HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())
        assert client.reader is not None
        assert await client.reader.readexactly(len(wire)) == wire
        if version == "1.1":  # the connection serves on: nothing stands in its way
            await client.send(GET)
            assert (await client.reader.readexactly(15)).startswith(b"HTTP/1.1 ")
        else:
            assert await client.at_eof()


async def test_an_empty_chunked_answer_ends() -> None:
    async def serve(request: Request, down: Downstream) -> None:
        del request
        say(down, b"")

    async with serving(serve) as up, up.client() as client:
        answer = await client.request("GET", "/")
        assert (answer.body, answer.whole, answer["Transfer-Encoding"]) == (b"", True, "chunked")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_abort_never_looks_whole(version: bytes) -> None:
    async def serve(request: Request, down: Downstream) -> None:
        del request
        down.head(200, "OK", [], length=None, close=False)
        down.write(b"half")
        await asyncio.sleep(0)
        down.abort()
        down.write(b"nothing more")
        down.end()

    async with serving(serve) as up, up.client() as client:
        await client.send(b"GET / HTTP/%b\r\nHost: localhost\r\n\r\n" % version)
        answer = await client.answer()
        assert not answer.whole
        assert b"nothing" not in answer.body


async def test_a_head_that_was_not_ended_closes_the_connection() -> None:
    async def serve(request: Request, down: Downstream) -> None:
        del request
        down.head(200, "OK", [], length=9, close=False)
        down.write(b"half")

    async with serving(serve) as up, up.client() as client:
        assert not (await client.request("GET", "/")).whole


def test_the_date_is_an_http_date() -> None:
    assert date_line().startswith(b"Date: ")
    assert date_line().endswith(b" GMT\r\n")
