"""Calls in Ollama's words, and what a model said in them."""

from __future__ import annotations

from modelsplit_client import Piece, ToolCall
from modelsplit_client.answers import Said
from modelsplit_client.calls import Call
from modelsplit_client.ollama_dialect import OllamaDialect

SPEAKS = OllamaDialect()
HELLO = [{"role": "user", "content": "hi"}]
CALL = {"id": "c1", "function": {"name": "grep", "arguments": {"word": "if"}}}
USAGE = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4}


def test_a_prompt_and_a_chat_have_their_routes() -> None:
    assert SPEAKS.path(Call("PLANNER", "hi")) == "/api/generate"
    assert SPEAKS.path(Call("PLANNER", messages=HELLO)) == "/api/chat"


def test_a_plain_prompt_names_no_model() -> None:
    assert SPEAKS.body(Call("PLANNER", "hi")) == {"model": "", "prompt": "hi", "stream": False}


def test_all_that_a_call_can_say() -> None:
    call = Call(
        "CHAT",
        messages=HELLO,
        schema={"type": "object"},
        tools=[{"type": "function"}],
        stream=True,
        options={
            "model": "qwen3:4b",
            "system": "be brief",
            "think": "low",
            "options": {"temperature": 0},
            "extra": {"keep_alive": -1},
        },
    )
    assert SPEAKS.body(call) == {
        "model": "qwen3:4b",
        "stream": True,
        "messages": [{"role": "system", "content": "be brief"}, *HELLO],
        "tools": [{"type": "function"}],
        "format": {"type": "object"},
        "think": "low",
        "options": {"temperature": 0},
        "keep_alive": -1,
    }
    prompt = SPEAKS.body(Call("PLANNER", "hi", options={"system": "be brief"}))
    assert (prompt["prompt"], prompt["system"]) == ("hi", "be brief")


def test_a_whole_answer_of_each_route() -> None:
    assert SPEAKS.whole({"response": "Yes", "thinking": "hm", **USAGE}) == Said(
        text="Yes",
        thinking="hm",
        finish="stop",
        tokens=(3, 4),
        message={"role": "assistant", "content": "Yes", "thinking": "hm"},
    )
    message = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    said = SPEAKS.whole({"message": message, **USAGE})
    assert said is not None
    assert said.tool_calls == (ToolCall("grep", '{"word": "if"}', "c1"),)
    assert said.message == message
    assert SPEAKS.whole({"models": []}) is None


def test_a_stream_piece_by_piece() -> None:
    text = {"message": {"role": "assistant", "content": "Yes"}, "done": False}
    tool = {"message": {"role": "assistant", "content": "", "tool_calls": [CALL]}, "done": False}
    end = {"message": {"role": "assistant", "content": ""}, **USAGE}
    assert SPEAKS.payload(b'  {"done":true}\r') == b'{"done":true}'
    assert [SPEAKS.piece(sent) for sent in (text, tool, end)] == [Piece("Yes"), None, None]
    assert SPEAKS.piece({"response": "", "thinking": "hm"}) == Piece("", "hm")
    assert [SPEAKS.tells_more(sent) for sent in (text, tool, end)] == [False, True, True]
    assert [SPEAKS.ends(b"", sent) for sent in (text, tool, end)] == [False, False, True]
    said = SPEAKS.collected([tool, end], "Yes", "")
    assert said.message == {"role": "assistant", "content": "Yes", "tool_calls": [CALL]}
    assert (said.finish, said.tokens) == ("stop", (3, 4))
