"""What may be changed: by whom nothing may, and what is no model to change."""

from __future__ import annotations

import pytest

from modelsplit_policy.catalogue import Catalogue
from modelsplit_policy.config.model import ManagementPolicy
from modelsplit_policy.config.problems import PolicyError
from modelsplit_policy.management import denied, made, misused, named_in
from modelsplit_policy.vocabulary import Action
from support.harness import policy

CATALOGUE = Catalogue(policy().policy)


def test_nothing_is_denied_by_default() -> None:
    assert [denied(action, policy().policy.management) for action in Action] == [None] * 7


@pytest.mark.parametrize("action", Action)
def test_what_is_denied_names_the_key_of_the_policy(action: Action) -> None:
    failure = denied(action, ManagementPolicy(deny=(action,)))
    assert failure is not None
    assert (failure.status, failure.reason) == (403, "management_denied")
    assert f'"{action}" is denied here by the policy (management.deny)' in failure.message
    others = ManagementPolicy(deny=tuple(a for a in Action if a is not action))
    assert denied(action, others) is None


def test_an_unknown_action_is_a_fault_of_the_policy() -> None:
    with pytest.raises(PolicyError, match=r'\$\.management\.deny\[1\]: must be "pull", "push"'):
        policy({"management": {"deny": ["pull", "run"]}})


@pytest.mark.parametrize(
    ("action", "names", "advice"),
    [
        (Action.PULL, {"model": "planner"}, "pull qwen3:4b instead"),
        (Action.PUSH, {"model": "PLANNER:latest"}, "push qwen3:4b instead"),
        (Action.DELETE, {"model": "planner"}, "take it out of roles.PLANNER.aliases"),
        (Action.CREATE, {"model": "planner"}, "choose another name"),
        (Action.CREATE, {"model": "mine", "from": "planner"}, "name qwen3:4b instead"),
        (Action.COPY, {"source": "planner", "destination": "x"}, "name qwen3:4b instead"),
        (Action.COPY, {"source": "x", "destination": "planner"}, "choose another name"),
    ],
)
def test_an_alias_is_no_model_to_change(action: Action, names: dict[str, str], advice: str) -> None:
    assert set(names) <= set(named_in(action))
    failure = misused(action, names, CATALOGUE)
    assert failure is not None
    assert (failure.status, failure.reason) == (403, "is_alias")
    assert '"planner" is an alias for qwen3:4b, not a model, and cannot be' in failure.message
    assert failure.message.endswith((advice, f"{advice} in the policy"))


@pytest.mark.parametrize("action", [action for action in Action if named_in(action)])
@pytest.mark.parametrize(
    "name",
    [
        "planner:local",
        " planner",
        "planner\u00a0",
        "PLANNER:Latest",
        "library/planner",
        "https://registry.ollama.ai/library/planner:latest",
        ":///Library/planner",
        "planner:latest: local",
    ],
)
def test_no_spelling_of_an_alias_is_a_model_to_change(action: Action, name: str) -> None:
    for key in named_in(action):
        failure = misused(action, {key: name}, CATALOGUE)
        assert failure is not None
        assert failure.reason == "is_alias"


@pytest.mark.parametrize(
    ("action", "key", "name"),
    [
        (Action.PULL, "model", "a b"),
        (Action.PULL, "model", "x:cloud:local"),
        (Action.DELETE, "model", "x@sha256:12"),
        (Action.CREATE, "model", "gpt-oss:20b:cloud"),
        (Action.CREATE, "from", "../x"),
        (Action.COPY, "source", " x"),
        (Action.COPY, "destination", "x:local:local"),
        (Action.PUSH, "model", "x "),
    ],
)
def test_a_name_that_ollama_cannot_read_there_is_refused(
    action: Action, key: str, name: str
) -> None:
    failure = misused(action, {key: name}, CATALOGUE)
    assert failure is not None
    assert (failure.status, failure.reason) == (400, "bad_model_name")


@pytest.mark.parametrize(
    ("action", "key", "name"),
    [
        (Action.PULL, "model", " gpt-oss:20b:cloud"),
        (Action.CREATE, "from", "gpt-oss:20b:cloud "),
        (Action.CREATE, "model", "mine:local"),
        (Action.COPY, "destination", "gpt-oss:20b-cloud"),
    ],
)
def test_names_are_read_as_ollama_reads_them_there(action: Action, key: str, name: str) -> None:
    assert misused(action, {key: name}, CATALOGUE) is None


@pytest.mark.parametrize("action", Action)
def test_other_names_go_through(action: Action) -> None:
    names = dict.fromkeys(named_in(action), "qwen3:4b")
    assert misused(action, names, CATALOGUE) is None
    assert misused(action, {}, CATALOGUE) is None


@pytest.mark.parametrize(
    ("action", "names", "name"),
    [
        (Action.PULL, {"model": " Qwen3:8B:local"}, "qwen3:8b"),
        (Action.CREATE, {"model": "Mine:latest", "from": "qwen3:4b"}, "mine"),
        (Action.CREATE, {"model": "mine:local"}, "mine:local"),
        (Action.COPY, {"source": "qwen3:4b", "destination": "library/mine"}, "mine"),
        (Action.COPY, {"source": "qwen3:4b"}, None),
        (Action.PUSH, {"model": "mine"}, None),
        (Action.DELETE, {"model": "mine"}, None),
    ],
)
def test_what_is_there_afterwards(action: Action, names: dict[str, str], name: str | None) -> None:
    assert made(action, names) == name


def test_sentences_are_short_whatever_the_names() -> None:
    long = "c" * 80 + ":" + "d" * 80
    row = {"primary": "a" * 80 + ":" + "b" * 80, "fallback": "b", "aliases": [long]}
    catalogue = Catalogue(policy({"roles": {"EXECUTOR": row}}).policy)
    for action in Action:
        for key in named_in(action):
            failure = misused(action, {key: long}, catalogue)
            assert failure is not None
            assert len(failure.message) <= 200
