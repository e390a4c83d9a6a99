"""Answers in the dialect of OpenAI's chat completions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from modelsplit_proxy.protocol import stream_end
from modelsplit_proxy.providers.answer import Answer, Counts, ToolCall
from modelsplit_proxy.providers.openai_answer import CompletionWriter, OpenAIWriter
from support import messages as say

STREAM = (
    say.start(cache_read_input_tokens=5)
    + say.text("Hel", "lo")
    + say.tool("f", '{"x":', "1}", index=1)
    + say.tool("g", index=2, call_id="toolu_2")
    + say.end("tool_use")
)


def writer(*, tells_usage: bool = False) -> OpenAIWriter:
    return OpenAIWriter("opus", say.StoppedClock(), tells_usage=tells_usage)


def chunks(stream: bytes) -> list[dict[str, Any]]:
    events = stream.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    return [orjson.loads(event.removeprefix(b"data: ")) for event in events[:-2]]


def test_a_stream_of_chunks() -> None:
    given = chunks(say.translated(writer(), STREAM))
    assert {chunk["id"] for chunk in given} == {"chatcmpl-1"}
    assert {chunk["object"] for chunk in given} == {"chat.completion.chunk"}
    deltas = [chunk["choices"][0]["delta"] for chunk in given]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta.get("content") for delta in deltas[1:3]] == ["Hel", "lo"]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert calls[0] == {
        "index": 0,
        "id": "toolu_1",
        "type": "function",
        "function": {"name": "f", "arguments": ""},
    }
    assert "".join(c["function"]["arguments"] for c in calls if c["index"] == 0) == '{"x":1}'
    assert "".join(c["function"]["arguments"] for c in calls if c["index"] == 1) == "{}"
    assert given[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_usage_is_told_where_it_is_asked_for() -> None:
    last = chunks(say.translated(writer(tells_usage=True), STREAM))[-1]
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 15,
        "completion_tokens": 7,
        "total_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_the_stream_says_that_it_was_whole() -> None:
    tail = stream_end.Tail()
    tail.feed(say.translated(writer(), STREAM))
    assert stream_end.judge_sse(tail).complete


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
        (None, "stop"),
    ],
)
def test_why_it_ended(reason: str | None, told: str) -> None:
    body = orjson.loads(writer().whole(Answer("msg_1", "hi", stop_reason=reason)))
    assert body["choices"][0]["finish_reason"] == told


def test_an_answer_at_once() -> None:
    answer = Answer("msg_1", "", "hm", [ToolCall("t", "f")], "tool_use", Counts(3, output=4))
    body = orjson.loads(writer().whole(answer))
    assert (body["id"], body["created"], body["model"]) == ("chatcmpl-1", 1_700_000_000, "opus")
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "reasoning": "hm",
        "tool_calls": [
            {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }
    assert body["usage"]["total_tokens"] == 7


def test_thoughts_are_reasoning() -> None:
    assert b'"reasoning":"hm"' in writer().thinking("hm")


def test_a_completion_is_nothing_but_text() -> None:
    stream = (
        say.start()
        + say.block(0, "thinking", thinking="hm")
        + say.text("Hel", "lo", index=1)
        + say.tool("f", "{}", index=2)
        + say.end("max_tokens")
    )
    given = chunks(
        say.translated(CompletionWriter("opus", say.StoppedClock(), tells_usage=True), stream)
    )
    assert {(chunk["id"], chunk["object"]) for chunk in given} == {("cmpl-1", "text_completion")}
    assert [chunk["choices"][0]["text"] for chunk in given[:-1]] == ["Hel", "lo", ""]
    assert given[-2]["choices"][0]["finish_reason"] == "length"
    assert (given[-1]["choices"], given[-1]["usage"]["total_tokens"]) == ([], 17)
    silent = CompletionWriter("opus", say.StoppedClock(), tells_usage=False)
    assert b'"usage"' not in say.translated(silent, stream)


def test_a_completion_at_once() -> None:
    answer = Answer("msg_1", "hi", "hm", stop_reason="end_turn", counts=Counts(3, output=4))
    body = orjson.loads(
        CompletionWriter("opus", say.StoppedClock(), tells_usage=False).whole(answer)
    )
    assert body == {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "opus",
        "choices": [{"text": "hi", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
