"""Who is reviewed: as many of each purpose, the same for the same calls, whatever their order."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.slo.reviews import Reviewable, sample


def call(name: str, purpose: str | None = None) -> Reviewable:
    return Reviewable(name, 0, None, purpose, "qwen3:8b")


def test_purposes_come_in_turn_while_there_are_any() -> None:
    calls = [call(f"f{i}", "failure_analysis") for i in range(50)]
    calls += [call(f"c{i}", "complex_output") for i in range(2)] + [call(f"n{i}") for i in range(9)]
    chosen = Counter(entry.purpose for entry in sample(calls, 12))
    assert chosen == {"failure_analysis": 5, None: 5, "complex_output": 2}


@given(
    names=st.sets(st.text(min_size=1, max_size=3), max_size=30),
    count=st.integers(1, 40),
    seed=st.randoms(use_true_random=False),
)
def test_the_same_calls_give_the_same_sample(names: set[str], count: int, seed: object) -> None:
    calls = [call(name, ("failure_analysis", None)[len(name) % 2]) for name in sorted(names)]
    mixed = list(calls)
    seed.shuffle(mixed)  # type: ignore[attr-defined]
    chosen = sample(calls, count)
    assert sample(mixed, count) == chosen
    assert len(chosen) == len(set(chosen)) == min(count, len(calls))
