"""/v1/responses: the events and the whole object, as observed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from .clock import NS, wall_ns
from .dialects import Dialect, Result
from .gojson import dumps
from .reply import SSE, Headers

if TYPE_CHECKING:
    from .ask import Ask
    from .tools import ToolCall

# The order in which a whole answer names its fields; events name theirs by alphabet.
_WHOLE_ORDER = [
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "incomplete_details",
    "model",
    "previous_response_id",
    "instructions",
    "output",
    "error",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "reasoning",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "store",
    "background",
    "service_tier",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
]


class Responses(Dialect):
    """Keeps the sequence number and the text so far, because the last events repeat them."""

    stream_headers: Headers = (
        ("Cache-Control", "no-cache"),
        ("Connection", "keep-alive"),
        ("Content-Type", SSE),
    )

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._id = f"resp_{random.randrange(1_000_000)}"
        self._item = f"msg_{random.randrange(1_000_000)}"
        self._sequence = 0
        self._text: list[str] = []

    def _event(self, kind: str, **fields: Any) -> bytes:
        fields |= {"sequence_number": self._sequence, "type": kind}
        self._sequence += 1
        ordered = {key: fields[key] for key in sorted(fields)}
        return b"event: " + kind.encode() + b"\ndata: " + dumps(ordered) + b"\n\n"

    def opening(self) -> list[bytes]:
        started = _sorted(self._object("in_progress", [], None))
        item = {"content": [], "id": self._item, "role": "assistant"}
        item |= {"status": "in_progress", "type": "message"}
        part = {"annotations": [], "logprobs": [], "text": "", "type": "output_text"}
        where = {"item_id": self._item, "output_index": 0, "content_index": 0}
        begun = [
            self._event("response.created", response=started),
            self._event("response.in_progress", response=started),
        ]
        if self.ask.call is not None:
            return begun
        return [
            *begun,
            self._event("response.output_item.added", item=item, output_index=0),
            self._event("response.content_part.added", part=part, **where),
        ]

    def token(self, text: str) -> bytes:
        self._text.append(text)
        where = {"item_id": self._item, "output_index": 0, "content_index": 0}
        return self._event("response.output_text.delta", delta=text, logprobs=[], **where)

    def _call_item(self, call: ToolCall, status: str) -> dict[str, Any]:
        arguments = call.json if status == "completed" else ""
        item = {"id": f"fc_{self._id}_0", "type": "function_call", "status": status}
        return item | {"call_id": call.id, "name": call.name, "arguments": arguments}

    def called(self, call: ToolCall) -> list[bytes]:
        item = self._call_item(call, "completed")
        where = {"item_id": item["id"], "output_index": 0}
        begun = self._call_item(call, "in_progress")
        return [
            self._event("response.output_item.added", item=begun, output_index=0),
            self._event("response.function_call_arguments.delta", delta=call.json, **where),
            self._event("response.function_call_arguments.done", arguments=call.json, **where),
            self._event("response.output_item.done", item=item, output_index=0),
        ]

    def closing(self, result: Result) -> list[bytes]:
        if self.ask.call is not None:
            item = self._call_item(self.ask.call, "completed")
            whole = _sorted(self._object("completed", [item], result))
            return [self._event("response.completed", response=whole)]
        text = "".join(self._text)
        where = {"item_id": self._item, "output_index": 0, "content_index": 0}
        part = {"annotations": [], "logprobs": [], "text": text, "type": "output_text"}
        item = {"content": [part], "id": self._item, "role": "assistant"}
        item |= {"status": "completed", "type": "message"}
        whole = _sorted(self._object("completed", [item], result))
        return [
            self._event("response.output_text.done", text=text, logprobs=[], **where),
            self._event("response.content_part.done", part=part, **where),
            self._event("response.output_item.done", item=item, output_index=0),
            self._event("response.completed", response=whole),
        ]

    def whole(self, result: Result) -> bytes:
        part = {"type": "output_text", "text": result.text, "annotations": [], "logprobs": []}
        item: dict[str, Any] = {"id": self._item, "type": "message", "status": "completed"}
        item |= {"role": "assistant", "content": [part]}
        if self.ask.call is not None:
            item = self._call_item(self.ask.call, "completed")
        whole = self._object("completed", [item], result)
        return dumps({key: whole[key] for key in _WHOLE_ORDER}) + b"\n"

    def _object(self, status: str, output: list[Any], result: Result | None) -> dict[str, Any]:
        absent = (
            "error incomplete_details instructions max_tool_calls previous_response_id "
            "prompt_cache_key reasoning safety_identifier"
        )
        return dict.fromkeys(absent.split()) | {
            "background": False,
            "completed_at": wall_ns() // NS if result else None,
            "created_at": self.created,
            "frequency_penalty": 0,
            "id": self._id,
            "max_output_tokens": self.ask.limit,
            "metadata": {},
            "model": self.ask.name,
            "object": "response",
            "output": output,
            "parallel_tool_calls": True,
            "presence_penalty": 0,
            "service_tier": "default",
            "status": status,
            "store": False,
            "temperature": 1,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": 0,
            "top_p": 1,
            "truncation": "disabled",
            "usage": _usage(result) if result else None,
        }


def _usage(result: Result) -> dict[str, Any]:
    return {
        "input_tokens": result.prompt_tokens,
        "output_tokens": result.tokens,
        "total_tokens": result.prompt_tokens + result.tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }


def _sorted(value: dict[str, Any]) -> dict[str, Any]:
    ordered = {key: value[key] for key in sorted(value)}
    if ordered["usage"]:
        ordered["usage"] = dict(sorted(ordered["usage"].items()))
    return ordered
