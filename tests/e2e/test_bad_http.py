"""What is asked in bad HTTP, or in HTTP that no proxy may pass: the status says which."""

from __future__ import annotations

import asyncio
import logging

import pytest

from modelsplit_sim.config import SimConfig
from support.calls import ERROR_FIELDS
from support.harness import in_front_of, running
from support.raw import chunk, raw_upstream, says
from support.scripted import response
from support.wire import Answer

pytestmark = pytest.mark.flowing_time

HOST = b"Host: localhost\r\n"
POST = b"POST /api/generate HTTP/1.1\r\n" + HOST
BODY = b'{"model":"planner","stream":false}'
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FRAMED = chunk(BODY) + b"0\r\n\r\n"
GET = b"GET /api/version HTTP/1.1\r\n" + HOST + b"\r\n"

REFUSED = [
    ("two codings", 501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + FRAMED),
    ("two codings in two fields", 400,
     POST + b"Transfer-Encoding: gzip\r\n" + CHUNKED + b"\r\n" + FRAMED),
    ("identity first", 400, POST + b"Transfer-Encoding: identity, chunked\r\n\r\n" + FRAMED),
    ("identity alone", 400, POST + b"Transfer-Encoding: identity\r\n\r\n" + FRAMED),
    ("chunked twice", 400, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + FRAMED),
    ("chunked with a parameter", 400, POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n" + FRAMED),
    ("chunks in HTTP/1.0", 400,
     b"POST /api/generate HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n" + FRAMED),
    ("length and chunks", 400, POST + CHUNKED + b"Content-Length: 4\r\n\r\n" + FRAMED),
    ("the same length twice", 400, POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
    ("a length of pages of zeros", 400, POST + b"Content-Length: " + b"0" * 5000 + b"2\r\n\r\n{}"),
    ("no version", 400, b"GET /api/version\r\n"),
    ("version 0.9", 400, b"GET /api/version HTTP/0.9\r\n" + HOST + b"\r\n"),
    ("a call without a version", 400, b"POST /api/generate\r\n\r\n" + BODY),
    ("version 2.0", 505,
     b"POST /api/generate HTTP/2.0\r\n" + HOST + b"Content-Length: 34\r\n\r\n" + BODY),
    ("version 3.0", 505, b"GET /api/version HTTP/3.0\r\n" + HOST + b"\r\n"),
    ("HTTP/2's preface", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("version 1.2", 505, b"GET /api/version HTTP/1.2\r\n" + HOST + b"\r\n"),
    ("TRACE", 405, b"TRACE /api/version HTTP/1.1\r\n" + HOST + b"Cookie: secret\r\n\r\n"),
    ("TRACE that goes no further", 405,
     b"TRACE / HTTP/1.1\r\n" + HOST + b"Max-Forwards: 0\r\n\r\n"),
    ("a fragment", 400, b"GET /api/version#x HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("a fragment behind a query", 400, b"GET /api/version?a=b#x HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("a fragment of a URL", 400, b"GET http://localhost/api#x HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("an expectation", 417, POST + b"Expect: the-best\r\nContent-Length: 34\r\n\r\n" + BODY),
    ("two expectations", 417,
     POST + b"Expect: 100-continue, x\r\nContent-Length: 34\r\n\r\n" + BODY),
    ("a long request line", 414, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("a long field", 431, GET[:-2] + b"X: " + b"a" * 70_000 + b"\r\n\r\n"),
    ("a long field name", 431, GET[:-2] + b"a" * 70_000 + b": x\r\n\r\n"),
    ("a long head", 431, GET[:-2] + (b"X: " + b"a" * 50_000 + b"\r\n") * 3 + b"\r\n"),
    ("many fields", 431, GET[:-2] + b"X: a\r\n" * 200 + b"\r\n"),
    ("bare line feeds", 400, GET.replace(b"\r\n", b"\n")),
    ("white space before a colon", 400, GET[:-2] + b"X : a\r\n\r\n"),
    ("a folded field", 400, GET[:-2] + b"X: a\r\n b\r\n\r\n"),
    ("NUL in a field", 400, GET[:-2] + b"X: a\0b\r\n\r\n"),
]  # fmt: skip


def refused(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.phrase
    assert answer["Connection"] == "close"
    assert answer["Content-Type"] == "application/json"
    assert answer["X-LLM-Error-Code"] == "E_BAD_REQUEST"
    assert answer.get("Server") is None
    assert answer.json.keys() >= ERROR_FIELDS
    assert (answer.json["error_code"], answer.json["reason"]) == ("E_BAD_REQUEST", "bad_http")
    assert answer.get("Allow") == (
        "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" if status == 405 else None
    )


@pytest.mark.parametrize("pieces", [1, 3], ids=["at once", "in pieces"])
@pytest.mark.parametrize(("name", "status", "wire"), REFUSED, ids=[row[0] for row in REFUSED])
async def test_it_is_refused_with_its_status_and_nothing_goes_up(
    name: str, status: int, wire: bytes, pieces: int, caplog: pytest.LogCaptureFixture
) -> None:
    del name
    async with (
        raw_upstream(says(response(b"{}"))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        step = -(-len(wire) // pieces)
        for at in range(0, len(wire), step):
            await client.send(wire[at : at + step])
            await asyncio.sleep(0)
        refused(await client.answer(), status)
        assert await client.at_eof()
        assert upstream.heads == []
        assert proxy.seats() == (0, 0)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    ("target", "field"),
    [(b"/v1/chat/completions#x", b""), (b"/v1/chat/completions", b"Expect: a-miracle\r\n")],
    ids=["a fragment", "an expectation"],
)
async def test_a_refusal_speaks_the_dialect_of_its_route(target: bytes, field: bytes) -> None:
    async with running() as up, up.client() as client:
        await client.send(b"POST " + target + b" HTTP/1.1\r\n" + HOST + field + b"\r\n")
        answer = await client.answer()
        assert answer.json["error"]["code"] == "E_BAD_REQUEST"


UNUSUAL = [
    b"\r\n\r\n" + GET,
    b"\r\n" + GET,
    b"GET /api/version HTTP/1.0\r\n\r\n",
    GET[:-2] + b"Expect: 100-Continue\r\n\r\n",
    b"GET /api/version HTTP/1.0\r\nExpect: anything\r\n\r\n",
    POST + b"transfer-encoding: Chunked\r\n\r\n" + FRAMED,
    POST + CHUNKED + b"\r\n" + chunk(BODY).replace(b"\r\n", b";a=b;c\r\n", 1) + b"0\r\n\r\n",
    POST + CHUNKED + b"\r\n" + chunk(BODY) + b"0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n",
]
A_LONG_FIELD = GET[:-2] + b"X: " + b"a" * 60_000 + b"\r\n\r\n"


@pytest.mark.parametrize("wire", [*UNUSUAL, A_LONG_FIELD])
async def test_what_is_unusual_but_good_is_served(wire: bytes) -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        await client.send(wire)
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("wire", UNUSUAL)
async def test_what_is_unusual_but_good_is_served_byte_by_byte(wire: bytes) -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        for at in range(len(wire)):
            await client.send(wire[at : at + 1])
            await asyncio.sleep(0)
        assert (await client.answer()).status == 200


# One segment, two requests.


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\0garbage", b"GET /\r\n\r\n", b"\0" * 100])
@pytest.mark.parametrize(
    "first", [GET, POST + b"Content-Length: 34\r\n\r\n" + BODY, POST + CHUNKED + b"\r\n" + FRAMED]
)
async def test_a_request_is_answered_whatever_stands_behind_it(
    first: bytes, garbage: bytes
) -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        await client.send(first + garbage)
        assert (await client.answer()).status == 200
        refused(await client.answer(), 400)
        assert await client.at_eof()


async def test_what_follows_a_request_that_closes_is_not_run() -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        closing = POST + b"Connection: close\r\nContent-Length: 34\r\n\r\n" + BODY
        await client.send(closing + closing)
        assert (await client.answer()).json["done"] is True
        assert await client.at_eof()
        assert len(up.asked) == 1


# OPTIONS and how far it may go.


async def test_options_that_may_go_no_further_is_answered_here() -> None:
    async with (
        raw_upstream(says(response(b"{}"))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        answer = await client.request("OPTIONS", "*", None, {"Max-Forwards": "0"})
        assert (answer.status, answer.body) == (204, b"")
        assert answer["Allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
        assert upstream.heads == []
        answer = await client.request("OPTIONS", "/api/tags", None, {"Max-Forwards": "x"})
        assert (answer.status, answer.json["reason"]) == (400, "bad_http")
        assert upstream.heads == []
        await client.request("OPTIONS", "/api/tags", None, {"Max-Forwards": "7"})
        assert b"\r\nMax-Forwards: 6\r\n" in upstream.heads[0]
        assert upstream.heads[0].lower().count(b"max-forwards") == 1


# The framing of chunks.


ENDLESS = [
    ("an extension", chunk(b"a") + b"5;" + b"x" * 20_000),
    ("many extensions", (b"1;" + b"x" * 2000 + b"\r\na\r\n") * 10),
    ("a trailer", b"0\r\nX: " + b"x" * 20_000),
    ("many trailers", b"0\r\n" + b"X: a\r\n" * 4000),
    ("a size", b"0" * 20_000),
]


@pytest.mark.parametrize(("name", "framing"), ENDLESS, ids=[row[0] for row in ENDLESS])
@pytest.mark.parametrize("target", [b"/api/generate", b"/api/show", b"/api/blobs/sha256:x"])
async def test_framing_without_end_is_refused(name: str, framing: bytes, target: bytes) -> None:
    del name
    async with (
        raw_upstream(says(response(b"{}"))) as upstream,
        in_front_of(upstream.port) as proxy,
        proxy.client() as client,
    ):
        await client.send(POST.replace(b"/api/generate", target) + CHUNKED + b"\r\n" + framing)
        refused(await client.answer(), 400)
        assert await client.at_eof()
        assert all(b"/api/generate" not in head for head in upstream.heads)


async def test_tiny_chunks_are_a_body_like_any_other() -> None:
    async with running(SimConfig(tokens=1)) as up, up.client() as client:
        body = BODY[:-1] + b',"prompt":"%b"}' % (b"x" * 20_000)
        await client.send(POST + CHUNKED + b"\r\n")
        await client.send(b"".join(chunk(body[at : at + 1]) for at in range(len(body))))
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).json["done"] is True


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n", b"Upgrade: x\r\n"])
async def test_a_connect_with_a_body_is_refused_like_any(
    more: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """To the parser it has none, and what follows is a malformed request."""
    async with running() as up, up.client() as client:
        head = b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n"
        await client.send(head + more + b"\r\nhello")
        answer = await client.answer()
        assert (answer.status, answer.json["reason"]) == (403, "method_denied")
        assert await client.at_eof()
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
