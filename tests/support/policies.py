"""The shipped policy document, with changes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st

from modelsplit_policy.config.parser import parse
from modelsplit_policy.config.problems import PolicyError, json_path
from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = Path(__file__).parents[2] / "config"
SCHEMA: dict[str, Any] = json.loads((CONFIG / "model-policy.schema.json").read_bytes())
SHIPPED: dict[str, Any] = json.loads((CONFIG / "model-policy.json").read_bytes())
DELETE = object()

Loc = tuple[str | int, ...]


def document(*changes: tuple[Loc, Any]) -> dict[str, Any]:
    """The shipped policy with some places set, or taken out with DELETE."""
    raw = copy.deepcopy(SHIPPED)
    for loc, value in changes:
        node: Any = raw
        for step in loc[:-1]:
            node = node.setdefault(step, {}) if isinstance(node, dict) else node[step]
        if value is DELETE:
            del node[loc[-1]]
        elif isinstance(node, list) and loc[-1] == len(node):
            node.append(value)
        else:
            node[loc[-1]] = value
    return raw


def problems(raw: Any) -> dict[str, str]:
    """What `parse` says about a document it must refuse: path -> message."""
    with pytest.raises(PolicyError) as refused:
        parse(raw)
    return {problem.path: problem.message for problem in refused.value.problems}


def at(role: str, key: str, *more: str | int) -> Loc:
    return ("roles", role, key, *more)


REQUIRED: list[Loc] = [
    ("version",),
    ("global",),
    ("global", "max_concurrent"),
    ("roles",),
    *(("roles", role.value) for role in Role),
    ("budgets",),
    ("budgets", 0, "name"),
    ("budgets", 0, "window"),
    ("escalation",),
    ("experiments",),
    ("slo",),
    *(
        at("HEAVY", key)
        for key in (
            "primary",
            "timeout_ms",
            "max_concurrent",
            "max_wait_ms",
            "max_queue",
            "aliases",
            "context",
        )
    ),
]


def keys_of(node: Any, loc: Loc = ()) -> Iterator[Loc]:
    """Every place of the shipped file whose key the format fixes (model names are free)."""
    if isinstance(node, dict):
        for key, value in node.items():
            if loc not in {("models",), (*loc[:2], "options")}:
                yield (*loc, key)
            yield from keys_of(value, (*loc, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from keys_of(value, (*loc, i))


SHIPPED_KEYS = sorted(keys_of(SHIPPED), key=json_path)


def experiment(**keys: object) -> dict[str, object]:
    arms = [
        {"name": "a", "model": "qwen3:4b", "weight": 1},
        {"name": "b", "model": "x", "weight": 1},
    ]
    return {"name": "size", "role": "PLANNER", "arms": arms, "sticky": "job"} | keys


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
