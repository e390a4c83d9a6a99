"""What budgets say: short enough, without a word that makes clients try again, and right."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_policy.approvals import ApprovalAction, Change, Denied
from modelsplit_policy.budgets import Exhausted, Standing, nano
from modelsplit_policy.failures import Failure, Reason
from modelsplit_proxy.protocol import budget_text

NOON = 1_795_435_200.0
LONGEST = "n" * 64
APPROVAL = Change(1, 0.0, NOON, ApprovalAction.APPROVE, "k" * 100, "a trial", nano(5.0), 0.0)


def standing(**said: Any) -> Standing:
    values: dict[str, Any] = {
        "name": "heavy",
        "window": "1h",
        "window_s": 3600,
        "shadow": False,
        "calls": 10,
        "max_calls": 10,
        "nano_usd": 0,
        "max_nano_usd": None,
        "frees_in_s": 719.2,
        "presumed": False,
    }
    return Standing(**(values | said))


ELSEWHERE = "127.0.0.1:65535"


def failures(name: str) -> list[Failure]:
    """Every sentence there is, with the longest words that can stand in it."""
    one = standing(name=name, nano_usd=nano(123456.0), max_nano_usd=nano(999999.99))
    reasons = [Reason.CALLS, Reason.USD, Reason.COUNTS_LOST]
    exhausted = [Exhausted(one, reason, nano(1234.5), 90_000.0) for reason in reasons]
    exhausted += [Exhausted(one, reason, nano(1234.5), None) for reason in reasons[:2]]
    model = "m" * 256
    denied = [
        Denied(reason, APPROVAL, nano(0.000123))
        for reason in (Reason.APPROVAL_EXPIRED, Reason.APPROVAL_REVOKED, Reason.APPROVAL_SPENT)
    ]
    return [
        *(budget_text.refusal(one, NOON, ELSEWHERE) for one in exhausted),
        *(budget_text.not_approved(one, model, nano(12.0), ELSEWHERE) for one in denied),
        budget_text.not_approved(Denied(Reason.NO_APPROVAL), model, 0, ELSEWHERE),
        budget_text.price_unknown(model),
        budget_text.unavailable("x" * 500, ELSEWHERE),
        budget_text.shared_away("x" * 500, ELSEWHERE),
    ]


@pytest.mark.parametrize("failure", failures(LONGEST), ids=lambda one: one.reason)
def test_a_sentence_is_short_and_asks_for_no_retry(failure: Failure) -> None:
    assert len(failure.message) <= 200
    assert "overload" not in failure.message
    assert "retry" not in failure.message
    assert failure.retry_after_s is None
    assert failure.should_retry is False


def test_the_sentences() -> None:
    said = [failure.message for failure in failures("heavy")]
    assert said[0] == (
        'budget "heavy" is used up: 10 of 10 calls in 1h; the next one is free in 25 h, '
        "at 2026-11-24 13:00 UTC; budgets in the policy can allow more"
    )
    assert "has 876543.99 of 999999.99 USD left in 1h, and this call may cost 1234.50" in said[1]
    assert said[2].startswith('budget "heavy" lost its counts with a damaged state file; ')
    assert said[3] == 'budget "heavy" allows no calls at all; raise its calls in the policy'
    for sentence in said[-2:]:
        assert sentence.endswith("try `modelsplit doctor --admin 127.0.0.1:65535`")
    assert said[4].endswith("this call alone may cost 1234.50; ask for fewer tokens")


def test_no_budget_no_header() -> None:
    assert budget_text.header_lines([]) == []
    assert budget_text.header_lines([standing(shadow=True)]) == []


def test_calls_left_and_when_one_comes_free() -> None:
    (lines,) = budget_text.header_lines([standing(calls=4), standing(name="b", frees_in_s=None)])
    assert lines.decode().splitlines() == [
        'RateLimit-Policy: "heavy";q=10;w=3600, "b";q=10;w=3600',
        'RateLimit: "heavy";r=6;t=720, "b";r=0',
    ]


def test_money_alone_is_told_in_cents() -> None:
    money = standing(max_calls=None, nano_usd=nano(1.259), max_nano_usd=nano(5.0))
    (lines,) = budget_text.header_lines([money])
    assert lines.decode().splitlines() == [
        'RateLimit-Policy: "heavy";q=500;qu="us-cents";w=3600',
        'RateLimit: "heavy";r=374;t=720',
    ]


def test_no_calls_are_left_where_no_money_is() -> None:
    spent = standing(calls=2, nano_usd=nano(5.0), max_nano_usd=nano(5.0))
    assert b"r=0" in budget_text.header_lines([spent])[0]


def test_lost_counts_leave_nothing() -> None:
    assert b"r=0" in budget_text.header_lines([standing(calls=0, presumed=True)])[0]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({}, "heavy  10/10 calls in 1h, next free in 12 min"),
        ({"frees_in_s": None, "calls": 0}, "heavy  0/10 calls in 1h"),
        (
            {"nano_usd": nano(0.25), "max_nano_usd": nano(5.0), "shadow": True},
            "heavy  10/10 calls, 0.25/5.00 USD in 1h, next free in 12 min  (shadow)",
        ),
        (
            {"nano_usd": nano(0.45), "nano_usd_reserved": nano(0.2), "max_nano_usd": nano(5.0)},
            "heavy  10/10 calls, 0.25/5.00 USD and 0.20 reserved in 1h, next free in 12 min",
        ),
        (
            {"calls": 0, "presumed": True},
            "heavy  0/10 calls in 1h, next free in 12 min; taken as used up: its counts were lost",
        ),
    ],
)
def test_one_budget_in_one_line(said: dict[str, Any], line: str) -> None:
    assert budget_text.line(budget_text.fields(standing(**said))) == line


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "120 min"), (7200.0, "2 h"),
     (86_400.0, "24 h"), (172_801.0, "3 days")],
)  # fmt: skip
def test_spans(seconds: float, said: str) -> None:
    assert budget_text.span(seconds) == said


@pytest.mark.parametrize(
    ("dollars", "said"), [(0.0, "0.00"), (5.0, "5.00"), (0.1, "0.10"), (0.00312, "0.0031")]
)
def test_small_sums_keep_their_digits(dollars: float, said: str) -> None:
    assert budget_text.usd(nano(dollars)) == said


@pytest.mark.parametrize(
    ("dollars", "said"), [(0.0, "0.00"), (5.0, "5.00"), (0.25, "0.25"), (0.000001, "1e-06")]
)
def test_a_small_sum_is_not_nothing(dollars: float, said: str) -> None:
    assert budget_text.amount(dollars) == said
