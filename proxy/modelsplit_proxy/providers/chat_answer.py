"""Answers of OpenAI's chat completions, put into the form of the Messages API.

What is missing here is missing there, and found by whoever reads that form.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_proxy.protocol.stream_end import DONE, json_object
from modelsplit_proxy.providers.events import checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_proxy.providers.events import StreamEvent

_REFUSED: Final = "refusal"
_REASONS: Final = MappingProxyType(
    {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": _REFUSED,
    }
)
# What servers call the thoughts of a model.
_THOUGHTS: Final = ("reasoning", "reasoning_content")

Event = dict[str, Any]


class ChatEvents:
    """Chunks in, events of the Messages API out."""

    def __init__(self) -> None:
        self._has_begun = False
        self._next = 0
        # The text or the thoughts under way: its index, and which of them it is.
        self._open: tuple[int, str] | None = None
        # Calls by what their chunks say of them: the index of their block, and their id. The
        # last of them is that of chunks that do not say which.
        self._calls: dict[object, tuple[int, object]] = {}
        self._last_call: object = None
        self._reason: str | None = None
        self._is_refusal = False
        self._usage: Event = {}

    def read(self, event: StreamEvent) -> Iterator[Event]:
        """What one event of the stream says; BrokenAnswerError."""
        if event.text == DONE:
            yield from self._end()
            return
        chunk = checked(event)
        if chunk.get("error"):
            yield {"type": "error", "error": _error(chunk["error"])}
            return
        if not self._has_begun:
            self._has_begun = True
            yield {"type": "message_start", "message": {"id": chunk.get("id")}}
        self._usage = _usage(chunk.get("usage")) or self._usage
        choice = _first(chunk.get("choices"))
        yield from self._delta(_object(choice.get("delta")))
        self._reason = _reason(choice) or self._reason

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[Event]:
        yield from self._say("thinking", _thought_of(delta))
        yield from self._say("text", _text_of(delta.get("content")))
        if delta.get("refusal"):
            self._is_refusal = True
            yield from self._say("text", delta["refusal"])
        for call in _objects(delta.get("tool_calls")):
            yield from self._call(call)

    def _say(self, kind: str, piece: object) -> Iterator[Event]:
        if piece is None or piece == "":
            return
        if self._open is None or self._open[1] != kind:
            yield from self._close()
            self._open = (self._next, kind)
            yield self._start({"type": kind, kind: ""})
        yield _piece(self._open[0], {"type": f"{kind}_delta", kind: piece})

    def _call(self, call: Mapping[str, Any]) -> Iterator[Event]:
        function = _object(call.get("function"))
        number, given = call.get("index"), call.get("id")
        key = self._last_call if number is None else repr(number)
        known = self._calls.get(key)
        # Some servers number no call, or all alike: a new id or, without one, a name is a new one.
        is_new = known is None or (function.get("name") and given not in (None, "", known[1]))
        if is_new or (number is None and function.get("name") and not given):
            yield from self._close(calls=known is not None)
            key = repr(self._next) if number is None else key
            self._calls[key] = known = (self._next, given)
            yield self._start({"type": "tool_use", "id": given, "name": function.get("name")})
        self._last_call = key
        if known is not None:
            arguments = function.get("arguments")
            if isinstance(arguments, dict):
                arguments = orjson.dumps(arguments).decode()
            yield _piece(known[0], {"type": "input_json_delta", "partial_json": arguments})

    def _start(self, block: Event) -> Event:
        index = self._next
        self._next += 1
        return {"type": "content_block_start", "index": index, "content_block": block}

    def _close(self, *, calls: bool = True) -> Iterator[Event]:
        """End what is under way; ``calls``: those too, of which several may be."""
        if self._open is not None:
            yield {"type": "content_block_stop", "index": self._open[0]}
            self._open = None
        if calls:
            for index, _ in self._calls.values():
                yield {"type": "content_block_stop", "index": index}
            self._calls.clear()

    def _end(self) -> Iterator[Event]:
        yield from self._close()
        reason = _REFUSED if self._is_refusal and self._reason else self._reason
        yield {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": self._usage}
        yield {"type": "message_stop"}


def message_of(answer: Mapping[str, Any]) -> Event:
    """A whole answer."""
    if answer.get("error"):
        return {"type": "error", "error": _error(answer["error"])}
    choice = _first(answer.get("choices"))
    message = choice.get("message")
    reason, refusal = _reason(choice), _object(message).get("refusal")
    return {
        "type": "message",
        "id": answer.get("id"),
        "content": list(_content(message)) if isinstance(message, dict) else None,
        "stop_reason": _REFUSED if refusal and reason else reason,
        "usage": _usage(answer.get("usage")),
    }


def _content(message: Mapping[str, Any]) -> Iterator[Event]:
    thought = _thought_of(message)
    if thought:
        yield {"type": "thinking", "thinking": thought}
    for text in (_text_of(message.get("content")), message.get("refusal")):
        if text:
            yield {"type": "text", "text": text}
    for call in _objects(message.get("tool_calls")):
        yield _block(call)


def _block(call: Mapping[str, Any]) -> Event:
    function = _object(call.get("function"))
    block = {"type": "tool_use", "id": call.get("id"), "name": function.get("name")}
    return block | {"input": _values(function.get("arguments"))}


def _values(arguments: object) -> object:
    """The arguments as an object; what are none come back as they are."""
    if arguments in (None, "", "{}"):
        return {}
    if isinstance(arguments, str):
        return json_object(arguments.encode("utf-8", "surrogatepass")) or arguments
    return arguments


def _piece(index: int, delta: Event) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _thought_of(said: Mapping[str, Any]) -> object:
    """By the first of the names; some servers say it by both."""
    return next((said[name] for name in _THOUGHTS if said.get(name)), None)


def _text_of(content: object) -> object:
    """A text, or those of the parts that some servers give in its place."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in _objects(content) if part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _reason(choice: Mapping[str, Any]) -> str | None:
    reason = choice.get("finish_reason")
    return _REASONS.get(reason, "end_turn") if isinstance(reason, str) else None


def _usage(usage: object) -> Event:
    """Tokens. What caches spared is not known to be cheaper, and counts in full."""
    given = _object(usage)
    thought = _object(given.get("completion_tokens_details")).get("reasoning_tokens")
    tokens = {
        "input_tokens": given.get("prompt_tokens"),
        "output_tokens": given.get("completion_tokens"),
        "cached_in_full": _object(given.get("prompt_tokens_details")).get("cached_tokens"),
        "output_tokens_details": None if thought is None else {"thinking_tokens": thought},
    }
    return {name: count for name, count in tokens.items() if count is not None}


def _error(error: object) -> Event:
    given = _object(error)
    kind = given.get("type") or given.get("code") or "api_error"
    return {"type": str(kind), "message": str(given.get("message", error))}


def _first(choices: object) -> Event:
    """The one answer that was asked for."""
    return next((one for one in _objects(choices) if one.get("index") in (None, 0)), {})


def _objects(value: object) -> list[Event]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _object(value: object) -> Event:
    return value if isinstance(value, dict) else {}
