"""Our own package ``modelsplit_client``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clients.python.seen import HELLO, SCHEMA, TOOL, URL, run
from modelsplit_client import Client

client = Client(URL)
MESSAGES = [{"role": "user", "content": HELLO}]


def chat(model: str) -> str:
    return client.chat(MESSAGES, "", model=model).text


def stream(model: str) -> Iterator[str]:
    for piece in client.stream_chat(MESSAGES, "", model=model):
        yield piece.text


def tools() -> dict[str, Any]:
    answer = client.chat(MESSAGES, "PLANNER", tools=[{"type": "function", "function": TOOL}])
    [call] = answer.tool_calls
    return {"name": call.name, "arguments": call.arguments}


def structured() -> Any:
    return client.chat(MESSAGES, "PLANNER", schema=SCHEMA).parsed


if __name__ == "__main__":
    run(chat, stream, tools=tools, structured=structured)
