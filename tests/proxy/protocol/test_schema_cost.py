"""A schema's work is known before it is done, and never less than what is done."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.protocol.format_finding import RefusedError
from modelsplit_proxy.protocol.schema_cost import TOO_DEAR, SchemaCosts, costs_of

BOB: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
TREE: dict[str, Any] = {
    "type": "object",
    "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}},
}


def costs(schema: dict[str, Any]) -> SchemaCosts:
    return costs_of(schema, orjson.dumps(schema))


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def doubling(keyword: str, times: int) -> dict[str, Any]:
    """``times`` definitions, each of which names the next one twice."""
    chain = {f"d{i}": {keyword: [ref(f"d{i + 1}"), ref(f"d{i + 1}")]} for i in range(times)}
    return {"$defs": {**chain, f"d{times}": {"type": "string"}}, **ref("d0")}


def test_a_flat_schema_costs_its_own_parts() -> None:
    # The object with two names that must be there, then one of its properties.
    assert costs(BOB) == SchemaCosts((3, 4), any_depth=True)


def test_only_the_dearest_of_the_properties_applies_to_a_value() -> None:
    few = {"properties": {"a": {"type": "string"}}}
    many = {"properties": {f"p{i}": {"type": "string"} for i in range(99)}}
    assert costs(few) == costs(many)


def test_alternatives_all_apply_to_the_same_value() -> None:
    assert costs({"anyOf": [{"type": "string"}] * 1}).at_most == 2
    options = [{"const": f"x{i}"} for i in range(30)]
    assert costs({"anyOf": options}).at_most == 31


def test_a_tree_costs_more_with_every_level_and_no_more_than_that() -> None:
    found = costs(TREE)
    assert not found.any_depth
    assert found.of(2) == 1 + 1 + 2
    assert found.of(60) < 200
    assert found.of(65) == found.at_most == TOO_DEAR


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_definitions_that_double_are_counted_and_not_followed(keyword: str) -> None:
    assert costs(doubling(keyword, 10)).at_most > 2**10
    assert costs(doubling(keyword, 500)).at_most == TOO_DEAR


def test_a_tree_that_doubles_with_every_level() -> None:
    one = {"additionalProperties": {"$ref": "#"}}
    assert costs(one).of(20) < 100
    assert costs({"allOf": [one, {**one}]}).of(20) > 2**20


def test_what_is_for_arrays_and_what_is_for_objects_never_meet() -> None:
    any_json = {"items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}}
    assert costs(any_json).of(60) < 200


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#"}, "without end"),
        ({"anyOf": [{"type": "string"}, {"$ref": "#"}]}, "without end"),
        ({"$defs": {"a": ref("b"), "b": ref("a")}, **ref("a")}, "without end"),
        ({"$ref": "http://127.0.0.1/x.json"}, "another document"),
        ({"$ref": "file:///etc/hostname"}, "another document"),
        ({"$ref": "other.json#/a"}, "another document"),
        ({"$ref": "#name", "$defs": {"a": {"$anchor": "name"}}}, "by an anchor"),
        ({"$ref": 7}, "another document"),
        (ref("nobody"), "a part that it does not have"),
        ({"$ref": "#/allOf/9", "allOf": [True]}, "a part that it does not have"),
        ({"unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"properties": {"a": {"unevaluatedItems": False}}}, "unevaluatedItems"),
        ({"$dynamicRef": "#a"}, "$dynamicRef"),
        ({"$defs": {"a": {"$id": "http://127.0.0.1/x.json"}}, **ref("a")}, "$id"),
        (
            {"$schema": "http://json-schema.org/draft-04/schema#", "not": {"id": "http://h/"}},
            "$id",
        ),
        ({"properties": {f"p{i}": {"pattern": "a"} for i in range(65)}}, "64 patterns"),
        ({"patternProperties": {f"^x{i}": {} for i in range(65)}}, "64 patterns"),
    ],
)
def test_what_has_no_bound_is_refused_with_a_reason(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(RefusedError, match=why.replace("$", r"\$")):
        costs(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$id": "https://example.com/bob.json", **BOB},
        {"properties": {"id": {"type": "integer"}}, "examples": [{"id": "7"}]},
        {"$defs": {"a b/c": {"type": "string"}}, "items": {"$ref": "#/$defs/a%20b~1c"}},
        {"allOf": [{"type": "string"}, {"$ref": "#/allOf/0"}]},
        {"items": [{"type": "string"}, {"type": "integer"}], "additionalItems": False},
        {"$defs": {"yes": True}, **ref("yes")},
        {"dependencies": {"a": ["b"], "b": {"required": ["c"]}}},
        {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": False},
        {},
    ],
)
def test_what_schemas_usually_are_has_a_bound(schema: dict[str, Any]) -> None:
    assert costs(schema).at_most < 100


def test_large_options_weigh_what_comparing_them_takes() -> None:
    words = {"enum": [f"word {i}" for i in range(2000)]}
    objects = {"enum": [{"word": i} for i in range(2000)]}
    assert costs(words).at_most == 1
    assert costs(objects).at_most > 2000


SCHEMAS = st.recursive(
    st.sampled_from([{"type": "string"}, {"required": ["a"]}, {"pattern": "^a"}, {"$ref": "#"}]),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner)}),
        st.fixed_dictionaries({"additionalProperties": inner}),
    ),
    max_leaves=8,
)
VALUES = st.recursive(
    st.sampled_from(["a", "b", 1, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


def applied(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> int:
    """How many subschemas a validator that stops at nothing would apply."""
    count = 1
    for option in schema.get("anyOf", []):
        count += applied(option, value, root)
    if "$ref" in schema:
        count += applied(root, value, root)
    below = value if isinstance(value, list) else []
    count += sum(applied(schema["items"], one, root) for one in below if "items" in schema)
    for key, one in value.items() if isinstance(value, dict) else ():
        known = schema.get("properties", {})
        if key in known:
            count += applied(known[key], one, root)
        elif "additionalProperties" in schema:
            count += applied(schema["additionalProperties"], one, root)
    return count


def size(value: Any) -> tuple[int, int]:
    """Values, and levels of containers."""
    if not isinstance(value, list | dict):
        return 1, 0
    below = [size(one) for one in (value.values() if isinstance(value, dict) else value)]
    return 1 + sum(n for n, _ in below), 1 + max((depth for _, depth in below), default=0)


@given(SCHEMAS, VALUES)
def test_the_bound_is_never_below_the_work(schema: dict[str, Any], value: Any) -> None:
    schema = orjson.loads(orjson.dumps(schema))  # no part is shared, as in a request
    try:
        found = costs(schema)
    except RefusedError:
        return
    values, depth = size(value)
    assert applied(schema, value, schema) <= values * found.of(depth)
