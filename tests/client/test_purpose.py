"""When a tool's result is worth a model: always on failure, on success only for complex output."""

from __future__ import annotations

import pytest

from modelsplit_client import Purpose, ToolResult, needs_llm
from modelsplit_client.purpose import is_json_shaped
from modelsplit_policy import vocabulary

LONG = '{"rows": [' + "1, " * 400 + "1]}"
FENCED = f"\n\n```json\n{LONG}\n```"


@pytest.mark.parametrize("output", ["", "boom", LONG])
def test_a_failure_always_needs_one(output: str) -> None:
    assert needs_llm(ToolResult(ok=False, output=output)) is Purpose.FAILURE_ANALYSIS


@pytest.mark.parametrize(
    ("output", "purpose"),
    [
        ("", None),
        ("done", None),
        ("word " * 1000, None),
        ("{}", None),
        ("{" + "x" * 999, None),
        ("{" + "x" * 1000, Purpose.COMPLEX_OUTPUT),
        (LONG, Purpose.COMPLEX_OUTPUT),
        (f" \n\t{LONG}", Purpose.COMPLEX_OUTPUT),
        (f"[{LONG}]", Purpose.COMPLEX_OUTPUT),
        (FENCED, Purpose.COMPLEX_OUTPUT),
    ],
)
def test_a_success_does_only_where_its_output_is_long_and_json_shaped(
    output: str, purpose: Purpose | None
) -> None:
    assert needs_llm(ToolResult(ok=True, output=output)) is purpose


def test_the_thresholds_are_arguments() -> None:
    assert needs_llm(ToolResult(ok=True, output="{}"), complex_over=1) is Purpose.COMPLEX_OUTPUT
    assert needs_llm(ToolResult(ok=True, output=LONG), complex_over=len(LONG)) is None
    prose = ToolResult(ok=True, output="word " * 300)
    assert needs_llm(prose, json_shaped=False) is Purpose.COMPLEX_OUTPUT


@pytest.mark.parametrize(
    ("text", "shaped"),
    [
        ("{", True),
        ("  [1]", True),
        ("```\n{", True),
        ("```json\r\n\r\n [", True),
        ("````jsonc\n{", True),
        ("```json {", False),
        ("```json\nno", False),
        ("``\n{", False),
        ("```\n```\n{", False),
        ('"{"', False),
        ("", False),
    ],
)
def test_json_shaped_is_a_bracket_behind_blanks_and_one_fence(text: str, shaped: bool) -> None:
    assert is_json_shaped(text) is shaped


def test_any_object_with_the_two_fields_is_a_result() -> None:
    class Done:
        ok = False
        output = "no such file"

    assert needs_llm(Done()) is Purpose.FAILURE_ANALYSIS


def test_the_purposes_are_those_that_modelsplit_knows() -> None:
    known = getattr(vocabulary, "Purpose", Purpose)
    assert [purpose.value for purpose in Purpose] == [purpose.value for purpose in known]
