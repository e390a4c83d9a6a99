"""What the assistant said, out of an answer's bytes: one text, in whatever dialect it came.

Tool calls, refusals and errors are answers of another kind; a request's ``format`` does not
speak of them, and here they are None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.protocol.stream_end import json_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from modelsplit_proxy.protocol.endpoint import WireFormat

    Texts = Callable[[dict[str, Any]], Iterable[Any]]

_UNLOADS: Final = frozenset({"load", "unload"})
_FINAL_EVENTS: Final = frozenset({"response.completed", "response.incomplete"})
_REFUSAL: Final = "refusal"


class NoTextError(Exception):
    """A tool call, a refusal, an error: an answer that the format does not speak of."""


def text_of_whole(texts: Texts, body: bytes) -> str | None:
    """The assistant's text in an answer that is not a stream, or None.

    ``texts``: what gives the pieces of text in one object of such an answer.

    None for a tool call, a refusal, an error, the load of a model, and where there is no text
    at all. An empty text is a text: it is no JSON.
    """
    return _joined(texts, [body])


def text_of_stream(texts: Texts, wire: WireFormat, pieces: bytes) -> str | None:
    """The same from all the bytes of a stream."""
    lines = [wire.data(line) for line in pieces.splitlines()]
    return _joined(texts, [line for line in lines if line and line.startswith(b"{")])


def was_cut(wire: WireFormat, pieces: bytes, *, whole: bool) -> bool:
    """Whether an answer says of itself that it was cut at a limit of its length.

    ``pieces``: all its bytes; ``whole``: it is no stream.
    """
    objects = [pieces] if whole else filter(None, map(wire.data, pieces.splitlines()))
    return any(wire.at_limit(json_object(line)) for line in objects)


def ollama_at_limit(answer: Mapping[str, Any]) -> bool:
    return answer.get("done_reason") == "length"


def openai_at_limit(answer: Mapping[str, Any]) -> bool:
    """Of a completion, a chunk of one, a response object, or the last event of a response."""
    response = _dict(answer.get("response")) or answer
    if _dict(response.get("incomplete_details")).get("reason") == "max_output_tokens":
        return True
    return any(choice.get("finish_reason") == "length" for choice in _dicts(answer.get("choices")))


def anthropic_at_limit(answer: Mapping[str, Any]) -> bool:
    """Of a message, or of the event that says how one ended."""
    return "max_tokens" in (
        answer.get("stop_reason"),
        _dict(answer.get("delta")).get("stop_reason"),
    )


def _joined(texts: Texts, objects: Iterable[bytes]) -> str | None:
    parts: list[str] = []
    try:
        for line in objects:
            parts += _strings(texts, json_object(line))
    except NoTextError:
        return None
    return "".join(parts) if parts else None


def _strings(texts: Texts, answer: dict[str, Any]) -> list[str]:
    """The pieces of text in one answer or one event. Raises NoTextError."""
    if answer.get("error") or answer.get("done_reason") in _UNLOADS:
        raise NoTextError
    return [text for text in texts(answer) if isinstance(text, str)]


# What gives the pieces of text in one object, for each kind of answer.


def of_generate(answer: dict[str, Any]) -> Iterator[Any]:
    yield answer.get("response")


def of_chat(answer: dict[str, Any]) -> Iterator[Any]:
    yield _in_message(_dict(answer.get("message")))


def of_choices(answer: dict[str, Any]) -> Iterator[Any]:
    for choice in _dicts(answer.get("choices"))[:1]:
        yield _of_choice(choice)


def _in_message(message: dict[str, Any]) -> Any:
    if message.get("tool_calls") or message.get("function_call") or message.get("refusal"):
        raise NoTextError
    return message.get("content")


def _of_choice(choice: dict[str, Any]) -> Any:
    if "text" in choice:
        return choice["text"]
    return _in_message(_dict(choice.get("delta") or choice.get("message")))


def of_response(fields: dict[str, Any]) -> Iterator[Any]:
    """A response object, or the event at the end of a stream, which holds all of it again."""
    if fields.get("type") in _FINAL_EVENTS:
        fields = _dict(fields.get("response"))
    if fields.get("object") != "response":
        return
    for item in _dicts(fields.get("output")):
        if str(item.get("type")).endswith("_call"):
            raise NoTextError
        for part in _dicts(item.get("content")):
            if part.get("type") == "refusal":
                raise NoTextError
            if part.get("type") == "output_text":
                yield part.get("text")


def of_message(fields: dict[str, Any]) -> Iterator[Any]:
    """Anthropic's: a message with its blocks, or an event with one block or a part of it."""
    if _REFUSAL in (fields.get("stop_reason"), _dict(fields.get("delta")).get("stop_reason")):
        raise NoTextError
    block = _dict(fields.get("content_block") or fields.get("delta"))
    for part in [*_dicts(fields.get("content")), block]:
        if str(part.get("type")).endswith("tool_use"):
            raise NoTextError
        if part.get("type") in {"text", "text_delta"}:
            yield part.get("text")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
