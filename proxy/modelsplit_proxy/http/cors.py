"""What lets a browser's page read our answers, and send us more than a form could.

The guard has judged the page (``origin_guard``), so Ollama is not asked again: it never sees an
``Origin``, and what ``--allow-origin`` lets in needs no ``OLLAMA_ORIGINS``. The preflight is
Ollama's own, longer by the headers that we and Anthropic's SDK understand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import Reason
from modelsplit_proxy.http.headers import REQUEST_NAMES, RESPONSE_NAMES, VIA_LINE
from modelsplit_proxy.http.server import date_line

if TYPE_CHECKING:
    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.http.server import Downstream

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
_PREFLIGHT_LINES: Final = (
    b"Access-Control-Allow-Headers: %b\r\n" % b",".join(ALLOWED_HEADERS),
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


def answer_preflight(down: Downstream, origin: str, *, close: bool) -> None:
    """Whatever the path, as Ollama does."""
    head = [_allow_line(origin), *_PREFLIGHT_LINES, date_line(), VIA_LINE]
    down.head(204, "No Content", head, length=None, close=close)
    down.end()


def _allow_line(origin: str) -> bytes:
    return b"Access-Control-Allow-Origin: %b\r\n" % origin.encode("latin-1", "replace")
