"""What a request wants its answer to look like, and whether the answer does.

No test may see a word of the model's answer in a sentence about it.
"""

from __future__ import annotations

import json
import socket
import string
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.protocol.answer_format import Wanted, asks, judge
from modelsplit_proxy.protocol.format_finding import FormatFinding
from support.bodies import fields_of, read_body
from support.endpoints import endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from modelsplit_policy.go_json import Fields

BOB: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
PLAN: dict[str, Any] = {
    "type": "object",
    "properties": {"steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "maxItems": 9}},
    "required": ["steps"],
    "additionalProperties": False,
    "$defs": {
        "step": {
            "type": "object",
            "properties": {
                "id": {"type": "integer", "minimum": 1},
                "tool": {"enum": ["search", "read", "answer"]},
                "args": {"type": "object", "additionalProperties": {"type": "string"}},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
            "required": ["id", "tool"],
            "additionalProperties": False,
        }
    },
}
ANYTHING = Wanted()


def wanted(label: str, fields: Fields) -> Wanted | None:
    asked = endpoint(label).wanted_format
    return None if asked is None else asked(fields)


def asks_for_a_form(label: str, fields: Fields) -> bool:
    return asks(fields, endpoint(label).format_names)


def asked(schema: object) -> Wanted:
    found = wanted("/api/chat", fields_of({"format": schema}))
    assert found is not None
    return found


def problem(form: Wanted, text: str) -> str | None:
    """What is not as wanted; None where it fits, or is not checked."""
    return judge(form, text).problem


def checked(schema: dict[str, Any]) -> Wanted:
    found = asked(schema)
    assert found.unchecked is None
    return found


# -- what the request asked for -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        ("/api/chat", {"format": BOB}),
        ("/api/generate", {"format": BOB}),
        (
            "/v1/chat/completions",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "bob", "strict": True, "schema": BOB},
                }
            },
        ),
        (
            "/v1/responses",
            {"text": {"format": {"type": "json_schema", "name": "bob", "schema": BOB}}},
        ),
        ("/v1/messages", {"output_format": {"type": "json_schema", "schema": BOB}}),
        (
            "/v1/messages",
            {"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": BOB}}},
        ),
    ],
)
def test_a_schema_where_each_dialect_has_it(label: str, fields: dict[str, Any]) -> None:
    assert wanted(label, fields_of(fields)) == Wanted(BOB)
    assert asks_for_a_form(label, fields_of(fields))


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        ("/api/chat", {"format": "json"}),
        ("/api/generate", {"format": "json"}),
        ("/v1/chat/completions", {"response_format": {"type": "json_object"}}),
        ("/v1/responses", {"text": {"format": {"type": "json_object"}}}),
    ],
)
def test_any_json(label: str, fields: dict[str, Any]) -> None:
    assert wanted(label, fields_of(fields)) == ANYTHING
    assert asks_for_a_form(label, fields_of(fields))


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        ("/api/chat", {}),
        ("/api/chat", {"format": ""}),
        ("/api/chat", {"format": None}),
        ("/api/chat", {"response_format": {"type": "json_object"}}),
        ("/api/embed", {"format": "json"}),
        ("/v1/chat/completions", {"format": "json"}),
        ("/v1/chat/completions", {"response_format": None}),
        ("/v1/chat/completions", {"response_format": {"type": "text"}}),
        ("/v1/chat/completions", {"response_format": "json"}),
        ("/v1/completions", {"response_format": {"type": "json_object"}}),
        ("/v1/responses", {"text": {"format": {"type": "text"}, "verbosity": "low"}}),
        ("/v1/responses", {"text": "short"}),
        ("/v1/messages", {"output_config": {"effort": "high"}}),
        ("/v1/messages", {"output_format": None, "output_config": None}),
    ],
)
def test_nothing_asked(label: str, fields: dict[str, Any]) -> None:
    assert wanted(label, fields_of(fields)) is None
    assert not asks_for_a_form(label, fields_of(fields))


