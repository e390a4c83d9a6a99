"""Answers of chat completions in the form of the Messages API."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.providers.answer import (
    Answer,
    AnswerError,
    AnswerStream,
    Counts,
    ToolCall,
    whole,
)
from modelsplit_proxy.providers.chat_answer import ChatEvents, message_of
from modelsplit_proxy.providers.events import BrokenAnswerError, EventReader
from modelsplit_proxy.providers.openai_answer import OpenAIWriter
from support import messages as say


def chunk(delta: dict[str, Any] | None = None, **fields: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta} | fields.pop("choice", {})]
    return b"data: " + orjson.dumps({"id": "c1", "choices": choices} | fields) + b"\n\n"


DONE = b"data: [DONE]\n\n"
ENDED = chunk({}, choice={"finish_reason": "stop"})


def call(index: int, **function: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "id": f"t{index}", "function": function}]}


STREAM = (
    chunk({"role": "assistant", "content": ""})
    + chunk({"reasoning": "hm"})
    + chunk({"content": "Hel"})
    + chunk({"content": "lo"})
    + chunk(call(0, name="f", arguments=""))
    + chunk(call(0, arguments='{"x":'))
    + chunk(call(0, arguments="1}"))
    + chunk(call(1, name="g", arguments="{}"))
    + chunk({}, choice={"finish_reason": "tool_calls"})
    + chunk(None, usage={"prompt_tokens": 10, "completion_tokens": 7})
    + DONE
)


def read(stream: bytes) -> tuple[bytes, AnswerStream]:
    events, dialect = EventReader(), ChatEvents()
    writer = OpenAIWriter("opus", say.StoppedClock(), tells_usage=True)
    answer = AnswerStream(writer, answers_by_tool=False)
    told = b"".join(
        answer.feed(said) for event in events.feed(stream) for said in dialect.read(event)
    )
    return told, answer


def test_a_stream_says_the_same_there_and_back() -> None:
    told, answer = read(STREAM)
    again, _ = read(told)
    assert told == again.replace(b"chatcmpl-chatcmpl-", b"chatcmpl-")
    assert answer.is_whole
    assert (answer.usage.prompt_tokens, answer.usage.output_tokens) == (10, 7)
    assert [(one.name, one.arguments) for one in answer.answer.calls] == [
        ("f", '{"x":1}'),
        ("g", "{}"),
    ]
    assert answer.answer.stop_reason == "tool_use"
    assert b'"reasoning":"hm"' in told


def test_calls_whose_pieces_come_in_turns() -> None:
    stream = (
        chunk(call(0, name="f", arguments=""))
        + chunk(call(1, name="g", arguments='{"y"'))
        + chunk(call(0, arguments='{"x":'))
        + chunk(call(1, arguments=":2}"))
        + chunk(call(0, arguments="1}"))
        + chunk({}, choice={"finish_reason": "tool_calls"})
        + DONE
    )
    _, answer = read(stream)
    calls = [(one.id, one.name, one.arguments) for one in answer.answer.calls]
    assert calls == [("t0", "f", '{"x":1}'), ("t1", "g", '{"y":2}')]


@pytest.mark.parametrize("number", [{"index": 0}, {}])
def test_calls_that_all_have_one_number_or_none(number: dict[str, int]) -> None:
    """As some servers send them: a call in one piece, told from the next by its id."""
    function = {"arguments": "{}"}
    stream = b"".join(
        chunk({"tool_calls": [number | {"id": name, "function": function | {"name": name}}]})
        for name in ("f", "g")
    )
    _, answer = read(stream + ENDED + DONE)
    assert [(one.id, one.arguments) for one in answer.answer.calls] == [("f", "{}"), ("g", "{}")]


def test_calls_without_ids_get_some() -> None:
    function = {"name": "f", "arguments": {"x": 1}}
    pieces = [{"index": index, "function": function} for index in (0, 1)]
    stream = chunk({"tool_calls": pieces}) + ENDED + DONE
    _, answer = read(stream)
    calls = [(one.id, one.arguments) for one in answer.answer.calls]
    assert calls == [("call_0", '{"x":1}'), ("call_1", '{"x":1}')]


def test_a_refusal_is_told_as_one() -> None:
    stream = chunk({"refusal": "I will not"}) + ENDED + DONE
    told, answer = read(stream)
    assert b"I will not" in told
    assert answer.answer.stop_reason == "refusal"
    message = {"content": None, "refusal": "I will not"}
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    refused = whole(message_of(body), answers_by_tool=False)
    assert (refused.text, refused.stop_reason) == ("I will not", "refusal")


def test_thoughts_told_by_two_names_are_told_once_and_texts_may_be_in_parts() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "hi"}]
    thought = {"reasoning": "hm", "reasoning_content": "hm", "content": parts}
    told, _ = read(chunk(thought) + ENDED + DONE)
    assert told.count(b"hm") == 1
    body = {"choices": [{"message": thought, "finish_reason": "stop"}]}
    answer = whole(message_of(body), answers_by_tool=False)
    assert (answer.thinking, answer.text) == ("hm", "hi")


def test_what_caches_spared_is_told_and_charged_in_full() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": usage}
    counts = whole(message_of(body), answers_by_tool=False).counts
    assert (counts.prompt, counts.billed, counts.cached, counts.thought) == (10, 10, 4, 3)


@pytest.mark.parametrize(
    "stream",
    [
        chunk({"content": "a"}) + DONE,
        chunk({"content": 7}) + DONE,
        chunk({"content": "a"}) + b"data: {half\n\n" + DONE,
        chunk({"tool_calls": [{"index": 3, "function": {"arguments": "{}"}}]}) + DONE,
        chunk(call(0, name="f", arguments="{")) + ENDED + DONE,
    ],
)
def test_a_stream_with_a_hole_is_not_whole(stream: bytes) -> None:
    with pytest.raises(BrokenAnswerError):
        read(stream)


def test_an_error_in_the_stream() -> None:
    with pytest.raises(AnswerError, match="busy") as raised:
        read(
            chunk({"content": "a"})
            + b'data: {"error":{"message":"busy","type":"overloaded_error"}}\n\n'
        )
    assert raised.value.kind == "overloaded_error"


def test_without_its_last_line_it_is_not_whole() -> None:
    _, answer = read(STREAM.removesuffix(DONE))
    assert not answer.is_whole


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("x", "end_turn"),
    ],
)
def test_a_whole_answer(reason: str, told: str) -> None:
    message = {
        "content": "hi",
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "t", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"id": "u", "function": {"name": "g", "arguments": "{" if reason == "length" else ""}},
        ],
    }
    body = {
        "id": "c1",
        "choices": [{"message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    answer = whole(message_of(body), answers_by_tool=False)
    assert (answer.text, answer.thinking, answer.stop_reason) == ("hi", "hm", told)
    assert [one.arguments for one in answer.calls] == [
        '{"x":1}',
        "{" if reason == "length" else "{}",
    ]
    assert answer.counts == Counts(3, output=4)


def test_a_whole_answer_that_is_an_error() -> None:
    with pytest.raises(AnswerError, match="no"):
        whole(message_of({"error": {"message": "no", "code": 5}}), answers_by_tool=False)
    with pytest.raises(BrokenAnswerError):
        whole(message_of({}), answers_by_tool=False)


VALUES = st.recursive(
    st.none() | st.integers(-3, 3) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["delta", "content", "tool_calls", "function", "name", "arguments", "index"]
            ),
            inner,
        )
    ),
    max_leaves=6,
)


@given(
    st.lists(st.fixed_dictionaries({"choices": VALUES}, optional={"usage": VALUES, "id": VALUES}))
)
def test_no_chunk_however_malformed_breaks_the_reader(chunks: list[dict[str, Any]]) -> None:
    stream = b"".join(b"data: " + orjson.dumps(one) + b"\n\n" for one in chunks) + DONE
    with contextlib.suppress(AnswerError, BrokenAnswerError):
        read(stream)


@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    events, dialect, told, at = EventReader(), ChatEvents(), [], 0
    for cut in [*sorted(cuts), len(STREAM)]:
        told += [said for event in events.feed(STREAM[at:cut]) for said in dialect.read(event)]
        at = cut
    plain = ChatEvents()
    assert told == [said for event in EventReader().feed(STREAM) for said in plain.read(event)]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
CALLS = st.builds(
    ToolCall,
    st.text("ab1", min_size=1),
    st.text("fg", min_size=1),
    st.dictionaries(st.text("xy"), st.integers(0, 9)).map(lambda v: orjson.dumps(v).decode()),
)
ANSWERS = st.builds(
    Answer,
    st.text("0123456789", min_size=1),
    TEXTS,
    TEXTS,
    st.lists(CALLS, max_size=3),
    st.sampled_from(["end_turn", "max_tokens", "refusal"]),
    st.builds(
        lambda fresh, output: Counts(fresh, output=output), st.integers(0, 9), st.integers(0, 9)
    ),
    st.just([]),
)


@given(ANSWERS)
def test_a_whole_answer_says_the_same_there_and_back(answer: Answer) -> None:
    writer = OpenAIWriter("opus", say.StoppedClock(), tells_usage=True)
    again = whole(message_of(orjson.loads(writer.whole(answer))), answers_by_tool=False)
    assert (again.text, again.thinking, again.calls) == (
        answer.text,
        answer.thinking,
        answer.calls,
    )
    assert (again.stop_reason, again.counts) == (answer.stop_reason, answer.counts)


@given(ANSWERS)
def test_a_stream_of_it_says_the_same_as_well(answer: Answer) -> None:
    written = OpenAIWriter("opus", say.StoppedClock(), tells_usage=True)
    pieces = [
        written.began(answer),
        *(written.thinking(piece) for piece in answer.thinking),
        *(written.text(piece) for piece in answer.text),
    ]
    for index, one in enumerate(answer.calls):
        pieces.append(written.call_began(index, one))
        pieces += [written.call_arguments(index, piece) for piece in one.arguments]
        pieces.append(written.call_ended(index, one))
    told, read_again = read(b"".join((*pieces, written.ended(answer))))
    assert read_again.answer.calls == answer.calls
    assert read_again.answer.stop_reason == answer.stop_reason
    said = [
        orjson.loads(line[6:])["choices"] for line in told.splitlines() if line[:7] == b"data: {"
    ]
    deltas = [choices[0]["delta"] for choices in said if choices]
    assert "".join(delta.get("content", "") for delta in deltas) == answer.text
    assert "".join(delta.get("reasoning", "") for delta in deltas) == answer.thinking


CHUNKS = [event.data for event in EventReader().feed(STREAM)][:-1]


@given(
    st.lists(st.integers(0, len(CHUNKS) - 1), max_size=3),
    st.lists(
        st.tuples(
            st.integers(0, len(CHUNKS) - 1),
            st.sampled_from(["choices", "usage", "id", "error"]),
            VALUES,
        ),
        max_size=2,
    ),
)
def test_a_stream_changed_anyhow_is_told_whole_or_told_broken(
    lost: list[int], changes: list[tuple[int, str, Any]]
) -> None:
    chunks = [dict(one) for one in CHUNKS]
    for at, key, odd in changes:
        chunks[at][key] = odd
    kept = [one for at, one in enumerate(chunks) if at not in lost]
    stream = b"".join(b"data: " + orjson.dumps(one) + b"\n\n" for one in kept) + DONE
    with contextlib.suppress(AnswerError, BrokenAnswerError):
        told, answer = read(stream)
        assert answer.is_whole is told.endswith(DONE)
