"""What a request needs its model to be able to, on every route that computes text."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_policy.capabilities import Capability
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from support.endpoints import endpoint

GENERATE, CHAT, COMPLETIONS = "/api/generate", "/api/chat", "/v1/completions"
OPENAI, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def shows(kind: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "?"}, {"type": kind}]}]


def needs(label: str, fields: dict[str, Any]) -> set[str]:
    row = endpoint(label)
    assert row.needs is not None
    return {str(need) for need in row.needs(fields)} - {"completion"}


@pytest.mark.parametrize(
    ("label", "fields", "needed"),
    [
        (CHAT, {"tools": [TOOL]}, {"tools"}),
        (OPENAI, {"tools": [TOOL]}, {"tools"}),
        (RESPONSES, {"tools": [TOOL]}, {"tools"}),
        (ANTHROPIC, {"tools": [TOOL]}, {"tools"}),
        (CHAT, {"tools": []}, set()),
        (CHAT, {"tools": None}, set()),
        (GENERATE, {"think": True}, {"thinking"}),
        (CHAT, {"think": "high"}, {"thinking"}),
        (CHAT, {"think": False}, set()),
        (CHAT, {"think": "none"}, set()),
        (OPENAI, {"reasoning_effort": "low"}, {"thinking"}),
        (OPENAI, {"reasoning_effort": "none"}, set()),
        (OPENAI, {"reasoning_effort": "low", "reasoning": {"effort": "none"}}, set()),
        (RESPONSES, {"reasoning": {"effort": "high"}}, {"thinking"}),
        (RESPONSES, {"reasoning": {"summary": "auto"}}, set()),
        # Ollama lets it go for a model that does not think.
        (ANTHROPIC, {"thinking": {"type": "enabled"}}, set()),
        (GENERATE, {"suffix": "}"}, {"insert"}),
        (COMPLETIONS, {"suffix": "}"}, {"insert"}),
        (GENERATE, {"suffix": ""}, set()),
        (GENERATE, {"images": ["aGk="]}, {"vision"}),
        (CHAT, {"messages": [{"content": "?"}, {"images": ["aGk="]}]}, {"vision"}),
        (CHAT, {"messages": [{"content": "?", "images": []}]}, set()),
        (OPENAI, {"messages": shows("image_url")}, {"vision"}),
        (RESPONSES, {"input": shows("input_image")}, {"vision"}),
        (ANTHROPIC, {"messages": shows("image")}, {"vision"}),
        (OPENAI, {"messages": shows("text")}, set()),
    ],
)
def test_a_request_needs_what_ollama_would_refuse_it_for(
    label: str, fields: dict[str, Any], needed: set[str]
) -> None:
    assert needs(label, fields) == needed


@pytest.mark.parametrize("label", [row.label for row in ENDPOINTS if row.needs is not None])
@pytest.mark.parametrize("value", [None, True, 7, "x", [], [1, [2]], {"a": 1}, [{"content": 1}]])
def test_whatever_stands_in_the_fields_is_read_over(label: str, value: object) -> None:
    names = ("tools", "think", "suffix", "images", "messages", "input", "reasoning")
    row = endpoint(label)
    assert row.needs is not None
    found = set(row.needs(dict.fromkeys((*names, "reasoning_effort"), value)))
    assert Capability.COMPLETION in found
    assert found <= set(Capability)
