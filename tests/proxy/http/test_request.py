"""A request's head as plain values, from real bytes on a real connection."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_proxy.http.downstream import Downstream
from modelsplit_proxy.http.request import Request
from support.serving import say, serving


async def seen(*heads: bytes, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """What a handler sees of requests that begin with these bytes, one connection each."""
    found: list[dict[str, Any]] = []

    async def serve(request: Request, down: Downstream) -> None:
        found.append({name: getattr(request, name) for name in names} | {"repr": repr(request)})
        await request.content.read()
        say(down, b"", length=0, close=True)

    async with serving(serve) as up:
        for head in heads:
            async with up.client() as client:
                await client.send(head)
                await client.answer()
    return found


async def test_the_head_as_it_came() -> None:
    head = (
        b"POST /api/chat?x=1 HTTP/1.1\r\nHost: h\r\nOrigin: http://localhost:3000\r\n"
        b"X-Two: a\r\nx-two: b\r\nContent-Length: 2\r\n\r\n{}"
    )
    names = ("method", "raw_path", "target", "origin", "http11", "keep_alive", "remote")
    (request,) = await seen(head, names=(*names, "content_length", "has_body", "raw_headers"))
    assert request["repr"] == "<Request POST /api/chat?x=1>"
    assert [request[name] for name in names] == [
        *("POST", "/api/chat?x=1", "/api/chat?x=1", "http://localhost:3000"),
        *(True, True, "127.0.0.1"),
    ]
    assert (request["content_length"], request["has_body"]) == (2, True)
    assert request["raw_headers"][2:4] == ((b"X-Two", b"a"), (b"x-two", b"b"))


async def test_what_is_not_there() -> None:
    old, closing = await seen(
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        names=("http11", "keep_alive", "origin", "content_length", "has_body"),
    )
    for request, http11 in ((old, False), (closing, True)):
        assert (request["http11"], request["keep_alive"]) == (http11, False)
        assert (request["origin"], request["content_length"]) == (None, None)
        assert not request["has_body"]


@pytest.mark.parametrize(
    ("said", "target"),
    [
        (b"/api/tags", "/api/tags"),
        (b"http://elsewhere.example/api/tags?a=b", "/api/tags?a=b"),
        (b"http://elsewhere.example", "/"),
        (b"*", "*"),
    ],
)
async def test_an_absolute_target_never_chooses_whom_we_ask(said: bytes, target: str) -> None:
    method = b"OPTIONS" if said == b"*" else b"GET"
    head = b"%b %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % (method, said)
    (request,) = await seen(head, names=("target",))
    assert request["target"] == target
