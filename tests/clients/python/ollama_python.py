"""The package ``ollama``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ollama import Client

from clients.python.seen import EMBEDDER, HELLO, SCHEMA, TOOL, URL, run

client = Client(host=URL)
MESSAGES = [{"role": "user", "content": HELLO}]


def chat(model: str) -> str:
    return str(client.chat(model, MESSAGES).message.content)


def stream(model: str) -> Iterator[str]:
    for part in client.chat(model, MESSAGES, stream=True):
        yield str(part.message.content)


def tools() -> dict[str, Any]:
    answer = client.chat("planner", MESSAGES, tools=[{"type": "function", "function": TOOL}])
    [call] = answer.message.tool_calls or []
    return {"name": call.function.name, "arguments": dict(call.function.arguments)}


def structured() -> Any:
    answer = client.chat("planner", MESSAGES, format=SCHEMA)
    return json.loads(str(answer.message.content))


def embed() -> list[int]:
    return [len(vector) for vector in client.embed(EMBEDDER, ["one", "two"]).embeddings]


def names() -> list[str]:
    return [str(model.model) for model in client.list().models]


def alias() -> Any:
    details = client.show("planner").details
    return None if details is None else details.family


if __name__ == "__main__":
    run(chat, stream, tools=tools, structured=structured, embed=embed, list=names, alias=alias)
