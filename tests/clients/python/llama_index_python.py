"""The package ``llama-index-llms-ollama``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from llama_index.core.tools import FunctionTool
from llama_index.llms.ollama import Ollama

from clients.python.seen import HELLO, SCHEMA, TOOL, URL, run


def model(name: str, **fields: Any) -> Any:
    return Ollama(model=name, base_url=URL, **fields)


def chat(name: str) -> str:
    return str(model(name).complete(HELLO).text)


def stream(name: str) -> Iterator[str]:
    for part in model(name).stream_complete(HELLO):
        yield str(part.delta)


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def tools() -> dict[str, Any]:
    llm = model("planner")
    answer = llm.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg=HELLO)
    [call] = llm.get_tool_calls_from_response(answer)
    assert call.tool_name == TOOL["name"]
    return {"name": call.tool_name, "arguments": call.tool_kwargs}


def structured() -> Any:
    return json.loads(model("planner").complete(HELLO, format=SCHEMA).text)


if __name__ == "__main__":
    run(
        chat,
        stream,
        tools=tools,
        structured=structured,
        alias=lambda: model("planner").metadata.context_window,
    )
