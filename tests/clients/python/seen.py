"""Runs the cases of one client, and writes down what its user saw.

A script gives its client's own way of doing things; which model stands for which trouble is
said here, once for all of them. Runs in the clients' environment, not in the tests' own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

URL = os.environ["MODELSPLIT_URL"]
README = os.environ["MODELSPLIT_README"]

HELLO = "What next?"
SCHEMA = {
    "type": "object",
    "properties": {"steps": {"type": "integer"}, "goal": {"type": "string"}},
    "required": ["steps", "goal"],
}
TOOL = {
    "name": "weather",
    "description": "The weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
EMBEDDER = "all-minilm-embed"

Ask = Callable[[str], Any]


class Failed(Exception):  # noqa: N818 - not an error of this program
    """A command ended with another status than 0; its text is what the terminal showed."""


def run(chat: Ask, stream: Ask, **others: Callable[[], Any]) -> None:
    """``chat(model)`` gives a text, ``stream(model)`` its pieces; the others, whatever it is."""
    cases: dict[str, Callable[[], Any]] = {
        "readme": _readme,
        "chat": lambda: chat("planner"),
        "stream": lambda: stream("planner"),
        **others,
        "throttled": lambda: chat("heavy"),
        "cloud": lambda: chat("cloud"),
        "cloud stream": lambda: stream("cloud"),
        "spent": lambda: chat("spent:1b"),
        "broken": lambda: stream("breaks:1b"),
        "early": lambda: stream("slow:1b"),
        "late": lambda: stream("late:1b"),
    }
    found = {name: _seen(case) for name, case in cases.items()}
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


def _seen(case: Callable[[], Any]) -> dict[str, Any]:
    said: list[Any] = []
    try:
        answer = case()
        if isinstance(answer, Iterator):
            for piece in answer:
                said.append(piece)  # noqa: PERF402 - what came before an error counts
        else:
            said.append(answer)
    except Failed as failed:
        return {"said": said, "error": str(failed).strip()}
    except Exception as error:  # noqa: BLE001 - the end of a user's program
        return {"said": said, "error": "".join(traceback.format_exception_only(error)).strip()}
    return {"said": said, "error": None}


def _readme() -> list[str]:
    """The lines that the README's own snippet prints; commands are given to a shell."""
    if os.environ["MODELSPLIT_README_IS"] == "sh":
        shell = ["sh", "-e", "-c", README]
        done = subprocess.run(shell, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(README, "README.md", "exec"), {"__name__": "__main__"})
    return out.getvalue().splitlines()
