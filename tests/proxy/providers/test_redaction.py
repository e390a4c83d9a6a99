"""What is taken out before a request leaves."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.model import RedactionPolicy
from modelsplit_proxy.providers.redaction import Redactor


def redactor(*rules: tuple[str, str, str]) -> Redactor:
    return Redactor(
        RedactionPolicy(name=name, pattern=pattern, replacement=replacement)
        for name, pattern, replacement in rules
    )


CALL = {"id": "kim"}
DIGITS = redactor(("digits", "[0-9]+", r"\1#"), ("kim", "(?i)kim", "[name]"))


def test_texts_are_cleared_wherever_they_stand() -> None:
    body: dict[str, Any] = {
        "model": "claude-3",
        "max_tokens": 12,
        "system": "Kim is 30",
        "tools": [{"name": "f1", "description": "add 1"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "call 1 or 2"},
                    {"type": "image", "source": {"type": "base64", "data": "0123"}},
                    {"type": "tool_result", "tool_use_id": "t9", "content": "kim"},
                    {"type": "tool_use", "id": "t9", "name": "f", "input": {"a": ["7"], "b": 7}},
                ],
            }
        ],
    }
    cleared, found = DIGITS.redacted(body)
    assert found == {"digits": 5, "kim": 2}
    assert cleared["tools"] == [{"name": "f1", "description": r"add \1#"}]
    assert cleared["model"] == "claude-3"
    assert cleared["system"] == r"[name] is \1#"
    content = cleared["messages"][0]["content"]
    assert content[0]["text"] == r"call \1# or \1#"
    assert content[1]["source"]["data"] == "0123"
    assert content[2] == {"type": "tool_result", "tool_use_id": "t9", "content": "[name]"}
    assert content[3]["input"] == {"a": [r"\1#"], "b": 7}
    assert body["system"] == "Kim is 30"


def test_keys_of_a_tools_data_and_of_plain_documents_hide_nothing() -> None:
    call = {"name": "f1", "id": "c1", "data": "kim", "nested": {"type": "kim", "role": "kim"}}
    document = {"type": "text", "media_type": "text/plain", "data": "Kim is 30"}
    thoughts = {"type": "redacted_thinking", "data": "kim1"}
    content = [
        {"type": "tool_use", "id": "t1", "name": "f1", "input": call},
        {"type": "document", "title": "kim", "source": document},
        thoughts,
    ]
    message = {"role": "assistant", "name": "kim", "content": content}
    schema = {"properties": {"name": {"type": "string", "description": "of kim"}}}
    body = {"messages": [message], "tools": [{"name": "f1", "input_schema": schema}]}
    cleared, _ = DIGITS.redacted(body)
    used, given, kept = cleared["messages"][0]["content"]
    assert cleared["messages"][0]["name"] == "[name]"
    assert (used["id"], used["name"]) == ("t1", "f1")
    name = "[name]"
    assert used["input"] == {
        "name": r"f\1#",
        "id": r"c\1#",
        "data": name,
        "nested": {"type": name, "role": name},
    }
    assert (given["title"], given["source"]["data"]) == (name, r"[name] is \1#")
    assert kept == thoughts
    [tool] = cleared["tools"]
    assert tool["name"] == "f1"
    assert tool["input_schema"]["properties"]["name"]["description"] == "of [name]"


def test_the_bodies_of_ollamas_own_dialects() -> None:
    chat = {
        "model": "glm1:cloud",
        "messages": [
            {"role": "user", "content": "I am Kim", "images": ["0123"]},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f1", "arguments": CALL}}]},
            {"role": "tool", "tool_name": "f1", "content": "7"},
        ],
    }
    raw, found = DIGITS.redacted_bytes(orjson.dumps(chat)) or (b"", {})
    user, assistant, tool = orjson.loads(raw)["messages"]
    assert found == {"kim": 2, "digits": 1}
    assert user == {"role": "user", "content": "I am [name]", "images": ["0123"]}
    assert assistant["tool_calls"][0]["function"] == {"name": "f1", "arguments": {"id": "[name]"}}
    assert tool == {"role": "tool", "tool_name": "f1", "content": r"\1#"}


def test_of_a_key_that_comes_twice_only_what_was_looked_through_is_sent() -> None:
    assert DIGITS.redacted_bytes(b'{"prompt":"kim","prompt":"hi"}') == (b'{"prompt":"hi"}', {})


@pytest.mark.parametrize("raw", [b"", b"--form", b"[]", b'"kim"', b'{"a":'])
def test_what_is_no_object_cannot_be_looked_through(raw: bytes) -> None:
    assert DIGITS.redacted_bytes(raw) is None


@pytest.mark.parametrize("depth", [300, 400, 900, 2000])
def test_nor_can_what_is_nested_hundreds_deep(depth: int) -> None:
    assert DIGITS.redacted_bytes(b'{"a":' * depth + b'"kim"' + b"}" * depth) is None


def test_without_patterns_nothing_is_touched() -> None:
    body = {"messages": ["x"]}
    cleared, found = redactor().redacted(body)
    assert cleared is body
    assert found == {}


@given(st.text())
def test_what_was_found_is_gone(text: str) -> None:
    cleared, found = redactor(("digits", "[0-9]+", "#")).redacted({"system": text})
    assert not any(character in "0123456789" for character in cleared["system"])
    assert bool(found) == any(character in "0123456789" for character in text)
