"""Verdicts together."""

from __future__ import annotations

import pytest

from modelsplit_policy.slo.report import Verdict, worst_of

PASS, BREACH = Verdict.PASS, Verdict.BREACH
NOT_ENOUGH, NOT_JUDGED = Verdict.NOT_ENOUGH_DATA, Verdict.NOT_JUDGED


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ([PASS, BREACH, NOT_ENOUGH], BREACH),
        ([PASS, NOT_ENOUGH], NOT_ENOUGH),
        ([NOT_JUDGED, PASS], PASS),
        ([NOT_JUDGED], NOT_JUDGED),
        ([], NOT_JUDGED),
    ],
)
def test_a_breach_wins_over_missing_data_and_that_over_a_pass(
    verdicts: list[Verdict], together: Verdict
) -> None:
    assert worst_of(verdicts) is together
