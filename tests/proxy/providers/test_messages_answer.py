"""Answers in the dialect of the Messages API, of providers that speak another."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.protocol import stream_end
from modelsplit_proxy.providers.answer import Answer, Counts, ToolCall, whole
from modelsplit_proxy.providers.messages_answer import MessagesWriter
from support import messages as say

STREAM = (
    say.start(cache_read_input_tokens=5)
    + say.block(0, "thinking", thinking="")
    + say.delta(0, "thinking_delta", thinking="hm")
    + say.stop(0)
    + say.text("Hel", "lo", index=1)
    + say.tool("f", '{"x":', "1}", index=2)
    + say.tool("g", index=3, call_id="toolu_2")
    + say.end("tool_use", output_tokens=9)
)


def events(stream: bytes) -> list[dict[str, Any]]:
    parts = stream.removesuffix(b"\n\n").split(b"\n\n")
    return [orjson.loads(part.partition(b"\ndata: ")[2]) for part in parts]


def test_a_stream_says_the_same_there_and_back() -> None:
    told = say.translated(MessagesWriter("opus"), STREAM)
    assert say.translated(MessagesWriter("opus"), told) == told
    blocks = [event["content_block"] for event in events(told) if "content_block" in event]
    assert blocks == [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
        {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
    ]
    starts = [event["index"] for event in events(told) if event["type"] == "content_block_start"]
    stops = [event["index"] for event in events(told) if event["type"] == "content_block_stop"]
    assert starts == stops == [0, 1, 2, 3]
    tail = stream_end.Tail()
    tail.feed(told)
    verdict = stream_end.judge_sse(tail)
    assert (verdict.complete, verdict.usage.output_tokens) == (True, 9)


def test_the_first_and_the_last_events() -> None:
    first, *_, last, stop = events(say.translated(MessagesWriter("opus"), STREAM))
    assert first["message"] == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "opus",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 5,
            "output_tokens": 1,
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }
    assert last["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert last["usage"]["output_tokens"] == 9
    assert stop == {"type": "message_stop"}


def test_what_caches_spared_is_told_beside_the_rest() -> None:
    counts = Counts(10, output=7, cached_in_full=4)
    body = orjson.loads(MessagesWriter("opus").whole(Answer("x", "hi", counts=counts)))
    assert (body["usage"]["input_tokens"], body["usage"]["cache_read_input_tokens"]) == (6, 4)


FEW = st.integers(0, 9)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
CALLS = st.builds(
    ToolCall,
    st.text("ab1", min_size=1),
    st.text("fg", min_size=1),
    st.dictionaries(st.text("xy"), st.integers(0, 9)).map(lambda v: orjson.dumps(v).decode()),
)


@given(
    st.builds(
        Answer,
        st.text("0123456789", min_size=1),
        TEXTS,
        TEXTS,
        st.lists(CALLS, max_size=3),
        st.sampled_from(["end_turn", "max_tokens", "tool_use", "refusal"]),
        st.builds(Counts, FEW, FEW, FEW, st.just(0), FEW, st.just(0), FEW),
    )
)
def test_a_whole_answer_says_the_same_there_and_back(answer: Answer) -> None:
    again = whole(orjson.loads(MessagesWriter("opus").whole(answer)), answers_by_tool=False)
    assert (again.text, again.thinking, again.calls) == (
        answer.text,
        answer.thinking,
        answer.calls,
    )
    assert again.counts == answer.counts
    ended = answer.stop_reason
    assert again.stop_reason == ("end_turn" if ended == "tool_use" and not answer.calls else ended)


@pytest.mark.parametrize("seal", ["", "x"])
def test_nobody_has_signed_the_thoughts(seal: str) -> None:
    assert MessagesWriter("opus").sealed(seal) == b""
