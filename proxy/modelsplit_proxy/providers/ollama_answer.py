"""Answers as Ollama's own two routes give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.runtime.clock import rfc3339

if TYPE_CHECKING:
    from modelsplit_proxy.providers.answer import Answer, ToolCall
    from modelsplit_proxy.runtime.clock import Clock

_NS: Final = 1_000_000_000


class OllamaWriter:
    """Lines of JSON. ``chats``: of ``/api/chat``, else of ``/api/generate``."""

    def __init__(self, model: str, clock: Clock, *, chats: bool) -> None:
        self._model = model
        self._clock = clock
        self._chats = chats
        self._asked = clock.now()
        self._begun: float | None = None

    def began(self, answer: Answer) -> bytes:
        del answer
        return b""

    def text(self, text: str) -> bytes:
        return self._line(self._said(text))

    def thinking(self, text: str) -> bytes:
        return self._line(self._said("", thinking=text))

    def sealed(self, seal: str) -> bytes:
        del seal
        return b""

    def call_began(self, index: int, call: ToolCall) -> bytes:
        del index, call
        return b""

    def call_arguments(self, index: int, text: str) -> bytes:
        del index, text
        return b""

    def call_ended(self, index: int, call: ToolCall) -> bytes:
        return self._line(self._said("", calls=[_call(index, call)]))

    def ended(self, answer: Answer) -> bytes:
        return self._dumped(self._said("") | self._end(answer))

    def whole(self, answer: Answer) -> bytes:
        calls = [_call(index, call) for index, call in enumerate(answer.calls)]
        said = self._said(answer.text, thinking=answer.thinking, calls=calls)
        return self._dumped(said | self._end(answer)).rstrip()

    def _said(
        self, text: str, *, thinking: str = "", calls: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        thought = {"thinking": thinking} if thinking else {}
        if not self._chats:
            return {"response": text} | thought
        called = {"tool_calls": calls} if calls else {}
        return {"message": {"role": "assistant", "content": text} | thought | called}

    def _line(self, said: dict[str, Any]) -> bytes:
        if self._begun is None:
            self._begun = self._clock.now()
        return self._dumped(said | {"done": False})

    def _end(self, answer: Answer) -> dict[str, Any]:
        now = self._clock.now()
        begun = now if self._begun is None else self._begun
        end: dict[str, Any] = {
            "done": True,
            "done_reason": "length" if answer.is_cut else "stop",
            "total_duration": round((now - self._asked) * _NS),
            "load_duration": 0,
        }
        if answer.counts.prompt is not None:
            end["prompt_eval_count"] = answer.counts.prompt
        end["prompt_eval_duration"] = round((begun - self._asked) * _NS)
        if answer.counts.output is not None:
            end["eval_count"] = answer.counts.output
        return end | {"eval_duration": round((now - begun) * _NS)}

    def _dumped(self, said: dict[str, Any]) -> bytes:
        head = {"model": self._model, "created_at": rfc3339(self._clock.wall())}
        return tellable.dumps(head | said) + b"\n"


def _call(index: int, call: ToolCall) -> dict[str, Any]:
    function = {"index": index, "name": call.name, "arguments": call.values}
    return {"id": call.id, "function": function}


def said_loaded(model: str, reason: str, clock: Clock, *, chats: bool) -> bytes:
    """What Ollama answers to a call that asks nothing. ``reason``: load or unload."""
    message = {"message": {"role": "assistant", "content": ""}} if chats else {"response": ""}
    head = {"model": model, "created_at": rfc3339(clock.wall())}
    return tellable.dumps(head | message | {"done": True, "done_reason": reason})
