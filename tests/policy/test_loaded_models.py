"""What is known of a host's models, and when it is asked again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.loaded_models import AT_LEAST_S, AT_MOST_S, LoadedModels
from modelsplit_policy.vocabulary import DEFAULT_HOST, Host


def asked(*names: str, now: float = 100.0) -> LoadedModels:
    known = LoadedModels()
    known.asking()
    known.observe(names, now)
    return known


def test_before_the_first_answer_nothing_is_known() -> None:
    known = LoadedModels()
    assert known.host == DEFAULT_HOST
    assert known.models is None
    assert known.loaded("qwen3:4b") is None
    assert known.next_question() == -math.inf
    assert repr(known) == "<LoadedModels default unknown>"


@pytest.mark.parametrize(
    ("name", "loaded"),
    [
        ("tiny", True),
        ("Tiny:latest", True),
        ("library/tiny", True),
        ("qwen3:4b", True),
        ("x", False),
    ],
)
def test_a_model_is_loaded_by_any_of_its_names(name: str, *, loaded: bool) -> None:
    known = asked("Tiny:latest", "qwen3:4b")
    assert known.models == frozenset({"tiny", "qwen3:4b"})
    assert known.loaded(name) is loaded
    assert repr(known) == "<LoadedModels default ['qwen3:4b', 'tiny']>"


def test_an_answer_holds_until_the_next_and_without_one_nothing_does() -> None:
    known = asked("tiny")
    known.observe((), 101.0)
    assert known.loaded("tiny") is False
    known.observe(None, 102.0)
    assert known.loaded("tiny") is None


def test_left_alone_it_is_asked_seldom() -> None:
    assert asked(now=100.0).next_question() == 100.0 + AT_MOST_S


def test_the_end_of_a_call_is_a_reason_to_ask_soon_and_many_are_one() -> None:
    known = asked(now=100.0)
    assert known.want() is True
    assert [known.want() for _ in range(20)] == [False] * 20
    assert known.next_question() == 100.0 + AT_LEAST_S
    known.asking()
    known.observe((), 101.0)
    assert known.next_question() == 101.0 + AT_MOST_S


def test_what_is_wanted_while_it_is_asked_is_another_question() -> None:
    known = asked(now=100.0)
    known.asking()
    known.want()
    known.observe((), 101.0)
    assert known.next_question() == 101.0 + AT_LEAST_S


def test_while_somebody_waits_for_a_load_it_is_asked_as_often_as_is_gentle() -> None:
    known = asked(now=100.0)
    assert known.hurry() is True
    assert known.hurry() is False
    for now in (101.0, 102.0):
        known.asking()
        known.observe((), now)
        assert known.next_question() == now + AT_LEAST_S
    assert known.want() is False, "it is asked so soon anyway"
    known.asking()
    known.relax()
    assert known.next_question() == 102.0 + AT_LEAST_S
    known.relax()
    assert known.next_question() == 102.0 + AT_MOST_S


def test_each_host_is_known_by_itself() -> None:
    here, there = LoadedModels(Host("here")), LoadedModels(Host("there"))
    here.observe(["tiny"], 1.0)
    assert (here.loaded("tiny"), there.loaded("tiny")) == (True, None)


@given(st.lists(st.sampled_from(["want", "hurry", "relax", "ask", "answer", "mute"]), max_size=30))
def test_it_is_asked_neither_too_often_nor_too_seldom(events: list[str]) -> None:
    known, hurried, now, answered = asked(now=0.0), 0, 0.0, 0.0
    for event in events:
        now += 1.0
        before = known.next_question()
        if event == "want":
            assert known.want() == (known.next_question() < before)
        elif event == "hurry":
            hurried += 1
            sooner = known.hurry()
            assert sooner == (known.next_question() < before)
        elif event == "relax" and hurried:
            hurried -= 1
            known.relax()
        elif event == "ask":
            known.asking()
        elif event in {"answer", "mute"}:
            known.observe(None if event == "mute" else ["m"], now)
            answered = now
        assert known.next_question() - answered in {AT_LEAST_S, AT_MOST_S}
        assert not hurried or known.next_question() == answered + AT_LEAST_S
