"""The calls of an experiment, written by the recorder and read back for a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.call import Event
from modelsplit_policy.comparison import End, Observation
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.prices import Price
from modelsplit_proxy.records import experiment_data as module
from modelsplit_proxy.records.experiment_data import ExperimentData, KeptCalls
from modelsplit_proxy.records.record import CallRecord, Variant
from modelsplit_proxy.records.recorder import Recorder
from support.records import PLANNER, QUEUE_FULL, answered, fallen_back, routed
from support.stores import execute, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = 1795393743.25
A = Variant("t", "a")
UNFIT = Failure(ErrorCode.SCHEMA_INVALID, Reason.SCHEMA, "does not fit", "Schema Invalid")
GONE = Failure(ErrorCode.CLIENT_GONE, Reason.QUEUED, "left", "Client Gone")
OPEN = Failure(ErrorCode.OVERLOAD_THROTTLED, Reason.BREAKER_OPEN, "is stopped", "Breaker Open", 1)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    with opened(tmp_path) as store:
        yield Recorder(store)


def only(recorder: Recorder, record: CallRecord, sticky: str = "job") -> Observation:
    recorder.call_ended(record)
    [found] = ExperimentData(recorder.read).calls("t", sticky, 0)
    return found


def test_an_answered_call_tells_everything(recorder: Recorder) -> None:
    record = answered(variant=A, job_id="j1", schema="valid")
    attempt = record.attempts[0]
    attempt.price, attempt.usage = Price(1.0, 1.0), attempt.usage._replace(eval_s=0.5)
    assert only(recorder, record) == Observation(
        arm="a",
        cluster="job:j1",
        end=End.ANSWERED,
        latency_s=3.0,
        unfit=False,
        cost_usd=0.000017,
        tokens_per_s=12.0,
    )


@pytest.mark.parametrize(
    ("sticky", "job", "cluster"),
    [
        ("job", "j1", "job:j1"),
        ("job", None, "request:req-1"),
        ("client", "j1", "client:127.0.0.1"),
        ("request", "j1", "request:req-1"),
    ],
)
def test_what_was_dealt_together_belongs_together(
    recorder: Recorder, sticky: str, job: str | None, cluster: str
) -> None:
    assert only(recorder, answered(variant=A, job_id=job), sticky).cluster == cluster


def test_an_answer_of_the_fallback_is_an_answer_and_its_speed_is_not_the_arms(
    recorder: Recorder,
) -> None:
    found = only(recorder, fallen_back(variant=A))
    assert (found.end, found.latency_s, found.tokens_per_s) == (End.ANSWERED, 4.0, None)
    assert found.fell_back


def test_an_answer_of_the_arms_own_model_did_not_fall_back(recorder: Recorder) -> None:
    assert not only(recorder, answered(variant=A)).fell_back


def test_a_first_answer_that_did_not_fit_counts_although_the_fallbacks_did(
    recorder: Recorder,
) -> None:
    record = fallen_back(variant=A, schema="valid")
    record.attempts[0].failure = UNFIT
    assert only(recorder, record).unfit is True


@pytest.mark.parametrize(
    ("schema", "unfit"),
    [("valid", False), ("invalid", True), ("unchecked: too large", None), (None, None)],
)
def test_whether_the_arms_own_answer_fitted(
    recorder: Recorder, schema: str | None, unfit: bool | None
) -> None:
    assert only(recorder, answered(variant=A, schema=schema)).unfit is unfit


def test_what_a_fallback_answered_says_nothing_of_the_arms_schema(recorder: Recorder) -> None:
    assert only(recorder, fallen_back(variant=A, schema="valid")).unfit is None


def failed(failure: Failure, *, sent: bool) -> CallRecord:
    record = routed(variant=A)
    attempt = record.attempt(PLANNER.candidates[0], 100.0)
    attempt.dispatched = 100.5 if sent else None
    attempt.ended, attempt.failure = 101.0, failure
    record.call.step(Event.REJECT)
    record.failure, record.status, record.ended = failure, failure.status, 101.0
    return record


@pytest.mark.parametrize(
    ("failure", "sent", "end"),
    [
        (QUEUE_FULL, False, End.TURNED_AWAY),
        (UNFIT, True, End.FAILED),
        (OPEN, False, End.FAILED),
        (GONE, True, End.CLIENT_GONE),
    ],
)
def test_a_call_without_an_answer_ends_in_three_ways(
    recorder: Recorder, failure: Failure, sent: bool, end: End
) -> None:
    assert only(recorder, failed(failure, sent=sent)).end is end


def test_only_calls_of_this_experiment_since_then_and_the_newest_of_them(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        recorder.call_ended(
            answered(variant=A, request_id=f"r{number}", started_wall=START + number)
        )
    recorder.call_ended(answered(variant=Variant("other", "x"), started_wall=START + 9))
    recorder.call_ended(answered())
    since = round((START + 1) * 1e6)
    assert len(ExperimentData(recorder.read).calls("t", "job", since)) == 4
    monkeypatch.setattr(module, "MOST_CALLS", 2)
    newest = ExperimentData(recorder.read).calls("t", "job", 0)
    assert [found.cluster for found in newest] == ["request:r4", "request:r3"]


def test_experiments_with_calls_are_listed(recorder: Recorder) -> None:
    assert ExperimentData(recorder.read).kept(0) == []
    for number in range(3):
        recorder.call_ended(answered(variant=A, started_wall=START + number))
    us = round(START * 1e6)
    data = ExperimentData(recorder.read)
    assert data.kept(0) == [KeptCalls("t", "PLANNER", 3, us, us + 2_000_000)]
    assert data.kept(us + 2_000_000) == [
        KeptCalls("t", "PLANNER", 1, us + 2_000_000, us + 2_000_000)
    ]


def test_other_calls_are_not_looked_at(recorder: Recorder, tmp_path: Path) -> None:
    """A file of a million calls may hold ten of an experiment."""
    recorder.call_ended(answered(variant=A))
    ExperimentData(recorder.read).kept(0)
    for query in (module._NAMES, module._CALLS):
        plan = execute(tmp_path, "EXPLAIN QUERY PLAN " + query.replace("?", "1"))
        assert "calls_by_experiment" in str(plan)
