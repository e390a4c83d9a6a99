"""The package ``anthropic``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anthropic import Anthropic

from clients.python.seen import HELLO, TOOL, URL, run

client = Anthropic(base_url=URL, api_key="unused")
MESSAGES: Any = [{"role": "user", "content": HELLO}]


def chat(model: str) -> str:
    answer = client.messages.create(model=model, max_tokens=5, messages=MESSAGES)
    return str(answer.content[0].text)


def stream(model: str) -> Iterator[str]:
    with client.messages.stream(model=model, max_tokens=5, messages=MESSAGES) as parts:
        yield from parts.text_stream


def tools() -> dict[str, Any]:
    tool = {
        "name": TOOL["name"],
        "description": TOOL["description"],
        "input_schema": TOOL["parameters"],
    }
    answer = client.messages.create(model="planner", max_tokens=50, messages=MESSAGES, tools=[tool])
    [call] = [block for block in answer.content if block.type == "tool_use"]
    return {"name": call.name, "arguments": call.input}


def names() -> list[str]:
    return [model.id for model in client.models.list()]


if __name__ == "__main__":
    run(
        chat,
        stream,
        tools=tools,
        list=names,
        alias=lambda: client.models.retrieve("planner").id,
    )
