"""Ollama's own API: ``/api/generate`` and ``/api/chat``, streams as lines of JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from modelsplit_client.answers import Piece, Said, ToolCall
from modelsplit_client.calls import with_system
from modelsplit_client.dialect import part, parts, word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelsplit_client.calls import Call

    Object = Mapping[str, Any]


class OllamaDialect:
    """See ``Speaks``."""

    def path(self, call: Call) -> str:
        return "/api/generate" if call.messages is None else "/api/chat"

    def body(self, call: Call) -> dict[str, Any]:
        built: dict[str, Any] = {"model": call.options.get("model", ""), "stream": call.stream}
        if call.messages is None:
            built["prompt"] = call.prompt
            if call.system:
                built["system"] = call.system
        else:
            built["messages"] = with_system(call, call.messages)
        if call.tools:
            built["tools"] = list(call.tools)
        if call.json_schema is not None:
            built["format"] = call.json_schema
        if "think" in call.options:
            built["think"] = call.options["think"]
        if options := call.options.get("options"):
            built["options"] = dict(options)
        return built | dict(call.options.get("extra", {}))

    def whole(self, body: Object) -> Said | None:
        if "response" not in body and not isinstance(body.get("message"), dict):
            return None
        message = _message(body)
        return _said([body], word(message, "content"), word(message, "thinking"))

    def payload(self, line: bytes) -> bytes:
        return line.strip()

    def piece(self, sent: Object) -> Piece | None:
        message = _message(sent)
        text, thinking = word(message, "content"), word(message, "thinking")
        return Piece(text, thinking) if text or thinking else None

    def tells_more(self, sent: Object) -> bool:
        return sent.get("done") is True or bool(parts(_message(sent), "tool_calls"))

    def ends(self, payload: bytes, sent: Object) -> bool:
        del payload
        return sent.get("done") is True

    def collected(self, objects: Sequence[Object], text: str, thinking: str) -> Said:
        return _said(objects, text, thinking)


def _message(sent: Object) -> Object:
    """The message of ``/api/chat``, or what ``/api/generate`` says, as one."""
    message = sent.get("message")
    if isinstance(message, dict):
        return message
    return {"content": sent.get("response"), "thinking": sent.get("thinking")}


def _said(objects: Sequence[Object], text: str, thinking: str) -> Said:
    raw = [call for sent in objects for call in parts(_message(sent), "tool_calls")]
    last = objects[-1] if objects else {}
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thinking:
        message["thinking"] = thinking
    if raw:
        message["tool_calls"] = raw
    return Said(
        text=text,
        thinking=thinking,
        tool_calls=tuple(_tool_call(call) for call in raw),
        finish=word(last, "done_reason") or None,
        tokens=(last.get("prompt_eval_count"), last.get("eval_count")),
        message=message,
    )


def _tool_call(raw: Object) -> ToolCall:
    function = part(raw, "function")
    arguments = json.dumps(function.get("arguments"))
    return ToolCall(word(function, "name"), arguments, word(raw, "id"))
