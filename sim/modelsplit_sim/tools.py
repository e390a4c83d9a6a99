"""Tool calls: what a model that can call tools answers to a request that offers some.

Not observed, for the model of the recordings could call none: read in Ollama's source. A call
comes in one piece, however it is streamed.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import gojson, text

if TYPE_CHECKING:
    from .gojson import Fields


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of one tool."""

    name: str
    arguments: dict[str, Any]
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(4)}")

    @property
    def json(self) -> str:
        """The arguments as JSON."""
        return text.compact(self.arguments)

    def native(self) -> dict[str, Any]:
        function = {"index": 0, "name": self.name, "arguments": self.arguments}
        return {"id": self.id, "function": function}

    def openai(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.json}
        return {"id": self.id, "index": 0, "type": "function", "function": function}

    def anthropic(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """A block; a stream opens it with no arguments and sends them behind it."""
        return {"type": "tool_use", "id": self.id, "name": self.name, "input": arguments}


def tool_call(fields: Fields) -> ToolCall | None:
    """A call of the first tool on offer, with the plainest arguments that its schema allows.

    None if no tool is on offer, or if one has just answered.
    """
    offered = [gojson.fold(item) for item in fields.get("tools") or [] if isinstance(item, dict)]
    if not offered or _tool_has_answered(fields.get("messages") or fields.get("input")):
        return None
    # Anthropic and the responses API do not wrap a tool in "function".
    tool = gojson.fold(offered[0].get("function") or offered[0])
    schema = tool.get("parameters") or tool.get("input_schema") or {"type": "object"}
    try:
        arguments = text.fit(schema, schema, "argument")
    except text.SchemaError:
        arguments = {}
    return ToolCall(str(tool.get("name") or ""), arguments)


def _tool_has_answered(messages: Any) -> bool:
    """Whether the last message is what a tool said, in any of the dialects."""
    last = messages[-1] if isinstance(messages, list) and messages else {}
    last = gojson.fold(last) if isinstance(last, dict) else {}
    parts = last.get("content")
    blocks = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    said = {last.get("role"), last.get("type"), *(block.get("type") for block in blocks)}
    return not said.isdisjoint({"tool", "function_call_output", "tool_result"})
