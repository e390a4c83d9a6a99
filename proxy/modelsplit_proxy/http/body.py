"""Reading a request body whole, within a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.quantity import in_digits
from modelsplit_proxy.http.aiohttp_server import web
from modelsplit_proxy.http.client_connection import FREE_BYTES, BodyEndedError
from modelsplit_proxy.http.read_budget import no_room

if TYPE_CHECKING:
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import Request


class BodyError(Exception):
    """The body cannot be routed; carries the failure to answer with."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


async def read_whole(request: Request, down: Downstream, limit: int) -> bytes:
    """The body's bytes; BodyError if it is compressed, too large or broken.

    No seat is held while a client takes its time to send.
    """
    sent = request.headers
    encoding = sent.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise _refused(
            ErrorCode.BAD_REQUEST,
            Reason.COMPRESSED_BODY,
            f"a {encoding[:20]}-compressed body cannot be routed by its model; send plain JSON",
            "Compressed Body",
        )
    length = request.content_length
    if length is not None and length > limit:
        raise too_large(limit)
    if sent.get("Expect", "").lower() == "100-continue":
        down.continue_()
    content = request.content
    try:
        # Most bodies are here whole, having come together with their head.
        body = content.read_nowait() if content.is_eof() else await _all(request, limit)
    except web.RequestPayloadError as error:
        raise BodyError(malformed(error)) from None
    size = len(body)
    if size > limit:
        raise too_large(limit)
    if size > FREE_BYTES and not request.connection.body_hold.set(size):
        raise BodyError(no_room(request.connection.budget))
    return body


async def _all(request: Request, limit: int) -> bytes:
    body = await _gathered(request, limit)
    if len(body) > limit:
        raise too_large(limit)
    return bytes(body)


async def _gathered(request: Request, limit: int) -> bytearray:
    """All that comes, or, of too much, enough to tell; BodyError if nothing more may.

    What is held meanwhile, and until the request is answered or sent on, is charged to the
    connection. A copy of it is not, so nothing is copied that is refused.
    """
    connection, content = request.connection, request.content
    if connection.ending is not None and not content.is_eof():
        raise BodyError(connection.ending)
    # One buffer: as objects of their own, many small pieces would take twenty times as much.
    body = bytearray()
    connection.collecting = True
    try:
        while len(body) <= limit and (piece := await content.readany()):
            body += piece
            if len(body) > FREE_BYTES and not connection.body_hold.set(len(body)):
                raise BodyError(no_room(connection.budget))
    finally:
        connection.collecting = False
    return body


async def read_start(request: Request, down: Downstream, limit: int) -> tuple[bytes, bool]:
    """The body, or the beginning of one larger than ``limit``; True if that is all of it.

    Of a body that says it is larger, nothing is read. BodyError if its framing is broken.
    """
    start, is_all = await _start(request, down, limit)
    return bytes(start), is_all


async def read_any(request: Request, down: Downstream, limit: int) -> bytes:
    """The body as it came, compressed or not; BodyError if it is larger or broken."""
    body, is_all = await _start(request, down, limit)
    if not is_all:
        raise too_large(limit)
    return bytes(body)


async def _start(request: Request, down: Downstream, limit: int) -> tuple[bytearray, bool]:
    if request.content_length is not None and request.content_length > limit:
        return bytearray(), False
    if request.headers.get("Expect", "").lower() == "100-continue":
        down.continue_()
    try:
        start = await _gathered(request, limit)
    except web.RequestPayloadError as error:
        raise BodyError(malformed(error)) from None
    return start, len(start) <= limit


def malformed(error: web.RequestPayloadError) -> Failure:
    """What a body that broke off, or whose framing is broken, amounts to."""
    if isinstance(error, BodyEndedError) and error.failure is not None:
        return error.failure
    text = f"the request body is malformed HTTP: {' '.join(str(error).split())[:80]}"
    return Failure(ErrorCode.BAD_REQUEST, Reason.BAD_HTTP, text, "Bad Request")


def too_large(limit: int) -> BodyError:
    """What a body of more than ``limit`` bytes is refused with."""
    return _refused(
        ErrorCode.REQUEST_TOO_LARGE,
        Reason.BODY_LIMIT,
        f"the body is larger than {in_digits(limit / 2**20)} MiB; raise --max-body to allow it",
        "Body Too Large",
    )


def _refused(code: ErrorCode, reason: Reason, message: str, phrase: str) -> BodyError:
    return BodyError(Failure(code, reason, message, phrase))
