"""How a generation looks on each API: bodies, lines and events, as observed."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .clock import NS, rfc3339, wall_ns
from .gojson import dumps
from .reply import JSON, JSON_UTF8, NDJSON, SSE, Headers

if TYPE_CHECKING:
    from .ask import Ask
    from .tools import ToolCall

_LEFT = "error reading llama-server response: context canceled"
_DIED = "an error was encountered while running the model: unexpected EOF"


@dataclass(slots=True)
class Result:
    """What came out. Durations in nanoseconds; reason is stop, length, load or unload.

    An empty reason means the run was cut off silently: observed as done:false without counts.
    """

    reason: str = ""
    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    total_ns: int = 0
    load_ns: int = 0
    prefill_ns: int = 0
    eval_ns: int = 0


class Dialect:
    """One generation's voice. A piece is what goes out as one chunk."""

    stream_headers: Headers = (("Content-Type", SSE),)
    whole_headers: Headers = (("Content-Type", JSON),)

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.created = wall_ns() // NS

    def opening(self) -> list[bytes]:
        """Sent with the first token."""
        return []

    def token(self, text: str) -> bytes:
        raise NotImplementedError

    def called(self, call: ToolCall) -> list[bytes]:
        """A tool call in a stream, instead of tokens."""
        raise NotImplementedError

    def closing(self, result: Result) -> list[bytes]:
        raise NotImplementedError

    def whole(self, result: Result) -> bytes:
        raise NotImplementedError

    def died(self) -> bytes:
        """The last piece after the runner died mid-stream; the framing still ends cleanly."""
        return b""

    def left(self) -> bytes:
        """The last piece for a client that half-closed mid-stream."""
        return b""


class Native(Dialect):
    """/api/chat and /api/generate."""

    stream_headers = (("Content-Type", NDJSON),)
    whole_headers = (("Content-Type", JSON_UTF8),)

    def _line(self, text: str) -> dict[str, Any]:
        answer: dict[str, Any] = {"response": text}
        if self.ask.chat:
            answer = {"message": {"role": "assistant", "content": text}}
        return {"model": self.ask.name, "created_at": rfc3339(wall_ns()), **answer}

    def _message(self, call: ToolCall) -> dict[str, Any]:
        return {"role": "assistant", "content": "", "tool_calls": [call.native()]}

    def token(self, text: str) -> bytes:
        return dumps(self._line(text) | {"done": False}) + b"\n"

    def called(self, call: ToolCall) -> list[bytes]:
        return [dumps(self._line("") | {"message": self._message(call), "done": False}) + b"\n"]

    def closing(self, result: Result) -> list[bytes]:
        return [dumps(self._last("", result)) + b"\n"]

    def whole(self, result: Result) -> bytes:
        if self.ask.call is None or not result.reason:
            return dumps(self._last(result.text, result))
        return dumps(self._last("", result) | {"message": self._message(self.ask.call)})

    def _last(self, text: str, result: Result) -> dict[str, Any]:
        if not result.reason:
            return self._line(text) | {"done": False}
        line = self._line(text) | {"done": True, "done_reason": result.reason}
        if result.reason in ("load", "unload"):
            return line
        if not self.ask.chat and not self.ask.raw:
            line["context"] = list(range(105, 105 + result.prompt_tokens + result.tokens))
        return line | {
            "total_duration": result.total_ns,
            "load_duration": result.load_ns,
            "prompt_eval_count": result.prompt_tokens,
            "prompt_eval_duration": result.prefill_ns,
            "eval_count": result.tokens,
            "eval_duration": result.eval_ns,
        }

    def died(self) -> bytes:
        return dumps({"error": _DIED}) + b"\n"

    def left(self) -> bytes:
        return dumps({"error": _LEFT}) + b"\n"


def _event(value: Any) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


def _named_event(value: dict[str, Any]) -> bytes:
    kind: str = value["type"]
    return b"event: " + kind.encode() + b"\n" + _event(value)


def _usage(result: Result) -> dict[str, int]:
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.tokens,
        "total_tokens": result.prompt_tokens + result.tokens,
    }


