"""The policy document: what is accepted, and what an operator reads when it is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.model import Policy
from modelsplit_policy.config.parser import parse
from modelsplit_policy.config.problems import PolicyError, Problem, json_path
from support.policies import (
    DELETE,
    JSON_VALUES,
    REQUIRED,
    SHIPPED_KEYS,
    Loc,
    at,
    document,
    problems,
)


@pytest.mark.parametrize("loc", REQUIRED, ids=json_path)
def test_what_is_missing_is_named(loc: Loc) -> None:
    said = problems(document((loc, DELETE)))
    assert said == {json_path(loc): 'missing; add it, or put "extends": "default" in the file'}


@pytest.mark.parametrize("raw", [[], "x", 3, None])
def test_a_document_that_is_no_object_is_refused(raw: object) -> None:
    assert list(problems(raw)) == ["$"]


# --- All at once --------------------------------------------------------------------------


def test_everything_wrong_is_told_at_once_one_line_each() -> None:
    raw = document(
        (at("EXECUTOR", "max_queue"), DELETE),
        (at("EXECUTOR", "max_que"), 64),
        (at("EXECUTOR", "max_wait_ms"), 60_000),
        (("global", "max_concurrent"), True),
        (("experiments",), DELETE),
        (("budgets", 0, "window"), "soon"),
        (at("HEAVY", "aliases", 1), "planner"),
    )
    with pytest.raises(PolicyError) as refused:
        parse(raw)
    assert (
        str(refused.value)
        == """\
$.budgets[0].window: must be a whole number with s, m, h or d, such as "30m" or "1h", not "soon"
$.experiments: missing; add it, or put "extends": "default" in the file
$.global.max_concurrent: must be a whole number, not true
$.roles.EXECUTOR.max_que: unknown key; did you mean "max_queue"?
$.roles.EXECUTOR.max_wait_ms: must be 5000 to 10000 milliseconds, not 60000, \
or set "allow_long_wait": true
$.roles.HEAVY.aliases[1]: is the same alias as $.roles.PLANNER.aliases[0]; keep one of them"""
    )


@given(picked=st.lists(st.sampled_from(REQUIRED), unique=True, min_size=1, max_size=6))
def test_every_missing_key_is_in_the_one_report(picked: list[Loc]) -> None:
    # A key inside something that is itself missing is not reported twice.
    outermost = [loc for loc in picked if not any(loc[: len(o)] == o != loc for o in picked)]
    assert set(problems(document(*((loc, DELETE) for loc in outermost)))) == {
        json_path(loc) for loc in outermost
    }


@given(loc=st.sampled_from(SHIPPED_KEYS), value=JSON_VALUES)
def test_whatever_stands_in_a_place_is_accepted_or_refused_by_path(loc: Loc, value: Any) -> None:
    refused: tuple[Problem, ...] = ()
    try:
        assert isinstance(parse(document((loc, value))), Policy)
    except PolicyError as error:
        refused = error.problems
    lines = str(PolicyError(refused)).splitlines()
    assert len(lines) == len(refused)
    assert all(line.startswith("$") for line in lines)
