"""The package ``openai``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from openai import OpenAI

from clients.python.seen import EMBEDDER, HELLO, SCHEMA, TOOL, URL, run

client = OpenAI(base_url=f"{URL}/v1", api_key="unused")
MESSAGES: Any = [{"role": "user", "content": HELLO}]


def chat(model: str) -> str:
    answer = client.chat.completions.create(model=model, messages=MESSAGES)
    return str(answer.choices[0].message.content)


def stream(model: str) -> Iterator[str]:
    for part in client.chat.completions.create(model=model, messages=MESSAGES, stream=True):
        yield part.choices[0].delta.content or ""


def tools() -> dict[str, Any]:
    answer = client.chat.completions.create(
        model="planner", messages=MESSAGES, tools=[{"type": "function", "function": TOOL}]
    )
    [call] = answer.choices[0].message.tool_calls
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def structured() -> Any:
    form: Any = {"type": "json_schema", "json_schema": {"name": "plan", "schema": SCHEMA}}
    answer = client.chat.completions.create(
        model="planner", messages=MESSAGES, response_format=form
    )
    return json.loads(str(answer.choices[0].message.content))


def embed() -> list[int]:
    answer = client.embeddings.create(model=EMBEDDER, input=["one", "two"])
    return [len(item.embedding) for item in answer.data]


def names() -> list[str]:
    return [model.id for model in client.models.list()]


def responses(model: str) -> str:
    return str(client.responses.create(model=model, input=HELLO).output_text)


def responses_stream(model: str) -> Iterator[str]:
    for event in client.responses.create(model=model, input=HELLO, stream=True):
        if event.type == "response.output_text.delta":
            yield event.delta


if __name__ == "__main__":
    run(
        chat,
        stream,
        tools=tools,
        structured=structured,
        embed=embed,
        list=names,
        alias=lambda: client.models.retrieve("planner").id,
        **{
            "responses": lambda: responses("planner"),
            "responses stream": lambda: responses_stream("planner"),
            "responses cloud": lambda: responses("cloud"),
            "responses broken": lambda: responses_stream("breaks:1b"),
        },
    )
