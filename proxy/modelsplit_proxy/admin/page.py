"""What an admin route is asked and answers with, and how that is written."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.failures import said_back
from modelsplit_proxy.http.downstream import date_line
from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.records.query_error import QueryError
from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from modelsplit_policy.failures import ErrorCode, Failure
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import Request

    Handler = Callable[["PageAsked"], Awaitable["Page | Pages | Live"]]

logger = logging.getLogger("modelsplit")

# What may be asked of nearly every route.
READ_ONLY: Final = (b"Allow: GET, HEAD\r\n",)
CHALLENGE: Final = (b"WWW-Authenticate: Bearer\r\n",)
_FRESH: Final = (b"X-Content-Type-Options: nosniff\r\n", b"Cache-Control: no-store\r\n")
_NDJSON: Final = "application/x-ndjson"
_PHRASES: Final = MappingProxyType(
    {
        200: "OK",
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
        405: "Method Not Allowed",
        408: "Request Timeout",
        409: "Conflict",
        415: "Unsupported Media Type",
        429: "Too Many Requests",
        503: "Service Unavailable",
    }
)


@dataclass(frozen=True, slots=True)
class PageAsked:
    """What an admin route is asked. ``item``: what stands in the path for ``{id}``."""

    query: Mapping[str, str]
    accept: str = ""
    item: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One whole answer. ``lines``: header lines of its own."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    lines: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Pages:
    """An answer that is written as it is read; the first piece is here, None: there is none."""

    first: bytes | None
    rest: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Live:
    """An answer without an end of its own; ``tell`` writes its body until there is no more."""

    content_type: str
    tell: Callable[[Downstream], Awaitable[None]]


def json_page(value: Any, *, status: int = 200, lines: tuple[bytes, ...] = ()) -> Page:
    body = tellable.dumps(value, orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n"
    return Page(body, status, lines=lines)


def text_page(text: str) -> Page:
    return Page(text.encode(), content_type="text/plain; charset=utf-8")


def failed(text: str, code: ErrorCode, status: int, lines: tuple[bytes, ...] = ()) -> Page:
    return json_page({"error": text, "error_code": code}, status=status, lines=lines)


def wants_text(asked: PageAsked, *others: str) -> bool:
    """``?format=text``, or a client that would rather have text than anything else.

    ``others``: further formats that the route has. Raises QueryError.
    """
    wanted = asked.query.get("format")
    if wanted is not None and wanted not in {"text", "json"}:
        known = ", ".join(("text", *others))
        raise QueryError(f'format "{said_back(wanted, 20)}" is unknown; use {known} or json')
    return wanted == "text" or (wanted is None and asked.accept.startswith("text/plain"))


def refused_admin_request(down: Downstream, failure: Failure, path: str) -> None:
    """Answer what the edge refuses on the admin port."""
    del path
    lines = READ_ONLY if failure.status == 405 else ()
    write(down, failed(failure.message, failure.code, failure.status, lines), close=True)


def write(down: Downstream, page: Page, *, close: bool) -> None:
    """Answer with one page."""
    _head(down, page, length=len(page.body), close=close)
    down.write(page.body)
    down.end()


async def stream(request: Request, down: Downstream, pages: Pages, *, close: bool) -> None:
    """Answer with pages as they are read, no faster than the client takes them."""
    _head(down, Page(b"", content_type=_NDJSON), length=None, close=close)
    piece = pages.first
    try:
        while piece is not None:
            down.write(piece)
            await request.connection.taken()
            piece = await asyncio.to_thread(next, pages.rest, None)
    except StoreError as error:
        # Cut, so that nobody takes it for the whole of it.
        logger.warning("a trace broke off: %s", error)
        down.abort()
    else:
        down.end()


async def live(down: Downstream, answer: Live) -> None:
    """Answer with what is told as it happens; a proxy on the way must not gather it."""
    head = Page(b"", content_type=answer.content_type, lines=(b"X-Accel-Buffering: no\r\n",))
    _head(down, head, length=None, close=True)
    if not down.is_head_request:
        await answer.tell(down)
    down.end()


def _head(down: Downstream, page: Page, *, length: int | None, close: bool) -> None:
    lines = [f"Content-Type: {page.content_type}\r\n".encode(), date_line(), *_FRESH, *page.lines]
    phrase = _PHRASES.get(page.status, "Refused")
    down.head(page.status, phrase, lines, length=length, close=close)