class OpenAIChat(Dialect):
    """/v1/chat/completions."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._id = f"chatcmpl-{random.randrange(1000)}"
        self._first = True

    def _base(self, kind: str, model: str, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self.created,
            "model": model,
            "system_fingerprint": "fp_ollama",
            "choices": choices,
        }

    def _chunk(self, delta: dict[str, Any], reason: str | None, model: str = "") -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return _event(self._base("chat.completion.chunk", model, [choice]))

    def token(self, text: str) -> bytes:
        role = {"role": "assistant"} if self._first else {}
        self._first = False
        return self._chunk(role | {"content": text}, None, self.ask.name)

    def called(self, call: ToolCall) -> list[bytes]:
        delta = {"role": "assistant", "content": "", "tool_calls": [call.openai()]}
        return [self._chunk(delta, None, self.ask.name)]

    def _reason(self, result: Result) -> str | None:
        return "tool_calls" if self.ask.call and result.reason else result.reason or None

    def closing(self, result: Result) -> list[bytes]:
        pieces = [self._chunk({}, self._reason(result), self.ask.name)]
        if self.ask.usage:
            base = self._base("chat.completion.chunk", self.ask.name, [])
            pieces.append(_event(base | {"usage": _usage(result)}))
        return [*pieces, b"data: [DONE]\n\n"]

    def whole(self, result: Result) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": result.text}
        if self.ask.call is not None:
            message |= {"content": "", "tool_calls": [self.ask.call.openai()]}
        choice = {"index": 0, "message": message, "finish_reason": self._reason(result)}
        base = self._base("chat.completion", self.ask.name, [choice])
        return dumps(base | {"usage": _usage(result)}) + b"\n"

    def died(self) -> bytes:
        """Observed: an empty chunk with no model; the error text is lost."""
        return self._chunk({"content": ""}, None)

    def left(self) -> bytes:
        return self.died()


class OpenAICompletion(Dialect):
    """/v1/completions."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._id = f"cmpl-{random.randrange(1000)}"

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "object": "text_completion", "created": self.created}

    def _chunk(self, text: str, reason: str | None, model: str) -> dict[str, Any]:
        choice = {"text": text, "index": 0, "finish_reason": reason}
        rest = {"model": model, "system_fingerprint": "fp_ollama"}
        return self._head() | {"choices": [choice]} | rest

    def token(self, text: str) -> bytes:
        return _event(self._chunk(text, None, self.ask.name))

    def closing(self, result: Result) -> list[bytes]:
        pieces = [_event(self._chunk("", result.reason, self.ask.name))]
        if self.ask.usage:
            last = self._chunk("", None, self.ask.name) | {"choices": []}
            pieces.append(_event(last | {"usage": _usage(result)}))
        return [*pieces, b"data: [DONE]\n\n"]

    def whole(self, result: Result) -> bytes:
        choice = {"text": result.text, "index": 0, "finish_reason": result.reason or None}
        rest = {"model": self.ask.name, "system_fingerprint": "fp_ollama", "choices": [choice]}
        return dumps(self._head() | rest | {"usage": _usage(result)}) + b"\n"

    def died(self) -> bytes:
        return _event(self._chunk("", None, ""))

    def left(self) -> bytes:
        return self.died()


_STREAMED_EVENTS: Headers = (
    ("Cache-Control", "no-cache"),
    ("Connection", "keep-alive"),
    ("Content-Type", SSE),
)


class Anthropic(Dialect):
    """/v1/messages."""

    stream_headers = _STREAMED_EVENTS
    _REASONS = {"length": "max_tokens", "stop": "end_turn"}  # noqa: RUF012 - read only

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._id = f"msg_{secrets.token_hex(12)}"

    def _message(self, content: list[Any]) -> dict[str, Any]:
        head = {"id": self._id, "type": "message", "role": "assistant", "model": self.ask.name}
        return head | {"content": content}

    def opening(self) -> list[bytes]:
        # Observed: message_start carries an estimate of the prompt, smaller than the real count.
        usage = {"input_tokens": max(1, self.ask.prompt_tokens - 9), "output_tokens": 0}
        block = {"type": "text", "text": ""}
        start = {"type": "content_block_start", "index": 0, "content_block": block}
        message = self._message([]) | {"usage": usage}
        begun = _named_event({"type": "message_start", "message": message})
        return [begun] if self.ask.call is not None else [begun, _named_event(start)]

    def token(self, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return _named_event({"type": "content_block_delta", "index": 0, "delta": delta})

    def called(self, call: ToolCall) -> list[bytes]:
        block = {"index": 0, "content_block": call.anthropic({})}
        delta = {"type": "input_json_delta", "partial_json": call.json}
        return [
            _named_event({"type": "content_block_start", **block}),
            _named_event({"type": "content_block_delta", "index": 0, "delta": delta}),
        ]

    def _reason(self, result: Result) -> str:
        return "tool_use" if self.ask.call is not None else self._REASONS[result.reason]

    def closing(self, result: Result) -> list[bytes]:
        delta = {"stop_reason": self._reason(result)}
        last = {"type": "message_delta", "delta": delta, "usage": self._usage(result)}
        return [
            _named_event({"type": "content_block_stop", "index": 0}),
            _named_event(last),
            _named_event({"type": "message_stop"}),
        ]

    def whole(self, result: Result) -> bytes:
        call = self.ask.call
        block: dict[str, Any] = {"type": "text", "text": result.text}
        message = self._message([call.anthropic(call.arguments) if call else block])
        if result.reason:
            message["stop_reason"] = self._reason(result)
        return dumps(message | {"usage": self._usage(result)}) + b"\n"

    @staticmethod
    def _usage(result: Result) -> dict[str, int]:
        return {"input_tokens": result.prompt_tokens, "output_tokens": result.tokens}
