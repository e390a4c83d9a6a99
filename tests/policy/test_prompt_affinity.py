"""Which host has seen the beginning of a prompt."""

from __future__ import annotations

from modelsplit_policy.prompt_affinity import MOST, PromptAffinity
from modelsplit_policy.vocabulary import Host

A, B = Host("a"), Host("b")


def test_a_conversation_is_near_the_host_that_was_asked_last() -> None:
    known = PromptAffinity()
    known.asked("m", (1, 2), A)
    assert known.host("m", (1, 2, 3)) == A
    known.asked("m", (1, 2, 3), B)
    assert known.host("m", (1, 2, 3, 4)) == B


def test_the_longest_common_beginning_counts() -> None:
    known = PromptAffinity()
    known.asked("m", (1, 2, 3), A)
    known.asked("m", (1, 7), B)
    assert known.host("m", (1, 2, 3, 4)) == A
    assert known.host("m", (1, 7, 8)) == B
    # Two that share what all of them begin with are near whoever was asked last.
    assert known.host("m", (1, 9)) == B


def test_another_model_or_another_beginning_is_near_nobody() -> None:
    known = PromptAffinity()
    known.asked("m", (1, 2), A)
    assert known.host("n", (1, 2)) is None
    assert known.host("m", (5, 6)) is None
    assert known.host("m", ()) is None


def test_only_so_much_is_remembered() -> None:
    known = PromptAffinity()
    known.asked("m", (-1,), A)
    for mark in range(MOST):
        known.asked("m", (mark,), B)
    assert known.host("m", (-1,)) is None
    assert known.host("m", (0,)) == B
