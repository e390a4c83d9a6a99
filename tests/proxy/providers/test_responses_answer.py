"""Answers in the dialect of OpenAI's responses."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.protocol import answer_text, stream_end
from modelsplit_proxy.providers.answer import Answer, AnswerStream, Counts, ToolCall
from modelsplit_proxy.providers.events import EventReader
from modelsplit_proxy.providers.responses_answer import ResponsesWriter
from support import messages as say

THOUGHT = (
    say.block(0, "thinking", thinking="")
    + say.delta(0, "thinking_delta", thinking="h")
    + say.delta(0, "thinking_delta", thinking="m")
    + say.delta(0, "signature_delta", signature="c2ln")
    + say.stop(0)
)
STREAM = (
    say.start(cache_read_input_tokens=5)
    + THOUGHT
    + say.text("Hel", "lo", index=1)
    + say.tool("f", '{"x":', "1}", index=2)
    + say.tool("g", index=3, call_id="toolu_2")
    + say.end("tool_use", output_tokens=9)
)


def writer(**fields: Any) -> ResponsesWriter:
    return ResponsesWriter("opus", say.StoppedClock(), fields)


def events(stream: bytes) -> list[dict[str, Any]]:
    told = []
    for event in stream.removesuffix(b"\n\n").split(b"\n\n"):
        kind, data = event.split(b"\n")
        told.append(orjson.loads(data.removeprefix(b"data: ")))
        assert kind == b"event: " + told[-1]["type"].encode()
    return told


def test_a_stream_in_the_events_of_the_api() -> None:
    told = events(say.translated(writer(), STREAM))
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert [event["type"].removeprefix("response.") for event in told] == [
        *("created", "in_progress"),
        *("output_item.added", "reasoning_summary_part.added"),
        *("reasoning_summary_text.delta", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        "completed",
    ]


def test_what_the_events_say_together_is_what_the_last_says() -> None:
    told = events(say.translated(writer(), STREAM))
    whole = told[-1]["response"]
    done = [event for event in told if event["type"] == "response.output_item.done"]
    assert [event["item"] for event in done] == whole["output"]
    assert [event["output_index"] for event in done] == [0, 1, 2, 3]
    thoughts, message, first, second = whole["output"]
    assert thoughts == {
        "id": "rs_1_0",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "messages-signature:c2ln",
    }
    assert (message["id"], message["content"][0]["text"]) == ("msg_1_1", "Hello")
    assert first == {
        "id": "fc_1_0",
        "type": "function_call",
        "status": "completed",
        "call_id": "toolu_1",
        "name": "f",
        "arguments": '{"x":1}',
    }
    assert (second["call_id"], second["arguments"]) == ("toolu_2", "{}")
    assert whole["usage"] == {
        "input_tokens": 15,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 24,
    }


def test_an_answer_at_once_is_what_the_stream_says_in_the_end() -> None:
    answer = Answer(
        "msg_1",
        "Hello",
        "hm",
        [ToolCall("toolu_1", "f", '{"x":1}'), ToolCall("toolu_2", "g")],
        "tool_use",
        Counts(10, 5, output=9),
        [("hm", "messages-signature:c2ln")],
    )
    streamed = events(say.translated(writer(metadata={"a": "b"}), STREAM))[-1]["response"]
    assert orjson.loads(writer(metadata={"a": "b"}).whole(answer)) == streamed


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        ("end_turn", "completed", None),
        ("stop_sequence", "completed", None),
        ("tool_use", "completed", None),
        ("pause_turn", "completed", None),
        ("max_tokens", "incomplete", {"reason": "max_output_tokens"}),
        ("model_context_window_exceeded", "incomplete", {"reason": "max_output_tokens"}),
        ("refusal", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_why_it_ended(reason: str, status: str, why: object) -> None:
    stream = say.translated(writer(), say.start() + say.text("hi") + say.end(reason))
    last = events(stream)[-1]
    assert last["type"] == f"response.{status}"
    assert (last["response"]["status"], last["response"]["incomplete_details"]) == (status, why)
    assert (last["response"]["completed_at"] is None) == (status == "incomplete")
    body = orjson.loads(writer().whole(Answer("msg_1", "hi", stop_reason=reason)))
    assert (body["status"], body["incomplete_details"]) == (status, why)
    tail = stream_end.Tail()
    tail.feed(stream)
    verdict = stream_end.judge_sse(tail)
    assert (verdict.complete, verdict.usage.output_tokens) == (True, 7)


def test_a_response_says_again_what_was_asked() -> None:
    asked = {"instructions": "be brief", "temperature": 0.5, "metadata": {"a": "b"}, "tools": None}
    begun = events(say.translated(writer(**asked), say.start()))[0]["response"]
    assert (begun["status"], begun["usage"], begun["output"]) == ("in_progress", None, [])
    assert begun | asked == begun | {"tools": None}
    assert (begun["tools"], begun["store"], begun["tool_choice"]) == ([], False, "auto")


def test_thoughts_that_nobody_can_read_are_kept_by_their_seal() -> None:
    stream = say.start() + say.block(0, "redacted_thinking", data="eHl6") + say.stop(0)
    told = events(say.translated(writer(), stream + say.text("a", index=1) + say.end()))
    thoughts = told[-1]["response"]["output"][0]
    assert thoughts["summary"] == []
    assert thoughts["encrypted_content"] == "messages-redacted:eHl6"


def test_the_text_of_the_answer_is_found_in_it() -> None:
    """By whoever holds an answer to its schema."""
    stream = say.translated(writer(), say.start() + say.text('{"a"', ":1}") + say.end())
    last = events(stream)[-1]
    assert "".join(answer_text.of_response(last)) == '{"a":1}'


@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    reader, answer = EventReader(), AnswerStream(writer(), answers_by_tool=False)
    told, at = b"", 0
    for cut in [*sorted(cuts), len(STREAM)]:
        told += b"".join(answer.feed(event.data) for event in reader.feed(STREAM[at:cut]))
        at = cut
    assert told == say.translated(writer(), STREAM)
