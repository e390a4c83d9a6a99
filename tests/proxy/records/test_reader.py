"""Finished calls are found again: by id, by the letters it begins with, by what they are like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.records import reader as module
from modelsplit_proxy.records.query import Query
from modelsplit_proxy.records.reader import AmbiguousError, Archive
from modelsplit_proxy.records.recorder import Ledger
from support.records import answered, begun, fallen_back, turned_away
from support.stores import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = 1795393743.25


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path) as store:
        yield Ledger(store)


@pytest.fixture
def archive(ledger: Ledger) -> Archive:
    """Four calls, one a minute: ok, refused, fallen back, without a role."""
    ledger.note(answered(request_id="abcd-1"))
    ledger.note(turned_away(request_id="abcd-2", started_wall=START + 60, client="10.0.0.9"))
    ledger.note(fallen_back(request_id="bcde", started_wall=START + 120, job_id="job-1"))
    ledger.note(begun(request_id="early", started_wall=START + 180, ended=100.5))
    return ledger.archive


def ids(calls: list[dict[str, Any]]) -> list[str]:
    return [call["request_id"] for call in calls]


def us(seconds: float) -> int:
    return round((START + seconds) * 1e6)


def test_one_call_comes_with_its_attempts(archive: Archive) -> None:
    found = archive.find("bcde")
    assert found is not None
    assert found["llm_model"] == "qwen3:8b"
    assert [attempt["model"] for attempt in found["attempts"]] == ["qwen3:4b", "qwen3:8b"]


def test_the_first_letters_will_do_if_they_are_enough(archive: Archive) -> None:
    found = archive.find("abcd-2")
    assert found is not None
    assert archive.find("bcd") is None
    begun_so = archive.find("earl")
    assert begun_so is not None
    assert begun_so["request_id"] == "early"
    with pytest.raises(AmbiguousError, match='several calls begin with "abcd": abcd-1, abcd-2'):
        archive.find("abcd")


def test_an_id_used_twice_is_the_later_call(ledger: Ledger) -> None:
    ledger.note(answered(client="earlier"))
    ledger.note(answered(client="later"))
    found = ledger.archive.find("req-1")
    assert found is not None
    assert found["client"] == "later"


def test_an_id_of_nobody(archive: Archive) -> None:
    assert archive.find("' OR 1=1 --") is None
    assert archive.find("") is None


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
def test_calls_that_are_like_this(archive: Archive, query: Query, expected: list[str]) -> None:
    assert ids(archive.latest(query, 10)) == expected
    in_order = [call for page in archive.in_order(query) for call in page]
    assert ids(in_order) == expected[::-1]


def test_latest_is_as_many_as_asked(archive: Archive) -> None:
    assert ids(archive.latest(Query(), 2)) == ["early", "bcde"]
    assert archive.latest(Query(), 0) == []


def test_all_calls_are_paged_through_in_the_order_in_which_they_came(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that came earlier may end, and so be written, later; several may come at once."""
    monkeypatch.setattr(module, "_PAGE", 3)
    for number in range(10):
        ledger.note(answered(request_id=f"r{number}", started_wall=START - number // 2))
    pages = list(ledger.archive.in_order(Query()))
    assert [len(page) for page in pages] == [3, 3, 3, 1]
    names = [call["request_id"] for page in pages for call in page]
    assert names == ["r8", "r9", "r6", "r7", "r4", "r5", "r2", "r3", "r0", "r1"]
    assert all(len(call["attempts"]) == 1 for page in pages for call in page)
