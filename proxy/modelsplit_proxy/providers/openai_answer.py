"""Answers as OpenAI's chat completions and completions give them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.providers.answer import bare_id
from modelsplit_proxy.providers.messages import SilentWriter

if TYPE_CHECKING:
    from modelsplit_proxy.providers.answer import Answer, Counts, ToolCall
    from modelsplit_proxy.runtime.clock import Clock

# Any other reason is "stop".
_REASONS: Final = MappingProxyType(
    {
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "tool_use": "tool_calls",
        "refusal": "content_filter",
    }
)
_CHUNK: Final = "chat.completion.chunk"
_COMPLETION: Final = "text_completion"
_DONE: Final = b"data: [DONE]\n\n"


class _Writer:
    """What every object begins with. ``tells_usage``: the client asked for it in the stream."""

    def __init__(self, model: str, clock: Clock, *, tells_usage: bool) -> None:
        self._model = model
        self._created = int(clock.wall())
        self._tells_usage = tells_usage
        self._id = ""

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}


class OpenAIWriter(_Writer):
    """Chunks as events."""

    def began(self, answer: Answer) -> bytes:
        self._id = _id_of(answer)
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def thinking(self, text: str) -> bytes:
        return self._chunk({"reasoning": text})

    def sealed(self, seal: str) -> bytes:
        del seal
        return b""

    def call_began(self, index: int, call: ToolCall) -> bytes:
        function = {"name": call.name, "arguments": ""}
        return self._called(index, {"id": call.id, "type": "function", "function": function})

    def call_arguments(self, index: int, text: str) -> bytes:
        return self._called(index, {"function": {"arguments": text}})

    def call_ended(self, index: int, call: ToolCall) -> bytes:
        # What is called without arguments is called with none, not with nothing.
        return b"" if call.arguments else self.call_arguments(index, "{}")

    def ended(self, answer: Answer) -> bytes:
        last = self._chunk({}, _finish(answer))
        if self._tells_usage:
            last += _event(self._head(_CHUNK) | {"choices": [], "usage": _usage(answer.counts)})
        return last + _DONE

    def whole(self, answer: Answer) -> bytes:
        self._id = _id_of(answer)
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.thinking:
            message["reasoning"] = answer.thinking
        if answer.calls:
            message["content"] = answer.text or None
            message["tool_calls"] = [_call(call) for call in answer.calls]
        choice = {"index": 0, "message": message, "finish_reason": _finish(answer)}
        whole = self._head("chat.completion") | {"choices": [choice]}
        return tellable.dumps(whole | {"usage": _usage(answer.counts)})

    def _called(self, index: int, call: dict[str, Any]) -> bytes:
        return self._chunk({"tool_calls": [{"index": index} | call]})

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _event(self._head(_CHUNK) | {"choices": [choice]})


class CompletionWriter(_Writer, SilentWriter):
    """The same of a completion, which is nothing but text."""

    def began(self, answer: Answer) -> bytes:
        self._id = _id_of(answer, "cmpl")
        return b""

    def text(self, text: str) -> bytes:
        return _event(self._head(_COMPLETION) | {"choices": [self._choice(text)]})

    def ended(self, answer: Answer) -> bytes:
        last = _event(self._head(_COMPLETION) | {"choices": [self._choice("", _finish(answer))]})
        if self._tells_usage:
            last += _event(
                self._head(_COMPLETION) | {"choices": [], "usage": _usage(answer.counts)}
            )
        return last + _DONE

    def whole(self, answer: Answer) -> bytes:
        self._id = _id_of(answer, "cmpl")
        choice = self._choice(answer.text, _finish(answer))
        return tellable.dumps(
            self._head(_COMPLETION) | {"choices": [choice], "usage": _usage(answer.counts)}
        )

    def _choice(self, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + tellable.dumps(value) + b"\n\n"


def _id_of(answer: Answer, kind: str = "chatcmpl") -> str:
    return f"{kind}-{bare_id(answer)}"


def _finish(answer: Answer) -> str:
    return _REASONS.get(answer.stop_reason or "", "stop")


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def _usage(counts: Counts) -> dict[str, Any]:
    prompt, output = counts.prompt or 0, counts.output or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": counts.cached},
        "completion_tokens_details": {"reasoning_tokens": counts.thought},
    }
