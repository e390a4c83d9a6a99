"""Requests of the Messages API as chat completions take them."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_proxy.providers.chat_question import of_question
from modelsplit_proxy.providers.openai_request import of_chat_completions
from modelsplit_proxy.providers.question import Terms

HI = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


def asked(**fields: Any) -> dict[str, Any]:
    body = {"model": "m", "max_tokens": 9, "messages": HI} | fields
    return of_question(body)[0]


def test_the_least() -> None:
    assert asked() == {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_a_conversation_with_tools_and_pictures() -> None:
    png = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    far = {"type": "url", "url": "https://example.com/a.png"}
    turns = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what?"},
                {"type": "image", "source": png},
                {"type": "image", "source": far},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [{"type": "text", "text": "2"}],
                },
                {"type": "text", "text": "and?"},
            ],
        },
        {"role": "assistant", "content": "so"},
    ]
    messages = asked(system="be brief", messages=turns)["messages"]
    assert [message["role"] for message in messages] == [
        *("system", "user", "assistant", "tool", "user", "assistant")
    ]
    urls = [part["image_url"]["url"] for part in messages[1]["content"][1:]]
    assert urls == ["data:image/png;base64,AAAA", "https://example.com/a.png"]
    assert messages[2]["tool_calls"] == [
        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    ]
    assert messages[3] == {"role": "tool", "tool_call_id": "t1", "content": "2"}
    assert (messages[4]["content"], messages[5]["content"]) == ("and?", "so")


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "f"},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
    ],
)
def test_choices_of_tools(choice: dict[str, Any], sent: dict[str, Any]) -> None:
    tool = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
    body = asked(tools=[tool], tool_choice=choice)
    function = {"name": "f", "parameters": {"type": "object"}, "description": "d"}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert {key: body[key] for key in sent} == sent


def test_the_rest() -> None:
    schema = {"type": "object"}
    body = asked(
        stop_sequences=["x"],
        stream=True,
        temperature=0.5,
        top_p=0.9,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert (body["stop"], body["temperature"], body["top_p"]) == (["x"], 0.5, 0.9)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert body["response_format"]["json_schema"]["schema"] == schema
    _, left_out = of_question({"model": "m", "messages": HI, "top_k": 3, "thinking": {}})
    assert left_out == ("top_k", "thinking")


def test_there_and_back_a_conversation_is_the_same() -> None:
    fields = {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "what?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a":1}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
            {"role": "user", "content": "and?"},
        ]
    }
    question = of_chat_completions(fields, Terms("m", 9))
    assert of_question(question.body)[0]["messages"] == fields["messages"]
