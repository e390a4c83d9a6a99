"""Which requests may be answered after a long silence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelsplit_policy.go_json import Fields, Scan
from modelsplit_policy.held_back import may_hold_back

MANY = [
    {"tools": [{"type": "function"}]},
    {"format": "json"},
    {"format": {"type": "object"}},
    {"think": True},
    {"think": "high"},
    {"response_format": {"type": "json_object"}},
    {"text": {"format": {"type": "json_schema"}}},
    {"output_config": {"format": {"type": "json_schema"}}},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    {"reasoning": {"effort": "low"}},
    {"reasoning_effort": "low"},
]
FEW: list[dict[str, Any]] = [
    {},
    {"messages": [{"role": "user", "content": "tools"}]},
    {"tools": []},
    {"tools": None, "format": "", "think": False},
]


def fields(raw: bytes, *, decoded: bool) -> Fields:
    """Of a body that was decoded at once, or looked through in steps."""
    return Fields(raw, json.loads(raw)) if decoded else Fields(raw, {}, Scan(raw).run())


@pytest.mark.parametrize("body", MANY)
@pytest.mark.parametrize("decoded", [True, False])
def test_tools_schemas_and_thinking_in_any_dialect(body: dict[str, Any], *, decoded: bool) -> None:
    raw = json.dumps({"model": "m", **body}).encode()
    assert may_hold_back(fields(raw, decoded=decoded))


@pytest.mark.parametrize("body", FEW)
@pytest.mark.parametrize("decoded", [True, False])
def test_nothing_else(body: dict[str, Any], *, decoded: bool) -> None:
    raw = json.dumps({"model": "m", **body}).encode()
    assert not may_hold_back(fields(raw, decoded=decoded))


def test_tools_too_long_to_be_decoded_are_tools() -> None:
    raw = b'{"TOOLS": [%b]}' % b",".join([b'{"type":"function"}'] * 20_000)
    assert may_hold_back(fields(raw, decoded=False))
