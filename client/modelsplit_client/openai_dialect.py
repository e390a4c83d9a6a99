"""OpenAI's API as Ollama serves it: ``/v1/chat/completions``, streams as server-sent events."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_client.answers import Piece, Said, ToolCall
from modelsplit_client.calls import with_system

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelsplit_client.calls import Call

    Object = Mapping[str, Any]

# Ollama's name of an option -> OpenAI's, at the top of the body.
OPTIONS: Final = MappingProxyType(
    {
        "num_predict": "max_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "seed": "seed",
        "stop": "stop",
        "frequency_penalty": "frequency_penalty",
        "presence_penalty": "presence_penalty",
    }
)
_DONE: Final = b"[DONE]"


class OpenAIDialect:
    """See ``Speaks``."""

    def path(self, call: Call) -> str:
        del call
        return "/v1/chat/completions"

    def body(self, call: Call) -> dict[str, Any]:
        prompt = [{"role": "user", "content": call.prompt}]
        built: dict[str, Any] = {
            "model": call.options.get("model", ""),
            "messages": with_system(call, prompt if call.messages is None else call.messages),
            "stream": call.stream,
        }
        if call.stream:
            built["stream_options"] = {"include_usage": True}
        if call.tools:
            built["tools"] = list(call.tools)
        if call.json_schema is not None:
            shape = {"name": "answer", "schema": call.json_schema, "strict": True}
            built["response_format"] = {"type": "json_schema", "json_schema": shape}
        if "think" in call.options:
            built["reasoning_effort"] = _effort(call.options["think"])
        for name, value in call.options.get("options", {}).items():
            built[_option(name)] = value
        return built | dict(call.options.get("extra", {}))

    def whole(self, body: Object) -> Said | None:
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices:
            return None
        message = choices[0].get("message") or {}
        return Said(
            text=str(message.get("content") or ""),
            thinking=str(message.get("reasoning") or ""),
            tool_calls=tuple(map(_tool_call, message.get("tool_calls") or ())),
            finish=choices[0].get("finish_reason"),
            tokens=_tokens(body),
            message=message,
        )

    def payload(self, line: bytes) -> bytes:
        return line[5:].strip() if line.startswith(b"data:") else b""

    def piece(self, sent: Object) -> Piece | None:
        delta = _delta(sent)
        text, thinking = delta.get("content"), delta.get("reasoning")
        return Piece(str(text or ""), str(thinking or "")) if text or thinking else None

    def tells_more(self, sent: Object) -> bool:
        choice = _choice(sent)
        return bool(
            choice.get("finish_reason") or _delta(sent).get("tool_calls") or sent.get("usage")
        )

    def ends(self, payload: bytes, sent: Object) -> bool:
        del sent
        return payload == _DONE

    def collected(self, objects: Sequence[Object], text: str, thinking: str) -> Said:
        calls = _assembled(objects)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = calls
        reasons = [_choice(sent).get("finish_reason") for sent in objects]
        return Said(
            text=text,
            thinking=thinking,
            tool_calls=tuple(map(_tool_call, calls)),
            finish=next((reason for reason in reversed(reasons) if reason), None),
            tokens=next(filter(any, map(_tokens, reversed(objects))), (None, None)),
            message=message,
        )


def _effort(think: bool | str) -> str:
    if isinstance(think, str):
        return think
    return "medium" if think else "none"


def _option(name: str) -> str:
    if name not in OPTIONS:
        known = ", ".join(sorted(OPTIONS))
        raise ValueError(f"the openai dialect has no option {name!r}; it has {known}")
    return OPTIONS[name]


def _choice(sent: Object) -> Object:
    choices = sent.get("choices")
    return choices[0] if isinstance(choices, list) and choices else {}


def _delta(sent: Object) -> Object:
    return _choice(sent).get("delta") or {}


def _tokens(sent: Object) -> tuple[int | None, int | None]:
    usage = sent.get("usage") or {}
    return usage.get("prompt_tokens"), usage.get("completion_tokens")


def _assembled(objects: Sequence[Object]) -> list[dict[str, Any]]:
    """Tool calls whose arguments came in parts, each under its index."""
    calls: dict[Any, dict[str, Any]] = {}
    for part in (part for sent in objects for part in _delta(sent).get("tool_calls") or ()):
        whole = calls.setdefault(
            part.get("index"),
            {"id": "", "type": "function", "function": {"name": "", "arguments": ""}},
        )
        whole["id"] = part.get("id") or whole["id"]
        function = part.get("function") or {}
        whole["function"]["name"] += function.get("name") or ""
        whole["function"]["arguments"] += function.get("arguments") or ""
    return list(calls.values())


def _tool_call(raw: Object) -> ToolCall:
    function = raw.get("function") or {}
    arguments = str(function.get("arguments") or "")
    return ToolCall(str(function.get("name")), arguments, str(raw.get("id") or ""))
