"""The published schema says what the parser does."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.json_schema import json_schema
from modelsplit_policy.config.parser import parse
from modelsplit_policy.config.problems import PolicyError, json_path

if TYPE_CHECKING:
    from collections.abc import Callable

from support.policies import (
    CONFIG,
    DELETE,
    JSON_VALUES,
    REQUIRED,
    SCHEMA,
    SHIPPED,
    SHIPPED_KEYS,
    Loc,
    document,
)


def test_the_published_schema_is_the_one_the_model_makes() -> None:
    published = (CONFIG / "model-policy.schema.json").read_text(encoding="utf-8")
    assert published == json.dumps(json_schema(), indent=2) + "\n"


KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def kind_fits(kind: str, value: Any) -> bool:
    if kind in {"integer", "number"} and isinstance(value, bool):
        return False
    return isinstance(value, KINDS[kind])


def fits_members(schema: dict[str, Any], value: Any) -> bool:
    """JSON Schema's words for what is inside objects and lists, as far as ours uses them."""
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(
            fits(schema.get("items", {}), item) for item in value
        )
    if not isinstance(value, dict):
        return True
    return set(schema.get("required", ())) <= set(value) and all(
        fits(schema.get("propertyNames", {}), key) and fits(member(schema, key), item)
        for key, item in value.items()
    )


def member(schema: dict[str, Any], key: str) -> dict[str, Any]:
    """The schema for one key's value; one that nothing fits where the key is not allowed."""
    found = [part for name, part in schema.get("properties", {}).items() if name == key]
    patterns = schema.get("patternProperties", {}).items()
    found += [part for pattern, part in patterns if re.fullmatch(pattern, key)]
    rest = schema.get("additionalProperties", {})
    return found[0] if found else {"enum": []} if rest is False else rest


WORDS: dict[str, Callable[[Any, Any], bool]] = {
    "$ref": lambda ref, v: fits(SCHEMA["$defs"][ref.removeprefix("#/$defs/")], v),
    "type": lambda kinds, v: any(
        kind_fits(kind, v) for kind in ([kinds] if isinstance(kinds, str) else kinds)
    ),
    "enum": lambda allowed, v: v in allowed,
    "const": lambda only, v: v == only,
    "anyOf": lambda options, v: any(fits(option, v) for option in options),
    "pattern": lambda pattern, v: not isinstance(v, str) or re.fullmatch(pattern, v) is not None,
    "minLength": lambda low, v: not isinstance(v, str) or len(v) >= low,
    "minimum": lambda low, v: not isinstance(v, int | float) or v >= low,
    "maximum": lambda high, v: not isinstance(v, int | float) or v <= high,
    "exclusiveMinimum": lambda low, v: not isinstance(v, int | float) or v > low,
}
INSIDE = {"properties", "patternProperties", "additionalProperties", "propertyNames", "required"}
INSIDE |= {"items", "minItems"}
SILENT = {"$schema", "title", "description", "default", "$defs", "if", "then", "else"}


def fits(schema: dict[str, Any], value: Any) -> bool:
    """A JSON Schema check of just the words our schema uses; any other word fails the test."""
    assert set(schema) <= {*WORDS, *INSIDE, *SILENT}, sorted(schema)
    branch: dict[str, Any] = {}
    if "if" in schema:
        branch = schema["then" if fits(schema["if"], value) else "else"]
    return (
        all(WORDS[word](schema[word], value) for word in WORDS.keys() & schema)
        and fits_members(schema, value)
        and (not branch or fits(branch, value))
    )


def test_the_shipped_policy_fits_the_schema_and_names_it() -> None:
    assert fits(SCHEMA, SHIPPED)
    assert (CONFIG / SHIPPED["$schema"]).name == "model-policy.schema.json"


@pytest.mark.parametrize(
    ("overlay", "good"),
    [
        ({"extends": "default"}, True),
        ({"extends": "default", "roles": {"HEAVY": {"timeout_ms": 9}}}, True),
        ({"extends": "default", "roles": {"HEAVY": {"timeout": 9}}}, False),
        ({"extends": "default", "roles": {"HEAVI": {}}}, False),
        ({"extends": "default", "budgets": [{"name": "x"}]}, False),
        ({"extends": "default", "models": {"a b": {}}}, False),
        ({"extends": "other"}, False),
        ({"roles": {"HEAVY": {"timeout_ms": 9}}}, False),
    ],
    ids=str,
)
def test_an_editor_accepts_an_overlay_without_the_rest(overlay: object, good: bool) -> None:
    assert fits(SCHEMA, overlay) is good


@pytest.mark.parametrize("loc", REQUIRED, ids=json_path)
def test_the_schema_requires_what_the_parser_requires(loc: Loc) -> None:
    assert not fits(SCHEMA, document((loc, DELETE)))


@given(loc=st.sampled_from(SHIPPED_KEYS), value=JSON_VALUES)
def test_what_the_parser_accepts_the_schema_accepts(loc: Loc, value: Any) -> None:
    raw = document((loc, value))
    try:
        parse(raw)
    except PolicyError:
        return
    assert fits(SCHEMA, raw)
