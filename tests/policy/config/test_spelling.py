"""Misspelt keys, and what they are taken for."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.problems import json_path
from support.policies import DELETE, SHIPPED, SHIPPED_KEYS, Loc, at, document, problems


def test_a_misspelt_key_is_one_problem_with_the_right_key_in_it() -> None:
    raw = document((at("EXECUTOR", "max_queue"), DELETE), (at("EXECUTOR", "max_que"), 64))
    assert problems(raw) == {
        "$.roles.EXECUTOR.max_que": 'unknown key; did you mean "max_queue"?',
    }


def test_a_misspelt_role_and_a_misspelt_objective_are_guessed_too() -> None:
    raw = document(
        (("roles", "Planner"), SHIPPED["roles"]["PLANNER"]),
        (("roles", "PLANNER"), DELETE),
        (("slo", "timeout"), {"max": 5}),
    )
    assert problems(raw) == {
        "$.roles.Planner": 'unknown key; did you mean "PLANNER"?',
        "$.slo.timeout": 'unknown key; did you mean "timeouts"?',
    }


def test_a_key_like_no_other_gets_the_list_instead_of_a_guess() -> None:
    assert problems(document((("global", "zzz"), 1))) == {
        "$.global.zzz": (
            "unknown key; known here: max_concurrent, parallel, forecast, restart_wait_ms"
        ),
    }


def test_the_value_under_a_misspelt_key_is_checked_in_the_same_run() -> None:
    raw = document((at("HEAVY", "max_wait_ms"), DELETE), (at("HEAVY", "max_wait"), 90))
    assert sorted(problems(raw)) == ["$.roles.HEAVY.max_wait", "$.roles.HEAVY.max_wait_ms"]


def test_a_misspelt_extends_is_the_only_thing_wrong_with_an_overlay() -> None:
    assert problems({"extend": "default", "load_timeout_ms": 5}) == {
        "$.extend": 'unknown key; did you mean "extends"?',
    }
    assert problems(document((("extends",), "default"))) == {
        "$.extends": "must be resolved before the policy is parsed",
    }


@given(loc=st.sampled_from(SHIPPED_KEYS), data=st.data())
def test_any_key_with_a_letter_lost_is_named_with_its_right_spelling(
    loc: Loc, data: st.DataObject
) -> None:
    key = str(loc[-1])
    lost = data.draw(st.integers(0, len(key) - 1))
    typo = key[:lost] + key[lost + 1 :]
    value: Any = SHIPPED
    for step in loc:
        value = value[step]
    said = problems(document((loc, DELETE), ((*loc[:-1], typo), value)))
    message = said[json_path((*loc[:-1], typo))]
    guess = re.fullmatch(r'unknown key; did you mean "(.+)"( \(milliseconds\))?\?', message)
    assert guess, message
    # p95 and p99 lose the same letter to the same word; everything else is unambiguous.
    assert guess[1] == key or {guess[1], key} == {"p95", "p99"}
