"""A schema, compiled, and an answer held against it. Every keyword and bound: `test_schema`."""

from __future__ import annotations

import sys

import pytest

from modelsplit_proxy.protocol.answer_format import Wanted, of_format
from modelsplit_proxy.protocol.format_finding import FormatFinding, RefusedError
from modelsplit_proxy.protocol.json_schema import compiled
from support.bodies import fields_of

AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def test_an_answer_that_fits_leaves_nothing_to_say() -> None:
    assert compiled(AGE).judge('{"age":4}', {"age": 4}) == FormatFinding()


def test_an_answer_that_does_not_is_told_where() -> None:
    found = compiled(AGE).judge('{"age":"old"}', {"age": "old"})
    assert found == FormatFinding("at /age: string, not integer")


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(RefusedError, match="not a valid JSON schema"):
        compiled({"type": 3})


def test_a_schema_is_kept_as_the_bytes_it_was() -> None:
    assert compiled({"type": "object"}).raw == b'{"type":"object"}'


def test_without_the_package_an_answer_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a moment while another version of it is being installed."""
    monkeypatch.delitem(sys.modules, "modelsplit_proxy.protocol.json_schema")
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    found = of_format(fields_of({"format": AGE}))
    assert found == Wanted(AGE, unchecked="the validator cannot be loaded")
