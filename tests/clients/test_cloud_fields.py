"""What the official SDKs know of a request is on the page, and nothing of it is dropped silently.

An SDK that knows a field or a kind that the page does not fails this: the lists are its own.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from clients import install
from clients.absence import absent
from clients.catalogue import Language
from support.cloud_fields import CHAT, MESSAGES, RESPONSES, USER, Json, Table
from test_docs_cloud import rows

SCRIPT: Final = Path(__file__).parent / "python" / "cloud_fields.py"
# They say which object it is, and each of those has its own rows.
TOLD_APART: Final = {"messages.tool_use.type", "messages.tool_result.type"}
# What Ollama reads too, what later versions of an API have no more, and where objects stand.
BESIDES: Final = {
    "OpenAI's fields, chat": {
        *("reasoning", "reasoning.effort", "messages.reasoning", "messages.tool_calls.index"),
        *("_debug_render_only", "response_format.json_schema"),
    },
    "OpenAI's fields, responses": {"seed", "presence_penalty", "frequency_penalty"},
    "The Messages API's fields": {"temperature", "top_p", "top_k", "mcp_servers"},
}


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    places = install.places([Language.PYTHON])
    if Language.PYTHON in places.missing:
        absent(places.missing[Language.PYTHON], "the official SDKs")
    command = [places.found[Language.PYTHON], SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("title", BESIDES)
def test_every_field_that_an_sdk_knows_is_on_the_page(known: dict[str, Any], title: str) -> None:
    assert set(known["fields"][title]) - TOLD_APART == rows(title).keys() - BESIDES[title]


def _part(kind: str) -> Json:
    return {"messages": [USER, {"role": "user", "content": [{"type": kind}]}]}


def _block(kind: str) -> Json:
    return {"messages": [USER, {"role": "user", "content": [{"type": kind}]}]}


def _tool(kind: str) -> Json:
    return {"tools": [{"type": kind, "name": "f", "function": {"name": "f"}}]}


def _item(kind: str) -> Json:
    return {"input": [USER, {"type": kind}]}


# Those that are said; each has samples of its own, and here lacks what it needs.
SAID: Final = {
    "chat tools": {"function"},
    "chat parts": set(),
    "responses input": {"reasoning", "web_search_call"},
    "responses tools": {"function"},
    "messages blocks": set(),
    "messages tools": {"custom"},
}


@pytest.mark.parametrize(
    ("union", "table", "build"),
    [
        ("chat tools", CHAT, _tool),
        ("chat parts", CHAT, _part),
        ("responses input", RESPONSES, _item),
        ("responses tools", RESPONSES, _tool),
        ("messages blocks", MESSAGES, _block),
        ("messages tools", MESSAGES, _tool),
    ],
)
def test_a_kind_of_thing_that_has_no_counterpart_is_refused(
    known: dict[str, Any], union: str, table: Table, build: Any
) -> None:
    [route] = table.routes
    kinds = known["kinds"][union]
    assert len(kinds) > 1
    for kind in kinds:
        fates = table.fates_of(route, "", (build(kind), {}))
        assert (fates == {"refused"}) is (kind not in SAID[union]), kind
