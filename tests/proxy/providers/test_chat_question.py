"""Requests of the Messages API as chat completions take them."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.providers.chat_question import of_question
from modelsplit_proxy.providers.openai_request import of_chat_completions
from modelsplit_proxy.providers.question import Question, Terms, UntranslatableError

HI = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


TERMS = Terms("m", 9)
THINKS = Terms("m", 9000, thinking_tokens=8000)


def both(terms: Terms = TERMS, **fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    body = {"model": "m", "max_tokens": 9, "messages": HI} | fields
    return of_question(Question(body), terms)


def asked(**fields: Any) -> dict[str, Any]:
    return both(**fields)[0]


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


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
    assert both(top_k=3, metadata={"user_id": "u"}, new=1)[1] == ("metadata", "new", "top_k")


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
    assert of_question(question, TERMS)[0]["messages"] == fields["messages"]


def test_what_only_chat_completions_have_a_word_for_is_said_to_them() -> None:
    fields = {
        "messages": [{"role": "user", "content": "hi"}],
        "seed": 7,
        "user": "me",
        "store": True,
    }
    form = {"name": "x", "schema": {"type": "object"}, "strict": True}
    fields["response_format"] = {"type": "json_schema", "json_schema": form}
    question = of_chat_completions(fields, Terms("m", 9, has_schemas=True))
    assert set(question.untranslated) == {"user", "seed", "store"}
    body, left_out = of_question(question, TERMS)
    assert (body["seed"], body["user"], left_out) == (7, "me", ("store",))
    named = body["response_format"]["json_schema"]
    assert (named["name"], named["strict"]) == ("x", True)


@pytest.mark.parametrize(
    ("terms", "fields", "effort"),
    [
        (TERMS, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, None),
        (TERMS, {"output_config": {"effort": "low"}}, None),
        (THINKS, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "low"),
        (THINKS, {"thinking": {"type": "enabled", "budget_tokens": 4000}}, "medium"),
        (THINKS, {"thinking": {"type": "enabled", "budget_tokens": 8000}}, "high"),
        (THINKS, {"thinking": {"type": "enabled"}}, "medium"),
        (THINKS, {"output_config": {"effort": "max"}}, "max"),
        (THINKS, {"thinking": {"type": "disabled"}}, None),
        (Terms("m", 9, is_adaptive=True), {"thinking": {"type": "adaptive"}}, "medium"),
    ],
)
def test_thinking_is_effort_where_the_models_can(
    terms: Terms, fields: dict[str, Any], effort: str | None
) -> None:
    body, left_out = both(terms, **fields)
    assert body.get("reasoning_effort") == effort
    thinks = fields.get("thinking", {}).get("type") != "disabled"
    assert bool(left_out) == (effort is None and thinks)
    assert ("max_completion_tokens" in body) == terms.is_adaptive


def test_pictures_and_files_of_a_tools_result_come_from_the_user() -> None:
    png = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    content = [{"type": "text", "text": "see"}, {"type": "image", "source": png}]
    result = {"type": "tool_result", "tool_use_id": "t", "content": content, "is_error": True}
    body, left_out = both(**user(result))
    tool, shown = body["messages"]
    assert tool == {"role": "tool", "tool_call_id": "t", "content": "see"}
    assert shown["content"][0]["image_url"]["url"] == "data:image/png;base64,AAAA"
    assert left_out == (
        "messages.tool_result.is_error",
        "messages.tool_result (a picture or file sent as a user's)",
    )


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ({"type": "text", "data": "words"}, {"type": "text", "text": "T\n\nwords"}),
        ({"type": "content", "content": "words"}, {"type": "text", "text": "T\n\nwords"}),
        (
            {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
            {
                "type": "file",
                "file": {"filename": "T", "file_data": "data:application/pdf;base64,AAAA"},
            },
        ),
    ],
)
def test_documents(source: dict[str, Any], part: dict[str, Any]) -> None:
    document = {"type": "document", "title": "T", "source": source}
    content = asked(**user(document))["messages"][0]["content"]
    assert content == (part["text"] if part["type"] == "text" else [part])


def test_thoughts_are_left_out() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    turn = {"role": "assistant", "content": [thought, {"type": "text", "text": "a"}]}
    body, left_out = both(messages=[*HI, turn, {"role": "assistant", "content": [thought]}])
    assert body["messages"][1:] == [{"role": "assistant", "content": "a"}]
    assert left_out == ("messages.thinking",)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": 7},
        {"messages": [7]},
        {"messages": [{"role": "critic", "content": "a"}]},
        {"messages": [{"role": "user", "content": 7}]},
        user({"type": "text", "text": 7}),
        user({"type": "search_result"}),
        user({"type": "image", "source": {"type": "file", "file_id": "f"}}),
        user({"type": "image", "source": "x"}),
        user({"type": "document", "source": {"type": "url", "url": "https://x"}}),
        user({"type": "tool_result"}),
        {"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": 7}]}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{"name": "f"}], "tool_choice": {"type": "perhaps"}},
        {"container": "c"},
        {"inference_geo": "eu"},
        {"mcp_servers": [{}]},
        {"output_config": {"format": {"type": "json_schema"}}},
        {"output_config": 7},
        {"thinking": 7},
        {"system": [{"type": "image"}]},
    ],
)
def test_what_would_change_the_meaning_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UntranslatableError) as refused:
        asked(**fields)
    assert 10 < len(str(refused.value)) < 120


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "source", "content", "name", "id", "input", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *("messages", "system", "tools", "tool_choice", "output_config", "thinking"),
        *("stop_sequences", "metadata", "temperature", "stream"),
    ]
)
KINDS = st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "thinking"])
TURNS = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant"]),
            "content": st.lists(
                st.fixed_dictionaries(
                    {"type": KINDS},
                    optional=dict.fromkeys(("text", "source", "content", "id", "name"), JSON),
                ),
                max_size=3,
            ),
        }
    ),
    max_size=3,
)


@given(st.dictionaries(NAMES, JSON), TURNS)
def test_whatever_is_sent_is_asked_or_refused(
    fields: dict[str, Any], turns: list[dict[str, Any]]
) -> None:
    for messages in (HI, turns):
        with contextlib.suppress(UntranslatableError):
            assert asked(**({"messages": messages} | fields))["model"] == "m"


WORDS = st.text("abc äß€", min_size=1, max_size=6)
PICTURES = st.sampled_from(["https://example.com/a.png", "data:image/png;base64,iVBORw0KGgoAAAAA"])
PARTS = st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, WORDS)
    | st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, PICTURES),
    min_size=2,
    max_size=3,
)
ARGUMENTS = st.dictionaries(WORDS, st.integers(0, 9) | WORDS, max_size=2)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """As a client keeps one: turns, calls of tools, a result of each, in any number."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(WORDS)})
    for turn in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(WORDS | PARTS)})
        calls = [
            {
                "id": f"c{turn}_{number}",
                "type": "function",
                "function": {"name": "f", "arguments": orjson.dumps(arguments).decode()},
            }
            for number, arguments in enumerate(draw(st.lists(ARGUMENTS, max_size=3)))
        ]
        content = draw(WORDS if not calls else st.none() | WORDS)
        said = {"role": "assistant", "content": content}
        messages.append(said | ({"tool_calls": calls} if calls else {}))
        messages += [
            {"role": "tool", "tool_call_id": call["id"], "content": draw(WORDS)} for call in calls
        ]
    return messages


@given(conversations())
def test_there_and_back_any_conversation_is_the_same(messages: list[dict[str, Any]]) -> None:
    question = of_chat_completions({"messages": messages}, TERMS)
    assert question.untranslated == ()
    body, left_out = of_question(question, TERMS)
    assert (body["messages"], left_out) == (messages, ())