def test_a_schema_that_is_too_long_to_be_read_is_asked_for_all_the_same() -> None:
    schema = {"type": "json_schema", "json_schema": {"schema": {"title": "x" * 9_000_000}}}
    body = json.dumps({"model": "m", "response_format": schema}).encode()
    assert asks_for_a_form("/v1/chat/completions", read_body(body).fields)


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("xml", "the format holds no schema"),
        (["json"], "the format holds no schema"),
        (True, "the format holds no schema"),
        ({"type": "nonsense"}, "the schema is not a valid JSON schema"),
        ({"required": "name"}, "the schema is not a valid JSON schema"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "not a valid JSON schema"),
        ({"description": "x" * 65536}, "the schema is larger than 64 KiB"),
        (deep(200), "cannot be written as JSON again"),
        ({"const": "\ud800"}, "cannot be written as JSON again"),
        ({"maximum": 10**40}, "cannot be written as JSON again"),
        ({"pattern": "(?=a)a"}, "a pattern that is wrong, too large or not linear"),
        ({"pattern": r"(a)\1"}, "a pattern that is wrong, too large or not linear"),
        ({"pattern": "("}, "a pattern that is wrong, too large or not linear"),
        ({"pattern": "((a{99}){99}){99}"}, "a pattern that is wrong, too large or not linear"),
        ({"$ref": "#"}, "the schema refers to itself without end"),
        ({"unevaluatedProperties": False}, "the schema uses unevaluatedProperties"),
    ],
)
def test_what_cannot_be_checked_says_why_and_passes(schema: object, why: str) -> None:
    found = asked(schema)
    assert why in str(found.unchecked)
    assert judge(found, "no JSON at all") == FormatFinding(unchecked=found.unchecked)
    assert problem(found, "no JSON at all") is None


def test_an_unknown_kind_of_format_is_not_checked() -> None:
    fields = {"response_format": {"type": "grammar", "grammar": "root ::= [0-9]"}}
    found = wanted("/v1/chat/completions", fields_of(fields))
    assert found == Wanted(unchecked="the format is of an unknown type")


@pytest.mark.parametrize("draft", ["draft-04", "draft-06", "draft-07", "draft/2019-09"])
def test_older_drafts_keep_their_meaning(draft: str) -> None:
    host = "https" if "/" in draft else "http"
    schema = {"$schema": f"{host}://json-schema.org/{draft}/schema", **BOB}
    assert problem(checked(schema), '{"name":"Bob","age":41}') is None
    assert problem(checked(schema), '{"name":"Bob"}') == 'at /: "age" is a required property'


# -- schemas that mean harm -----------------------------------------------------------------------


@pytest.mark.parametrize("place", ["$ref", "$schema", "$id", "$defs", "unknown", "$vocabulary"])
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_schema_fetches_nothing(place: str, scheme: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"type":"integer"}')
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        host = f"127.0.0.1:{server.getsockname()[1]}" if scheme == "http" else str(tmp_path)
        url = f"{scheme}://{host}/x.json"
        found = asked(
            {
                "$ref": {"$ref": url},
                "$schema": {"$schema": url, **BOB},
                "$id": {"$id": url, "$ref": "y.json"},
                "$defs": {"$defs": {"x": {"$ref": url}}, **BOB},
                "unknown": {"x": {"$ref": url}, "properties": {"a": {"$ref": "#/x"}}},
                "$vocabulary": {"$vocabulary": {url: True}, "$ref": url},
            }[place]
        )
        assert found.unchecked is not None
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(.*a){20}x", "(x+x+)+y"])
@pytest.mark.parametrize("letter", ["a", "x"])
def test_a_killer_pattern_takes_linear_time(pattern: str, letter: str) -> None:
    # Of 60,000 letters a backtracking engine would not finish the first thirty this year.
    answer = json.dumps(letter * 60_000 + "!")
    assert problem(checked({"pattern": pattern}), answer) == "at /: does not fit pattern"
    names = {"patternProperties": {pattern: False}}
    assert problem(checked(names), f'{{"{letter * 60_000}!":1}}') is None


