"""What the official SDKs get from a cloud: a text, a stream, a tool's call and its result each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, Final

import anthropic
import ollama
import openai
from pydantic import BaseModel

URL: Final = os.environ["MODELSPLIT_URL"]
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
FUNCTION: Final = {"name": "weather", "description": "in a city", "parameters": SCHEMA}
USER: Final[Any] = {"role": "user", "content": "hi"}

client: Final = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
messages: Final = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0).messages
native: Final = ollama.Client(URL)


class Place(BaseModel):
    city: str


def responses() -> Any:
    given = client.responses.create(model="cloud", input="hi")
    assert given.usage is not None
    return [given.output_text, given.status, given.usage.output_tokens > 0]


def responses_stream() -> Any:
    with client.responses.stream(model="cloud", input="hi") as stream:
        kinds = [event.type for event in stream]
        whole = stream.get_final_response()
    return [whole.output_text, kinds[0], kinds[-1], "response.output_text.delta" in kinds]


def responses_tool() -> Any:
    """The answer goes back as the SDK gives it, with the tool's result behind."""
    tools: Any = [{"type": "function", "strict": False} | FUNCTION]
    given = client.responses.create(model="cloud", input="hi", tools=tools)
    return _second_turn(given, tools)


def responses_tool_stream() -> Any:
    tools: Any = [{"type": "function", "strict": False} | FUNCTION]
    with client.responses.stream(model="cloud", input="hi", tools=tools) as stream:
        given = stream.get_final_response()
    return _second_turn(given, tools)


def _second_turn(given: Any, tools: Any) -> Any:
    [call] = [item for item in given.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    items: Any = [USER, *(item.to_dict() for item in given.output), result]
    last = client.responses.create(model="cloud", input=items, tools=tools)
    return [call.name, sorted(json.loads(call.arguments)), bool(last.output_text)]


def responses_form() -> Any:
    given = client.responses.parse(model="cloud", input="hi", text_format=Place)
    return type(given.output_parsed).__name__


def completions() -> Any:
    given = client.completions.create(model="cloud", prompt="hi")
    return [given.choices[0].text, given.object, given.choices[0].finish_reason is not None]


def completions_stream() -> Any:
    stream = client.completions.create(model="cloud", prompt="hi", stream=True)
    return "".join(chunk.choices[0].text for chunk in stream)


def chat_tool_stream() -> Any:
    tools: Any = [{"type": "function", "function": FUNCTION}]
    with client.chat.completions.stream(model="cloud", messages=[USER], tools=tools) as stream:
        choice = stream.get_final_completion().choices[0]
    assert choice.message.tool_calls is not None
    [call] = choice.message.tool_calls
    return [call.function.name, sorted(json.loads(call.function.arguments)), choice.finish_reason]


def messages_stream() -> Any:
    with messages.stream(model="cloud", max_tokens=100, messages=[USER]) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    return [text, last.role, last.usage.output_tokens > 0]


def messages_tool() -> Any:
    tool: Any = {"name": "weather", "input_schema": SCHEMA}
    asked: dict[str, Any] = {"model": "cloud", "max_tokens": 100, "tools": [tool]}
    with messages.stream(messages=[USER], **asked) as stream:
        given = stream.get_final_message()
    [call] = [block for block in given.content if block.type == "tool_use"]
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    turns: Any = [
        USER,
        {"role": "assistant", "content": given.content},
        {"role": "user", "content": [result]},
    ]
    last = messages.create(messages=turns, **asked)
    texts = [block.text for block in last.content if block.type == "text"]
    return [call.name, sorted(call.input), given.stop_reason, bool("".join(texts))]


def native_stream() -> Any:
    stream = native.chat("cloud", messages=[USER], stream=True)
    return "".join(part.message.content or "" for part in stream)


def native_tool() -> Any:
    tool: Any = {"type": "function", "function": FUNCTION}
    given = native.chat("cloud", messages=[USER], tools=[tool])
    [call] = given.message.tool_calls or []
    return [call.function.name, sorted(call.function.arguments)]


CASES: Final[tuple[Callable[[], Any], ...]] = (
    *(responses, responses_stream, responses_tool, responses_tool_stream, responses_form),
    *(completions, completions_stream, chat_tool_stream),
    *(messages_stream, messages_tool, native_stream, native_tool),
)
print(json.dumps({case.__name__: case() for case in CASES}))
