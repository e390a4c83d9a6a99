"""Rules that span several keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.parser import parse
from modelsplit_policy.model_names import canonical
from modelsplit_policy.slo.names import BOUNDS, OBJECTIVES
from modelsplit_policy.vocabulary import Role
from support.policies import SHIPPED, Loc, at, document, experiment, problems


def budget(**keys: object) -> dict[str, object]:
    return {"name": "more", "role": "HEAVY", "calls": 1, "window": "1h"} | keys


def hosts(**rows: dict[str, object]) -> list[tuple[Loc, Any]]:
    return [(("hosts",), {name: {"url": f"http://{name}"} | row for name, row in rows.items()})]


RULES: list[tuple[str, list[tuple[Loc, Any]], str, str]] = [
    (
        "one Ollama is one host",
        hosts(a={"url": "http://GPU:11434/"}, b={"url": "http://gpu"}),
        "$.hosts.b.url",
        "is where $.hosts.a.url is",
    ),
    (
        "a primary needs a host",
        hosts(a={"models": ["gemma3:*", "gpt-oss:*", "qwen3:8b"]}),
        "$.roles.PLANNER.primary",
        "may run on none of the hosts; let one take PLANNER and qwen3:4b",
    ),
    (
        "and so does a fallback",
        hosts(a={"roles": ["PLANNER", "EXECUTOR"]}, b={"models": ["gemma3:12b"]}),
        "$.roles.HEAVY.fallback",
        "may run on none of the hosts",
    ),
    (
        "a seat kept must exist on its hosts",
        [
            *hosts(a={"max_concurrent": 1}, b={"roles": ["HEAVY"]}),
            (at("EXECUTOR", "reserved"), 2),
        ],
        "$.roles.EXECUTOR.reserved",
        "is 2, but the hosts that take EXECUTOR have 1 in all; lower it",
    ),
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
        "one row for a model",
        [(("models",), {"qwen3:8b": {}, "library/Qwen3:8B:local": {}})],
        '$.models["library/Qwen3:8B:local"]',
        'is the same model as $.models["qwen3:8b"]; keep one of them',
    ),
    (
        "a claim in two spellings of the cloud",
        [(at("HEAVY", "claims"), ["x:7b:cloud"]), (at("CHAT", "claims"), ["x:7b-cloud"])],
        "$.roles.CHAT.claims[0]",
        "is already claimed at $.roles.HEAVY.claims[0]",
    ),
    (
        "a primary that Ollama can read",
        [(at("HEAVY", "primary"), "x:cloud:local")],
        "$.roles.HEAVY.primary",
        "cannot be read as the name of a model by Ollama",
    ),
    (
        "a row for a model that Ollama can read",
        [(("models",), {"a:b:c": {}})],
        '$.models["a:b:c"]',
        "cannot be read as the name of a model by Ollama",
    ),
    (
        "a budget selects",
        [(("budgets", 2), budget(role=None))],
        "$.budgets[2]",
        "selects no calls",
    ),
    (
        "a lease is a call at least",
        [(("budgets", 2), budget(calls=10, lease=0.05))],
        "$.budgets[2].lease",
        "0.05 of 10 calls is less than one call",
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
        "what must be reached has a least value",
        [(("slo", "uptime", "max"), 0.1)],
        "$.slo.uptime.max",
        "use min",
    ),
    (
        "a baseline is kept of some",
        [(("slo", "planner_latency_ms", "of_baseline"), 0.5)],
        "$.slo.planner_latency_ms.of_baseline",
        "use p95 or p99",
    ),
    (
        "nothing is there for more than all of the time",
        [(("slo", "uptime", "min"), 99.5)],
        "$.slo.uptime.min",
        "is a share between 0 and 1",
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
    off = parse(document((("slo", name), dict.fromkeys(BOUNDS)))).slo[name]
    assert off is not None
    assert off.max is off.of_baseline is None
    assert parse(document((("slo", name), None))).slo[name] is None


def test_two_spellings_of_a_model_are_one_name() -> None:
    assert canonical("Planner:latest") == canonical("PLANNER") == "planner"


@pytest.mark.parametrize(
    ("cloud", "path", "words"),
    [
        (
            {"providers": {"a": {"models": {"m": None}}, "b": {"models": {"M:latest": None}}}},
            '$.cloud.providers.b.models["M:latest"]',
            "one provider answers for it",
        ),
        (
            {"providers": {"a": {"models": {"qwen3:4b": None}}}},
            '$.cloud.providers.a.models["qwen3:4b"]',
            "a model of this machine at $.roles.PLANNER.primary",
        ),
        (
            {"providers": {"a": {"models": {"m:cloud": None}}}},
            '$.cloud.providers.a.models["m:cloud"]',
            "in its own cloud",
        ),
        (
            {"redact": [{"name": "x", "pattern": "a"}, {"name": "x", "pattern": "b"}]},
            "$.cloud.redact[1].name",
            "rename one",
        ),
        ({"redact": [{"name": "x", "pattern": "("}]}, "$.cloud.redact[0].pattern", "regular"),
        (
            {"providers": {"a": {"models": {"m": None}, "base_url": "http://example.com"}}},
            "$.cloud.providers.a.base_url",
            "",
        ),
        ({"providers": {"a": {"models": {}}}}, "$.cloud.providers.a.models", ""),
    ],
)
def test_clouds_that_contradict_each_other_or_this_machine(
    cloud: dict[str, Any], path: str, words: str
) -> None:
    told = problems(document((("cloud",), cloud)))
    assert list(told) == [path]
    assert words in told[path]


@pytest.mark.parametrize("url", ["http://127.0.0.1:4000", "http://[::1]:1/x", "https://a.b/v2"])
def test_addresses_of_a_cloud(url: str) -> None:
    cloud = {"providers": {"a": {"models": {"m": None}, "base_url": url}}}
    assert parse(document((("cloud",), cloud))).cloud.providers["a"].base_url == url
