"""A whole answer as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .gojson import dumps

JSON = "application/json"
JSON_UTF8 = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
# observed: answers beyond Go's 2048-byte buffer go out chunked.
GO_BUFFER = 2048

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """headers: without Date and framing, in the order sent. chunked: even if the body is short."""

    status: int = 200
    headers: Headers = ()
    body: bytes = b""
    chunked: bool = False
    bare: bool = False  # neither Content-Length nor body: 204, and HEAD of a blob (observed)


def native(value: Any, status: int = 200) -> Reply:
    """A /api/* JSON answer."""
    return Reply(status, (("Content-Type", JSON_UTF8),), dumps(value))


def compatible(value: Any, status: int = 200) -> Reply:
    """A /v1/* JSON answer: no charset, a final newline (observed)."""
    return Reply(status, (("Content-Type", JSON),), dumps(value) + b"\n")