def doubling(keyword: str, times: int) -> dict[str, Any]:
    chain = {
        f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]}
        for i in range(times)
    }
    return {"$defs": {**chain, f"d{times}": {"type": "string"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_a_schema_that_doubles_is_not_followed(keyword: str) -> None:
    found = judge(checked(doubling(keyword, 40)), "1")
    assert found.problem is None
    assert found.unchecked == "the schema would take too long with an answer of this size"


def test_alternatives_times_values_has_an_end() -> None:
    thousands = checked({"items": {"anyOf": [{"const": f"x{i}"} for i in range(3000)]}})
    assert problem(thousands, '["x2999"]') is None
    assert judge(thousands, json.dumps(["y"] * 15_000)).unchecked is not None


def test_nesting_beyond_the_count_is_not_checked() -> None:
    tree = checked({"type": "array", "items": {"$ref": "#"}})
    assert judge(tree, "[" * 60 + "]" * 60) == FormatFinding()
    assert judge(tree, "[" * 90 + "]" * 90).unchecked is not None
    assert judge(ANYTHING, "[" * 2000 + "]" * 2000).unchecked is not None


# -- does it fit ----------------------------------------------------------------------------------


def test_the_answers_of_a_real_model_fit() -> None:
    assert judge(checked(BOB), '{\n    "name": "Bob",\n    "age": 41\n}') == FormatFinding()
    plan = '{"steps":[{"id":1,"tool":"search","args":{"q":"weather"},"note":null}]}'
    assert judge(checked(PLAN), plan) == FormatFinding()


@pytest.mark.parametrize("text", ["{}", "[]", "41", '"Bob"', "null", ' {"a":1}\n', '{"a":1,"a":2}'])
def test_any_json_is_any_json(text: str) -> None:
    assert problem(ANYTHING, text) is None


NOT_JSON = [
    ("", "the text is empty"),
    (" \n", "the text is empty"),
    ("Bob is 41.", "the text is not JSON, from character 0 of 10"),
    ('{"name":"Bob",}', "the text is not JSON, from character 13 of 15"),
    ("{'name':'Bob'}", "the text is not JSON, from character 1 of 14"),
    ('{"name":"Bob","age":', "the text ends in the middle of its JSON, after 20 characters"),
    (
        '{"name":"Bob","age":41}{"name":"Bob"}',
        "more text follows the JSON, from character 23 of 37",
    ),
    ('{"name":"Bob","age":41} Done.', "more text follows the JSON, from character 24 of 29"),
    ('```json\n{"name":"Bob","age":41}\n```', "the text is fenced with ```;"),
    ('<think>An age</think>{"name":"Bob","age":41}', "the text begins with a thinking tag;"),
    ("NaN", "the text is not JSON, from character 0 of 3"),
]


@pytest.mark.parametrize(("text", "sentence"), NOT_JSON)
@pytest.mark.parametrize("form", [ANYTHING, asked(BOB)], ids=["json", "schema"])
def test_what_is_no_json_says_what_it_is(form: Wanted, text: str, sentence: str) -> None:
    assert str(problem(form, text)).startswith(sentence)


def test_half_a_surrogate_pair_is_left_to_the_client() -> None:
    assert judge(checked(BOB), '{"name":"\\ud800","age":1}').problem is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", 'at /: "steps" is a required property'),
        ("[]", "at /: array, not object"),
        ('{"steps":{}}', "at /steps: object, not array"),
        ('{"steps":[{"tool":"read"}]}', 'at /steps/0: "id" is a required property'),
        ('{"steps":[{"id":"1","tool":"read"}]}', "at /steps/0/id: string, not integer"),
        ('{"steps":[{"id":1.5,"tool":"read"}]}', "at /steps/0/id: number, not integer"),
        ('{"steps":[{"id":null,"tool":"read"}]}', "at /steps/0/id: null, not integer"),
        ('{"steps":[{"id":true,"tool":"read"}]}', "at /steps/0/id: boolean, not integer"),
        ('{"steps":[{"id":0,"tool":"read"}]}', "at /steps/0/id: does not fit minimum 1"),
        ('{"steps":[{"id":1,"tool":"launch"}]}', "at /steps/0/tool: not one of the allowed values"),
        (
            '{"steps":[{"id":1,"tool":"read","secret":1,"word":2}]}',
            "at /steps/0: a property that is not allowed",
        ),
        (
            '{"steps":[{"id":1,"tool":"read","args":{"secret word":7}}]}',
            "at /steps/0/args/*: integer, not string",
        ),
        (
            '{"steps":[{"id":1,"tool":"read","note":7}]}',
            "at /steps/0/note: fits none of the alternatives",
        ),
        (
            json.dumps({"steps": [{"id": 1, "tool": "read"}] * 10}),
            "at /steps: does not fit maxItems 9",
        ),
    ],
)
def test_what_does_not_fit_is_named_by_path_and_kind(text: str, sentence: str) -> None:
    assert problem(checked(PLAN), text) == sentence


@pytest.mark.parametrize(
    ("schema", "text", "sentence"),
    [
        ({"const": 1}, "2", "at /: not one of the allowed values"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 0}]}, "7", "fits more than one of the"),
        ({"oneOf": [{"type": "string"}]}, "7", "at /: fits none of the alternatives"),
        ({"type": ["string", "null"]}, "7", "at /: integer, not null or string"),
        ({"propertyNames": {"maxLength": 1}}, '{"secret":1}', "at /: does not fit propertyNames"),
        ({"not": {}}, '"secret"', "at /: does not fit not"),
        ({"contains": {"type": "string"}}, "[1]", "at /: does not fit contains"),
        ({"uniqueItems": True}, "[1,1]", "at /: does not fit uniqueItems"),
        ({"properties": {"a": False}}, '{"a":1}', "at /a: not allowed here"),
        ({"required": ["a\nb"]}, "{}", 'at /: "a?b" is a required property'),
    ],
)
def test_other_keywords(schema: dict[str, Any], text: str, sentence: str) -> None:
    found = str(problem(checked(schema), text))
    assert sentence in found
    assert "secret" not in found


