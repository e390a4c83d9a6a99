"""What a request's head asks for that is not served, beyond what the parser itself refuses.

Values in, a Failure out. Always ``E_BAD_REQUEST``; the status is the one HTTP has for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_proxy.http.aiohttp_server import LineTooLong

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage

# What a head may be. nginx and Go's server allow 8 KiB a line or 1 MiB in all; Ollama takes a
# 60 KB header without complaint, so ours must too.
MAX_LINE_BYTES: Final = 64 * 1024
MAX_HEAD_BYTES: Final = 128 * 1024
MAX_HEADERS: Final = 128
# All that a 64-bit size has. Python itself reads no number of some thousand zeros.
_SIZE_DIGITS: Final = 20

_HTTP10: Final = (1, 0)
_HTTP11: Final = (1, 1)
_PHRASES: Final = {
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}
# A request line of another major version, as far as it can be told.
_OTHER_VERSION: Final = re.compile(rb"[\r\n]*[^\r\n]* HTTP/(?!1\.[01][\r\n])\d+(?:\.\d+)?\r?\n")
_LAST_OF_VERSION: Final = re.compile(rb"\.[0-9]\r?\Z")
OTHER_VERSION: Final = "only HTTP/1.1 and HTTP/1.0 are spoken here"
NO_VERSION: Final = "malformed request: its first line names no HTTP version"


def flaw_of(message: RawRequestMessage) -> Failure | None:
    """Why a request that the parser took is refused all the same; None: it is served."""
    headers = message.headers
    version = message.version
    if version != _HTTP11 and version != _HTTP10:  # noqa: PLR1714 - the usual first, at once
        return _version(version)
    if "Transfer-Encoding" in headers or (
        "Content-Length" in headers and headers["Content-Length"][_SIZE_DIGITS:]
    ):
        flaw = _framing(message)
        if flaw is not None:
            return flaw
    if "#" in message.path:
        return bad_http("a request's target has no fragment (#)")
    if message.method == "TRACE":
        return bad_http("TRACE is not served here, as it would show what others sent", 405)
    if "Expect" in headers and version == _HTTP11:
        return _expectation(headers.getall("Expect"))
    return None


def flaw_of_error(error: Exception, data: bytes, *, in_first_line: bool) -> Failure:
    """What the parser's refusal amounts to. ``data``: the bytes it was given last."""
    if isinstance(error, LineTooLong):
        return too_long(in_first_line=in_first_line)
    text = str(getattr(error, "message", "") or error)
    if text.startswith("Too many headers"):
        return bad_http(f"more than {MAX_HEADERS} header fields", 431)
    if _OTHER_VERSION.match(data) is not None:
        return bad_http(OTHER_VERSION, 505)
    words = " ".join(text.encode("ascii", "replace").decode().split())[:120]
    return bad_http(f"malformed request: {words}")


def ends_in_version(line: bytes) -> bool:
    """Whether a first line may end so. ``line``: its last bytes at least, without the LF."""
    return _LAST_OF_VERSION.search(line) is not None


def too_long(*, in_first_line: bool) -> Failure:
    """A line, or the whole head, is longer than its bound."""
    if in_first_line:
        return bad_http(f"the request line is longer than {MAX_LINE_BYTES >> 10} KiB", 414)
    text = (
        f"the request's head is larger than {MAX_HEAD_BYTES >> 10} KiB, or a field of it than "
        f"{MAX_LINE_BYTES >> 10} KiB"
    )
    return bad_http(text, 431)


def bad_http(message: str, status: int = 400) -> Failure:
    return Failure(
        ErrorCode.BAD_REQUEST,
        Reason.BAD_HTTP,
        message,
        _PHRASES[status],
        own_status=status,
    )


def _version(version: tuple[int, int]) -> Failure:
    if version < _HTTP10:
        return bad_http(NO_VERSION)
    return bad_http(OTHER_VERSION, 505)


def _framing(message: RawRequestMessage) -> Failure | None:
    if "Transfer-Encoding" not in message.headers:
        return bad_http(f"a Content-Length has {_SIZE_DIGITS} digits at most")
    return _coding(message)


def _coding(message: RawRequestMessage) -> Failure | None:
    """The upstream gets the body without its framing: what else was done to it would be lost."""
    if message.version == _HTTP10:
        return bad_http("HTTP/1.0 has no Transfer-Encoding")
    raw = ",".join(message.headers.getall("Transfer-Encoding")).lower()
    codings = [coding.strip(" \t") for coding in raw.split(",")]
    if codings == ["chunked"]:
        return None
    if codings[-1] == "chunked" and codings.count("chunked") == 1 and "identity" not in codings:
        return bad_http("of transfer codings only chunked is known here", 501)
    return bad_http("Transfer-Encoding is something other than chunked, once")


def _expectation(values: list[str]) -> Failure | None:
    if all(value.lower() == "100-continue" for value in values):
        return None
    return bad_http("of expectations only 100-continue can be met", 417)
