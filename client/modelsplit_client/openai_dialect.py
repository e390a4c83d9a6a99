"""OpenAI's API as Ollama serves it: ``/v1/chat/completions``, streams as server-sent events."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_client.answers import Piece, Said, ToolCall
from modelsplit_client.calls import with_system
from modelsplit_client.dialect import part, parts, word

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
        if not parts(body, "choices"):
            return None
        message = part(_choice(body), "message")
        return Said(
            text=word(message, "content"),
            thinking=word(message, "reasoning"),
            tool_calls=tuple(map(_tool_call, parts(message, "tool_calls"))),
            finish=word(_choice(body), "finish_reason") or None,
            tokens=_tokens(body),
            message=message,
        )

    def payload(self, line: bytes) -> bytes:
        return line[5:].strip() if line.startswith(b"data:") else b""

    def piece(self, sent: Object) -> Piece | None:
        delta = _delta(sent)
        text, thinking = word(delta, "content"), word(delta, "reasoning")
        return Piece(text, thinking) if text or thinking else None

    def tells_more(self, sent: Object) -> bool:
        choice = _choice(sent)
        return bool(
            choice.get("finish_reason") or _delta(sent).get("tool_calls") or part(sent, "usage")
        )

    def ends(self, payload: bytes, sent: Object) -> bool:
        del sent
        return payload == _DONE

    def collected(self, objects: Sequence[Object], text: str, thinking: str) -> Said:
        calls = _assembled(objects)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = calls
        reasons = [word(_choice(sent), "finish_reason") for sent in objects]
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
    return next(iter(parts(sent, "choices")), {})


def _delta(sent: Object) -> Object:
    return part(_choice(sent), "delta")


def _tokens(sent: Object) -> tuple[int | None, int | None]:
    usage = part(sent, "usage")
    return usage.get("prompt_tokens"), usage.get("completion_tokens")


def _assembled(objects: Sequence[Object]) -> list[dict[str, Any]]:
    """Tool calls whose arguments came in parts, each under its index."""
    calls: dict[str, dict[str, Any]] = {}
    for piece in (piece for sent in objects for piece in parts(_delta(sent), "tool_calls")):
        whole = calls.setdefault(
            str(piece.get("index")),
            {"id": "", "type": "function", "function": {"name": "", "arguments": ""}},
        )
        whole["id"] = word(piece, "id") or whole["id"]
        function = part(piece, "function")
        whole["function"]["name"] += word(function, "name")
        whole["function"]["arguments"] += word(function, "arguments")
    return list(calls.values())


def _tool_call(raw: Object) -> ToolCall:
    function = part(raw, "function")
    return ToolCall(word(function, "name"), word(function, "arguments"), word(raw, "id"))
