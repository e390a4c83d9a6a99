"""Answers of OpenAI's chat completions, put into the form of the Messages API."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_proxy.providers.events import StreamEvent

_DONE: Final = b"[DONE]"
_REASONS: Final = MappingProxyType(
    {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "refusal",
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
        # The block under way: its index, and what it is ("text", "thinking", a call's number).
        self._open: tuple[int, object] | None = None
        self._reason: str | None = None
        self._usage: Event = {}

    def read(self, event: StreamEvent) -> Iterator[Event]:
        """What one event of the stream says."""
        if event.text == _DONE:
            yield from self._end()
            return
        chunk = event.data
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
        for name in _THOUGHTS:
            if isinstance(delta.get(name), str) and delta[name]:
                yield from self._say("thinking", {"thinking": delta[name]})
        if isinstance(delta.get("content"), str) and delta["content"]:
            yield from self._say("text", {"text": delta["content"]})
        for call in _objects(delta.get("tool_calls")):
            yield from self._call(call)

    def _say(self, kind: str, said: Event) -> Iterator[Event]:
        yield from self._turn_to(kind, {"type": kind, kind: ""})
        yield self._piece({"type": f"{kind}_delta"} | said)

    def _call(self, call: Mapping[str, Any]) -> Iterator[Event]:
        function = _object(call.get("function"))
        number = ("call", call.get("index"))
        if function.get("name") or self._open is None or self._open[1] != number:
            block = {"type": "tool_use", "id": call.get("id"), "name": function.get("name")}
            yield from self._turn_to(number, block)
        yield self._piece({"type": "input_json_delta", "partial_json": function.get("arguments")})

    def _turn_to(self, what: object, block: Event) -> Iterator[Event]:
        """Begin another block, unless this one is under way."""
        if self._open is not None and self._open[1] == what:
            return
        yield from self._close()
        self._open = (self._next, what)
        self._next += 1
        yield {"type": "content_block_start", "index": self._open[0], "content_block": block}

    def _piece(self, delta: Event) -> Event:
        index = -1 if self._open is None else self._open[0]
        return {"type": "content_block_delta", "index": index, "delta": delta}

    def _close(self) -> Iterator[Event]:
        if self._open is not None:
            yield {"type": "content_block_stop", "index": self._open[0]}
            self._open = None

    def _end(self) -> Iterator[Event]:
        yield from self._close()
        delta = {"stop_reason": self._reason or "end_turn"}
        yield {"type": "message_delta", "delta": delta, "usage": self._usage}
        yield {"type": "message_stop"}


def message_of(answer: Mapping[str, Any]) -> Event:
    """A whole answer; what is none comes back as it is."""
    if answer.get("error"):
        return {"type": "error", "error": _error(answer["error"])}
    choice = _first(answer.get("choices"))
    message = _object(choice.get("message"))
    content: list[Event] = [
        {"type": "thinking", "thinking": message[name]}
        for name in _THOUGHTS
        if isinstance(message.get(name), str)
    ]
    if isinstance(message.get("content"), str):
        content.append({"type": "text", "text": message["content"]})
    content += [_block(call) for call in _objects(message.get("tool_calls"))]
    return {
        "type": "message",
        "id": answer.get("id"),
        "content": content,
        "stop_reason": _reason(choice),
        "usage": _usage(answer.get("usage")),
    }


def _block(call: Mapping[str, Any]) -> Event:
    function = _object(call.get("function"))
    try:
        values = orjson.loads(function.get("arguments") or "{}")
    except (orjson.JSONDecodeError, TypeError):
        values = {"arguments": function.get("arguments")}
    return {
        "type": "tool_use",
        "id": call.get("id"),
        "name": function.get("name"),
        "input": _object(values),
    }


def _reason(choice: Mapping[str, Any]) -> str | None:
    reason = choice.get("finish_reason")
    return _REASONS.get(reason, "end_turn") if isinstance(reason, str) else None


def _usage(usage: object) -> Event:
    """Tokens. What caches spared is not known to be cheaper, and counts in full."""
    given = _object(usage)
    tokens = {
        "input_tokens": given.get("prompt_tokens"),
        "output_tokens": given.get("completion_tokens"),
    }
    return {name: count for name, count in tokens.items() if count is not None}


def _error(error: object) -> Event:
    given = _object(error)
    kind = given.get("type") or given.get("code") or "api_error"
    return {"type": str(kind), "message": str(given.get("message", error))}


def _first(choices: object) -> Event:
    return next(iter(_objects(choices)), {})


def _objects(value: object) -> list[Event]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _object(value: object) -> Event:
    return value if isinstance(value, dict) else {}
