"""Which calls may go to which host, by the policy's words."""

from __future__ import annotations

import pytest

from modelsplit_policy.config.model import HostPolicy
from modelsplit_policy.host_rules import EVERYTHING, address, patterns, rules_of, tagged
from modelsplit_policy.vocabulary import Role


def test_a_host_that_names_nothing_takes_everything() -> None:
    assert rules_of(HostPolicy(url="http://a")) == EVERYTHING
    assert all(EVERYTHING.takes(role, "qwen3:8b") for role in Role)


def test_a_host_takes_the_roles_and_the_models_it_names() -> None:
    rules = rules_of(
        HostPolicy(url="http://a", roles=(Role.PLANNER,), models=("qwen3:*",), memory_gb=1.5)
    )
    assert rules.takes(Role.PLANNER, "qwen3:4b")
    assert not rules.takes(Role.CHAT, "qwen3:4b")
    assert not rules.takes(Role.PLANNER, "gemma3:12b")
    assert (rules.takes_role(Role.PLANNER), rules.takes_role(Role.HEAVY)) == (True, False)
    assert rules.memory == 3 * 2**29


@pytest.mark.parametrize(
    ("glob", "means", "does_not"),
    [
        ("qwen3:8b", ["qwen3:8b"], ["qwen3:80b", "qwen3", "xqwen3:8b"]),
        ("qwen3:*", ["qwen3:8b", "qwen3"], ["qwen3-coder:30b"]),
        ("qwen3*", ["qwen3:8b", "qwen3", "qwen3-coder:30b"], ["gemma3:4b"]),
        ("QWEN3", ["qwen3"], ["qwen3:8b"]),
        ("gemma3:?b", ["gemma3:4b"], ["gemma3:12b"]),
        ("hf.co/*/*", ["hf.co/me/m", "hf.co/me/m:q4"], ["qwen3"]),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_a_pattern_is_of_the_name_with_its_tag(
    glob: str, means: list[str], does_not: list[str]
) -> None:
    pattern = patterns([glob])
    found = [name for name in means + does_not if pattern.fullmatch(tagged(name))]
    assert found == means


def test_one_of_several_patterns_is_enough() -> None:
    rules = rules_of(HostPolicy(url="http://a", models=("gemma3:*", "qwen3:8b")))
    names = ("gemma3:4b", "qwen3:8b", "qwen3:4b")
    assert [rules.takes(Role.CHAT, name) for name in names] == [True, True, False]


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://10.0.0.7", ("10.0.0.7", 11434)),
        ("http://gpu.lan:8080/", ("gpu.lan", 8080)),
        ("http://[::1]", ("::1", 11434)),
        ("http://[fe80::1]:80", ("fe80::1", 80)),
    ],
)
def test_an_address_has_ollamas_port_if_it_names_none(url: str, where: tuple[str, int]) -> None:
    assert address(url) == where
