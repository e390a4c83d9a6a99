"""From what a client said to whose call it is and which models may answer, in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.parser import parse
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.model_names import read
from modelsplit_policy.roles import Candidate, Roles, Route, RouteRequest, needed_for
from modelsplit_policy.vocabulary import Provider, Role

SHIPPED = Path(__file__).parents[2] / "config" / "model-policy.json"


def roles(**changes: dict[str, Any]) -> Roles:
    """The shipped roles, each named one changed as given."""
    document = json.loads(SHIPPED.read_bytes())
    for name, change in changes.items():
        document["roles"][name] |= change
    return Roles(parse(document))


CLAIMING = roles(PLANNER={"claims": ["qwen3:4b"]}, EXECUTOR={"claims": ["llama3"]})


def routed(ask: RouteRequest, to: Roles = CLAIMING) -> Route:
    route = to.route(ask)
    assert isinstance(route, Route), route
    return route


def refused(ask: RouteRequest, to: Roles = CLAIMING) -> Failure:
    failure = to.route(ask)
    assert isinstance(failure, Failure), failure
    assert len(failure.message) <= 200
    return failure


def models(route: Route) -> list[str]:
    return [candidate.model for candidate in route.candidates]


# --- Whose call -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "header", "role", "reason"),
    [
        # 1. The header wins over everything the name says.
        ("qwen3:4b", "EXECUTOR", "EXECUTOR", "header"),
        ("planner", "EXECUTOR", "EXECUTOR", "header"),
        ("", "HEAVY", "HEAVY", "header"),
        ("gemma3:12b", "CHAT", "CHAT", "header"),
        ("x", " executor ", "EXECUTOR", "header"),
        # 2. Then an alias, in any case, with or without Ollama's default tag.
        ("planner", "", "PLANNER", "alias"),
        ("Planner:latest", "", "PLANNER", "alias"),
        ("EXECUTOR:LATEST", "", "EXECUTOR", "alias"),
        ("cloud", "", "CLOUD", "alias"),
        # 3. Then a claim on a real model.
        ("qwen3:4b", "", "PLANNER", "claim"),
        ("Qwen3:4B", "", "PLANNER", "claim"),
        ("llama3:latest", "", "EXECUTOR", "claim"),
        # 4. Else it is a person chatting.
        ("qwen3:8b", "", "CHAT", "default"),
        ("planner:7b", "", "CHAT", "default"),
        ("my-planner", "", "CHAT", "default"),
        ("", "", "CHAT", "default"),
    ],
)
def test_the_first_rule_that_matches_names_the_role(
    model: str, header: str, role: str, reason: str
) -> None:
    route = routed(RouteRequest(model=model, role=header))
    assert (route.role, route.reason) == (role, reason)
    assert route.requested_model == model


def test_an_unknown_role_is_answered_with_the_known_ones() -> None:
    failure = refused(RouteRequest(model="planner", role="PLANER"))
    assert (failure.code, failure.reason) == (ErrorCode.BAD_REQUEST, Reason.UNKNOWN_ROLE)
    assert failure.message == (
        'X-LLM-Role "PLANER" is unknown; use one of PLANNER, EXECUTOR, HEAVY, CLOUD, CHAT'
    )


def test_an_endless_or_unprintable_role_is_said_back_short_and_plain() -> None:
    message = refused(RouteRequest(model="x", role="R\udcff" * 5000)).message
    assert message.startswith('X-LLM-Role "R\ufffdR\ufffd')
    message.encode()


@given(model=st.text(max_size=20))
def test_any_model_name_finds_a_role_without_a_header_or_is_refused(model: str) -> None:
    if model and read(model) is None:
        failure = refused(RouteRequest(model=model))
        assert (failure.code, failure.reason) == (ErrorCode.BAD_REQUEST, Reason.BAD_MODEL_NAME)
    else:
        assert routed(RouteRequest(model=model)).candidates


@pytest.mark.parametrize(
    "ask",
    [RouteRequest("a b"), RouteRequest("a b", role="HEAVY"), RouteRequest(" ", retry_level=1)],
)
def test_a_name_that_ollama_cannot_read_is_refused_whoever_asks(ask: RouteRequest) -> None:
    assert refused(ask).reason is Reason.BAD_MODEL_NAME
    assert isinstance(CLAIMING.plain("a b"), Failure)


def test_a_call_without_a_model_still_finds_its_role() -> None:
    assert routed(RouteRequest("")).role is Role.CHAT
    assert routed(RouteRequest("", role="PLANNER")).candidates[0].model == "qwen3:4b"


@given(name=st.sampled_from(["planner", "Heavy:LATEST", "cloud:latest"]), data=st.data())
def test_case_never_changes_an_alias(name: str, data: st.DataObject) -> None:
    flips = data.draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    spelt = "".join(c.swapcase() if flip else c for c, flip in zip(name, flips, strict=True))
    assert routed(RouteRequest(model=spelt)).role == name.partition(":")[0].upper()


# --- Which models -----------------------------------------------------------------------------


def test_an_alias_stands_for_the_primary_with_the_one_fallback_behind_it() -> None:
    assert routed(RouteRequest(model="planner")).candidates == (
        Candidate("qwen3:4b", 15.0),
        Candidate("qwen3:8b", 30.0),
    )


def test_chat_gets_what_it_named_and_no_other_model_and_no_bound() -> None:
    assert routed(RouteRequest(model="Some/Model:Tag")).candidates == (
        Candidate("Some/Model:Tag", None),
    )


def test_a_named_model_with_a_role_header_is_tried_first_on_the_roles_terms() -> None:
    route = routed(RouteRequest(model="mistral:7b", role="EXECUTOR"))
    assert route.candidates == (Candidate("mistral:7b", 60.0), Candidate("gemma3:12b", 60.0))


def test_an_alias_with_another_roles_header_is_only_a_way_to_name_no_model() -> None:
    assert models(routed(RouteRequest(model="planner", role="HEAVY"))) == [
        "gemma3:12b",
        "gpt-oss:20b",
    ]


@pytest.mark.parametrize("name", ["gemma3:12b", "GEMMA3:12B"])
def test_a_model_is_not_its_own_fallback(name: str) -> None:
    assert models(routed(RouteRequest(model=name, role="EXECUTOR"))) == [name]


def test_a_fallback_without_a_timeout_of_its_own_has_the_primarys() -> None:
    changed = roles(PLANNER={"fallback_timeout_ms": None})
    assert routed(RouteRequest(model="planner"), changed).candidates[1].timeout_s == 15.0


def test_never_more_than_two_candidates_and_the_cloud_has_one() -> None:
    assert models(routed(RouteRequest(model="cloud"))) == ["claude-3-opus"]
    assert routed(RouteRequest(model="cloud")).provider == "CLOUD"
    assert all(len(routed(RouteRequest(model="m", role=role)).candidates) <= 2 for role in Role)


# --- Retry level and no fallback --------------------------------------------------------------


def test_retry_level_1_starts_at_the_fallback_and_ends_there() -> None:
    route = routed(RouteRequest(model="planner", retry_level=1))
    assert route.candidates == (Candidate("qwen3:8b", 30.0),)
    assert (route.reason, route.starts_at_fallback) == ("fallback", True)


def test_retry_level_1_of_a_named_model_starts_at_the_roles_fallback() -> None:
    assert models(routed(RouteRequest(model="mistral", role="PLANNER", retry_level=1))) == [
        "qwen3:8b"
    ]
    assert models(routed(RouteRequest(model="qwen3:8b", role="PLANNER", retry_level=1))) == [
        "qwen3:8b"
    ]


@pytest.mark.parametrize("model", ["cloud", "llava"])
def test_retry_level_1_where_there_is_no_fallback_changes_nothing(model: str) -> None:
    assert routed(RouteRequest(model=model, retry_level=1)) == routed(RouteRequest(model=model))


def test_no_fallback_leaves_the_first_candidate_alone() -> None:
    assert models(routed(RouteRequest(model="executor", no_fallback=True))) == ["qwen3:8b"]


def test_no_fallback_does_not_take_away_a_start_at_the_fallback() -> None:
    ask = RouteRequest(model="executor", retry_level=1, no_fallback=True)
    assert models(routed(ask)) == ["gemma3:12b"]


# --- Escalation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "got", "first"),
    [("executor", "HEAVY", "gemma3:12b"), ("heavy", "CLOUD", "claude-3-opus")],
)
def test_escalation_goes_one_step_up_and_takes_the_models_there(
    asked: str, got: str, first: str
) -> None:
    route = routed(RouteRequest(model=asked, escalate="operator"))
    assert (route.role, route.reason, models(route)[0]) == (got, "escalation", first)


def test_an_escalated_call_does_not_keep_the_model_it_named() -> None:
    route = routed(RouteRequest(model="mistral", role="EXECUTOR", escalate="failure_analysis"))
    assert models(route) == ["gemma3:12b", "gpt-oss:20b"]


@pytest.mark.parametrize("asked", ["planner", "cloud", "llava"])
def test_other_roles_cannot_escalate(asked: str) -> None:
    failure = refused(RouteRequest(model=asked, escalate="operator"))
    assert failure.code is ErrorCode.ESCALATION_DENIED
    assert failure.reason is Reason.ROLE_CANNOT_ESCALATE


def test_an_escalation_for_a_reason_the_policy_does_not_list_is_denied() -> None:
    failure = refused(RouteRequest(model="executor", escalate="because"))
    assert failure.code is ErrorCode.ESCALATION_DENIED
    assert failure.message == (
        'escalation condition "because" is not allowed; '
        "allowed: failure_analysis, complex_output, schema_failed, operator"
    )


def test_a_policy_without_conditions_denies_every_escalation() -> None:
    document = json.loads(SHIPPED.read_bytes()) | {"escalation": {"conditions": []}}
    failure = refused(RouteRequest(model="executor", escalate="operator"), Roles(parse(document)))
    assert failure.message.endswith("allowed: none")


def test_only_the_header_escalates() -> None:
    assert routed(RouteRequest(model="executor", retry_level=1)).role is Role.EXECUTOR


# --- Context ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "said", "context"),
    [
        ("heavy", "", "EXECUTOR"),
        ("heavy", "planner", "PLANNER"),
        ("heavy", "CHAT", "CHAT"),
        ("cloud", "PLANNER", "PLANNER"),
        # The others work for one activity only, whatever the header says.
        ("planner", "EXECUTOR", "PLANNER"),
        ("executor", "PLANNER", "EXECUTOR"),
        ("llava", "PLANNER", "CHAT"),
    ],
)
def test_only_heavy_and_cloud_calls_may_say_for_what(model: str, said: str, context: str) -> None:
    assert routed(RouteRequest(model=model, context=said)).context == context


def test_a_call_escalated_to_heavy_may_say_for_what() -> None:
    ask = RouteRequest(model="executor", escalate="operator", context="PLANNER")
    assert routed(ask).context == "PLANNER"


@pytest.mark.parametrize("model", ["heavy", "cloud", "planner", "executor", "llama3.2:1b"])
def test_an_unknown_context_is_answered_with_the_known_ones(model: str) -> None:
    failure = refused(RouteRequest(model=model, context="THINKER"))
    assert (failure.code, failure.reason) == (ErrorCode.BAD_REQUEST, Reason.BAD_HEADER)
    assert failure.message.endswith("use one of PLANNER, EXECUTOR, CHAT")


# --- Whose computer -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "provider"),
    [
        # The policy's own model of the cloud, whoever names it, and however.
        (RouteRequest("claude-3-opus"), "CLOUD"),
        (RouteRequest("library/Claude-3-Opus:latest", role="EXECUTOR"), "CLOUD"),
        (RouteRequest("cloud", role="CHAT"), "CLOUD"),
        # What Ollama names so; a port is no tag.
        (RouteRequest("glm-4.6:cloud"), "CLOUD"),
        (RouteRequest("localhost:5000/library/glm-4.6:cloud"), "CLOUD"),
        (RouteRequest("localhost:5000/library/glm-4.6"), "LOCAL"),
        (RouteRequest("gpt-oss:20b:cloud"), "CLOUD"),
        (RouteRequest("gpt-oss: 20b-cloud\u00a0", role="HEAVY"), "CLOUD"),
        (RouteRequest(" https://registry.ollama.ai/library/claude-3-opus:local"), "CLOUD"),
        (RouteRequest("planner:cloud"), "CLOUD"),
        (RouteRequest("gpt-oss:20b:local"), "LOCAL"),
        (RouteRequest("cloudy"), "LOCAL"),
        (RouteRequest("planner"), "LOCAL"),
    ],
)
def test_a_model_of_the_cloud_is_the_cloud_whoever_asks(ask: RouteRequest, provider: str) -> None:
    assert routed(ask).provider == provider


def test_a_model_that_a_role_of_this_machine_has_too_is_local_there() -> None:
    both = roles(CLOUD={"primary": "qwen3:8b"})
    assert routed(RouteRequest("qwen3:8b"), both).provider is Provider.LOCAL
    assert routed(RouteRequest("cloud"), both).provider is Provider.CLOUD


def test_in_chat_an_alias_is_the_model_that_it_stands_for() -> None:
    route = routed(RouteRequest("Planner:latest", role="CHAT"))
    assert (route.role, models(route)) == (Role.CHAT, ["qwen3:4b"])


# --- Calls that say nothing but a model -------------------------------------------------------


@given(st.sampled_from(["planner", "Heavy:latest", "qwen3:4b", "llama3", "", "x", "glm:cloud"]))
def test_a_plain_call_is_routed_as_any_other(model: str) -> None:
    route = CLAIMING.plain(model)
    assert route == routed(RouteRequest(model))
    assert CLAIMING.plain(model) is route


def test_made_up_names_are_not_all_remembered() -> None:
    some = roles()
    for number in range(1000):
        assert some.plain(f"made-up-{number}") == routed(RouteRequest(f"made-up-{number}"), some)
    assert len(some._plain) <= 256
    assert some.plain("x" * 257) is None, "an endless name is not kept"


def test_where_an_experiment_runs_no_call_is_plain() -> None:
    assert trying().plain("planner") is None
    assert trying(enabled=False).plain("planner") == routed(
        RouteRequest("planner"), trying(enabled=False)
    )


# --- Experiments ------------------------------------------------------------------------------

ARMS = [
    {"name": "small", "model": "qwen3:4b", "weight": 1},
    {"name": "large", "model": "llama3", "weight": 1, "options": {"temperature": 0}},
]


def trying(**changes: Any) -> Roles:
    document = json.loads(SHIPPED.read_bytes())
    test = {"name": "t", "role": "PLANNER", "arms": ARMS, "sticky": "job", "enabled": True}
    document["experiments"] = [test | changes]
    document["roles"]["PLANNER"]["claims"] = ["mistral"]
    document["roles"]["HEAVY"]["claims"] = []
    return Roles(parse(document))


def of_arm(name: str, ask: str = "planner") -> Route:
    """The route of the first job that falls to that arm."""
    asks = (RouteRequest(ask, role="PLANNER", job=str(number)) for number in range(100))
    routes = (routed(one, trying()) for one in asks)
    return next(route for route in routes if route.arm is not None and route.arm.name == name)


@pytest.mark.parametrize("model", ["planner", "Planner:latest", "executor", ""])
def test_a_call_that_leaves_the_model_to_the_role_takes_part(model: str) -> None:
    route = of_arm("large", model)
    assert route.reason == "experiment"
    assert models(route) == ["llama3", "qwen3:8b"]
    assert route.candidates[0].timeout_s == 15.0
    assert route.candidates[0].options == (("temperature", 0),)
    assert route.candidates[1].options == ()


def test_an_alias_alone_takes_part_too() -> None:
    route = routed(RouteRequest("planner", request="r1"), trying())
    assert (route.reason, route.arm is not None) == ("experiment", True)


def test_a_call_of_a_job_keeps_its_arm_whatever_its_request() -> None:
    asks = [RouteRequest("planner", job="j", client=str(n), request=str(n)) for n in range(50)]
    assert len({models(routed(ask, trying()))[0] for ask in asks}) == 1


def test_calls_without_a_job_are_dealt_one_by_one() -> None:
    asks = [RouteRequest("planner", client="c", request=str(n)) for n in range(50)]
    assert {models(routed(ask, trying()))[0] for ask in asks} == {"qwen3:4b", "llama3"}


@pytest.mark.parametrize(
    "ask",
    [
        RouteRequest("gemma3:12b", role="PLANNER", job="j"),
        RouteRequest("qwen3:4b", role="PLANNER", job="j"),
        RouteRequest("mistral", job="j"),
        RouteRequest("planner", job="j", retry_level=1),
        RouteRequest("executor", job="j"),
        RouteRequest("qwen3:4b", job="j"),
    ],
)
def test_a_call_that_would_not_start_at_the_primary_does_not(ask: RouteRequest) -> None:
    route = routed(ask, trying())
    assert (route.experiment, route.arm) == (None, None)
    assert route.reason != "experiment"
    assert route == routed(ask, trying(enabled=False))


def test_an_escalated_call_does_not() -> None:
    ask = RouteRequest("executor", escalate="operator", job="j")
    route = routed(ask, trying(role="HEAVY"))
    assert (route.role, route.reason, route.arm) == (Role.HEAVY, "escalation", None)


def test_no_fallback_is_still_no_fallback() -> None:
    route = routed(RouteRequest("planner", job="j", no_fallback=True), trying())
    assert (len(route.candidates), route.reason) == (1, "experiment")


def test_an_arm_that_is_the_fallback_has_one_attempt() -> None:
    only = [{"name": "large", "model": "qwen3:8b", "weight": 1}]
    assert models(routed(RouteRequest("planner", job="j"), trying(arms=only))) == ["qwen3:8b"]


def test_a_call_that_only_loads_goes_where_the_calls_of_its_job_go() -> None:
    for job in map(str, range(20)):
        asked, loading = (RouteRequest("planner", job=job, loads=loads) for loads in (False, True))
        assert models(routed(loading, trying())) == models(routed(asked, trying()))


def test_where_calls_are_dealt_one_by_one_a_load_means_the_primary() -> None:
    routes = [
        routed(RouteRequest("planner", request=str(n), loads=True), trying()) for n in range(20)
    ]
    assert {(route.candidates[0].model, route.arm) for route in routes} == {("qwen3:4b", None)}


def test_while_nobody_says_whose_call_it_is_the_arm_is_open() -> None:
    route = routed(RouteRequest("planner"), trying())
    assert route.experiment is not None
    assert (route.arm, route.reason, models(route)) == (None, "alias", ["qwen3:4b", "qwen3:8b"])


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-oss:120b-cloud", Provider.CLOUD),
        ("GLM-4.6:Cloud", Provider.CLOUD),
        ("registry.ollama.ai/library/kimi-k2:1t-cloud", Provider.CLOUD),
        ("my-cloud", Provider.LOCAL),
        ("cloud-of-mine:7b", Provider.LOCAL),
        ("qwen3:8b", Provider.LOCAL),
    ],
)
def test_a_model_of_ollamas_cloud_is_known_by_its_tag(model: str, provider: Provider) -> None:
    route = routed(RouteRequest(model=model))
    assert (route.role, route.provider) == (Role.CHAT, provider)


# --- Calls that are bound to their model ------------------------------------------------------


def test_a_bound_call_has_the_model_it_is_for_and_no_other() -> None:
    assert models(routed(RouteRequest("planner", bound=True))) == ["qwen3:4b"]
    assert models(routed(RouteRequest("phi4", role="PLANNER", bound=True))) == ["phi4"]
    late = routed(RouteRequest("planner", retry_level=1, bound=True))
    assert (models(late), late.starts_at_fallback) == (["qwen3:4b"], False)
    assert models(routed(RouteRequest("planner")).of_one_model()) == ["qwen3:4b"]


@pytest.mark.parametrize(
    ("model", "role", "needed"),
    [
        ("qwen3:8b", "EXECUTOR", Role.EXECUTOR),
        ("gpt-oss:20b:cloud", "EXECUTOR", Role.CLOUD),
        ("gpt-oss:20b:cloud", "", Role.CLOUD),
        ("claude-3-opus", "HEAVY", Role.CLOUD),
        ("cloud", "CHAT", Role.CLOUD),
        ("cloud", "", Role.CLOUD),
        # What the policy gives to a role is the role's.
        ("planner", "", Role.PLANNER),
        ("GLM-4.6:cloud ", "PLANNER", Role.PLANNER),
    ],
)
def test_a_cloud_model_of_the_clients_own_choice_needs_the_role_cloud(
    model: str, role: str, needed: Role
) -> None:
    document = json.loads(SHIPPED.read_text(encoding="utf-8"))
    document["roles"]["PLANNER"]["primary"] = "glm-4.6:cloud"
    policy = parse(document)
    route = Roles(policy).route(RouteRequest(model, role=role))
    assert isinstance(route, Route)
    assert needed_for(policy, route) is needed
