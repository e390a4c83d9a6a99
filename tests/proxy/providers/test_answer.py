"""Answers of the Messages API, read as they come and whole."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.providers import answer as module
from modelsplit_proxy.providers.answer import (
    Answer,
    AnswerError,
    AnswerStream,
    Counts,
    ToolCall,
    counts_of,
    usage_of,
    whole,
)
from modelsplit_proxy.providers.events import BrokenAnswerError, EventReader
from modelsplit_proxy.providers.messages import SilentWriter
from support import messages as say


class Recorder(SilentWriter):
    """Writes down what it is told, in words."""

    def text(self, text: str) -> bytes:
        return f"text {text};".encode()

    def thinking(self, text: str) -> bytes:
        return f"thought {text};".encode()

    def call_began(self, index: int, call: ToolCall) -> bytes:
        return f"call {index} {call.name};".encode()

    def call_arguments(self, index: int, text: str) -> bytes:
        return f"arguments {index} {text};".encode()

    def call_ended(self, index: int, call: ToolCall) -> bytes:
        return f"called {index} {call.arguments};".encode()

    def ended(self, answer: Answer) -> bytes:
        return f"end {answer.stop_reason}".encode()


def read(stream: bytes, *, by_tool: bool = False) -> tuple[str, AnswerStream]:
    answer = AnswerStream(Recorder(), answers_by_tool=by_tool)
    told = b"".join(answer.feed(event.data) for event in EventReader().feed(stream))
    return told.decode(), answer


def test_text_thoughts_and_calls_as_they_come() -> None:
    thinking = say.block(0, "thinking", thinking="") + say.delta(0, "thinking_delta", thinking="hm")
    stream = (
        say.start()
        + thinking
        + say.delta(0, "signature_delta", signature="x")
        + say.stop(0)
        + say.text("a", "b", index=1)
        + say.tool("f", '{"x":', "1}", index=2)
        + say.tool("g", index=3)
        + say.end("tool_use")
    )
    told, answer = read(stream)
    assert told == (
        'thought hm;text a;text b;call 0 f;arguments 0 {"x":;arguments 0 1};called 0 {"x":1};'
        "call 1 g;called 1 ;end tool_use"
    )
    assert answer.is_whole
    assert answer.usage.prompt_tokens == 10
    assert (answer.usage.output_tokens, answer.usage.estimated) == (7, False)


def test_arguments_that_come_with_the_block_are_arguments() -> None:
    stream = say.block(0, "tool_use", id="t", name="f", input={"x": 1}) + say.stop(0)
    assert read(stream)[0] == 'call 0 f;arguments 0 {"x":1};called 0 {"x":1};'


def test_an_answer_by_a_tool_is_text() -> None:
    stream = say.start() + say.tool("answer", '{"a"', ":1}") + say.end("tool_use")
    assert read(stream, by_tool=True)[0] == 'text {"a";text :1};end end_turn'
    assert read(stream)[0].startswith("call 0 answer;")


def test_what_is_unknown_is_passed_over() -> None:
    stream = (
        say.start()
        + say.event("ping")
        + say.event("weather", sun=True)
        + say.block(0, "hologram")
        + say.delta(0, "hologram_delta", light=1)
        + say.stop(0)
        + say.delta(0, "input_json_delta", partial_json="{")
        + say.event("content_block_delta")
        + say.text("a", index=1)
        + say.end()
    )
    assert read(stream)[0] == "text a;end end_turn"


def test_an_error_in_the_stream_is_raised_by_its_own_word() -> None:
    error = {"type": "overloaded_error", "message": "Overloaded"}
    with pytest.raises(AnswerError, match="Overloaded") as raised:
        read(say.start() + say.event("error", error=error))
    assert raised.value.kind == "overloaded_error"


def test_what_a_cut_answer_used_is_reckoned_and_marked() -> None:
    _, answer = read(
        say.start() + say.block(0, "text", text="") + say.delta(0, "text_delta", text="x" * 30)
    )
    assert not answer.is_whole
    assert (answer.usage.prompt_tokens, answer.usage.output_tokens) == (10, 10)
    assert answer.usage.estimated
    assert read(b"")[1].usage.output_tokens is None


def test_cached_tokens_are_weighed_by_what_they_cost() -> None:
    usage = {
        "input_tokens": 100,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
        "output_tokens": 5,
    }
    counts = counts_of(usage, Counts())
    assert counts == Counts(100, 1000, 200, 100, 5)
    assert counts.prompt == 1400
    assert counts.billed == pytest.approx(100 + 100 + 250 + 200)
    assert usage_of(Answer(counts=counts)).billed_prompt_tokens == counts.billed
    assert Counts().prompt is None
    assert Counts().billed is None


@pytest.mark.parametrize("usage", [None, 7, {"input_tokens": "x", "output_tokens": -1}, {}])
def test_counts_that_are_none_change_nothing(usage: object) -> None:
    before = Counts(1, 2, 3, 4, 5)
    assert counts_of(usage, before) == before


def test_a_whole_answer() -> None:
    message: dict[str, Any] = {
        "type": "message",
        "id": "msg_1",
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
            {"type": "hologram"},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }
    answer = whole(message, answers_by_tool=False)
    assert (answer.text, answer.thinking, answer.stop_reason) == ("a", "hm", "tool_use")
    assert answer.calls == [ToolCall("t", "f", '{"x":1}')]
    message["content"] = [{"type": "tool_use", "name": "answer", "input": {"x": 1}}]
    answer = whole(message, answers_by_tool=True)
    assert (answer.text, answer.calls, answer.stop_reason) == ('{"x":1}', [], "end_turn")
    with pytest.raises(AnswerError):
        whole(
            {"type": "error", "error": {"type": "api_error", "message": "no"}},
            answers_by_tool=False,
        )


def test_arguments_as_values() -> None:
    assert ToolCall("t", "f", '{"x":1}').values == {"x": 1}
    assert ToolCall("t", "f").values == {}
    assert ToolCall("t", "f", "{").values == {"arguments": "{"}


STREAM = (
    say.start()
    + say.text("ä", "€\n", "x")
    + say.tool("f", '{"x":"', 'é"}', index=1)
    + say.end("tool_use")
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    reader, answer, told, at = (
        EventReader(),
        AnswerStream(Recorder(), answers_by_tool=False),
        b"",
        0,
    )
    for cut in [*sorted(cuts), len(STREAM)]:
        told += b"".join(answer.feed(event.data) for event in reader.feed(STREAM[at:cut]))
        at = cut
    assert told.decode() == read(STREAM)[0]


KINDS = st.sampled_from(
    [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "x",
    ]
)
VALUES = st.recursive(
    st.none() | st.integers(-3, 3) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "text", "usage", "index", "partial_json", "name", "input"]),
            inner,
        )
    ),
    max_leaves=6,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": KINDS},
            optional=dict.fromkeys(("message", "delta", "content_block", "usage", "index"), VALUES),
        )
    )
)
def test_no_event_however_malformed_breaks_the_reader(events: list[dict[str, Any]]) -> None:
    answer = AnswerStream(Recorder(), answers_by_tool=True)
    with contextlib.suppress(AnswerError, BrokenAnswerError):
        for event in events:
            assert isinstance(answer.feed(event), bytes)


def test_a_call_that_was_cut_at_a_limit_is_told_as_far_as_it_came() -> None:
    stream = say.start() + say.tool("f", '{"x":') + say.end("max_tokens")
    told, answer = read(stream)
    assert told == 'call 0 f;arguments 0 {"x":;called 0 {"x":;end max_tokens'
    assert answer.answer.calls[0].values == {"arguments": '{"x":'}
    message = {
        "content": [{"type": "tool_use", "name": "f", "input": '{"x":'}],
        "stop_reason": "max_tokens",
    }
    assert whole(message, answers_by_tool=False).calls == [ToolCall("call_0", "f", '{"x":')]


def test_a_block_that_nobody_ends_ends_with_the_message() -> None:
    begun = say.block(0, "tool_use", id="t", name="f")
    piece = say.delta(0, "input_json_delta", partial_json="{}")
    assert read(say.start() + begun + piece + say.end("tool_use"))[0].endswith(
        "called 0 {};end tool_use"
    )


def test_nothing_comes_behind_the_end_and_no_second_beginning() -> None:
    class Begins(Recorder):
        def began(self, answer: Answer) -> bytes:
            return f"begin {answer.id};".encode()

    stream = say.text("a") + say.start() + say.end() + say.text("b", index=1) + say.end()
    answer = AnswerStream(Begins(), answers_by_tool=False)
    told = b"".join(answer.feed(event.data) for event in EventReader().feed(stream))
    assert told == b"begin unnamed;text a;end end_turn"


@pytest.mark.parametrize(
    ("bound", "stream"),
    [
        ("_ANSWER_BYTES", say.start() + say.text("ab", "cd")),
        ("_ANSWER_BYTES", say.start() + say.tool("f", '{"x"', ":1}")),
        ("_BLOCKS", b"".join(say.block(index, "hologram") for index in range(4))),
    ],
)
def test_what_is_kept_of_an_answer_is_bounded(
    monkeypatch: pytest.MonkeyPatch, bound: str, stream: bytes
) -> None:
    monkeypatch.setattr(module, bound, 3)
    with pytest.raises(BrokenAnswerError, match="than anybody can read"):
        read(stream)


def test_thoughts_are_sealed_by_what_proves_them() -> None:
    class Seals(Recorder):
        def sealed(self, seal: str) -> bytes:
            return f"seal {seal};".encode()

    stream = (
        say.start()
        + say.block(0, "thinking", thinking="hm")
        + say.delta(0, "signature_delta", signature="c2ln")
        + say.block(1, "redacted_thinking", data="eHl6")
    )
    answer = AnswerStream(Seals(), answers_by_tool=False)
    told = b"".join(answer.feed(event.data) for event in EventReader().feed(stream))
    seals = ["messages-signature:c2ln", "messages-redacted:eHl6"]
    assert told.decode() == f"thought hm;seal {seals[0]};seal {seals[1]};"
    message = {
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "eHl6"},
            {"type": "thinking", "thinking": "ha"},
        ],
        "stop_reason": "end_turn",
    }
    thoughts = whole(message, answers_by_tool=False).thoughts
    assert thoughts == [("hm", seals[0]), ("", seals[1]), ("ha", "")]


def test_tokens_of_thoughts_and_those_that_a_cache_spared_are_counted_beside() -> None:
    usage = {
        "input_tokens": 9,
        "cached_in_full": 4,
        "output_tokens_details": {"thinking_tokens": 3},
    }
    counts = counts_of(usage, Counts(cache_read=2))
    assert (counts.cached, counts.thought, counts.prompt) == (6, 3, 11)
