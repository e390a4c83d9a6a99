"""Answers as the Messages API gives them, of providers that speak another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.providers.answer import bare_id

if TYPE_CHECKING:
    from modelsplit_proxy.providers.answer import Answer, Counts, ToolCall

# No block is open.
_NOWHERE: Final = -1


class MessagesWriter:
    """One message. Blocks come one after the other, but for calls of tools."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._next = 0
        # The text or the thoughts under way: its index, and which of them it is.
        self._at = _NOWHERE
        self._kind = ""
        self._calls: dict[int, int] = {}

    def began(self, answer: Answer) -> bytes:
        return _event("message_start", message=self._message(answer, [], None))

    def text(self, text: str) -> bytes:
        begun = self._turn_to("text", {"text": ""})
        return begun + self._delta(self._at, "text_delta", text=text)

    def thinking(self, text: str) -> bytes:
        # Nobody has signed them, so they prove nothing when they come back.
        begun = self._turn_to("thinking", {"thinking": "", "signature": ""})
        return begun + self._delta(self._at, "thinking_delta", thinking=text)

    def sealed(self, seal: str) -> bytes:
        del seal
        return b""

    def call_began(self, index: int, call: ToolCall) -> bytes:
        closed = self._close()
        self._calls[index] = self._next
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        return closed + self._open(block)

    def call_arguments(self, index: int, text: str) -> bytes:
        return self._delta(self._calls[index], "input_json_delta", partial_json=text)

    def call_ended(self, index: int, call: ToolCall) -> bytes:
        del call
        return _event("content_block_stop", index=self._calls[index])

    def ended(self, answer: Answer) -> bytes:
        delta = {"stop_reason": answer.stop_reason, "stop_sequence": None}
        last = _event("message_delta", delta=delta, usage=_usage(answer.counts))
        return self._close() + last + _event("message_stop")

    def whole(self, answer: Answer) -> bytes:
        blocks: list[dict[str, Any]] = []
        if answer.thinking:
            blocks.append({"type": "thinking", "thinking": answer.thinking, "signature": ""})
        if answer.text:
            blocks.append({"type": "text", "text": answer.text})
        blocks += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": call.values}
            for call in answer.calls
        ]
        return tellable.dumps(self._message(answer, blocks, answer.stop_reason))

    def _message(
        self, answer: Answer, blocks: list[dict[str, Any]], reason: str | None
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{bare_id(answer)}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": blocks,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": _usage(answer.counts),
        }

    def _turn_to(self, kind: str, empty: dict[str, Any]) -> bytes:
        if self._at != _NOWHERE and self._kind == kind:
            return b""
        closed = self._close()
        self._at, self._kind = self._next, kind
        return closed + self._open({"type": kind} | empty)

    def _open(self, block: dict[str, Any]) -> bytes:
        index = self._next
        self._next += 1
        return _event("content_block_start", index=index, content_block=block)

    def _close(self) -> bytes:
        if self._at == _NOWHERE:
            return b""
        at, self._at = self._at, _NOWHERE
        return _event("content_block_stop", index=at)

    def _delta(self, index: int, kind: str, **piece: str) -> bytes:
        return _event("content_block_delta", index=index, delta={"type": kind} | piece)


def _event(kind: str, **about: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), tellable.dumps({"type": kind} | about))


def _usage(counts: Counts) -> dict[str, Any]:
    """What caches spared is told beside what they did not, as the API does."""
    fresh = (counts.fresh or 0) - counts.cached_in_full
    return {
        "input_tokens": max(0, fresh),
        "cache_creation_input_tokens": counts.cache_written + counts.cache_written_long,
        "cache_read_input_tokens": counts.cached,
        "output_tokens": counts.output or 0,
        "output_tokens_details": {"thinking_tokens": counts.thought},
    }
