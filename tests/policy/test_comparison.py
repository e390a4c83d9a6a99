"""What the calls of an experiment say about its arms, and when they do not say it yet."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from modelsplit_policy.comparison import (
    MEASURES,
    Comparison,
    End,
    Finding,
    Observation,
    Verdict,
    compare,
)
from modelsplit_policy.intervals import MIN_CLUSTERS


def calls(
    chance: random.Random, arm: str, jobs: int = 60, *, slower: float = 1.0
) -> Iterator[Observation]:
    """Jobs of one to five calls each, alike within a job; everything is measured."""
    for job in range(jobs):
        own = chance.gauss(0, 0.4)
        for _ in range(chance.randint(1, 5)):
            yield Observation(
                arm=arm,
                cluster=f"{arm}-{job}",
                end=End.FAILED if chance.random() < 0.05 else End.ANSWERED,
                latency_s=slower * math.exp(chance.gauss(own, 0.5)),
                unfit=chance.random() < 0.05,
                cost_usd=0.001 * slower * math.exp(chance.gauss(own, 0.3)),
                tokens_per_s=40 / slower * math.exp(chance.gauss(0, 0.1)),
            )


def one(arm: str, number: int, **changes: object) -> Observation:
    base = Observation(arm, f"{arm}-{number}", End.ANSWERED, 1.0)
    return replace(base, **changes)  # type: ignore[arg-type]


def finding(compared: Comparison, measure: str) -> Finding:
    return next(found for found in compared.findings if found.measure == measure)


# --- The same on both sides ----------------------------------------------------------------


def test_arms_that_are_the_same_show_no_difference_at_all_in_95_of_100_reports() -> None:
    chance = random.Random(1)
    reports, told = 300, 0
    for _ in range(reports):
        compared = compare([*calls(chance, "a"), *calls(chance, "b")])
        assert len(compared.findings) == len(MEASURES)
        told += any(found.verdict is Verdict.DIFFERENT for found in compared.findings)
    assert told / reports <= 0.05


def test_three_arms_that_are_the_same_show_no_more() -> None:
    chance = random.Random(2)
    reports, told = 150, 0
    for _ in range(reports):
        compared = compare(call for arm in "abc" for call in calls(chance, arm, 40))
        assert len(compared.findings) == 2 * len(MEASURES)
        told += any(found.verdict is Verdict.DIFFERENT for found in compared.findings)
    assert told / reports <= 0.05


def test_every_difference_alone_is_held_to_a_higher_level() -> None:
    compared = compare([*calls(random.Random(3), "a"), *calls(random.Random(4), "b")])
    assert compared.level == pytest.approx(1 - 0.05 / 6)


# --- A slower model ------------------------------------------------------------------------


def slow_and_fast() -> Comparison:
    chance = random.Random(9)
    found = [*calls(chance, "small", 200), *calls(chance, "large", 200, slower=2.0)]
    return compare(found, ["small", "large"], "jobs")


def test_a_slower_and_dearer_arm_is_said_to_be_so() -> None:
    compared = slow_and_fast()
    p50, cost = finding(compared, "p50"), finding(compared, "cost")
    assert (p50.arm, p50.against, p50.verdict) == ("large", "small", Verdict.DIFFERENT)
    assert p50.text.startswith("large is slower by ")
    assert p50.difference.value == pytest.approx(1.0, abs=0.3)
    assert cost.text.startswith("large is dearer by ")
    assert finding(compared, "tokens_per_s").text.startswith("large is slower by ")
    assert finding(compared, "tokens_per_s").difference.value < 0


def test_what_does_not_differ_is_said_not_to_yet_with_what_is_still_possible() -> None:
    found = finding(slow_and_fast(), "errors")
    assert found.verdict is Verdict.NO_DIFFERENCE_YET
    assert found.text.startswith("no difference yet (-")
    assert found.text.endswith(" points)")
    assert "..+" in found.text


def test_the_other_way_round_the_words_are_turned_and_the_numbers_kept() -> None:
    chance = random.Random(8)
    found = [*calls(chance, "small", 200), *calls(chance, "large", 200, slower=2.0)]
    there = finding(compare(found, ["small", "large"]), "p50")
    back = finding(compare(found, ["large", "small"]), "p50")
    assert back.text == there.text.replace("large is slower", "small is faster")
    assert back.difference.value == -there.difference.value


# --- Too little ----------------------------------------------------------------------------


def test_few_jobs_are_not_enough_however_many_calls() -> None:
    found = [one(arm, n % 5, latency_s=1.0 + n % 7) for arm in ("a", "b") for n in range(500)]
    [*findings] = compare(found, ["a", "b"], "jobs").findings
    assert {f.verdict for f in findings} == {Verdict.NOT_ENOUGH_DATA}
    assert findings[0].text == (
        f"not enough data: 5 jobs in b, 5 in a; {MIN_CLUSTERS} are needed in each"
    )


def test_an_experiment_without_calls_has_its_arms_and_nothing_to_say() -> None:
    compared = compare([], ["a", "b"])
    assert [(arm.name, arm.calls, arm.measures) for arm in compared.arms] == [
        ("a", 0, {}),
        ("b", 0, {}),
    ]
    assert compared.findings == ()
    assert compare([]).arms == ()


def test_what_only_one_arm_has_measured_is_not_compared() -> None:
    found = [one("a", n, tokens_per_s=40.0) for n in range(30)]
    found += [one("b", n) for n in range(30)]
    measures = {f.measure for f in compare(found).findings}
    assert "tokens_per_s" not in measures
    assert "p50" in measures


def test_two_arms_that_cost_nothing_are_not_compared_in_cost() -> None:
    found = [one(arm, n, cost_usd=0.0) for arm in ("a", "b") for n in range(30)]
    assert "cost" not in {f.measure for f in compare(found).findings}
    found = [one(arm, n, cost_usd=float(arm == "b")) for arm in ("a", "b") for n in range(30)]
    assert finding(compare(found), "cost").text == "b is dearer by 1 USD a call (1..1)"


# --- What counts -----------------------------------------------------------------------------


def test_a_failed_call_is_an_error_and_no_latency() -> None:
    found = [one("a", n, latency_s=2.0) for n in range(30)]
    found += [one("a", 100 + n, end=End.FAILED, latency_s=0.001) for n in range(10)]
    [arm] = compare(found).arms
    assert arm.measures["errors"].value == 0.25
    assert arm.measures["p50"].value == 2.0
    assert arm.measures["p50"].n == 30


def test_who_left_or_was_turned_away_is_counted_and_judges_nobody() -> None:
    found = [one("a", n) for n in range(30)]
    found += [one("a", 100 + n, end=End.CLIENT_GONE, cost_usd=1.0) for n in range(5)]
    found += [one("a", 200 + n, end=End.TURNED_AWAY, cost_usd=0.0) for n in range(7)]
    [arm] = compare(found).arms
    assert (arm.calls, arm.ends[End.CLIENT_GONE], arm.ends[End.TURNED_AWAY]) == (42, 5, 7)
    assert arm.measures["errors"].n == 30
    assert arm.measures["cost"].n == 5, "what was sent was paid for, whoever left"


def test_calls_of_a_job_that_changed_its_arm_are_left_out() -> None:
    found = [one("a", n) for n in range(30)]
    found += [one(arm, 0, cluster="moved", latency_s=99.0) for arm in ("a", "b")]
    compared = compare(found)
    assert compared.moved == 1
    assert compared.arms[0].calls == 31
    assert compared.arms[0].measures["p50"].n == 30
    assert compared.findings == ()


def test_arms_that_the_policy_has_forgotten_come_last() -> None:
    found = [one("gone", 1), one("b", 1), one("a", 1)]
    assert [arm.name for arm in compare(found, ["a", "b"]).arms] == ["a", "b", "gone"]
