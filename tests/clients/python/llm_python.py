"""The command ``llm`` with the plug-in ``llm-ollama``, called through its own entry point."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from click.testing import CliRunner
from llm.cli import cli

from clients.python.seen import EMBEDDER, HELLO, SCHEMA, URL, Failed, run

os.environ["OLLAMA_HOST"] = URL
# What its models are called by; before 0.18 it was nothing.
PREFIX = "ollama/"
WEATHER = 'def weather(city: str) -> str:\n    "The weather in a city"\n    return "sunny"\n'


def llm(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments)
    if done.exit_code:
        raise Failed(done.output)
    return str(done.output)


def chat(name: str) -> str:
    return llm("-m", PREFIX + name, "--no-stream", HELLO).rstrip("\n")


def stream(name: str) -> str:
    return llm("-m", PREFIX + name, HELLO).rstrip("\n")


def tools() -> dict[str, Any]:
    said = llm("-m", f"{PREFIX}planner", "--functions", WEATHER, "--td", HELLO)
    call = re.search(r"Tool call: (\w+)\((.*)\)", said)
    assert call is not None, said
    return {"name": call[1], "arguments": json.loads(call[2].replace("'", '"'))}


def embed() -> list[int]:
    return [
        len(json.loads(llm("embed", "-m", PREFIX + EMBEDDER, "-c", text)))
        for text in ("one", "two")
    ]


def names() -> list[str]:
    """Without the prefix that the plug-in gives them."""
    return re.findall(rf"^Ollama: {PREFIX}(\S+)", llm("models", "list"), re.MULTILINE)


if __name__ == "__main__":
    run(
        chat,
        stream,
        tools=tools,
        structured=lambda: json.loads(
            llm("-m", f"{PREFIX}planner", "--schema", json.dumps(SCHEMA), HELLO)
        ),
        embed=embed,
        list=names,
        alias=lambda: next(name for name in names() if name.startswith("planner")),
    )
