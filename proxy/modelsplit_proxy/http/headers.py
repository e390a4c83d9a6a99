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
REQUEST_NAMES: Final = (
    b"X-Request-Id",
    b"X-LLM-Role",
    b"X-LLM-Context",
    b"X-LLM-Retry-Level",
    b"X-LLM-Escalate",
    b"X-LLM-Job-Id",
    b"X-LLM-Purpose",
    b"X-LLM-Max-Wait-Ms",
    b"X-LLM-Timeout-Ms",
    b"X-LLM-No-Fallback",
    b"X-LLM-Telemetry",
)
_REQUEST_OWN: Final = frozenset({name.lower() for name in REQUEST_NAMES}) | {
    b"host",
    b"expect",
    b"origin",
}
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
    b"X-LLM-Queue-Position",
    b"X-LLM-Route-Reason",
    b"X-LLM-Variant",
    b"X-LLM-Untranslated",
    b"X-LLM-Error-Code",
    b"Server-Timing",
    b"RateLimit",
    b"RateLimit-Policy",
    b"Retry-After",
)
# Which pages may read an answer is ours to say.
_CORS: Final = frozenset(
    {
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-expose-headers",
    }
)
_RESPONSE_OWN: Final = frozenset({name.lower() for name in RESPONSE_NAMES}) | {b"x-should-retry"}

# What a Connection field says when it names no other field.
_CONNECTION_USUAL: Final = frozenset({b"keep-alive", b"close"})
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
_RELAYED_DROP: Final = _HOP_BY_HOP | _CORS
# What was said of the bytes that were changed.
_REWRITTEN_DROP: Final = _RELAYED_DROP | {
    b"accept-ranges",
    b"content-digest",
    b"content-md5",
    b"digest",
    b"etag",
    b"last-modified",
    b"repr-digest",
}
_TAGGED_DROP: Final = _RELAYED_DROP | _RESPONSE_OWN

_HOPS: Final = re.compile(r"[0-9]{1,9}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_lines(
    raw: Iterable[tuple[bytes, bytes]], consumed: frozenset[bytes] = frozenset()
) -> list[bytes]:
    """The client's header lines that the upstream may see, in order.

    ``consumed``: further names, in lower case, that were meant for us alone.
    """
    return _lines(raw, _REQUEST_DROP | consumed if consumed else _REQUEST_DROP)


def question_lines(
    raw: Iterable[tuple[bytes, bytes]], consumed: frozenset[bytes] = frozenset()
) -> list[bytes]:
    """The same for a question whose answer is to be read and changed."""
    return _lines(raw, _QUESTION_DROP | consumed)


def relayed_lines(raw: RawHeaders) -> list[bytes]:
    """The upstream's header lines of an answer that carries no tags of ours."""
    return _lines(raw, _RELAYED_DROP)


def rewritten_lines(raw: RawHeaders) -> list[bytes]:
    """The upstream's header lines of an answer whose body was changed."""
    return _lines(raw, _REWRITTEN_DROP)


def tagged_base_lines(raw: RawHeaders) -> list[bytes]:
    """The upstream's header lines of an answer that will carry our tags."""
    return _lines(raw, _TAGGED_DROP)


def _lines(raw: Iterable[tuple[bytes, bytes]], drop: frozenset[bytes]) -> list[bytes]:
    out = []
    for name, value in raw:
        lowered = name.lower()
        if lowered not in drop:
            out.append(b"%b: %b\r\n" % (name, value))
        elif lowered == b"connection" and value.lower() not in _CONNECTION_USUAL:
            drop |= _named_by_connection(raw)
            return [b"%b: %b\r\n" % pair for pair in raw if pair[0].lower() not in drop]
    return out


def _named_by_connection(raw: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    values = [value for name, value in raw if name.lower() == b"connection"]
    return frozenset(part.strip().lower() for value in values for part in value.split(b","))


def hops_left(raw: str) -> int | None:
    """What ``Max-Forwards`` allows (RFC 9110 §7.6.2); None if it is no number."""
    return int(raw) if _HOPS.fullmatch(raw) is not None else None


def one_hop_less(raw: Iterable[tuple[bytes, bytes]], left: int) -> tuple[tuple[bytes, bytes], ...]:
    """The same fields, saying that of ``left`` hops this one is done."""
    others = tuple(pair for pair in raw if pair[0].lower() != b"max-forwards")
    return (*others, (b"Max-Forwards", b"%d" % (left - 1)))


def valid_request_id(raw: str | None) -> bool:
    return raw is not None and _REQUEST_ID.fullmatch(raw) is not None


def loops(raw: Iterable[tuple[bytes, bytes]]) -> bool:
    """True if this request has already passed through a modelsplit (RFC 9110 §7.6.3)."""
    for name, value in raw:
        if name.lower() == b"via" and VIA_TOKEN in value.lower():
            hops = value.lower().split(b",")
            if any(hop.split()[1:2] == [VIA_TOKEN] for hop in hops):
                return True
    return False
