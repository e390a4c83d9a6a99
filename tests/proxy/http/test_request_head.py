"""What is refused of heads that the parser takes, and what its own refusals amount to."""

from __future__ import annotations

import pytest
from aiohttp.http import HttpVersion, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage, BadStatusLine, LineTooLong
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_proxy.http.request_head import (
    bad_http,
    ends_in_version,
    flaw_of,
    flaw_of_error,
    too_long,
)


def head(
    method: str = "GET", path: str = "/", version: str = "1.1", *fields: tuple[str, str]
) -> RawRequestMessage:
    major, minor = (int(part) for part in version.split("."))
    headers = CIMultiDictProxy(CIMultiDict(fields))
    return RawRequestMessage(
        method, path, HttpVersion(major, minor), headers, (), False, None, False, False, URL("/")
    )


CODING, EXPECT = "Transfer-Encoding", "Expect"


@pytest.mark.parametrize(
    "message",
    [
        head(),
        head("POST", "/?a=%23", "1.0"),
        head("POST", "/", "1.1", (CODING, "Chunked")),
        head("POST", "/", "1.1", (EXPECT, "100-Continue")),
        head("POST", "/", "1.0", (EXPECT, "whatever")),
        head("OPTIONS", "*"),
    ],
)
def test_it_is_served(message: RawRequestMessage) -> None:
    assert flaw_of(message) is None


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, head(version="0.9")),
        (505, head(version="1.2")),
        (505, head(version="2.0")),
        (400, head("POST", "/", "1.0", (CODING, "chunked"))),
        (501, head("POST", "/", "1.1", (CODING, "gzip, chunked"))),
        (501, head("POST", "/", "1.1", (CODING, "gzip"), (CODING, "chunked"))),
        (400, head("POST", "/", "1.1", (CODING, "chunked, gzip"))),
        (400, head("POST", "/", "1.1", (CODING, "chunked, chunked"))),
        (400, head("POST", "/", "1.1", (CODING, "identity, chunked"))),
        (400, head("POST", "/", "1.1", (CODING, ""))),
        (400, head("POST", "/", "1.1", ("Content-Length", "0" * 20 + "1"))),
        (400, head("GET", "/a#b")),
        (405, head("TRACE")),
        (417, head("POST", "/", "1.1", (EXPECT, "100-continue, more"))),
        (417, head("POST", "/", "1.1", (EXPECT, "100-continue"), (EXPECT, "x"))),
    ],
)
def test_it_is_refused(status: int, message: RawRequestMessage) -> None:
    failure = flaw_of(message)
    assert failure is not None
    assert (failure.status, failure.code) == (status, ErrorCode.BAD_REQUEST)
    assert failure.reason is Reason.BAD_HTTP
    assert failure.should_retry is False


@pytest.mark.parametrize(
    ("status", "error", "data", "in_first_line"),
    [
        (414, LineTooLong(b"GET", 1), b"", True),
        (431, LineTooLong(b"X", 1), b"", False),
        (431, BadHttpMessage("Too many headers received"), b"", False),
        (505, BadStatusLine("x"), b"GET / HTTP/3.0\r\n", True),
        (505, BadStatusLine("x"), b"\r\nGET / HTTP/1.2\r\n", True),
        (400, BadStatusLine("x"), b"GET / HTTP/1.1\r\nX: HTTP/3.0\r\n", False),
        (400, BadHttpMessage("a\nb"), b"", False),
    ],
)
def test_what_the_parser_refuses(
    status: int, error: Exception, data: bytes, in_first_line: bool
) -> None:
    failure = flaw_of_error(error, data, in_first_line=in_first_line)
    assert failure.status == status
    assert "\n" not in failure.message
    assert len(failure.message) <= 200


def test_a_head_that_is_too_long() -> None:
    assert (too_long(in_first_line=True).status, too_long(in_first_line=False).status) == (414, 431)
    assert bad_http("x", 501).phrase == "Not Implemented"


@pytest.mark.parametrize(
    ("line", "does"),
    [(b"GET / HTTP/1.1\r", True), (b".1\r", True), (b"GET /x\r", False), (b"", False)],
)
def test_how_a_first_line_ends(line: bytes, does: bool) -> None:
    assert ends_in_version(line) is does
