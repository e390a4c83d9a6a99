"""Which headers pass, which stop here, and which we add.

Hop-by-hop fields are removed both ways (RFC 9110 §7.6.1), including whatever a
``Connection`` field names. The proxy's own fields are removed from what comes in and
overwritten in what goes out: nobody upstream may speak in our name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

RawHeaders = list[tuple[bytes, bytes]]

VIA_TOKEN: Final = b"modelsplit"
VIA_LINE: Final = b"Via: 1.1 modelsplit\r\n"

# RFC 9110 §7.6.1, with Proxy-Connection (a mistake old clients still make), and
# Content-Length: framing is each hop's own.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"content-length",
    }
)
_REQUEST_OWN: Final = frozenset(
    {
        b"host",
        b"expect",
        b"x-request-id",
        b"x-llm-role",
        b"x-llm-context",
        b"x-llm-retry-level",
        b"x-llm-escalate",
        b"x-llm-job-id",
        b"x-llm-max-wait-ms",
        b"x-llm-timeout-ms",
        b"x-llm-no-fallback",
        b"x-llm-telemetry",
    }
)
RESPONSE_NAMES: Final = (
    b"X-Request-Id",
    b"request-id",
    b"X-LLM-Role",
    b"X-LLM-Context",
    b"X-LLM-Provider",
    b"X-LLM-Model",
    b"X-LLM-Requested-Model",
    b"X-LLM-Attempt",
    b"X-LLM-Fallback-Used",
    b"X-LLM-Queue-Wait-Ms",
    b"X-LLM-Route-Reason",
    b"X-LLM-Variant",
    b"X-LLM-Error-Code",
    b"Server-Timing",
    b"RateLimit",
    b"RateLimit-Policy",
    b"Retry-After",
)
EXPOSE_LINE: Final = b"Access-Control-Expose-Headers: %b\r\n" % b", ".join(
    (*RESPONSE_NAMES, b"Via")
)
_RESPONSE_OWN: Final = frozenset(
    {name.lower() for name in RESPONSE_NAMES}
    | {b"access-control-expose-headers", b"x-should-retry"}
)

_REQUEST_DROP: Final = _HOP_BY_HOP | _REQUEST_OWN
# What must not be asked for where the answer is read and changed.
_QUESTION_DROP: Final = _REQUEST_DROP | {
    b"accept-encoding",
    b"if-match",
    b"if-none-match",
    b"if-modified-since",
    b"if-unmodified-since",
    b"if-range",
    b"range",
}
# What was said of the bytes that were changed.
_REWRITTEN_DROP: Final = _HOP_BY_HOP | {
    b"accept-ranges",
    b"content-digest",
    b"content-md5",
    b"digest",
    b"etag",
    b"last-modified",
    b"repr-digest",
}
_TAGGED_DROP: Final = _HOP_BY_HOP | _RESPONSE_OWN

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_lines(
    raw: Iterable[tuple[bytes, bytes]], spent: frozenset[bytes] = frozenset()
) -> list[bytes]:
    """The client's header lines that the upstream may see, in order.

    ``spent``: further names, in lower case, that were meant for us alone.
    """
    return _lines(raw, _REQUEST_DROP | spent if spent else _REQUEST_DROP)


def question_lines(
    raw: Iterable[tuple[bytes, bytes]], spent: frozenset[bytes] = frozenset()
) -> list[bytes]:
    """The same for a question whose answer is to be read and changed."""
    return _lines(raw, _QUESTION_DROP | spent)


def relayed_lines(raw: RawHeaders) -> list[bytes]:
    """The upstream's header lines of an answer that carries no tags of ours."""
    return _lines(raw, _HOP_BY_HOP)


def rewritten_lines(raw: RawHeaders) -> list[bytes]:
    """The upstream's header lines of an answer whose body was changed."""
    return _lines(raw, _REWRITTEN_DROP)


def tagged_base_lines(raw: RawHeaders) -> list[bytes]:
    """The upstream's header lines of an answer that will carry our tags."""
    return _lines(raw, _TAGGED_DROP)


def _lines(raw: Iterable[tuple[bytes, bytes]], drop: frozenset[bytes]) -> list[bytes]:
    kept = [(name, value) for name, value in raw if name.lower() not in drop]
    named = _named_by_connection(raw)
    if named:
        kept = [(name, value) for name, value in kept if name.lower() not in named]
    return [b"%b: %b\r\n" % pair for pair in kept]


def _named_by_connection(raw: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    values = [value for name, value in raw if name.lower() == b"connection"]
    if not values or (len(values) == 1 and values[0].lower() in {b"keep-alive", b"close"}):
        return frozenset()
    return frozenset(part.strip().lower() for value in values for part in value.split(b","))


def valid_request_id(said: str | None) -> bool:
    return said is not None and _REQUEST_ID.fullmatch(said) is not None


def loops(raw: Iterable[tuple[bytes, bytes]]) -> bool:
    """True if this request has already passed through a modelsplit (RFC 9110 §7.6.3)."""
    for name, value in raw:
        if name.lower() == b"via" and VIA_TOKEN in value.lower():
            hops = value.lower().split(b",")
            if any(hop.split()[1:2] == [VIA_TOKEN] for hop in hops):
                return True
    return False


def cors_lines(origin: str | None) -> list[bytes]:
    """What lets a browser read an answer of our own; ``origin`` has passed the guard."""
    if origin is None:
        return []
    return [
        b"Access-Control-Allow-Origin: %b\r\n" % origin.encode("latin-1", "replace"),
        b"Vary: Origin\r\n",
    ]
