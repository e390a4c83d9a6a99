"""Aliases as models: names, digests, and what they stand for."""

from __future__ import annotations

import hashlib

import pytest

from modelsplit_policy.catalogue import Catalogue, full_name, not_installed
from modelsplit_policy.failures import ErrorCode
from support.harness import policy

TARGET = "ab" * 32


def catalogue(**aliases: list[str]) -> Catalogue:
    return Catalogue(policy({"roles": {r: {"aliases": a} for r, a in aliases.items()}}).policy)


@pytest.mark.parametrize(
    "name", ["planner", "PLANNER", "Planner:latest", "library/planner:LATEST", "planner:Latest"]
)
def test_an_alias_is_found_by_every_spelling_of_its_name(name: str) -> None:
    alias = catalogue().find(name)
    assert alias is not None
    assert (alias.name, alias.role) == ("planner", "PLANNER")
    assert alias.targets == ("qwen3:4b", "qwen3:8b")


@pytest.mark.parametrize("name", ["", "qwen3:4b", "planner:1b", "me/planner", "plan"])
def test_nothing_else_is_one(name: str) -> None:
    assert catalogue().find(name) is None


def test_it_is_listed_with_a_tag_as_ollama_lists_models() -> None:
    written = ["plan", "Plan:Fast", "team/plan", "host:99/team/plan"]
    listed = [alias.listed for alias in catalogue(PLANNER=written).aliases[:4]]
    assert listed == ["plan:latest", "Plan:Fast", "team/plan:latest", "host:99/team/plan:latest"]


def test_an_alias_of_the_cloud_is_one_of_them_and_is_not_to_be_pulled() -> None:
    names = [alias.name for alias in catalogue().aliases]
    assert names == ["planner", "executor", "heavy", "cloud"]
    failure = not_installed(catalogue().aliases[-1])
    assert (failure.status, failure.code) == (502, ErrorCode.UPSTREAM_CLOUD)
    assert failure.message == (
        '"cloud" stands for claude-3-opus, which is not installed; '
        "name one of Ollama's cloud models in the policy"
    )


def test_the_digest_is_its_own_and_changes_with_the_target() -> None:
    planner, plan = catalogue(PLANNER=["planner", "plan"]).aliases[:2]
    digest = planner.digest(TARGET)
    assert digest == hashlib.sha256(f"alias:planner:{TARGET}".encode()).hexdigest()
    others = {plan.digest(TARGET), planner.digest("cd" * 32), TARGET}
    assert digest not in others
    assert len(others) == 3


@pytest.mark.parametrize(
    ("installed", "target"),
    [
        ({"qwen3:4b", "qwen3:8b"}, "qwen3:4b"),
        ({"qwen3:8b"}, "qwen3:8b"),
        ({"gemma3:12b"}, None),
    ],
)
def test_it_stands_for_the_first_of_its_models_that_is_installed(
    installed: set[str], target: str | None
) -> None:
    alias = catalogue().find("planner")
    assert alias is not None
    assert alias.target(installed) == target


def test_a_missing_target_is_told_in_one_sentence_and_never_as_a_404() -> None:
    long = {"primary": "a" * 80 + ":x", "fallback": "b" * 80 + ":x", "aliases": ["c" * 80]}
    for overlay in ({}, {"roles": {"PLANNER": long}}):
        alias = Catalogue(policy(overlay).policy).aliases[0]
        failure = not_installed(alias)
        assert failure.status == 502
        assert len(failure.message) <= 200
        assert f"ollama pull {alias.targets[0][:56]}" in failure.message


def test_names_without_a_tag_mean_latest() -> None:
    assert [full_name(n) for n in ("a", "a:b", "h:1/a", "h:1/a:b")] == [
        "a:latest",
        "a:b",
        "h:1/a:latest",
        "h:1/a:b",
    ]
