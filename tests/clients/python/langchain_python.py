"""The package ``langchain-ollama``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_ollama import ChatOllama, OllamaEmbeddings

from clients.python.seen import EMBEDDER, HELLO, SCHEMA, TOOL, URL, run


def model(name: str) -> Any:
    return ChatOllama(model=name, base_url=URL)


def chat(name: str) -> str:
    return str(model(name).invoke(HELLO).content)


def stream(name: str) -> Iterator[str]:
    for part in model(name).stream(HELLO):
        yield str(part.content)


def tools() -> dict[str, Any]:
    answer = model("planner").bind_tools([{"type": "function", "function": TOOL}]).invoke(HELLO)
    [call] = answer.tool_calls
    return {"name": call["name"], "arguments": call["args"]}


def structured() -> Any:
    schema = {"title": "Plan", "description": "A plan", **SCHEMA}
    return model("planner").with_structured_output(schema, method="json_schema").invoke(HELLO)


def embed() -> list[int]:
    vectors = OllamaEmbeddings(model=EMBEDDER, base_url=URL).embed_documents(["one", "two"])
    return [len(vector) for vector in vectors]


def alias() -> str:
    return str(ChatOllama(model="planner", base_url=URL, validate_model_on_init=True).model)


if __name__ == "__main__":
    run(chat, stream, tools=tools, structured=structured, embed=embed, alias=alias)
