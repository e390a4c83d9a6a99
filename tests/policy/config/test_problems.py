"""What an operator reads about a wrong value."""

from __future__ import annotations

import pytest

from modelsplit_policy.config.problems import Problem, json_path
from support.policies import Loc, at, document, problems


@pytest.mark.parametrize(
    ("loc", "value", "message"),
    [
        (("global", "max_concurrent"), True, "must be a whole number, not true"),
        (("global", "max_concurrent"), "6", 'must be a whole number, not "6"'),
        (("global", "max_concurrent"), 6.0, "must be a whole number, not 6.0"),
        (("global", "max_concurrent"), 0, "must be at least 1, not 0"),
        (("global", "max_concurrent"), None, "must be a whole number, not null"),
        (("version",), True, "must be a whole number, not true"),
        (("version",), 1.0, "must be a whole number, not 1.0"),
        (("version",), 2, "must be 1, not 2"),
        (("load_timeout_ms",), 0, "must be at least 1, not 0"),
        (("load_timeout_ms",), 10**30, "must be at most 86400000, not a number of 31 digits"),
        (at("CHAT", "reserved"), -1, "must be at least 0, not -1"),
        (("budgets", 0, "usd"), 1e7, "must be at most 1000000.0, not 10000000.0"),
        (("clients", "rate_per_s"), 1e300, "must be at most 9007199254740991.0, not 1e+300"),
        (at("HEAVY", "timeout_ms"), -5, "must be at least 1, not -5"),
        (at("HEAVY", "validate"), "yes", 'must be true or false, not "yes"'),
        (at("HEAVY", "validate"), 1, "must be true or false, not 1"),
        (at("HEAVY", "aliases"), "heavy", 'must be a list, not "heavy"'),
        (at("HEAVY", "aliases", 0), 7, "must be a string, not 7"),
        (at("HEAVY", "context"), "heavy", 'must be "PLANNER", "EXECUTOR" or "CHAT", not "heavy"'),
        (at("HEAVY", "on_schema_failure"), "retry", 'must be "error" or "pass", not "retry"'),
        (at("CHAT", "validate_streams"), True, 'must be "hold" or "observe", not true'),
        (at("CHAT", "max_num_ctx"), 0, "must be at least 1, not 0"),
        (at("CHAT", "num_predict"), -1, "must be at least 1, not -1"),
        (at("CHAT", "max_num_predict"), "512", 'must be a whole number, not "512"'),
        (at("CHAT", "total_timeout_ms"), 0, "must be at least 1, not 0"),
        (at("CHAT", "early_headers_after_ms"), 1.5, "must be a whole number, not 1.5"),
        (at("CHAT", "prefer_resident_fallback"), 1, "must be true or false, not 1"),
        (
            at("CHAT", "max_keep_alive"),
            "1d",
            'must be a whole number with s, m or h, such as "5m" or "1h", not "1d"',
        ),
        (at("CHAT", "max_keep_alive"), 300, "must be a string, not 300"),
        (
            at("CHAT", "max_keep_alive"),
            "-1",
            'must be a whole number with s, m or h, such as "5m" or "1h", not "-1"',
        ),
        (("roles", "HEAVY"), [], "must be an object, not a list"),
        (("roles",), None, "must be an object, not null"),
        (("models", "m", "price", "input"), "1", 'must be a number, not "1"'),
        (("models", "m", "price", "input"), float("nan"), "must be a finite number"),
        (
            ("models", "m", "options", "stop"),
            ["a"],
            "must be a string, a number, true or false, not a list",
        ),
        (("budgets", 0, "models"), [], "must not be empty"),
        (
            ("budgets", 0, "window"),
            "1 hour",
            'must be a whole number with s, m, h or d, such as "30m" or "1h", not "1 hour"',
        ),
        (
            ("budgets", 0, "name"),
            "a b",
            'must be 1 to 64 letters, digits or . _ -, not "a b"',
        ),
        (
            at("HEAVY", "primary"),
            "gemma 3",
            'must be 1 to 256 letters, digits or . _ : / -, not "gemma 3"',
        ),
        (("escalation", "conditions", 0), "mood", None),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_with_what_it_should_be(
    loc: Loc, value: object, message: str | None
) -> None:
    said = problems(document((loc, value)))
    assert list(said) == [json_path(loc)]
    assert message is None or said[json_path(loc)] == message


def test_a_model_name_outside_the_charset_is_shown_on_one_line() -> None:
    said = problems(document((("models", 'a\n"b'), {})))
    assert list(said) == ['$.models["a\\n\\"b"]']


def test_a_problem_reads_as_path_and_sentence() -> None:
    assert str(Problem("$.a", "is wrong")) == "$.a: is wrong"
    assert (
        json_path(("models", "gpt-oss:20b", "options", 0)) == '$.models["gpt-oss:20b"].options[0]'
    )
