"""Finished calls are found again: by id, by the letters it begins with, by what they are like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.records import reader as module
from modelsplit_proxy.records.query import Query
from modelsplit_proxy.records.reader import AmbiguousError, RecordReader, newest
from modelsplit_proxy.records.recorder import Recorder
from support.records import answered, begun, fallen_back, turned_away
from support.stores import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = 1795393743.25


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    with opened(tmp_path) as store:
        yield Recorder(store)


@pytest.fixture
def reader(recorder: Recorder) -> RecordReader:
    """Four calls, one a minute: ok, refused, fallen back, without a role."""
    recorder.call_ended(answered(request_id="abcd-1"))
    recorder.call_ended(
        turned_away(request_id="abcd-2", started_wall=START + 60, client="10.0.0.9")
    )
    recorder.call_ended(fallen_back(request_id="bcde", started_wall=START + 120, job_id="job-1"))
    recorder.call_ended(begun(request_id="early", started_wall=START + 180, ended=100.5))
    return recorder.reader


def ids(calls: list[dict[str, Any]]) -> list[str]:
    return [call["request_id"] for call in calls]


def us(seconds: float) -> int:
    return round((START + seconds) * 1e6)


def test_one_call_comes_with_its_attempts(reader: RecordReader) -> None:
    found = reader.find("bcde")
    assert found is not None
    assert found["llm_model"] == "qwen3:8b"
    assert [attempt["model"] for attempt in found["attempts"]] == ["qwen3:4b", "qwen3:8b"]


def test_the_first_letters_will_do_if_they_are_enough(reader: RecordReader) -> None:
    found = reader.find("abcd-2")
    assert found is not None
    assert reader.find("bcd") is None
    begun_so = reader.find("earl")
    assert begun_so is not None
    assert begun_so["request_id"] == "early"
    with pytest.raises(AmbiguousError, match='several calls begin with "abcd": abcd-1, abcd-2'):
        reader.find("abcd")


def test_an_id_used_twice_is_the_later_call(recorder: Recorder) -> None:
    recorder.call_ended(answered(client="earlier"))
    recorder.call_ended(answered(client="later"))
    found = recorder.reader.find("req-1")
    assert found is not None
    assert found["client"] == "later"


def test_an_id_of_nobody(reader: RecordReader) -> None:
    assert reader.find("' OR 1=1 --") is None
    assert reader.find("") is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), ["early", "bcde", "abcd-2", "abcd-1"]),
        (Query(role=Role.PLANNER), ["bcde", "abcd-2", "abcd-1"]),
        (Query(role=Role.HEAVY), []),
        (Query(failed=True), ["abcd-2"]),
        (Query(outcome="E_OVERLOAD_THROTTLED"), ["abcd-2"]),
        (Query(model="qwen3:8b"), ["bcde"]),
        (Query(model="planner"), ["bcde", "abcd-2", "abcd-1"]),
        (Query(client="10.0.0.9"), ["abcd-2"]),
        (Query(job="job-1"), ["bcde"]),
        (Query(since_us=us(60)), ["early", "bcde", "abcd-2"]),
        (Query(since_us=us(60), until_us=us(120)), ["abcd-2"]),
    ],
)
def test_calls_that_are_like_this(reader: RecordReader, query: Query, expected: list[str]) -> None:
    assert ids(reader.latest(query, 10)) == expected
    in_order = [call for page in reader.in_order(query) for call in page]
    assert ids(in_order) == expected[::-1]
    # One that is not on disk is judged in the same way.
    assert ids([call for call in reader.latest(Query(), 10) if query.fits(call)]) == expected


def test_of_several_lists_each_call_is_told_once_newest_first(reader: RecordReader) -> None:
    kept = reader.latest(Query(), 10)
    running = [kept[2] | {"outcome": "running"}, kept[0] | {"request_id": "other"}]
    merged = newest([*kept, *running], 10)
    assert ids(merged) == ["early", "other", "bcde", "abcd-2", "abcd-1"]
    assert [call["outcome"] for call in merged if call["request_id"] == "abcd-2"] == [
        "E_OVERLOAD_THROTTLED"
    ]
    assert ids(newest(merged, 2)) == ["early", "other"]


def test_latest_is_as_many_as_asked(reader: RecordReader) -> None:
    assert ids(reader.latest(Query(), 2)) == ["early", "bcde"]
    assert reader.latest(Query(), 0) == []


def test_when_the_first_of_the_last_calls_came(reader: RecordReader) -> None:
    assert reader.since_newest(2) == round((START + 120) * 1e6)
    assert reader.since_newest(4) == round(START * 1e6)
    assert reader.since_newest(5) is None


def test_all_calls_are_paged_through_in_the_order_in_which_they_came(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that came earlier may end, and so be written, later; several may come at once."""
    monkeypatch.setattr(module, "_PAGE", 3)
    for number in range(10):
        recorder.call_ended(answered(request_id=f"r{number}", started_wall=START - number // 2))
    pages = list(recorder.reader.in_order(Query()))
    assert [len(page) for page in pages] == [3, 3, 3, 1]
    names = [call["request_id"] for page in pages for call in page]
    assert names == ["r8", "r9", "r6", "r7", "r4", "r5", "r2", "r3", "r0", "r1"]
    assert all(len(call["attempts"]) == 1 for page in pages for call in page)
