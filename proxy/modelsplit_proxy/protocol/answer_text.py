"""What the assistant said, out of an answer's bytes: one text, in whatever dialect it came.

Tool calls, refusals and errors are answers of another kind; a request's ``format`` does not
speak of them, and here they are None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_UNLOADS: Final = frozenset({"load", "unload"})
_FINAL_EVENTS: Final = frozenset({"response.completed", "response.incomplete"})
_REFUSAL: Final = "refusal"


class _NoTextError(Exception):
    """A tool call, a refusal, an error: an answer that the format does not speak of."""


def text_of_whole(label: str, body: bytes) -> str | None:
    """The assistant's text in an answer that is not a stream, or None.

    None for a tool call, a refusal, an error, the load of a model, and where there is no text
    at all. An empty text is a text: it is no JSON.
    """
    return _joined(label, [body])


def text_of_stream(label: str, pieces: bytes) -> str | None:
    """The same from all the bytes of an NDJSON or SSE stream."""
    lines = pieces.splitlines()
    if not label.startswith("/api/"):
        lines = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    return _joined(label, [line for line in lines if line.startswith(b"{")])


def _joined(label: str, objects: Iterable[bytes]) -> str | None:
    parts: list[str] = []
    try:
        for line in objects:
            parts += _texts(label, _object(line))
    except _NoTextError:
        return None
    return "".join(parts) if parts else None


def _texts(label: str, said: dict[str, Any]) -> list[str]:
    """The pieces of text in one answer or one event. Raises _NoTextError."""
    if said.get("error") or said.get("done_reason") in _UNLOADS:
        raise _NoTextError
    match label:
        case "/api/generate":
            found = [said.get("response")]
        case "/api/chat":
            found = [_of_message(_dict(said.get("message")))]
        case "/v1/chat/completions" | "/v1/completions":
            found = [_of_choice(choice) for choice in _dicts(said.get("choices"))[:1]]
        case "/v1/responses":
            found = list(_of_response(said))
        case "/v1/messages":
            found = list(_of_anthropic(said))
        case _:
            found = []
    return [text for text in found if isinstance(text, str)]


def _of_message(message: dict[str, Any]) -> Any:
    if message.get("tool_calls") or message.get("function_call") or message.get("refusal"):
        raise _NoTextError
    return message.get("content")


def _of_choice(choice: dict[str, Any]) -> Any:
    if "text" in choice:
        return choice["text"]
    return _of_message(_dict(choice.get("delta") or choice.get("message")))


def _of_response(said: dict[str, Any]) -> Iterator[Any]:
    """A response object, or the event at the end of a stream, which holds all of it again."""
    if said.get("type") in _FINAL_EVENTS:
        said = _dict(said.get("response"))
    if said.get("object") != "response":
        return
    for item in _dicts(said.get("output")):
        if str(item.get("type")).endswith("_call"):
            raise _NoTextError
        for part in _dicts(item.get("content")):
            if part.get("type") == "refusal":
                raise _NoTextError
            if part.get("type") == "output_text":
                yield part.get("text")


def _of_anthropic(said: dict[str, Any]) -> Iterator[Any]:
    """A message with its blocks, or an event with one block or a part of it."""
    if _REFUSAL in (said.get("stop_reason"), _dict(said.get("delta")).get("stop_reason")):
        raise _NoTextError
    block = _dict(said.get("content_block") or said.get("delta"))
    for one in [*_dicts(said.get("content")), block]:
        if str(one.get("type")).endswith("tool_use"):
            raise _NoTextError
        if one.get("type") in {"text", "text_delta"}:
            yield one.get("text")


def _object(line: bytes) -> dict[str, Any]:
    try:
        return _dict(orjson.loads(line))
    except orjson.JSONDecodeError:
        return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
