"""Text held to a schema: a class's, or JSON."""

from __future__ import annotations

from typing import Any, Self

import pydantic
import pytest

from modelsplit_client.structured import UnfitError, parse


class Plan(pydantic.BaseModel):
    goal: str
    steps: list[str]


class Own:
    """No pydantic: the two methods are all that is asked."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"type": "object"}

    @classmethod
    def model_validate_json(cls, json_data: str, /) -> Self:
        return cls(json_data)


def test_a_class_gives_an_instance_and_a_schema_the_value() -> None:
    assert parse(Plan, '{"goal":"g","steps":[]}') == Plan(goal="g", steps=[])
    assert parse(Own, "anything").text == "anything"
    assert parse({"type": "object"}, '{"a": 1}') == {"a": 1}
    assert parse(None, "text") is None


@pytest.mark.parametrize(
    ("schema", "text", "why"),
    [
        (Plan, '{"goal": 1}', "the answer is no Plan: 2 validation errors for Plan"),
        (Plan, '{"goal', "the answer is no Plan: 1 validation error for Plan"),
        ({}, '{"goal', "the answer is no JSON: Unterminated string starting at"),
        ({}, "[" * 100_000, "the answer is no JSON: "),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(schema: Any, text: str, why: str) -> None:
    with pytest.raises(UnfitError) as caught:
        parse(schema, text)
    assert str(caught.value).startswith(why)
    assert "\n" not in str(caught.value)
