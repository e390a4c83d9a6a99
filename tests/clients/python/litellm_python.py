"""LiteLLM's SDK, with its provider ``ollama_chat``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import litellm

from clients.python.seen import EMBEDDER, HELLO, SCHEMA, TOOL, URL, run

MESSAGES = [{"role": "user", "content": HELLO}]


def ask(name: str, **fields: Any) -> Any:
    return litellm.completion(
        model=f"ollama_chat/{name}", messages=MESSAGES, api_base=URL, **fields
    )


def chat(name: str) -> str:
    return str(ask(name).choices[0].message.content)


def stream(name: str) -> Iterator[str]:
    for part in ask(name, stream=True):
        yield part.choices[0].delta.content or ""


def tools() -> dict[str, Any]:
    answer = ask("planner", tools=[{"type": "function", "function": TOOL}])
    [call] = answer.choices[0].message.tool_calls
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def structured() -> Any:
    form = {"type": "json_schema", "json_schema": {"name": "plan", "schema": SCHEMA}}
    return json.loads(ask("planner", response_format=form).choices[0].message.content)


def embed() -> list[int]:
    model = f"ollama/{EMBEDDER}"
    answer = litellm.embedding(model=model, input=["one", "two"], api_base=URL)
    return [len(item["embedding"]) for item in answer.data]


def alias() -> Any:
    return litellm.get_model_info("ollama/planner", api_base=URL)["max_tokens"]


if __name__ == "__main__":
    run(chat, stream, tools=tools, structured=structured, embed=embed, alias=alias)
