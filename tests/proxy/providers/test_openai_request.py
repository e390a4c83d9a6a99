"""OpenAI's chat completions as the Messages API takes them, field by field."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.providers.openai_request import of_chat_completions
from modelsplit_proxy.providers.question import Question, Terms, UntranslatableError
from support.json_values import JSON

ASKED: dict[str, Any] = {"model": "cloud", "messages": [{"role": "user", "content": "hi"}]}
TERMS = Terms("claude-x", 1000)
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> Question:
    return of_chat_completions(ASKED | fields, TERMS)


def test_a_chat_in_turns() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    question = chat(
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                ],
            },
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ],
        tools=[TOOL],
    )
    assert question.body["system"] == "be brief"
    user, assistant, result = question.body["messages"]
    assert [block["type"] for block in user["content"]] == ["text", "image", "image"]
    assert user["content"][2]["source"] == {"type": "url", "url": "https://example.com/a.png"}
    assert assistant["content"] == [
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
    ]
    assert result["content"][0]["tool_use_id"] == "c1"
    assert "stream" not in question.body
    assert question.untranslated == ()


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({"tool_choice": "auto"}, None),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"type": "tool", "name": "f"},
        ),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
    ],
)
def test_choices_of_tools(fields: dict[str, Any], choice: dict[str, Any] | None) -> None:
    assert chat(tools=[TOOL], **fields).body.get("tool_choice") == choice


@pytest.mark.parametrize(
    ("wanted", "by_tool"),
    [
        ({"type": "text"}, False),
        ({"type": "json_object"}, True),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}, True),
    ],
)
def test_forms_of_an_answer(wanted: dict[str, Any], by_tool: bool) -> None:
    assert chat(response_format=wanted).answers_by_tool is by_tool


def test_what_has_no_counterpart_is_told() -> None:
    question = chat(
        seed=1, user="me", presence_penalty=0.5, temperature=2, logit_bias=None, stream=True
    )
    assert question.body["stream"] is True
    assert question.untranslated == (
        "user",
        "temperature=2 (sent as 1)",
        "seed",
        "presence_penalty",
    )


@pytest.mark.parametrize(
    ("effort", "field", "tokens"),
    [
        ({"reasoning_effort": "high"}, "reasoning_effort", 8000),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort", 2000),
    ],
)
def test_effort_is_thinking(effort: dict[str, Any], field: str, tokens: int) -> None:
    assert chat(**effort).untranslated == (field,)
    question = of_chat_completions(ASKED | effort, Terms("claude-x", 9000, thinking_tokens=8000))
    assert question.body["thinking"] == {"type": "enabled", "budget_tokens": tokens}
    assert chat(reasoning_effort="minimal").untranslated == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"functions": [{}]},
        {"messages": [{"role": "critic", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp:x"}}]}
            ]
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": "data:x,y"}]}
            ]
        },
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
        {"tools": [{"type": "web_search"}]},
        {"tool_choice": "perhaps"},
        {"response_format": {"type": "grammar"}},
    ],
)
def test_what_would_change_the_meaning_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UntranslatableError) as refused:
        chat(**fields)
    assert 10 < len(str(refused.value)) < 120


NAMES = st.sampled_from(
    ["messages", "tools", "tool_choice", "response_format", "stop", "temperature", "n", "reasoning"]
)


@given(st.dictionaries(NAMES, JSON))
def test_whatever_is_sent_is_asked_or_refused(fields: dict[str, Any]) -> None:
    try:
        question = of_chat_completions({"messages": [USER]} | fields, TERMS)
    except UntranslatableError:
        return
    assert question.body["messages"]
