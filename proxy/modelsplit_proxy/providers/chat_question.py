"""A request in the form of the Messages API, as OpenAI's chat completions take it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SAME: Final = ("model", "max_tokens", "temperature", "top_p")
_CHOICES: Final = MappingProxyType({"auto": "auto", "any": "required", "none": "none"})


def of_question(body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request, and what of it has no counterpart there."""
    asked: dict[str, Any] = {name: body[name] for name in _SAME if name in body}
    asked["messages"] = list(_messages(body))
    if "stop_sequences" in body:
        asked["stop"] = body["stop_sequences"]
    if "tools" in body:
        asked["tools"] = [_tool(tool) for tool in body["tools"]]
        asked |= _choice(body.get("tool_choice", {}))
    if "output_config" in body:
        schema = body["output_config"]["format"]["schema"]
        named = {"name": "answer", "schema": schema}
        asked["response_format"] = {"type": "json_schema", "json_schema": named}
    if body.get("stream"):
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return asked, tuple(name for name in ("top_k", "thinking") if name in body)


def _messages(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if body.get("system"):
        yield {"role": "system", "content": _joined(body["system"])}
    for turn in body["messages"]:
        content = turn["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if turn["role"] == "assistant":
            yield _assistant(blocks)
        else:
            yield from _user(blocks)


def _user(blocks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Results of tools are messages of their own, and come first: they answer calls."""
    said: list[dict[str, Any]] = []
    for block in blocks:
        if block["type"] == "tool_result":
            content = _joined(block.get("content", ""))
            yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}
        elif block["type"] == "image":
            said.append({"type": "image_url", "image_url": {"url": _url(block["source"])}})
        else:
            said.append({"type": "text", "text": block.get("text", "")})
    if len(said) == 1 and said[0]["type"] == "text":
        yield {"role": "user", "content": said[0]["text"]}
    elif said:
        yield {"role": "user", "content": said}


def _assistant(blocks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    blocks = list(blocks)
    message: dict[str, Any] = {"role": "assistant", "content": _joined(blocks) or None}
    calls = [_call(block) for block in blocks if block["type"] == "tool_use"]
    return message | ({"tool_calls": calls} if calls else {})


def _call(block: dict[str, Any]) -> dict[str, Any]:
    arguments = orjson.dumps(block["input"]).decode()
    function = {"name": block["name"], "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    if "description" in tool:
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if choice.get("type") == "tool":
        asked["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif choice.get("type") in _CHOICES:
        asked["tool_choice"] = _CHOICES[choice["type"]]
    if choice.get("disable_parallel_tool_use"):
        asked["parallel_tool_calls"] = False
    return asked


def _joined(content: Any) -> str:
    """The texts of blocks, or the text that stands in their place."""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content if block.get("type") == "text")


def _url(source: dict[str, Any]) -> str:
    if source["type"] == "url":
        return str(source["url"])
    return f"data:{source['media_type']};base64,{source['data']}"
