"""What a provider of the Messages API says, as tests want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from modelsplit_proxy.providers.answer import AnswerStream
from modelsplit_proxy.providers.events import EventReader

if TYPE_CHECKING:
    from typing import Any

    from modelsplit_proxy.providers.answer import Writer


class StoppedClock:
    """It is always the same moment, until somebody moves it."""

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self.at = 0.0
        self._wall = wall

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self._wall + self.at


def event(kind: str, **fields: Any) -> bytes:
    body = orjson.dumps({"type": kind} | fields)
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)


def start(**usage: int) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    given = {"input_tokens": 10, "output_tokens": 1} | usage
    return event("message_start", message=message | {"usage": given})


def block(index: int, kind: str, **fields: Any) -> bytes:
    return event("content_block_start", index=index, content_block={"type": kind} | fields)


def delta(index: int, kind: str, **fields: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind} | fields)


def stop(index: int) -> bytes:
    return event("content_block_stop", index=index)


def end(reason: str = "end_turn", **usage: int) -> bytes:
    given = {"output_tokens": 7} | usage
    last = event("message_delta", delta={"stop_reason": reason}, usage=given)
    return last + event("message_stop")


def text(*pieces: str, index: int = 0) -> bytes:
    deltas = b"".join(delta(index, "text_delta", text=piece) for piece in pieces)
    return block(index, "text", text="") + deltas + stop(index)


def tool(name: str, *pieces: str, index: int = 0, call_id: str = "toolu_1") -> bytes:
    begun = block(index, "tool_use", id=call_id, name=name, input={})
    deltas = b"".join(delta(index, "input_json_delta", partial_json=piece) for piece in pieces)
    return begun + deltas + stop(index)


def translated(writer: Writer, stream: bytes, *, by_tool: bool = False) -> bytes:
    """All that a client is sent of a stream."""
    answer = AnswerStream(writer, answers_by_tool=by_tool)
    return b"".join(answer.feed(event.data) for event in EventReader().feed(stream))
