"""OpenAI's responses as the Messages API takes them, field by field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.providers.proven_thoughts import seal_of
from modelsplit_proxy.providers.question import Question, Terms, UntranslatableError
from modelsplit_proxy.providers.responses_request import of_responses
from support.json_values import JSON

TERMS = Terms("claude-x", 1000)
THINKS = Terms("claude-x", 9000, is_adaptive=True)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": None}
USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "2"}


def asked(terms: Terms = TERMS, **fields: Any) -> Question:
    return of_responses({"model": "cloud", "input": "hi"} | fields, terms)


def test_a_text_is_what_a_user_says() -> None:
    body = asked(instructions="be brief").body
    assert body["system"] == "be brief"
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert "stream" not in body
    assert asked(stream=True).body["stream"] is True


def test_items_in_turns_with_parallel_calls_and_their_results() -> None:
    other = CALL | {"call_id": "c2", "name": "g", "arguments": ""}
    question = asked(
        input=[
            {"type": "message", "role": "developer", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "what?"},
                    {"type": "input_image", "image_url": "https://example.com/a.png"},
                ],
            },
            {
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "well", "annotations": []}],
            },
            CALL,
            other,
            RESULT,
            RESULT | {"call_id": "c2", "output": [{"type": "input_text", "text": "3"}]},
            USER,
        ],
        tools=[TOOL],
    )
    assert question.untranslated == ()
    assert question.body["system"] == "be brief"
    user, assistant, results = question.body["messages"]
    assert [block["type"] for block in user["content"]] == ["text", "image"]
    assert assistant["content"] == [
        {"type": "text", "text": "well"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
    ]
    assert [block.get("tool_use_id") for block in results["content"]] == ["c1", "c2", None]
    assert question.body["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]


def test_results_come_before_what_the_user_says_besides() -> None:
    """As the Messages API wants them."""
    turn = asked(input=[USER, CALL, USER, RESULT]).body["messages"][-1]
    assert [block["type"] for block in turn["content"]] == ["tool_result", "text"]


def test_thoughts_go_back_where_they_are_the_providers_own() -> None:
    own = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": seal_of("c2ln"),
    }
    items = [USER, own, CALL, RESULT]
    question = asked(THINKS, input=items, reasoning={"effort": "high"})
    assert question.body["messages"][1]["content"][0] == {
        "type": "thinking",
        "thinking": "hm",
        "signature": "c2ln",
    }
    assert question.body["thinking"]["type"] == "adaptive"
    assert question.body["output_config"] == {"effort": "high"}
    assert question.untranslated == ()
    without = asked(THINKS, input=items)
    assert [block["type"] for block in without.body["messages"][1]["content"]] == ["tool_use"]
    assert without.untranslated == ("input.reasoning",)
    foreign = [USER, own | {"encrypted_content": "hm"}, CALL, RESULT]
    question = asked(THINKS, input=foreign, reasoning={"effort": "high"})
    assert question.untranslated == ("input.reasoning", "reasoning.effort")
    assert "thinking" not in question.body


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({"tool_choice": "auto"}, None),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "name": "f"}}, {"type": "tool", "name": "f"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": True}, None),
    ],
)
def test_choices_of_tools(fields: dict[str, Any], choice: dict[str, Any] | None) -> None:
    assert asked(tools=[TOOL], **fields).body.get("tool_choice") == choice


def test_forms_of_an_answer() -> None:
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    assert asked(text={"format": form}).answers_by_tool
    assert asked(text={"format": {"type": "json_object"}}).answers_by_tool
    assert not asked(text={"format": {"type": "text"}}).answers_by_tool
    assert not asked(text={}).answers_by_tool
    schemas = Terms("claude-x", 1000, has_schemas=True)
    assert asked(schemas, text={"format": form}).body["output_config"]["format"]["schema"] == {
        "title": "x",
        "type": "object",
    }


def test_what_has_no_counterpart_is_told() -> None:
    question = asked(
        store=True,
        truncation="auto",
        user="me",
        text={"verbosity": "low"},
        reasoning={"summary": "detailed"},
        include=["reasoning.encrypted_content", "file_search_call.results"],
        metadata={"a": "b"},
        max_tool_calls=3,
        prompt_cache_key="k",
        temperature=2,
        input=[USER | {"id": "m1"}],
    )
    assert question.untranslated == (
        "input.id",
        "text.verbosity",
        "reasoning.summary",
        "temperature=2 (sent as 1)",
        "store",
        "truncation",
        "prompt_cache_key",
        "user",
        "include",
        "max_tool_calls",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"background": True},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"prompt": {"id": "p"}},
        {"moderation": {"model": "m"}},
        {"top_logprobs": 2},
        {"include": ["message.output_text.logprobs"]},
        {"include": 7},
        {"prompt_cache_options": {"prewarm": True}},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "custom", "name": "x"}]},
        {"tool_choice": {"type": "mcp"}},
        {"text": 7},
        {"reasoning": 7},
        {"reasoning": {"effort": "extreme"}},
        {"instructions": 7},
        {"input": 7},
        {"input": []},
        {"input": [{"type": "item_reference", "id": "m"}]},
        {"input": [{"type": ["message"]}]},
        {"input": [{"role": "critic", "content": "x"}]},
        {"input": [CALL | {"arguments": "["}]},
        {"input": [{"type": "function_call_output", "output": "2"}]},
    ],
)
def test_what_would_change_the_meaning_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UntranslatableError) as refused:
        asked(**fields)
    assert 10 < len(str(refused.value)) < 120


KINDS = st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "x"])
NAMES = st.sampled_from(
    [
        *("input", "instructions", "tools", "tool_choice", "text", "reasoning", "include"),
        *("temperature", "stream_options", "prompt_cache_options", "store"),
    ]
)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={"type": KINDS | JSON, "role": st.sampled_from(["user", "assistant"])}
        | dict.fromkeys(("content", "output", "summary", "arguments", "name", "call_id"), JSON),
    ),
    max_size=4,
)


@given(st.dictionaries(NAMES, JSON), st.none() | ITEMS)
def test_whatever_is_sent_is_asked_or_refused(fields: dict[str, Any], items: object) -> None:
    given = {"model": "cloud", "input": "hi"} | fields
    try:
        question = of_responses(given if items is None else given | {"input": items}, TERMS)
    except UntranslatableError:
        return
    assert question.body["messages"]
