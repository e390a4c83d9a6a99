"""Answers as OpenAI's responses give them, whole and as the events of that API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.providers.answer import bare_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.providers.answer import Answer, Counts, ToolCall
    from modelsplit_proxy.runtime.clock import Clock

Item = dict[str, Any]
_REFUSED: Final = "refusal"
# No item is under way.
_NOWHERE: Final = -1


class ResponsesWriter:
    """One response. ``fields``: the request, of which a response tells again what it was asked.

    Items come one after the other, but for calls of tools, of which several may be open.
    """

    def __init__(self, model: str, clock: Clock, fields: Mapping[str, Any]) -> None:
        self._model = model
        self._clock = clock
        self._created = int(clock.wall())
        self._fields = fields
        self._bare_id = ""
        self._sequence = 0
        self._output: list[Item] = []
        # The message or the thoughts under way: where it stands, and its pieces.
        self._at = _NOWHERE
        self._pieces: list[str] = []
        # Where each call stands.
        self._calls: dict[int, int] = {}

    # A stream.

    def began(self, answer: Answer) -> bytes:
        self._bare_id = bare_id(answer)
        begun = self._response("in_progress", [], None)
        created = self._event("response.created", response=begun)
        return created + self._event("response.in_progress", response=begun)

    def text(self, text: str) -> bytes:
        begun = self._turn_to("message")
        self._pieces.append(text)
        place = self._place(self._at, content_index=0)
        return begun + self._event("response.output_text.delta", **place, delta=text, logprobs=[])

    def thinking(self, text: str) -> bytes:
        begun = self._turn_to("reasoning")
        if not self._pieces:
            begun += self._thought(self._at, "part.added", part=_thought_part(""))
        self._pieces.append(text)
        return begun + self._thought(self._at, "text.delta", delta=text)

    def sealed(self, seal: str) -> bytes:
        begun = self._turn_to("reasoning")
        self._output[self._at]["encrypted_content"] = seal
        return begun + self._close()

    def call_began(self, index: int, call: ToolCall) -> bytes:
        closed = self._close()
        self._calls[index] = len(self._output)
        return closed + self._add(self._call(index, call, "in_progress"))

    def call_arguments(self, index: int, text: str) -> bytes:
        place = self._place(self._calls[index])
        return self._event("response.function_call_arguments.delta", **place, delta=text)

    def call_ended(self, index: int, call: ToolCall) -> bytes:
        # What is called without arguments is called with none, not with nothing.
        given = b"" if call.arguments else self.call_arguments(index, "{}")
        at = self._calls[index]
        self._output[at] = item = self._call(index, call, "completed")
        done = self._event(
            "response.function_call_arguments.done",
            **self._place(at),
            name=call.name,
            arguments=item["arguments"],
        )
        return given + done + self._done(at)

    def ended(self, answer: Answer) -> bytes:
        closed = self._close()
        status = _status(answer)
        whole = self._response(status, self._output, answer)
        return closed + self._event(f"response.{status}", response=whole)

    # At once.

    def whole(self, answer: Answer) -> bytes:
        self._bare_id = bare_id(answer)
        output: list[Item] = []
        for text, seal in answer.thoughts or [(answer.thinking, "")]:
            if text or seal:
                output.append(self._item("reasoning", len(output)) | _thoughts(text, seal))
        if answer.text or not answer.calls:
            output.append(self._item("message", len(output)) | _said(answer.text))
        output += [self._call(index, call, "completed") for index, call in enumerate(answer.calls)]
        return tellable.dumps(self._response(_status(answer), output, answer))

    # Items.

    def _turn_to(self, kind: str) -> bytes:
        """Begin another item, unless one of this kind is under way."""
        if self._at != _NOWHERE and self._output[self._at]["type"] == kind:
            return b""
        closed = self._close()
        at = len(self._output)
        item = self._item(kind, at)
        empty = {"summary": []} if kind == "reasoning" else {"content": [], "status": "in_progress"}
        self._at, self._pieces = at, []
        begun = closed + self._add(item | empty)
        if kind == "reasoning":
            return begun
        part = self._place(at, content_index=0) | {"part": _part("")}
        return begun + self._event("response.content_part.added", **part)

    def _close(self) -> bytes:
        """End the message or the thoughts under way."""
        if self._at == _NOWHERE:
            return b""
        at, self._at = self._at, _NOWHERE
        text, item = "".join(self._pieces), self._output[at]
        if item["type"] == "reasoning":
            self._output[at] = item | _thoughts(text, item.get("encrypted_content", ""))
            ended = b""
            if text:
                ended = self._thought(at, "text.done", text=text)
                ended += self._thought(at, "part.done", part=_thought_part(text))
            return ended + self._done(at)
        self._output[at] = item | _said(text)
        place = self._place(at, content_index=0)
        ended = self._event("response.output_text.done", **place, text=text, logprobs=[])
        ended += self._event("response.content_part.done", **place, part=_part(text))
        return ended + self._done(at)

    def _item(self, kind: str, at: int) -> Item:
        if kind == "reasoning":
            return {"id": f"rs_{self._bare_id}_{at}", "type": kind}
        return {"id": f"msg_{self._bare_id}_{at}", "type": kind, "role": "assistant"}

    def _call(self, index: int, call: ToolCall, status: str) -> Item:
        return {
            "id": f"fc_{self._bare_id}_{index}",
            "type": "function_call",
            "status": status,
            "call_id": call.id,
            "name": call.name,
            "arguments": "" if status == "in_progress" else call.arguments or "{}",
        }

    # Events.

    def _add(self, item: Item) -> bytes:
        self._output.append(item)
        at = len(self._output) - 1
        return self._event("response.output_item.added", output_index=at, item=item)

    def _done(self, at: int) -> bytes:
        return self._event("response.output_item.done", output_index=at, item=self._output[at])

    def _thought(self, at: int, what: str, **about: Any) -> bytes:
        place = self._place(at, summary_index=0)
        return self._event(f"response.reasoning_summary_{what}", **place, **about)

    def _place(self, at: int, **within: int) -> dict[str, Any]:
        return {"item_id": self._output[at]["id"], "output_index": at} | within

    def _event(self, kind: str, **about: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence} | about
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), tellable.dumps(event))

    def _response(self, status: str, output: list[Item], answer: Answer | None) -> Item:
        """The response, as it stands; ``answer``: None, it goes on."""
        asked, wall = self._fields, int(self._clock.wall())
        told = {name: value for name in _TOLD if (value := asked.get(name)) is not None}
        reason = (
            "content_filter" if answer and answer.stop_reason == _REFUSED else "max_output_tokens"
        )
        return (
            {
                "id": f"resp_{self._bare_id}",
                "object": "response",
                "created_at": self._created,
                "completed_at": wall if status == "completed" else None,
                "status": status,
                "incomplete_details": {"reason": reason} if status == "incomplete" else None,
                "model": self._model,
                "output": output,
                "error": None,
                "usage": None if answer is None else _usage(answer.counts),
            }
            | _USUAL
            | told
        )


# What a response says of a request that does not say it.
_USUAL: Final[dict[str, Any]] = {
    "previous_response_id": None,
    "instructions": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "top_p": 1.0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "reasoning": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": False,
    "background": False,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
}
# What it tells again as it was asked.
_TOLD: Final = (
    *("instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "top_p"),
    *("temperature", "reasoning", "max_output_tokens", "metadata"),
)


def _status(answer: Answer) -> str:
    is_short = answer.is_cut or answer.stop_reason == _REFUSED
    return "incomplete" if is_short else "completed"


def _part(text: str) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _said(text: str) -> Item:
    return {"content": [_part(text)], "status": "completed"}


def _thought_part(text: str) -> Item:
    return {"type": "summary_text", "text": text}


def _thoughts(text: str, seal: str) -> Item:
    summary = {"summary": [_thought_part(text)] if text else []}
    return summary | ({"encrypted_content": seal} if seal else {})


def _usage(counts: Counts) -> Item:
    prompt, output = counts.prompt or 0, counts.output or 0
    written = counts.cache_written + counts.cache_written_long
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": written},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": counts.thought},
        "total_tokens": prompt + output,
    }
