"""What is known of a host's models, and when it is asked again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.loaded_models import (
    AT_LEAST_S,
    AT_MOST_S,
    INSTALLED_AT_LEAST_S,
    INSTALLED_AT_MOST_S,
    KEEP_S,
    Listed,
    LoadedModels,
)
from modelsplit_policy.vocabulary import DEFAULT_HOST, Host

INSTALLED = ("Tiny:latest", "qwen3:4b", "x")


def rows(*names: str) -> list[Listed]:
    """Each a model of its own."""
    return [Listed(name, f"sha of {name}") for name in names]


def asked(*names: str, now: float = 100.0) -> LoadedModels:
    """A host that has INSTALLED, and ``names`` loaded."""
    known = LoadedModels()
    known.asking()
    known.learn(rows(*INSTALLED), now)
    known.observe(rows(*names), now)
    return known


def test_what_a_loaded_model_takes_is_known_by_all_its_names() -> None:
    known = LoadedModels()
    known.learn([Listed("a:1b", "same"), Listed("b:1b", "same"), Listed("c:1b", "other")], 1.0)
    known.observe([Listed("a:1b", "same", size=7), Listed("c:1b", "other")], 1.0)
    assert known.sizes == {"a:1b": 7, "b:1b": 7}
    known.observe([Listed("mine:latest", "", size=3)], 2.0)
    assert known.sizes == {"mine": 3}
    known.observe([], 3.0)
    assert known.sizes == {}


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


def test_an_answer_holds_until_the_next_and_without_one_for_about_as_long_as_a_load() -> None:
    """One question that is not answered in time takes nothing away: Ollama may be loading."""
    known = asked("x")
    known.observe((), 101.0)
    assert known.loaded("x") is False
    known.unanswered(101.0 + KEEP_S - 1)
    assert known.loaded("x") is False
    known.unanswered(101.0 + KEEP_S)
    assert known.loaded("x") is None
    assert (known.models, dict(known.known)) == (None, {})
    known.observe(rows("x"), 300.0)
    assert known.loaded("x") is True
    known.observe(None, 301.0)
    assert known.loaded("x") is None, "it said something else"


@pytest.mark.parametrize(
    ("sizes", "on_gpu"),
    [
        (((7, 7),), True),
        (((7, 7), (3, 3)), True),
        (((7, 7), (3, 0)), False),
        (((7, 5),), False),
        (((7, 8),), False),
        (((7, None),), False),
        (((0, 0),), False),
    ],
)
def test_a_host_computes_on_a_gpu_where_all_that_is_loaded_lies_there(
    sizes: tuple[tuple[int, int | None], ...], on_gpu: bool
) -> None:
    known = LoadedModels()
    assert known.on_gpu is False
    found = [Listed("m", f"{size}", size=size, vram=vram) for size, vram in sizes]
    known.observe(found, 1.0)
    assert known.on_gpu is on_gpu
    known.observe((), 2.0)
    known.observe(None, 3.0)
    assert known.on_gpu is on_gpu, "where nothing is loaded nothing else is known"
    known.observe([Listed("n", "n", size=7, vram=0)], 4.0)
    assert known.on_gpu is False


# --- Not named is not being loaded ------------------------------------------------------------


def test_a_second_name_of_a_model_is_loaded_with_the_first() -> None:
    """``ollama cp``: /api/ps goes on naming the first."""
    known = LoadedModels()
    known.learn([Listed("first:1b", "abc"), Listed("second", "abc"), Listed("other", "def")], 0.0)
    known.observe([Listed("first:1b", "abc")], 0.0)
    assert [known.loaded(name) for name in ("first:1b", "second:latest", "other")] == [
        True,
        True,
        False,
    ]
    assert known.models == frozenset({"first:1b"}), "as the host lists them"


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (Listed("mine:1b", "abc", remote=True), "mine:1b"),
        (Listed("gpt-oss:20b-cloud", "abc"), "gpt-oss:20b-cloud"),
        (Listed("glm-4.6:cloud", "abc", remote=True), "glm-4.6:cloud"),
        (Listed("without-digest"), "without-digest"),
    ],
)
def test_what_runs_elsewhere_is_never_being_loaded(row: Listed, name: str) -> None:
    known = LoadedModels()
    known.learn([row], 0.0)
    known.observe(rows("x"), 0.0)
    assert known.loaded(name) is None


def test_a_model_made_of_another_that_answers_at_once_is_not_being_loaded() -> None:
    """It shares the runner of the other, which is listed under that one's name and digest."""
    known = asked("qwen3:4b")
    assert known.loaded("x") is False
    known.answered("x", None)
    known.answered("x", 1.5)
    assert known.loaded("x") is False, "it was loaded for it"
    known.answered("x:latest", 0.03)
    assert known.loaded("x") is None
    known.observe(rows("qwen3:4b"), 101.0)
    assert known.loaded("x") is None
    known.observe(rows("x"), 102.0)
    assert known.loaded("x") is True, "it is listed: what was known before was old"
    known.observe((), 103.0)
    assert known.loaded("x") is False
    known.answered("x", 0.03)
    known.learn(rows("qwen3:4b"), 104.0)
    known.learn(rows(*INSTALLED), 105.0)
    assert known.loaded("x") is False, "gone, and another by its name"


def test_a_model_that_no_list_names_is_unknown_and_a_reason_to_ask_for_the_installed() -> None:
    known = asked("x", now=100.0)
    later = 100.0 + INSTALLED_AT_LEAST_S
    assert known.loaded("qwen3:4b") is False
    assert not known.wants_installed(later)
    assert known.loaded("new:1b") is None
    assert known.wants_installed(later)
    assert not known.wants_installed(later - 0.1)
    known.learn(rows(*INSTALLED, "new:1b"), later)
    assert known.loaded("new:1b") is False
    assert not known.wants_installed(later + INSTALLED_AT_LEAST_S)


def test_a_cloud_model_that_no_list_names_is_no_such_reason() -> None:
    known = asked(now=100.0)
    assert known.loaded("gpt-oss:120b-cloud") is None
    assert not known.wants_installed(100.0 + INSTALLED_AT_LEAST_S)
    assert known.wants_installed(100.0 + INSTALLED_AT_MOST_S)


def test_without_the_list_of_the_installed_only_what_is_listed_as_loaded_is_known() -> None:
    known = LoadedModels()
    assert known.wants_installed(0.0)
    known.learn(None, 0.0)
    known.observe(rows("x"), 0.0)
    assert (known.loaded("x"), known.loaded("y")) == (True, None)
    assert known.wants_installed(INSTALLED_AT_LEAST_S), "it is asked again soon"
    known.learn(rows("y"), 1.0)
    known.learn(None, 2.0)
    assert known.loaded("y") is False, "the last list holds"


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
    here.observe(rows("tiny"), 1.0)
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
            known.unanswered(now) if event == "mute" else known.observe(rows("m"), now)
            answered = now
        assert known.next_question() - answered in {AT_LEAST_S, AT_MOST_S}
        assert not hurried or known.next_question() == answered + AT_LEAST_S
