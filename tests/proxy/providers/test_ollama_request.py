"""Ollama's two routes as the Messages API takes them, field by field."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.providers.ollama_request import of_chat, of_generate
from modelsplit_proxy.providers.question import Question, Terms, UntranslatableError

TERMS = Terms("claude-x", 1000)
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()
USER = {"role": "user", "content": "hi"}


def chat(**fields: Any) -> Question:
    return of_chat({"model": "cloud", "messages": [USER]} | fields, TERMS)


def test_a_chat_in_turns() -> None:
    question = chat(
        messages=[
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "what?", "images": [PNG]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "tool_name": "f", "content": "2"},
        ],
        tools=[
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
        ],
    )
    assert question.body["system"] == "be brief"
    user, assistant, result = question.body["messages"]
    assert [block["type"] for block in user["content"]] == ["image", "text"]
    assert assistant["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}}
    ]
    assert result == {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "call_1",
                "content": [{"type": "text", "text": "2"}],
            }
        ],
    }
    assert question.body["tools"] == [
        {"name": "f", "description": "d", "input_schema": {"type": "object"}}
    ]
    assert (question.body["stream"], question.untranslated) == (True, ())


def test_options_that_have_a_counterpart_and_those_that_have_none() -> None:
    options = {
        "temperature": 1.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop": "x",
        "seed": 7,
        "num_ctx": 8192,
    }
    question = chat(options=options | {"num_predict": -1}, keep_alive="5m", stream=False)
    assert "stream" not in question.body
    assert question.body["temperature"] == 1.0
    assert (question.body["top_k"], question.body["top_p"]) == (40, 0.9)
    assert question.body["stop_sequences"] == ["x"]
    assert question.untranslated == (
        "keep_alive",
        "options.temperature=1.5 (sent as 1)",
        "options.num_predict (sent as 1000)",
        "options.seed",
        "options.num_ctx",
    )


def test_all_of_the_tokens_are_what_the_api_takes_unasked() -> None:
    assert "top_k" not in chat(options={"top_k": 0}).body


@pytest.mark.parametrize(
    ("wanted", "by_tool"), [("json", True), ({"type": "object"}, True), ("", False)]
)
def test_forms_of_an_answer(wanted: object, by_tool: bool) -> None:
    assert chat(format=wanted).answers_by_tool is by_tool


@pytest.mark.parametrize("think", [True, "high"])
def test_thinking_is_told_where_there_is_none(think: object) -> None:
    assert chat(think=think).untranslated == ("think",)
    assert of_chat({"messages": [USER], "think": think}, Terms("m", 4096, 2048)).body["thinking"]


def test_a_prompt() -> None:
    question = of_generate(
        {"model": "cloud", "prompt": "hi", "system": "s", "images": [PNG]}, TERMS
    )
    assert question.body["system"] == "s"
    [turn] = question.body["messages"]
    assert [block["type"] for block in turn["content"]] == ["image", "text"]


@pytest.mark.parametrize("name", ["raw", "template", "suffix", "context"])
def test_what_speaks_in_tokens_is_refused(name: str) -> None:
    with pytest.raises(UntranslatableError, match=name):
        of_generate({"prompt": "hi", name: [1]}, TERMS)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": {}},
        {"messages": [{"role": "critic", "content": "x"}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
        {"messages": [{"role": "user", "content": "x", "images": [1]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
        {"tools": [{"type": "function"}]},
        {"format": 7},
        {"options": 7},
        {"messages": []},
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(fields: dict[str, Any]) -> None:
    with pytest.raises(UntranslatableError) as refused:
        chat(**fields)
    assert 10 < len(str(refused.value)) < 120


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["messages", "options", "format", "tools", "think", "prompt", "images", "stream", "system", "x"]
)


@given(st.dictionaries(NAMES, JSON))
def test_whatever_is_sent_is_asked_or_refused(fields: dict[str, Any]) -> None:
    for translate in (of_chat, of_generate):
        try:
            question = translate(fields, TERMS)
        except UntranslatableError:
            continue
        assert question.body["messages"]


@given(st.lists(st.sampled_from(["system", "user", "assistant"]), min_size=1), st.data())
def test_turns_alternate_and_hold_every_word(roles: list[str], data: st.DataObject) -> None:
    words = [data.draw(st.text(alphabet="abc", min_size=1, max_size=3)) for _ in roles]
    messages = [{"role": role, "content": word} for role, word in zip(roles, words, strict=True)]
    if set(roles) == {"system"}:
        return
    body = of_chat({"messages": messages}, TERMS).body
    turns = body["messages"]
    assert all(one["role"] != other["role"] for one, other in pairwise(turns))
    told = [(turn["role"], block["text"]) for turn in turns for block in turn["content"]]
    assert told == [(r, w) for r, w in zip(roles, words, strict=True) if r != "system"]
    assert body.get("system", "").split("\n\n") == [
        *([w for r, w in zip(roles, words, strict=True) if r == "system"] or [""])
    ]
