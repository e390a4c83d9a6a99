"""The report on experiments: what it is made of, and how it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.records.experiment_data import ExperimentData
from modelsplit_proxy.records.experiment_report import UnknownExperimentError, lines, report
from modelsplit_proxy.records.record import CallRecord, Variant
from modelsplit_proxy.records.recorder import Recorder
from support.harness import policy
from support.records import answered, fallen_back, turned_away
from support.stores import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = 1795393743.25
ARMS = [{"name": name, "model": f"{name}:1b", "weight": 1} for name in ("small", "large")]
TEST = {"name": "t", "role": "PLANNER", "arms": ARMS, "sticky": "job", "enabled": True}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    with opened(tmp_path) as store:
        yield Recorder(store)


def note(recorder: Recorder, arm: str, number: int, took_s: float, name: str = "t") -> None:
    record = answered(
        request_id=f"{arm}{number}",
        job_id=f"{arm}-{number}",
        variant=Variant(name, arm),
        started_wall=START + number,
    )
    recorder.call_ended(ended(record, took_s))


def ended(record: CallRecord, took_s: float) -> CallRecord:
    record.ended = record.started + took_s
    return record


def told(recorder: Recorder, **changes: Any) -> dict[str, Any]:
    document = policy({"experiments": [TEST | changes]}).policy
    return report(document, ExperimentData(recorder.read), None, 0)


def test_arms_are_compared_and_the_whole_is_plain_values(recorder: Recorder) -> None:
    for number in range(40):
        note(recorder, "small", number, 1.0 + number % 10 / 10)
        note(recorder, "large", number, 2.0 + number % 10 / 10)
    [one] = told(recorder)["experiments"]
    assert {key: one[key] for key in ("experiment", "llm_role", "sticky", "calls", "moved")} == {
        "experiment": "t",
        "llm_role": "PLANNER",
        "sticky": "job",
        "calls": 80,
        "moved": 0,
    }
    assert (one["first_at"], one["last_at"]) == (
        "2026-11-23T00:29:03.250Z",
        "2026-11-23T00:29:42.250Z",
    )
    small = one["arms"][0]
    assert (small["arm"], small["model"], small["calls"], small["clusters"]) == (
        *("small", "small:1b"),
        *(40, 40),
    )
    assert small["measures"]["p50"]["value"] == 1.4
    [p50] = [found for found in one["findings"] if found["measure"] == "p50"]
    assert (p50["verdict"], p50["difference"]) == ("different", pytest.approx(1.0))


def test_it_reads_as_columns_and_sentences(recorder: Recorder) -> None:
    for number in range(40):
        note(recorder, "small", number, 1.0)
        note(recorder, "large", number, 2.0)
    recorder.call_ended(turned_away(request_id="x", job_id="x", variant=Variant("t", "large")))
    text = [*lines(told(recorder))]
    assert text[0] == "t  PLANNER, by job, running"
    assert text[1] == "  81 calls from 2026-11-23 00:29 UTC to 2026-11-23 00:29 UTC"
    table = [line.split() for line in text[3:]]
    assert table[:4] == [
        ["small", "large"],
        ["model", "small:1b", "large:1b"],
        ["calls", "40", "41"],
        ["jobs", "40", "41"],
    ]
    assert "  turned away   0              1" in text
    assert "  large against small (95% for all of this together)" in text
    assert "  P50           large is slower by 1 s (1..1)" in text
    assert any(line.startswith("  errors        no difference yet (") for line in text)
    assert not any(line.startswith("  cost") for line in text[-4:]), "both cost nothing"


def test_an_experiment_without_calls_says_so(recorder: Recorder) -> None:
    assert [*lines(told(recorder, enabled=False))] == [
        "t  PLANNER, by job, switched off",
        "  no calls yet",
    ]


def test_one_that_left_the_policy_is_still_reported(recorder: Recorder) -> None:
    note(recorder, "x", 1, 1.0, name="old")
    gone = report(policy({"experiments": []}).policy, ExperimentData(recorder.read), None, 0)
    [one] = gone["experiments"]
    assert (one["experiment"], one["in_policy"], one["enabled"]) == ("old", False, False)
    assert next(lines(gone)) == "old  PLANNER, by job, no longer in the policy"


def test_a_name_nobody_knows_is_refused_with_those_that_are_known(recorder: Recorder) -> None:
    document = policy({"experiments": [TEST]}).policy
    with pytest.raises(UnknownExperimentError, match='no experiment is named "x"; known: t'):
        report(document, ExperimentData(recorder.read), "x", 0)
    with pytest.raises(UnknownExperimentError, match="known: none"):
        report(policy({"experiments": []}).policy, ExperimentData(recorder.read), "x", 0)


def test_without_any_experiment_it_says_so(recorder: Recorder) -> None:
    nothing = report(policy({"experiments": []}).policy, ExperimentData(recorder.read), None, 0)
    assert [*lines(nothing)] == ["no experiments: the policy has none, and no call is kept of any"]


def test_what_is_missing_and_what_moved_is_said(recorder: Recorder) -> None:
    note(recorder, "small", 1, 1.0)
    for arm in ("small", "large"):
        recorder.call_ended(answered(request_id=arm, job_id="moved", variant=Variant("t", arm)))
    found = told(recorder)
    text = [*lines(found)]
    assert "  1 jobs changed their arm (a weight was changed) and are left out" in text
    found["experiments"][0]["left_out"] = 7
    assert "  7 older calls are left out" in [*lines(found)]


def test_a_limit_that_is_not_known_is_a_question_mark(recorder: Recorder) -> None:
    for arm in ("small", "large"):
        for number in range(3):
            note(recorder, arm, number, 1.0)
    text = [*lines(told(recorder))]
    assert "P50 1 s (?..?) 1 s (?..?)" in [" ".join(line.split()) for line in text]
    few = "3 jobs in large, 3 in small; 20 are needed in each"
    assert f"  P50           not enough data: {few}" in text


def test_an_arm_whose_answers_were_the_fallbacks_says_so(recorder: Recorder) -> None:
    """Else a model that is not installed looks as fast and as free of errors as its fallback."""
    note(recorder, "small", 1, 1.0)
    note(recorder, "small", 2, 1.0)
    recorder.call_ended(fallen_back(request_id="x", job_id="x", variant=Variant("t", "small")))
    recorder.call_ended(fallen_back(request_id="y", job_id="y", variant=Variant("t", "large")))
    found = told(recorder)
    assert [arm["fallbacks"] for arm in found["experiments"][0]["arms"]] == [1, 1]
    [row] = [line for line in lines(found) if line.startswith("  fell back")]
    assert " ".join(row.split()) == "fell back 1 of 3 answers 1 of 1 answers: all"


def test_without_fallbacks_there_is_no_line_of_them(recorder: Recorder) -> None:
    note(recorder, "small", 1, 1.0)
    assert not [line for line in lines(told(recorder)) if "fell back" in line]
