"""Who gets which arm: by weight, always the same, and with as few moves as can be."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.model import ExperimentPolicy
from modelsplit_policy.experiments import arm_of, shares, sticky_key

KEYS = [f"job:{number}" for number in range(4000)]


def experiment(
    weights: dict[str, float], *, name: str = "size", sticky: str = "job"
) -> ExperimentPolicy:
    arms = [{"name": arm, "model": f"m-{arm}", "weight": w} for arm, w in weights.items()]
    return ExperimentPolicy.model_validate(
        {"name": name, "role": "PLANNER", "arms": arms, "sticky": sticky, "enabled": True}
    )


def dealt(test: ExperimentPolicy) -> list[str]:
    return [arm_of(test, key).name for key in KEYS]


def test_the_arm_is_the_one_that_the_written_rule_gives() -> None:
    def score(arm: str, weight: float) -> float:
        digest = hashlib.sha256(f"size/{arm}/job:42".encode()).hexdigest()
        return weight / -math.log((int(digest[:16], 16) // 2**11 + 0.5) / 2**53)

    test = experiment({"a": 2.0, "b": 1.0, "c": 1.0})
    best = max(test.arms, key=lambda arm: score(arm.name, arm.weight))
    assert arm_of(test, "job:42") is best


def test_the_deal_is_the_same_in_every_release() -> None:
    test = experiment({"4b": 1.0, "8b": 1.0}, name="planner-size")
    first = "".join(arm_of(test, f"job:{number}").name[0] for number in range(24))
    assert first == "884848884488448848884884"


@given(st.text(max_size=40), st.lists(st.floats(0.001, 1000), min_size=1, max_size=5))
def test_one_key_always_gets_the_same_arm_in_whatever_order_they_stand(
    key: str, weights: list[float]
) -> None:
    arms = {f"a{number}": weight for number, weight in enumerate(weights)}
    there, back = experiment(arms), experiment(dict(reversed(arms.items())))
    assert arm_of(there, key) == arm_of(there, key)
    assert arm_of(there, key).name == arm_of(back, key).name


@pytest.mark.parametrize(
    "weights",
    [{"a": 1.0, "b": 1.0}, {"a": 9.0, "b": 1.0}, {"a": 0.5, "b": 0.25, "c": 0.25}],
)
def test_arms_get_their_share(weights: dict[str, float]) -> None:
    test = experiment(weights)
    got = dealt(test)
    for name, share in shares(test).items():
        spread = math.sqrt(share * (1 - share) / len(KEYS))
        assert got.count(name) / len(KEYS) == pytest.approx(share, abs=4 * spread)


def test_an_arm_without_weight_gets_nobody() -> None:
    assert set(dealt(experiment({"a": 1.0, "b": 0.0}))) == {"a"}


def test_shares_are_parts_of_one() -> None:
    assert shares(experiment({"a": 3.0, "b": 1.0, "c": 0.0})) == {"a": 0.75, "b": 0.25, "c": 0.0}


def test_a_new_weight_moves_keys_to_or_from_that_arm_only_and_no_more_than_it_gains() -> None:
    before = dealt(experiment({"a": 1.0, "b": 1.0, "c": 1.0}))
    after = dealt(experiment({"a": 1.0, "b": 2.0, "c": 1.0}))
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert {new for _, new in moved} == {"b"}
    assert len(moved) / len(KEYS) == pytest.approx(1 / 2 - 1 / 3, abs=0.03)


def test_a_new_arm_moves_nobody_between_the_others() -> None:
    before = dealt(experiment({"a": 1.0, "b": 1.0}))
    after = dealt(experiment({"a": 1.0, "b": 1.0, "c": 2.0}))
    assert {new for old, new in zip(before, after, strict=True) if old != new} == {"c"}


def test_two_experiments_deal_independently() -> None:
    one = dealt(experiment({"a": 1.0, "b": 1.0}))
    other = dealt(experiment({"a": 1.0, "b": 1.0}, name="other"))
    alike = sum(x == y for x, y in zip(one, other, strict=True))
    assert alike / len(KEYS) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("sticky", "job", "key"),
    [
        ("job", "j1", "job:j1"),
        ("job", "", "request:r1"),
        ("client", "j1", "client:10.0.0.1"),
        ("request", "j1", "request:r1"),
    ],
)
def test_what_keeps_its_arm(sticky: str, job: str, key: str) -> None:
    test = experiment({"a": 1.0}, sticky=sticky)
    assert sticky_key(test, job=job, client="10.0.0.1", request="r1") == key


@pytest.mark.parametrize("sticky", ["job", "client", "request"])
def test_nobody_known_is_no_key(sticky: str) -> None:
    assert sticky_key(experiment({"a": 1.0}, sticky=sticky), job="", client="", request="") == ""
