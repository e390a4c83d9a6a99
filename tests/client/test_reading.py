"""Streams out of bytes, however they are cut; a stream without its end is no answer."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_client import CallError, Piece, SchemaInvalidError, StreamBrokenError, UpstreamError
from modelsplit_client.calls import Call
from modelsplit_client.dialect import Speaks
from modelsplit_client.ollama_dialect import OllamaDialect
from modelsplit_client.openai_dialect import OpenAIDialect
from modelsplit_client.reading import Lines, Reader, whole

HEADERS = {"x-llm-role": "PLANNER", "x-llm-provider": "LOCAL", "x-request-id": "r1"}
WORDS = ["Zürich\x85", " liegt\u2028", " am", " See\v."]
TEXT = "".join(WORDS)
LLM = {"cost_usd": 0.25, "model": "qwen3:4b"}


def plain(value: Any) -> bytes:
    # As Go writes it: what a reader of lines takes for an end of one stands in the text.
    return json.dumps(value, ensure_ascii=False).encode()


def ollama(*words: str, end: bool = True) -> bytes:
    lines = [{"response": word, "done": False} for word in words]
    if end:
        lines.append({"response": "", "done": True, "done_reason": "stop", "llm": LLM})
    return b"".join(plain(line) + b"\n" for line in lines)


def openai(*words: str, end: bool = True) -> bytes:
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": {"content": word}}]} for word in words]
    if end:
        chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}], "llm": LLM})
    events = b"".join(b"data: " + plain(chunk) + b"\n\n" for chunk in chunks)
    return b": ping\n\n" + events + (b"data: [DONE]\n\n" if end else b"")


SPOKEN = [
    pytest.param(OllamaDialect(), ollama, id="ollama"),
    pytest.param(OpenAIDialect(), openai, id="openai"),
]


def read(reader: Reader, *parts: bytes) -> list[str]:
    return [piece.text for part in parts for piece in reader.feed(part)]


def reader(speaks: Speaks, **of: Any) -> Reader:
    return Reader(speaks, Call("PLANNER", stream=True, **of), HEADERS)


@pytest.mark.parametrize(("speaks", "stream"), SPOKEN)
@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_a_stream_is_the_same_however_it_is_cut(
    speaks: Speaks, stream: Any, cuts: list[int]
) -> None:
    data, one = stream(*WORDS), reader(speaks)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(places)]
    assert read(one, *parts) == WORDS
    answer = one.end()
    assert (answer.text, answer.finish) == (TEXT, "stop")
    assert (answer.telemetry.role, answer.telemetry.cost_usd) == ("PLANNER", 0.25)


@pytest.mark.parametrize(("speaks", "stream"), SPOKEN)
def test_without_its_end_marker_it_is_broken(speaks: Speaks, stream: Any) -> None:
    one = reader(speaks)
    assert read(one, stream("a", "b", end=False)) == ["a", "b"]
    assert not one.ended
    with pytest.raises(StreamBrokenError) as caught:
        one.end()
    error = caught.value
    assert (error.error_code, error.reason) == ("E_STREAM_BROKEN_LOCAL", "unterminated")
    assert (error.text, error.llm_role, error.request_id) == ("ab", "PLANNER", "r1")


@pytest.mark.parametrize(("speaks", "stream"), SPOKEN)
def test_an_error_in_it_is_raised_behind_the_pieces_before_it(speaks: Speaks, stream: Any) -> None:
    fields = {"error_code": "E_TIMEOUT_LOCAL", "reason": "stall", "llm_attempt": 1}
    line = (
        plain({"error": "silence for 60 s", **fields}) + b"\n"
        if isinstance(speaks, OllamaDialect)
        else b"event: error\ndata: "
        + plain({"type": "error", "error": {"message": "silence for 60 s", **fields}})
        + b"\n\n"
    )
    one, seen = reader(speaks), list[Piece]()
    with pytest.raises(CallError) as caught:
        seen.extend(one.feed(stream("a", end=False) + line))
    assert seen == [Piece("a")]
    error = caught.value
    assert type(error).__name__ == "CallTimeoutError"
    assert (str(error), error.reason, error.text) == ("silence for 60 s", "stall", "a")


@pytest.mark.parametrize(("speaks", "stream"), SPOKEN)
def test_what_is_no_json_breaks_it(speaks: Speaks, stream: Any) -> None:
    del stream
    one = reader(speaks)
    with pytest.raises(StreamBrokenError, match="no JSON object"):
        read(one, b"data: <html>\n" if isinstance(speaks, OpenAIDialect) else b"<html>\n")


@pytest.mark.parametrize(("speaks", "stream"), SPOKEN)
def test_what_follows_the_end_is_not_read(speaks: Speaks, stream: Any) -> None:
    one = reader(speaks)
    assert read(one, stream("a") + b"garbage\n") == ["a"]
    assert one.end().text == "a"


def test_a_last_line_without_a_line_feed_counts() -> None:
    one = reader(OllamaDialect())
    assert read(one, ollama("a").rstrip()) == ["a"]
    assert one.end().text == "a"


def test_lines_end_at_line_feeds_alone() -> None:
    lines = Lines()
    assert list(lines.feed("a\x85b\r".encode())) == []
    assert list(lines.feed(b"c\n\nd")) == ["a\x85b\rc".encode(), b""]
    assert lines.rest() == b"d"


class Plan(pydantic.BaseModel):
    goal: str


def test_a_streamed_answer_is_held_to_its_schema() -> None:
    one = reader(OllamaDialect(), schema=Plan)
    read(one, ollama('{"goal":', '"x"}'))
    assert one.end().parsed == Plan(goal="x")


@pytest.mark.parametrize(("reason", "told"), [("stop", "schema"), ("length", "cut")])
def test_an_answer_that_does_not_fit_is_an_error_with_its_text(reason: str, told: str) -> None:
    body = plain({"response": '{"goal":', "done": True, "done_reason": reason})
    with pytest.raises(SchemaInvalidError, match="the answer is no Plan: ") as caught:
        whole(OllamaDialect(), Call("PLANNER", schema=Plan), HEADERS, body)
    error = caught.value
    assert (error.error_code, error.reason, error.text) == ("E_SCHEMA_INVALID", told, '{"goal":')


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"models":[]}'])
def test_a_success_that_is_no_answer_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        whole(OllamaDialect(), Call("PLANNER"), HEADERS, body)
    assert (caught.value.reason, caught.value.status) == ("no_answer", 200)


def test_with_a_tool_to_call_there_is_nothing_to_parse() -> None:
    call = {"function": {"name": "grep", "arguments": {}}}
    body = plain({"message": {"content": "", "tool_calls": [call]}, "done": True})
    answer = whole(OllamaDialect(), Call("PLANNER", messages=[], schema=Plan), HEADERS, body)
    assert answer.parsed is None
    assert answer.tool_calls[0].name == "grep"


NAMES = st.sampled_from(
    [
        *("response", "message", "content", "thinking", "tool_calls", "function", "arguments"),
        *("done", "done_reason", "choices", "delta", "finish_reason", "usage", "index", "id"),
        *("error", "llm", "model", "cost_usd", "prompt_tokens", "error_code", "llm_attempt"),
    ]
)
LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4)
)


@pytest.mark.parametrize("speaks", [OllamaDialect(), OpenAIDialect()], ids=["ollama", "openai"])
@given(sent=st.lists(st.dictionaries(NAMES, ANYTHING, max_size=5), min_size=1, max_size=3))
def test_whatever_is_sent_is_an_answer_or_a_call_error(
    speaks: Speaks, sent: list[dict[str, Any]]
) -> None:
    with contextlib.suppress(CallError):
        whole(speaks, Call("PLANNER"), HEADERS, plain(sent[0]))
    mark = b"data: " if isinstance(speaks, OpenAIDialect) else b""
    one = reader(speaks)
    with contextlib.suppress(CallError):
        read(one, b"".join(mark + plain(each) + b"\n" for each in sent), b"data: [DONE]\n")
        one.end()
