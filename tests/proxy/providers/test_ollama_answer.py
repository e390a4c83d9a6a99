"""Answers in Ollama's own dialect: lines that its clients read."""

from __future__ import annotations

import orjson
from ollama import ChatResponse, GenerateResponse

from modelsplit_proxy.protocol import stream_end
from modelsplit_proxy.providers.answer import Answer, Counts, ToolCall
from modelsplit_proxy.providers.ollama_answer import OllamaWriter
from support import messages as say

STREAM = (
    say.start()
    + say.text("Hel", "lo")
    + say.tool("f", '{"x":', "1}", index=1)
    + say.end("tool_use")
)


def test_a_chat_streamed() -> None:
    clock = say.StoppedClock()
    lines = say.translated(OllamaWriter("opus", clock, chats=True), STREAM).splitlines()
    answers = [ChatResponse.model_validate(orjson.loads(line)) for line in lines]
    assert [answer.message.content for answer in answers] == ["Hel", "lo", "", ""]
    [call] = answers[2].message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("f", {"x": 1})
    last = orjson.loads(lines[-1])
    assert last == {
        "model": "opus",
        "created_at": "2023-11-14T22:13:20.000Z",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "total_duration": 0,
        "load_duration": 0,
        "prompt_eval_count": 10,
        "prompt_eval_duration": 0,
        "eval_count": 7,
        "eval_duration": 0,
    }


def test_the_stream_says_that_it_was_whole() -> None:
    tail = stream_end.Tail()
    tail.feed(say.translated(OllamaWriter("opus", say.StoppedClock(), chats=False), STREAM))
    verdict = stream_end.judge_ndjson(tail)
    assert (verdict.complete, verdict.usage.output_tokens) == (True, 7)


def test_times_are_those_of_the_first_word_and_the_last() -> None:
    clock = say.StoppedClock()
    writer = OllamaWriter("opus", clock, chats=False)
    clock.at = 1.5
    writer.text("a")
    clock.at = 2.0
    last = orjson.loads(writer.ended(Answer()))
    assert (last["total_duration"], last["prompt_eval_duration"]) == (2_000_000_000, 1_500_000_000)
    assert last["eval_duration"] == 500_000_000
    assert "eval_count" not in last


def test_a_prompt_answered_whole() -> None:
    answer = Answer("msg_1", "hello", "hm", stop_reason="max_tokens", counts=Counts(3, output=4))
    body = OllamaWriter("opus", say.StoppedClock(), chats=False).whole(answer)
    parsed = GenerateResponse.model_validate(orjson.loads(body))
    assert (parsed.response, parsed.thinking, parsed.done_reason) == ("hello", "hm", "length")
    assert (parsed.prompt_eval_count, parsed.eval_count) == (3, 4)


def test_a_chat_answered_whole_with_a_call() -> None:
    answer = Answer("msg_1", "", calls=[ToolCall("t", "f", '{"x":1}')], stop_reason="tool_use")
    body = orjson.loads(OllamaWriter("opus", say.StoppedClock(), chats=True).whole(answer))
    assert body["message"]["tool_calls"] == [
        {"id": "t", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}}
    ]
    assert body["done"] is True


def test_thoughts_are_lines_of_their_own() -> None:
    writer = OllamaWriter("opus", say.StoppedClock(), chats=True)
    assert orjson.loads(writer.thinking("hm"))["message"]["thinking"] == "hm"
