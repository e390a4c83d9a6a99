"""Which requests have Ollama reach out to its own cloud beside its models there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelsplit_proxy.protocol import web_request
from modelsplit_proxy.protocol.json_body import AT_ONCE_BYTES
from support.bodies import read_body

NAMED = {"type": "custom", "name": "web_search", "input_schema": {}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
LONG = {"type": "function", "name": "f", "description": "x" * AT_ONCE_BYTES}
DEEP = b'{"a":' * 9_000 + b"1" + b"}" * 9_000
# Longer than any tools that are looked through.
ENDLESS = {"type": "function", "name": "f", "description": "x" * 1024 * 1024}


@pytest.mark.parametrize(
    ("body", "does"),
    [
        ({}, False),
        ({"tools": None}, False),
        ({"tools": "web_search"}, False),
        ({"tools": {"type": "web_search"}}, False),
        ({"tools": ["web_search", 7]}, False),
        ({"tools": [NAMED]}, False),
        ({"messages": [{"role": "user", "content": "web_search"}]}, False),
        ({"tools": [SEARCH]}, True),
        ({"tools": [{"type": "web_search"}]}, True),
        ({"tools": [NAMED, {"type": " web_search "}]}, True),
        ({"tools": [{"Type": "web_search"}]}, True),
        ({"TOOLS": [SEARCH]}, True),
        ({"tools": [LONG, NAMED]}, False),
        ({"tools": [LONG, SEARCH]}, True),
        ({"tools": [ENDLESS, NAMED]}, True),
    ],
)
def test_a_tool_of_that_type_makes_it_search(body: dict[str, Any], *, does: bool) -> None:
    assert web_request.searches(read_body(json.dumps(body).encode())) is does


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"tools":[{"type":"web\u005fsearch"}]}',
        rb'{"tools":[{"t\u0079pe":"web_search"}]}',
        rb'{"tool\u0073":[{"type":"web_search"}]}',
        b'{"tools":[{"type":"web_search"}],"tools":[]}',
        b'{"tools":[],"tools":[{"type":"web_search"}]}',
        # To Go a null is no value for a text: the one before it stays.
        b'{"tools":[{"type":"web_search","type":null}]}',
        b'{"tools":[{"type":null,"TYPE":"web_search","type":null}]}',
        # Two types of which Go takes the last: that one of them is a search is enough.
        b'{"tools":[{"type":"web_search","type":"custom"}]}',
        # Nested deeper than Python decodes, and not as deep as Go reads.
        b'{"tools":[{"type":"web_search","input_schema":%b}]}' % DEEP,
        b'{"tools":[{"input_schema":%b,"type":"web_search"}]}' % DEEP,
    ],
)
def test_no_spelling_hides_it(raw: bytes) -> None:
    assert web_request.searches(read_body(raw))


def test_of_the_web_routes_nothing_is_read_and_nothing_is_changed() -> None:
    raw = b'{"query":"x","model":"qwen3:4b"}'
    for read_web, name in (
        (web_request.read_search, web_request.SEARCH),
        (web_request.read_fetch, web_request.FETCH),
    ):
        body = read_web(raw, "application/json", "")
        assert (body.model, body.fields.plain) == (name, {})
        assert body.with_model(name) == body.with_model("claude-3-opus") == raw
