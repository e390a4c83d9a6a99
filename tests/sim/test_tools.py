"""Tool calls on each API, whole and streamed. Read in Ollama's source, not recorded."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from modelsplit_sim import Sim
from modelsplit_sim.tools import ToolCall, tool_call

from .client import post

pytestmark = pytest.mark.flowing_time

MODEL = "qwen3:4b"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "parameters": SCHEMA}
WRAPPED = {"type": "function", "function": FUNCTION}
ARGUMENTS = {"city": "some city"}
HELLO = [{"role": "user", "content": "hi"}]
CALLED = {"index": 0, "name": "weather", "arguments": ARGUMENTS}
CALLED_AS_JSON = {"name": "weather", "arguments": json.dumps(ARGUMENTS, separators=(",", ":"))}


async def ask(path: str, **fields: Any) -> Any:
    """The whole answer, or a stream's objects."""
    async with Sim() as sim:
        answer = await post(sim, path, model=MODEL, **fields)
        assert answer.status == 200
        if not fields.get("stream"):
            return answer.json
        lines = re.findall(rb"^(?:data: )?(\{.*)$", answer.body, re.MULTILINE)
        return [json.loads(line) for line in lines]


async def test_native() -> None:
    whole = await ask("/api/chat", messages=HELLO, tools=[WRAPPED], stream=False)
    assert whole["message"]["content"] == ""
    assert [call["function"] for call in whole["message"]["tool_calls"]] == [CALLED]
    assert (whole["done"], whole["done_reason"]) == (True, "stop")
    told, last = await ask("/api/chat", messages=HELLO, tools=[WRAPPED], stream=True)
    assert [call["function"] for call in told["message"]["tool_calls"]] == [CALLED]
    assert (told["done"], last["done"], last["done_reason"]) == (False, True, "stop")
    assert last["message"] == {"role": "assistant", "content": ""}


async def test_openai_chat() -> None:
    path = "/v1/chat/completions"
    [choice] = (await ask(path, messages=HELLO, tools=[WRAPPED]))["choices"]
    [call] = choice["message"]["tool_calls"]
    assert call["id"].startswith("call_")
    assert (call["function"], choice["finish_reason"]) == (CALLED_AS_JSON, "tool_calls")
    told, last = await ask(path, messages=HELLO, tools=[WRAPPED], stream=True)
    [call] = told["choices"][0]["delta"]["tool_calls"]
    assert (call["type"], call["function"]) == ("function", CALLED_AS_JSON)
    assert last["choices"][0]["finish_reason"] == "tool_calls"


async def test_anthropic() -> None:
    tool = {"name": "weather", "input_schema": SCHEMA}
    fields: dict[str, Any] = {"messages": HELLO, "max_tokens": 2, "tools": [tool]}
    whole = await ask("/v1/messages", **fields)
    [block] = whole["content"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "weather", ARGUMENTS)
    assert whole["stop_reason"] == "tool_use"
    events = await ask("/v1/messages", **fields, stream=True)
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert json.loads(events[2]["delta"]["partial_json"]) == ARGUMENTS
    assert events[4]["delta"]["stop_reason"] == "tool_use"


async def test_responses() -> None:
    tool = {"type": "function", **FUNCTION}
    [item] = (await ask("/v1/responses", input="hi", tools=[tool]))["output"]
    assert item["type"] == "function_call"
    assert json.loads(item["arguments"]) == ARGUMENTS
    events = await ask("/v1/responses", input="hi", tools=[tool], stream=True)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    [last] = events[-1]["response"]["output"]
    assert (last["name"], last["arguments"]) == (item["name"], item["arguments"])


@pytest.mark.parametrize(
    "last",
    [
        {"role": "tool", "content": "sunny"},
        {"role": "user", "content": [{"type": "tool_result", "content": "sunny"}]},
        {"type": "function_call_output", "output": "sunny"},
    ],
)
def test_a_tool_that_has_answered_is_not_called_again(last: dict[str, Any]) -> None:
    assert tool_call({"tools": [WRAPPED], "messages": [*HELLO, last]}) is None


@pytest.mark.parametrize(
    ("tool", "called"),
    [
        ({"function": {"name": "now"}}, ToolCall("now", {}, "x")),
        ({"name": "odd", "parameters": {"type": "picture"}}, ToolCall("odd", {}, "x")),
    ],
)
def test_a_tool_without_a_schema_to_fit_is_called_with_nothing(
    tool: dict[str, Any], called: ToolCall
) -> None:
    found = tool_call({"tools": [tool], "messages": HELLO})
    assert found is not None
    assert (found.name, found.arguments) == (called.name, called.arguments)
