"""curl, which shows what is on the wire."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

from clients.python.seen import EMBEDDER, HELLO, SCHEMA, TOOL, URL, Failed, run

MESSAGES = [{"role": "user", "content": HELLO}]


def curl(path: str, **fields: Any) -> str:
    """The body of the answer; a POST if there are fields."""
    data = ["-d", json.dumps(fields)] if fields else []
    command = ["curl", "-sSN", "--fail-with-body", *data, f"{URL}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(done.stdout.strip())
    return done.stdout


def ask(model: str = "planner", **fields: Any) -> Any:
    return json.loads(curl("/api/chat", model=model, messages=MESSAGES, stream=False, **fields))


def chat(model: str) -> str:
    return str(ask(model)["message"]["content"])


def stream(model: str) -> Iterator[str]:
    """Whoever reads the lines sees an ``error`` in the last one."""
    for line in curl("/api/chat", model=model, messages=MESSAGES).splitlines():
        if "error" in json.loads(line):
            raise Failed(line)
        yield json.loads(line)["message"]["content"]


def tools() -> dict[str, Any]:
    [call] = ask(tools=[{"type": "function", "function": TOOL}])["message"]["tool_calls"]
    return {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}


def structured() -> Any:
    return json.loads(ask(format=SCHEMA)["message"]["content"])


def embed() -> list[int]:
    answer = json.loads(curl("/api/embed", model=EMBEDDER, input=["one", "two"]))
    return [len(vector) for vector in answer["embeddings"]]


def names() -> list[str]:
    return [model["name"] for model in json.loads(curl("/api/tags"))["models"]]


def alias() -> str:
    return str(json.loads(curl("/api/show", model="planner"))["details"]["family"])


if __name__ == "__main__":
    run(chat, stream, tools=tools, structured=structured, embed=embed, list=names, alias=alias)
