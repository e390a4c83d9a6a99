"""The policy document: what is accepted, and what an operator reads when it is not."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from modelsplit_policy.config import (
    OBJECTIVES,
    Policy,
    PolicyError,
    Problem,
    json_path,
    json_schema,
    parse,
    seconds,
)
from modelsplit_policy.facts import Context, Provider, Role
from modelsplit_policy.roles import bare_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


# --- The shipped policy -------------------------------------------------------------------


def test_the_shipped_policy_is_the_table_of_roles() -> None:
    policy = parse(SHIPPED)
    table = {
        role.value: (
            row.primary,
            row.fallback,
            row.timeout_ms,
            row.fallback_timeout_ms,
            row.max_concurrent,
            row.max_wait_ms,
            row.context.value,
        )
        for role, row in policy.roles.items()
    }
    assert table == {
        "PLANNER": ("qwen3:4b", "qwen3:8b", 15_000, 30_000, 2, 8_000, "PLANNER"),
        "EXECUTOR": ("qwen3:8b", "gemma3:12b", 60_000, 60_000, 5, 8_000, "EXECUTOR"),
        "HEAVY": ("gemma3:12b", "gpt-oss:20b", 120_000, 120_000, 1, 10_000, "EXECUTOR"),
        "CLOUD": ("claude-3-opus", None, 30_000, None, None, 5_000, "EXECUTOR"),
        "CHAT": (None, None, None, None, None, 10_000, "CHAT"),
    }
    assert policy.global_.max_concurrent == 6
    assert policy.load_timeout_ms == 120_000
    assert policy.roles[Role.PLANNER].reserved == 1
    assert {r for r, row in policy.roles.items() if row.validate_output} == {Role.PLANNER}
    assert {r.value.lower() for r, row in policy.roles.items() if row.aliases} == {
        alias for row in policy.roles.values() for alias in row.aliases
    }


def test_the_shipped_budgets_and_objectives_are_the_published_numbers() -> None:
    policy = parse(SHIPPED)
    heavy, cloud = policy.budgets
    assert (heavy.models, heavy.calls, heavy.window_s) == (("gpt-oss:20b",), 10, 3_600)
    assert (cloud.provider, cloud.calls, cloud.usd) == (Provider.CLOUD, 9, 5.0)
    assert cloud.window_s == 86_400
    bounds = {name: slo.model_dump(exclude_none=True) for name, slo in policy.slo.items()}
    assert bounds == {
        "job_e2e_latency_ms": {"p99": 70_000, "window": "5h"},
        "planner_latency_ms": {"p95": 5_000, "window": "5h"},
        "llm_queue_wait_ms": {"p95": 2_000, "window": "5h"},
        "timeouts": {"max": 5, "window": "5h"},
        "fallback_rate": {"max": 0.1, "window": "5h"},
        "schema_error_rate": {"max": 0.01, "window": "5h"},
        "executor_job_rate": {"max": 0.1, "window": "5h"},
    }


def test_a_policy_cannot_be_changed_after_it_was_checked() -> None:
    policy = parse(SHIPPED)
    with pytest.raises(ValidationError, match="frozen"):
        policy.version = 1
    with pytest.raises(TypeError, match="does not support item assignment"):
        policy.roles[Role.CHAT] = policy.roles[Role.HEAVY]  # type: ignore[index]
    with pytest.raises(TypeError, match="does not support item assignment"):
        policy.models["gpt-oss:20b"].options["num_ctx"] = 1  # type: ignore[index]


def test_parsing_does_not_touch_the_document_and_writing_it_back_gives_the_same_policy() -> None:
    raw = document((("roles", "CLOUD", "provider"), DELETE))
    before = copy.deepcopy(raw)
    policy = parse(raw)
    assert raw == before
    written: dict[str, Any] = json.loads(policy.model_dump_json(by_alias=True))
    assert parse(written) == policy


# --- Defaults -----------------------------------------------------------------------------


def test_what_has_a_default_may_be_left_out() -> None:
    row = {"provider", "reserved", "allow_long_wait", "claims", "validate", "on_schema_failure"}
    raw = document(*((at("CLOUD", key), DELETE) for key in (*row, "fallback")))
    for key in ("$schema", "models", "load_timeout_ms", "clients"):
        del raw[key]
    policy = parse(raw)
    cloud = policy.roles[Role.CLOUD]
    assert (cloud.provider, cloud.fallback, cloud.reserved) == (Provider.CLOUD, None, 0)
    assert (cloud.claims, cloud.validate_output, cloud.on_schema_failure) == ((), False, "error")
    assert (policy.models, policy.load_timeout_ms) == ({}, 120_000)
    assert (policy.clients.rate_per_s, policy.clients.burst) == (None, 1)


@pytest.mark.parametrize("value", [DELETE, None], ids=["missing", "null"])
def test_the_fallback_has_the_time_of_the_primary_unless_told(value: object) -> None:
    raw = document((at("PLANNER", "fallback_timeout_ms"), value))
    assert parse(raw).roles[Role.PLANNER].fallback_timeout_ms == 15_000


@pytest.mark.parametrize(
    ("window", "length"), [("30s", 30), ("30m", 1_800), ("5h", 18_000), ("1d", 86_400)]
)
def test_a_window_is_a_number_and_a_unit(window: str, length: int) -> None:
    assert seconds(window) == length


def test_what_changes_requests_or_their_course_is_off_by_default() -> None:
    for row in parse(SHIPPED).roles.values():
        assert (row.max_num_ctx, row.max_keep_alive) == (None, None)
        assert (row.num_predict, row.max_num_predict) == (None, None)
        assert (row.total_timeout_ms, row.early_headers_after_ms) == (None, None)
        assert (row.on_stream, row.prefer_resident_fallback) == ("observe", False)


def test_what_changes_requests_can_be_switched_on_for_one_role() -> None:
    keys = {
        "max_num_ctx": 8192,
        "max_keep_alive": "30m",
        "num_predict": 512,
        "max_num_predict": 4096,
        "total_timeout_ms": 90_000,
        "early_headers_after_ms": 5_000,
        "validate_streams": "hold",
        "prefer_resident_fallback": True,
    }
    policy = parse(document(*((at("CHAT", key), value) for key, value in keys.items())))
    written = policy.roles[Role.CHAT].model_dump(by_alias=True)
    assert {key: written[key] for key in keys} == keys
    assert policy.roles[Role.CHAT].on_stream == "hold"


def test_a_model_may_have_any_name_even_that_of_a_key() -> None:
    names = ("extends", "primary", "price", "key")
    raw = document(*((("models", name), {"parallel": 3}) for name in names))
    assert {parse(raw).models[name].parallel for name in names} == {3}


def test_any_mapping_will_do_as_a_document() -> None:
    assert parse(MappingProxyType(SHIPPED)) == parse(SHIPPED)


# --- Missing and unknown ------------------------------------------------------------------

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


@pytest.mark.parametrize("loc", REQUIRED, ids=json_path)
def test_what_is_missing_is_named(loc: Loc) -> None:
    said = problems(document((loc, DELETE)))
    assert said == {json_path(loc): 'missing; add it, or put "extends": "default" in the file'}


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
        "$.global.zzz": "unknown key; known here: max_concurrent, parallel, forecast",
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
    guess = re.fullmatch(r'unknown key; did you mean "(.+)"\?', message)
    assert guess, message
    # p95 and p99 lose the same letter to the same word; everything else is unambiguous.
    assert guess[1] == key or {guess[1], key} == {"p95", "p99"}


# --- Types --------------------------------------------------------------------------------


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


@pytest.mark.parametrize("raw", [[], "x", 3, None])
def test_a_document_that_is_no_object_is_refused(raw: object) -> None:
    assert list(problems(raw)) == ["$"]


# --- Rules that span several keys -----------------------------------------------------------


def budget(**keys: object) -> dict[str, object]:
    return {"name": "more", "role": "HEAVY", "calls": 1, "window": "1h"} | keys


def experiment(**keys: object) -> dict[str, object]:
    arms = [
        {"name": "a", "model": "qwen3:4b", "weight": 1},
        {"name": "b", "model": "x", "weight": 1},
    ]
    return {"name": "size", "role": "PLANNER", "arms": arms, "sticky": "job"} | keys


RULES: list[tuple[str, list[tuple[Loc, Any]], str, str]] = [
    ("chat has no primary", [(at("CHAT", "primary"), "m")], "$.roles.CHAT.primary", "must be null"),
    ("others have one", [(at("HEAVY", "primary"), None)], "$.roles.HEAVY.primary", "name a model"),
    (
        "a fallback is another model",
        [(at("PLANNER", "primary"), "qwen3"), (at("PLANNER", "fallback"), "Qwen3:latest")],
        "$.roles.PLANNER.fallback",
        "is the primary again",
    ),
    (
        "time for a fallback that is not there",
        [(at("PLANNER", "fallback"), None)],
        "$.roles.PLANNER.fallback_timeout_ms",
        "set it to null",
    ),
    ("cloud is cloud", [(at("CLOUD", "provider"), "LOCAL")], "$.roles.CLOUD.provider", "CLOUD for"),
    ("others are not", [(at("HEAVY", "provider"), "CLOUD")], "$.roles.HEAVY.provider", "LOCAL for"),
    (
        "a seat kept must exist in the role",
        [(at("HEAVY", "reserved"), 2)],
        "$.roles.HEAVY.reserved",
        "is 2, more than this role's max_concurrent (1)",
    ),
    (
        "the seats kept must exist in all",
        [(at("CHAT", "reserved"), 6)],
        "$.global.max_concurrent",
        "is 6, but the roles reserve 7 together",
    ),
    (
        "the cloud keeps no local seat",
        [(at("CLOUD", "reserved"), 6)],
        "$.roles.CLOUD.reserved",
        "0",
    ),
    (
        "a given number of tokens within the most",
        [(at("CHAT", "num_predict"), 513), (at("CHAT", "max_num_predict"), 512)],
        "$.roles.CHAT.num_predict",
        "is 513, more than this role's max_num_predict (512)",
    ),
    (
        "a pinned context within the clamp",
        [
            (at("PLANNER", "max_num_ctx"), 4096),
            (("models", "QWEN3:8b"), {"options": {"num_ctx": 8192}}),
        ],
        "$.roles.PLANNER.max_num_ctx",
        'is 4096, but $.models["QWEN3:8b"].options.num_ctx is 8192; raise',
    ),
    (
        "an arm's context within the clamp",
        [
            (at("PLANNER", "max_num_ctx"), 4096),
            (("experiments", 0), experiment()),
            (("experiments", 0, "arms", 1, "options"), {"num_ctx": 4097}),
        ],
        "$.roles.PLANNER.max_num_ctx",
        "$.experiments[0].arms[1].options.num_ctx is 4097",
    ),
    (
        "an arm's model within the clamp",
        [
            (at("PLANNER", "max_num_ctx"), 4096),
            (("experiments", 0), experiment()),
            (("models", "x"), {"options": {"num_ctx": 8192}}),
        ],
        "$.roles.PLANNER.max_num_ctx",
        "$.models.x.options.num_ctx is 8192",
    ),
    (
        "one alias, one role",
        [(at("HEAVY", "aliases", 1), "PLANNER:latest")],
        "$.roles.HEAVY.aliases[1]",
        "is the same alias as $.roles.PLANNER.aliases[0]",
    ),
    (
        "an alias is no model",
        [(at("HEAVY", "aliases", 1), "gpt-oss:20b")],
        "$.roles.HEAVY.aliases[1]",
        "is also the name of a model ($.roles.HEAVY.fallback)",
    ),
    (
        "an alias is not its own primary",
        [(at("HEAVY", "primary"), "heavy:latest")],
        "$.roles.HEAVY.aliases[0]",
        "$.roles.HEAVY.primary",
    ),
    ("chat has no alias", [(at("CHAT", "aliases"), ["talk"])], "$.roles.CHAT.aliases[0]", "CHAT"),
    (
        "one claim, one role",
        [(at("HEAVY", "claims"), ["llama3"]), (at("CHAT", "claims"), ["llama3:latest"])],
        "$.roles.CHAT.claims[0]",
        "is already claimed at $.roles.HEAVY.claims[0]",
    ),
    (
        "a budget selects",
        [(("budgets", 2), budget(role=None))],
        "$.budgets[2]",
        "selects no calls",
    ),
    ("a budget limits", [(("budgets", 2), budget(calls=None))], "$.budgets[2]", "limits nothing"),
    (
        "budgets have names of their own",
        [(("budgets", 2), budget(name="cloud"))],
        "$.budgets[2].name",
        "$.budgets[1].name",
    ),
    (
        "a condition once",
        [(("escalation", "conditions"), ["operator", "operator"])],
        "$.escalation.conditions[1]",
        "already listed",
    ),
    (
        "no experiment on chat",
        [(("experiments", 0), experiment(role="CHAT"))],
        "$.experiments[0].role",
        "must not be CHAT",
    ),
    (
        "experiments have names of their own",
        [(("experiments",), [experiment(), experiment()])],
        "$.experiments[1].name",
        "$.experiments[0].name",
    ),
    (
        "one running experiment per role",
        [
            (
                ("experiments",),
                [experiment(enabled=True), experiment(name="other", enabled=True)],
            )
        ],
        "$.experiments[1].enabled",
        "already tests",
    ),
    (
        "arms have names of their own",
        [
            (("experiments", 0), experiment()),
            (("experiments", 0, "arms", 1, "name"), "a"),
        ],
        "$.experiments[0].arms[1].name",
        "$.experiments[0].arms[0].name",
    ),
    (
        "arms have weight",
        [
            (("experiments", 0), experiment()),
            (("experiments", 0, "arms", 0, "weight"), 0),
            (("experiments", 0, "arms", 1, "weight"), 0),
        ],
        "$.experiments[0].arms",
        "have no weight",
    ),
    (
        "a latency has percentiles",
        [(("slo", "llm_latency_ms"), {"max": 5})],
        "$.slo.llm_latency_ms.max",
        "p95",
    ),
    (
        "a rate has none",
        [(("slo", "fallback_rate", "p95"), 0.1)],
        "$.slo.fallback_rate.p95",
        "use max",
    ),
    (
        "a rate is a share",
        [(("slo", "fallback_rate", "max"), 10)],
        "$.slo.fallback_rate.max",
        "write 0.1 for 10 per cent",
    ),
]


@pytest.mark.parametrize(
    ("changes", "path", "words"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES]
)
def test_a_rule_broken_is_the_one_problem_reported(
    changes: list[tuple[Loc, Any]], path: str, words: str
) -> None:
    said = problems(document(*changes))
    assert list(said) == [path]
    assert words in said[path]


@given(wait=st.integers(1, 700_000), allowed=st.booleans())
def test_a_wait_is_5_to_10_seconds_unless_a_long_wait_is_allowed(wait: int, allowed: bool) -> None:
    raw = document((at("CHAT", "max_wait_ms"), wait), (at("CHAT", "allow_long_wait"), allowed))
    if 5_000 <= wait <= 10_000 or (allowed and wait <= 600_000):
        assert parse(raw).roles[Role.CHAT].max_wait_ms == wait
    else:
        assert list(problems(raw)) == ["$.roles.CHAT.max_wait_ms"]


def test_the_refused_wait_says_how_to_allow_it() -> None:
    assert problems(document((at("CHAT", "max_wait_ms"), 20_000))) == {
        "$.roles.CHAT.max_wait_ms": (
            'must be 5000 to 10000 milliseconds, not 20000, or set "allow_long_wait": true'
        )
    }


def test_a_pinned_context_is_only_held_against_the_clamps_of_roles_that_call_the_model() -> None:
    pinned = (("models", "gpt-oss:20b", "options"), {"num_ctx": 8192})
    parse(document(pinned, (at("CHAT", "max_num_ctx"), 4096)))
    parse(document(pinned, (at("HEAVY", "max_num_ctx"), 8192)))
    assert list(problems(document(pinned, (at("HEAVY", "max_num_ctx"), 8191)))) == [
        "$.roles.HEAVY.max_num_ctx"
    ]


def test_an_arm_that_sets_its_own_context_is_not_held_to_its_models() -> None:
    test = experiment()
    test["arms"] = [{"name": "a", "model": "x", "weight": 1, "options": {"num_ctx": 2048}}]
    raw = document(
        (at("PLANNER", "max_num_ctx"), 4096),
        (("experiments", 0), test),
        (("models", "x"), {"options": {"num_ctx": 8192}}),
    )
    assert parse(raw).roles[Role.PLANNER].max_num_ctx == 4096


def test_roles_together_may_have_more_seats_than_the_cap() -> None:
    seats = [row["max_concurrent"] or 0 for row in SHIPPED["roles"].values()]
    assert sum(seats) > parse(SHIPPED).global_.max_concurrent
    parse(document((at("EXECUTOR", "max_concurrent"), 50)))


def test_an_experiment_is_read_for_later_use() -> None:
    (found,) = parse(document((("experiments", 0), experiment()))).experiments
    assert (found.role, found.sticky, found.enabled) == (Role.PLANNER, "job", False)
    assert [arm.model for arm in found.arms] == ["qwen3:4b", "x"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_can_be_switched_off(name: str) -> None:
    off = {"p95": None, "p99": None, "max": None}
    assert parse(document((("slo", name), off))).slo[name].max is None


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


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


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


def test_a_problem_reads_as_path_and_sentence() -> None:
    assert str(Problem("$.a", "is wrong")) == "$.a: is wrong"
    assert (
        json_path(("models", "gpt-oss:20b", "options", 0)) == '$.models["gpt-oss:20b"].options[0]'
    )


def test_two_spellings_of_a_model_are_one_name() -> None:
    assert bare_name("Planner:latest") == bare_name("PLANNER") == "planner"


# --- The published schema -------------------------------------------------------------------


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


def test_contexts_are_bounded_to_the_three_activities() -> None:
    assert {row.context for row in parse(SHIPPED).roles.values()} == set(Context)
