"""Which known name somebody may have meant."""

from __future__ import annotations

import pytest

from modelsplit_policy.near_names import near

KNOWN = ["planner", "executor", "qwen3:4b", "qwen3:8b", "llama3.2"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("qwen3:4bb", "qwen3:4b"),
        ("Qwen3:8B", "qwen3:8b"),
        ("planer", "planner"),
        ("lama3.2", "llama3.2"),
        ("mistral", None),
        ("", None),
        ("qwen3:4b" * 9, None),
    ],
)
def test_the_name_that_is_most_like_it_is_told_as_it_is_known(name: str, meant: str | None) -> None:
    assert near(name, KNOWN) == meant


def test_of_very_many_names_the_first_are_looked_at() -> None:
    many = [f"a-model-of-that-family-{number}" for number in range(300)]
    assert near("other", [*many, "othr"]) is None
    assert near("other", ["othr", *many]) == "othr"
