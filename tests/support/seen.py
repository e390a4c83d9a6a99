"""What a client saw of one answer, whatever its dialect: an answer, an error, or half of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from support.wire import Answer


@dataclass(frozen=True)
class Seen:
    """``code``: of an error, from the stream where it is told there, else from the header.

    ``end``: ``whole`` (the dialect's own end was there, or an error told in full), ``told`` (a
    stream that ends in an error), ``silent`` (a clean end that hides what is missing) or
    ``broken`` (the connection was cut).
    """

    status: int
    code: str | None
    reason: str | None
    end: str

    def __str__(self) -> str:
        words = [str(self.status)]
        words += [word for word in (self.code, self.reason) if word]
        return " ".join([*words, self.end])


def seen(route: str, answer: Answer) -> Seen:
    """Read as a client of that dialect would."""
    kind = answer.get("Content-Type") or ""
    if kind.startswith("application/x-ndjson"):
        return _of_stream(answer, list(_whole_lines(answer.body)), route)
    if kind.startswith("text/event-stream"):
        events = [line[5:].strip() for line in _whole_lines(answer.body) if line[:5] == b"data:"]
        return _of_stream(answer, events, route)
    body = _object(answer.body)
    error = body.get("error")
    fields = error if isinstance(error, dict) else body
    end = "whole" if answer.whole and _is_whole(route, answer, body) else "silent"
    end = end if answer.whole else "broken"
    return Seen(answer.status, answer.get("X-LLM-Error-Code"), _word(fields, "reason"), end)


def _of_stream(answer: Answer, data: list[bytes], route: str) -> Seen:
    last = _object(data[-1]) if data else {}
    error = last.get("error")
    if not answer.whole:
        end = "broken"
    elif error is not None:
        end = "told"
    else:
        end = "whole" if data and _is_end(route, data[-1], last) else "silent"
    fields = error if isinstance(error, dict) else last
    code = _word(fields, "error_code") if error is not None else None
    # Ollama's own words in the stream have neither code nor reason.
    code = code or ("upstream" if end == "told" else None)
    return Seen(answer.status, code, _word(fields, "reason"), end)


def _is_end(route: str, data: bytes, last: dict[str, Any]) -> bool:
    if route.startswith("/api/"):
        return last.get("done") is True
    return data == b"[DONE]" or last.get("type") == "message_stop"


def _is_whole(route: str, answer: Answer, body: dict[str, Any]) -> bool:
    """An error is whole when it says what it is; an answer, when it says that it is done."""
    if answer.status >= 400:
        return bool(body.get("error"))
    if route.startswith("/api/"):
        return body.get("done") is True
    choices = body.get("choices")
    ending: Any = choices[0].get("finish_reason") if choices else body.get("stop_reason")
    return bool(ending)


def _whole_lines(body: bytes) -> list[bytes]:
    return [line for line in body.splitlines() if line.strip()]


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _word(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) else None
