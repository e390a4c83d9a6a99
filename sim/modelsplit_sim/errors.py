"""Error answers in the three dialects, as observed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import Enum

from .gojson import dumps
from .reply import JSON, JSON_UTF8, Reply

BUSY = "server busy, please try again.  maximum pending requests exceeded"
DIED = "an error was encountered while running the model: unexpected EOF"


class Surface(Enum):
    """Who speaks: the path decides."""

    NATIVE = "native"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


def surface_of(path: str) -> Surface:
    if path == "/v1/messages":
        return Surface.ANTHROPIC
    return Surface.OPENAI if path.startswith("/v1/") else Surface.NATIVE


@dataclass(eq=False)
class ApiError(Exception):
    """An answer other than 200.

    early: refused by the translating layer before the native handler saw it; such /v1 answers
    carry a charset and lack the final newline (observed).
    streamed: the request asked for a stream and was refused by the runner; natively that answer
    goes out chunked and without a charset (observed).
    """

    status: int
    message: str
    early: bool = False
    streamed: bool = False


def error_type(status: int, surface: Surface) -> str:
    if status == 503 and surface is Surface.ANTHROPIC:
        return "overloaded_error"
    names = {400: "invalid_request_error", 404: "not_found_error"}
    return names.get(status, "api_error")


def error_body(surface: Surface, status: int, message: str) -> bytes:
    kind = error_type(status, surface)
    if surface is Surface.NATIVE:
        return dumps({"error": message})
    if surface is Surface.OPENAI:
        error = {"message": message, "type": kind, "param": None, "code": None}
        return dumps({"error": error})
    request_id = f"req_{secrets.token_hex(12)}"
    inner = {"type": kind, "message": message}
    return dumps({"type": "error", "error": inner, "request_id": request_id})


def error_reply(error: ApiError, surface: Surface) -> Reply:
    body = error_body(surface, error.status, error.message)
    if surface is Surface.NATIVE:
        if error.streamed:
            return Reply(error.status, (("Content-Type", JSON),), body, chunked=True)
        return Reply(error.status, (("Content-Type", JSON_UTF8),), body)
    if error.early:
        return Reply(error.status, (("Content-Type", JSON_UTF8),), body)
    return Reply(error.status, (("Content-Type", JSON),), body + b"\n")