def test_a_format_describes_and_does_not_constrain() -> None:
    assert problem(checked({"type": "string", "format": "date-time"}), '"tomorrow"') is None


def test_a_sentence_is_short_however_long_the_names_are() -> None:
    name = "n" * 300
    schema = {"properties": {name: {"required": [name]}}}
    found = str(problem(checked(schema), json.dumps({name: {}})))
    assert len(found) == 120
    assert "…: " in found


def test_where_the_reason_would_be_dear_there_is_none() -> None:
    many = {"steps": [{"id": i + 1, "tool": "read", "note": "x"} for i in range(500)]}
    assert problem(checked(PLAN), json.dumps(many)) == "the JSON does not fit the schema"


def test_a_large_answer_is_checked_and_a_huge_one_is_not() -> None:
    large = json.dumps([{"name": "Bob", "age": 41}] * 10_000)
    rows = checked({"type": "array", "items": BOB})
    assert judge(rows, large) == FormatFinding()
    assert problem(rows, large[:-1] + ',{"name":1}]') == 'at /10000: "age" is a required property'
    assert judge(rows, json.dumps(["x" * 1_100_000])).unchecked is not None


# -- any schema, any instance ---------------------------------------------------------------------

# Names in capitals, words in small letters: a word in a sentence is the model's.
NAMES = st.text(string.ascii_uppercase, min_size=1, max_size=6)
WORDS = st.text("qxz", min_size=6, max_size=12)


def _object(parts: dict[str, tuple[Any, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    schema = {
        "type": "object",
        "properties": {name: schema for name, (schema, _) in parts.items()},
        "required": sorted(parts),
        "additionalProperties": False,
    }
    return schema, {name: value for name, (_, value) in parts.items()}


PAIRS: st.SearchStrategy[tuple[Any, Any]] = st.recursive(
    st.one_of(
        WORDS.map(lambda word: ({"type": "string", "minLength": 6}, word)),
        st.integers(0, 10**6).map(lambda n: ({"type": "integer", "minimum": 0}, n)),
        st.booleans().map(lambda yes: ({"type": "boolean"}, yes)),
        st.just(({"type": "null"}, None)),
        WORDS.map(lambda word: ({"anyOf": [{"type": "null"}, {"type": "string"}]}, word)),
    ),
    lambda inner: st.one_of(
        st.dictionaries(NAMES, inner, max_size=4).map(_object),
        inner.map(lambda pair: ({"type": "array", "items": pair[0]}, [pair[1]] * 2)),
    ),
    max_leaves=9,
)


def broken(value: Any) -> Any:
    """The value with its first leaf of another type."""
    if isinstance(value, dict) and value:
        first, *_ = value
        return {**value, first: broken(value[first])}
    if isinstance(value, list):
        return [broken(value[0]), *value[1:]]
    return ["zzzzzz"] if value != {} else "zzzzzz"


@given(PAIRS)
def test_every_instance_made_for_a_schema_fits_it(pair: tuple[Any, Any]) -> None:
    schema, value = pair
    assert judge(checked(schema), json.dumps(value)) == FormatFinding()


@given(PAIRS)
def test_a_leaf_of_another_type_is_seen_and_never_repeated(pair: tuple[Any, Any]) -> None:
    schema, value = pair
    found = problem(checked(schema), json.dumps(broken(value)))
    assert found is not None
    assert len(found) <= 120
    words = found.replace("fits", "").replace("alternatives", "")
    assert not any(letter * 2 in words or f"{letter}x" in words for letter in "qxz")


@given(PAIRS, st.data())
def test_a_text_cut_anywhere_is_no_answer(pair: tuple[Any, Any], data: st.DataObject) -> None:
    schema, value = pair
    text = json.dumps({"A": value})
    cut = data.draw(st.integers(0, len(text) - 1))
    assert problem(checked(schema), text[:cut]) is not None
    assert problem(ANYTHING, text[:cut]) is not None
