"""Draws from values of which some were cut off before their end."""

from __future__ import annotations

import random
import statistics

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_sim.replay.survival import Survival


def test_without_cuts_each_value_is_drawn_as_often_as_it_occurred() -> None:
    sample = Survival([1.0, 2.0, 3.0, 4.0], [])
    assert [sample.draw(chance) for chance in (0.0, 0.24, 0.25, 0.5, 0.99)] == [1, 1, 2, 3, 4]


def test_above_the_least_only() -> None:
    sample = Survival([1.0, 2.0, 3.0, 4.0], [])
    assert [sample.draw(chance, 2.0) for chance in (0.0, 0.49, 0.5)] == [3.0, 3.0, 4.0]
    assert sample.draw(0.5, 9.0) == 9.0, "nothing was seen above: it is what it is at least"


def test_a_cut_value_gives_its_weight_to_those_above_it() -> None:
    """Of four, one is cut off at 2.5: it is 3 or 4, as those above are."""
    sample = Survival([1.0, 3.0, 4.0], [2.5])
    assert [sample.draw(chance) for chance in (0.24, 0.25, 0.62, 0.63)] == [1.0, 3.0, 3.0, 4.0]


def test_beyond_the_last_is_what_the_caller_says() -> None:
    sample = Survival([1.0], [2.0], beyond=float("inf"))
    assert [sample.draw(chance) for chance in (0.0, 0.49, 0.5)] == [1.0, 1.0, float("inf")]
    assert Survival([], [1.0], beyond=float("inf")).draw(0.3) == float("inf")
    assert Survival([], []).draw(0.3) is None


def test_lengths_that_were_cut_off_at_a_timeout_come_back_as_long_as_they_were() -> None:
    """Dropping the calls that timed out would make answers a fifth shorter than they are."""
    chance = random.Random(1)
    truth = [chance.expovariate(1 / 100) for _ in range(4000)]
    bounds = [chance.uniform(20, 600) for _ in truth]
    whole = [value for value, bound in zip(truth, bounds, strict=True) if value <= bound]
    cut = [bound for value, bound in zip(truth, bounds, strict=True) if value > bound]
    sample = Survival(whole, cut)
    drawn = [sample.draw(chance.random()) or 0.0 for _ in range(4000)]
    assert abs(statistics.fmean(drawn) / statistics.fmean(truth) - 1) < 0.05
    assert statistics.fmean(whole) / statistics.fmean(truth) < 0.85, "what is at stake"


@given(
    st.lists(st.floats(0, 1e6), min_size=1),
    st.lists(st.floats(0, 1e6)),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1e6),
)
def test_a_draw_is_never_below_the_least(
    whole: list[float], cut: list[float], chance: float, least: float
) -> None:
    drawn = Survival(whole, cut).draw(chance, least)
    assert drawn is not None
    assert drawn >= least
