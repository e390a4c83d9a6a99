"""What is taken out before a request leaves."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.model import RedactionPolicy
from modelsplit_proxy.providers.redaction import Redactor


def redactor(*rules: tuple[str, str, str]) -> Redactor:
    return Redactor(
        RedactionPolicy(name=name, pattern=pattern, replacement=replacement)
        for name, pattern, replacement in rules
    )


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
