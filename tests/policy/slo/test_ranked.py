"""The value at a rank is that of a sorted list, however the values came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.slo import ranked as module
from modelsplit_policy.slo.ranked import Ranked


@given(values=st.lists(st.integers(0, 2**62), min_size=1, max_size=60), run=st.integers(1, 20))
def test_every_rank_is_that_of_a_sorted_list(values: list[int], run: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_RUN", run)
        ranked = Ranked()
        for value in values:
            ranked.add(value)
    assert [ranked.at(rank) for rank in range(1, len(values) + 1)] == sorted(values)


def test_a_value_may_come_after_somebody_has_looked() -> None:
    ranked = Ranked()
    ranked.add(5)
    assert ranked.at(1) == 5
    ranked.add(3)
    assert (ranked.at(1), ranked.at(2), ranked.count) == (3, 5, 2)


def test_a_quantile_is_a_value_that_occurred() -> None:
    ranked = Ranked()
    for value in range(1, 101):
        ranked.add(value * 10)
    assert (ranked.quantile(0.95), ranked.quantile(0.99), ranked.quantile(0.0)) == (950, 990, 10)


@pytest.mark.parametrize("rank", [0, 2])
def test_there_is_nothing_at_another_rank(rank: int) -> None:
    ranked = Ranked()
    ranked.add(1)
    with pytest.raises(IndexError):
        ranked.at(rank)
