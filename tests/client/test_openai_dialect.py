"""Calls in OpenAI's words, and what a model said in them."""

from __future__ import annotations

import pytest

from modelsplit_client import Piece, ToolCall
from modelsplit_client.calls import Call
from modelsplit_client.openai_dialect import OpenAIDialect

SPEAKS = OpenAIDialect()
HELLO = [{"role": "user", "content": "hi"}]


def delta(**fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def test_a_prompt_is_a_chat_of_one_message() -> None:
    call = Call("PLANNER", "hi", options={"system": "be brief"})
    assert SPEAKS.path(call) == "/v1/chat/completions"
    assert SPEAKS.body(call) == {
        "model": "",
        "messages": [{"role": "system", "content": "be brief"}, *HELLO],
        "stream": False,
    }


def test_all_that_a_call_can_say() -> None:
    call = Call(
        "CHAT",
        messages=HELLO,
        schema={"type": "object"},
        tools=[{"type": "function"}],
        stream=True,
        options={
            "model": "qwen3:4b",
            "think": True,
            "options": {"temperature": 0, "num_predict": 9},
            "extra": {"user": "me"},
        },
    )
    shape = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    assert SPEAKS.body(call) == {
        "model": "qwen3:4b",
        "messages": HELLO,
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function"}],
        "response_format": {"type": "json_schema", "json_schema": shape},
        "reasoning_effort": "medium",
        "temperature": 0,
        "max_tokens": 9,
        "user": "me",
    }


@pytest.mark.parametrize(("think", "effort"), [(False, "none"), (True, "medium"), ("high", "high")])
def test_thinking_is_an_effort(think: bool | str, effort: str) -> None:
    body = SPEAKS.body(Call("CHAT", "hi", options={"think": think}))
    assert body["reasoning_effort"] == effort


def test_an_option_it_cannot_say_is_refused_here() -> None:
    call = Call("CHAT", "hi", options={"options": {"num_ctx": 8192}})
    with pytest.raises(ValueError, match="has no option 'num_ctx'; it has frequency_penalty, "):
        SPEAKS.body(call)


def test_a_whole_answer() -> None:
    function = {"name": "grep", "arguments": '{"word":"if"}'}
    message = {
        "role": "assistant",
        "content": "",
        "reasoning": "hm",
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    choice = {"message": message, "finish_reason": "tool_calls"}
    said = SPEAKS.whole({"choices": [choice], "usage": usage})
    assert said is not None
    assert (said.thinking, said.finish, said.tokens) == ("hm", "tool_calls", (3, 4))
    assert said.tool_calls == (ToolCall("grep", '{"word":"if"}', "c1"),)
    assert said.message == message
    assert SPEAKS.whole({"choices": []}) is None
    assert SPEAKS.whole({"object": "list"}) is None


def test_a_stream_piece_by_piece() -> None:
    assert SPEAKS.payload(b'data: {"a":1}\r') == b'{"a":1}'
    assert SPEAKS.payload(b": ping") == SPEAKS.payload(b"event: error") == b""
    assert SPEAKS.ends(b"[DONE]", {})
    assert not SPEAKS.ends(b"{}", {})
    assert SPEAKS.piece(delta(content="Yes")) == Piece("Yes")
    assert SPEAKS.piece(delta(content="", reasoning="hm")) == Piece("", "hm")
    assert SPEAKS.piece(delta(role="assistant")) is None
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    assert [SPEAKS.tells_more(sent) for sent in (delta(content="Yes"), end, usage)] == [
        False,
        True,
        True,
    ]
    said = SPEAKS.collected([end, usage], "Yes", "")
    assert (said.finish, said.tokens) == ("stop", (3, 4))
    assert said.message == {"role": "assistant", "content": "Yes"}


def test_a_tool_call_that_comes_in_parts_is_one() -> None:
    parts = [
        delta(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "grep", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"word"'}}]),
        delta(tool_calls=[{"index": 1, "id": "c2", "function": {"name": "ls", "arguments": "{}"}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ':"if"}'}}]),
    ]
    said = SPEAKS.collected(parts, "", "")
    assert said.tool_calls == (ToolCall("grep", '{"word":"if"}', "c1"), ToolCall("ls", "{}", "c2"))
    assert said.message["tool_calls"][0] == {
        "id": "c1",
        "type": "function",
        "function": {"name": "grep", "arguments": '{"word":"if"}'},
    }
