"""What lets a browser's page read our answers, and send us more than a form could.

The guard has judged the page (``origin_guard``), so Ollama is not asked again: it never sees an
``Origin``, and what ``--allow-origin`` lets in needs no ``OLLAMA_ORIGINS``. The preflight is
Ollama's own, longer by the headers that we and Anthropic's SDK understand, and by whatever
else the page asks to send: SDKs add headers faster than a list can follow, and a page that
may speak to us at all may do so in any header.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import Reason
from modelsplit_proxy.http.downstream import date_line
from modelsplit_proxy.http.headers import REQUEST_NAMES, RESPONSE_NAMES, VIA_LINE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.http.downstream import Downstream

_STAINLESS: Final = (
    *(b"Arch", b"Async", b"Custom-Poll-Interval", b"Helper-Method", b"Lang", b"Os"),
    *(b"Package-Version", b"Poll-Helper", b"Retry-Count", b"Runtime", b"Runtime-Version"),
    b"Timeout",
)
ALLOWED_HEADERS: Final = (
    *(b"Authorization", b"Content-Type", b"User-Agent", b"Accept", b"X-Requested-With"),
    *(b"Openai-Beta", *(b"X-Stainless-%b" % name for name in _STAINLESS)),
    *REQUEST_NAMES,
    *(b"X-Api-Key", b"Anthropic-Version", b"Anthropic-Beta"),
    *(b"Anthropic-Dangerous-Direct-Browser-Access", b"Traceparent"),
)
EXPOSE_LINE: Final = b"Access-Control-Expose-Headers: %b\r\n" % b", ".join(
    (*RESPONSE_NAMES, b"x-should-retry", b"Via")
)
# The same for what only answers of one of several hosts have.
EXPOSE_HOST_LINE: Final = b"Access-Control-Expose-Headers: X-LLM-Host\r\n"
_KNOWN: Final = frozenset(name.lower() for name in ALLOWED_HEADERS)
# A field name (RFC 9110 §5.1). A star alone would allow everything for a day.
_NAME: Final = re.compile(rb"(?!\*$)[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
# SDKs send some twenty headers of their own.
_ASKED_MAX: Final = 64
_PREFLIGHT_LINES: Final = (
    b"Access-Control-Allow-Methods: GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS\r\n",
    b"Access-Control-Max-Age: 43200\r\n",
    b"Vary: Origin\r\n",
    b"Vary: Access-Control-Request-Method\r\n",
    b"Vary: Access-Control-Request-Headers\r\n",
)


def lines(origin: str | None, failure: Failure | None = None) -> list[bytes]:
    """What goes with an answer to a page. ``origin`` None: no page.

    A page that the guard has turned away may not even read why.
    """
    if origin is None or (failure is not None and failure.reason is Reason.ORIGIN_DENIED):
        return []
    return [_allow_line(origin), b"Vary: Origin\r\n", EXPOSE_LINE]


def answer_preflight(
    down: Downstream, origin: str, raw: Iterable[tuple[bytes, bytes]], *, close: bool
) -> None:
    """Whatever the path, as Ollama does. ``raw``: the header fields of the request."""
    allowed = b",".join((*ALLOWED_HEADERS, *asked_headers(raw)))
    head = [
        _allow_line(origin),
        b"Access-Control-Allow-Headers: %b\r\n" % allowed,
        *_PREFLIGHT_LINES,
        date_line(),
        VIA_LINE,
    ]
    down.head(204, "No Content", head, length=None, close=close)
    down.end()


def asked_headers(raw: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The names that ``Access-Control-Request-Headers`` lists beside those always allowed.

    In lower case, each once, at most 64; whatever is no field name is left out.
    """
    lists = [value for name, value in raw if name.lower() == b"access-control-request-headers"]
    names = (name.strip().lower() for value in lists for name in value.split(b","))
    unknown = (name for name in names if name not in _KNOWN and _NAME.fullmatch(name))
    return list(islice(dict.fromkeys(unknown), _ASKED_MAX))


def _allow_line(origin: str) -> bytes:
    return b"Access-Control-Allow-Origin: %b\r\n" % origin.encode("latin-1", "replace")
