"""What was learned, as values that outlive the process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.learned import (
    FORGET_S,
    HALF_LIFE_S,
    LearnedHost,
    LearnedModel,
    host_of,
    model_of,
)
from modelsplit_policy.parallelism import Parallelism, Report

HOST = LearnedHost((0.0, 0.0, 0.5), (0.0, 0.0, 3.0), 480.0, 1200.0)
DAY_S = 86_400.0


def test_values_come_back_as_they_were() -> None:
    assert host_of(HOST.text()) == HOST
    for model in (LearnedModel(4, None, 0.015), LearnedModel(1, 1)):
        assert model_of(model.text()) == model


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "[1,2,3]", "[[1],[1,2],0,0]", '[["a"],[1],0,0]', "[[1],[1],-1,0]", "nonsense"],
)
def test_what_is_no_host_is_no_knowledge(text: str) -> None:
    assert host_of(text) is None


@pytest.mark.parametrize("text", ["", "[0,1,1]", "[1,0,null]", "[1,null,-1]", "[true,1,1]", "[1]"])
def test_what_is_no_model_is_no_knowledge(text: str) -> None:
    assert model_of(text) is None


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    host_of(text)
    model_of(text)


def test_what_is_old_weighs_less_and_is_forgotten_after_a_month() -> None:
    aged = HOST.aged(HALF_LIFE_S)
    assert aged == LearnedHost((0.0, 0.0, 0.25), (0.0, 0.0, 1.5), 0.0, 1200.0)
    assert HOST.aged(-5.0) == HOST, "a clock that was set back"
    assert HOST.aged(FORGET_S) is None


def fierce() -> Parallelism:
    """Two at once do a third of what one does."""
    one = Parallelism(cap=6, host=None, models={})
    work = Report(tokens=50, eval_s=1.0, prompt_s=0.0, load_s=0.0, total_s=1.0)
    now = 0.0
    for model in "mn":
        one.end(one.start(model, now, resident=True), now + 1.0, 1.0, work)
        now += 1.0
    pair = [one.start(model, now, resident=True) for model in "mn"]
    for flight in pair:
        one.end(flight, now + 6.0, 6.0, work._replace(eval_s=6.0, total_s=6.0))
    return one


def recalled(age_s: float) -> Parallelism:
    """What another process recalls of it so long afterwards."""
    before, after = fierce(), Parallelism(cap=4, host=None, models={})
    host = before.learned(8.0).aged(age_s)
    assert host is not None
    after.recall(host, 0.0)
    for name, model in before.learned_models().items():
        after.recall_model(name, model)
    return after


def test_a_host_known_to_be_fierce_is_so_after_a_restart() -> None:
    after = recalled(60.0)
    after.start("m", 0.0, resident=True)
    assert after.harms("n") is True
    assert not after.probe_due("n", 500.0), "ten minutes have not passed"
    assert after.probe_due("n", 600.0)


def test_after_days_it_is_looked_at_again() -> None:
    after = recalled(10 * DAY_S)
    after.start("m", 0.0, resident=True)
    assert after.harms("n") is None
    assert after.probe_due("n", 1.0)


def test_a_models_slots_are_recalled_unless_something_is_known_of_them() -> None:
    one = Parallelism(cap=6, host=None, models={"pinned": 2})
    for name in ("m", "pinned"):
        one.recall_model(name, LearnedModel(4, None, 0.02))
    one.recall_model("m", LearnedModel(1, 1, 0.02))
    assert (one.slots("m"), one.slots("pinned")) == (4, 2)
    assert one.lessons == 0, "what is recalled is nothing new"


def test_what_has_been_seen_since_counts_for_more() -> None:
    one = fierce()
    one.recall(LearnedHost((0.0, 0.0, 5.0), (0.0, 0.0, 5.0)), 10.0)
    assert one.host == 1
    assert one.shares.harms(2) is True
