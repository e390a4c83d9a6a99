"""A call as values: plain ones, in the order of a row, and nothing unusual where all went well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.vocabulary import Loading
from modelsplit_proxy.records.record import Variant
from modelsplit_proxy.records.values import ALWAYS, SELDOM, USUAL, line, microseconds, put_together
from support.records import answered, begun, fallen_back, turned_away

if TYPE_CHECKING:
    from modelsplit_proxy.records.record import CallRecord


def rare() -> CallRecord:
    """Much that is unusual at once."""
    record = fallen_back(
        job_id="job-1", client_retry=True, applied=("keep_alive",), variant=Variant("e", "b")
    )
    record.loading = Loading.LOAD
    return record


def test_of_a_call_that_went_well_nothing_is_unusual() -> None:
    always, seldom, unusual = put_together(answered())
    assert len(always) == len(ALWAYS)
    assert (seldom, unusual) == ((), {})


def test_what_few_calls_have_is_told_beside_the_values() -> None:
    _, seldom, unusual = put_together(rare())
    assert seldom == ("job-1", "e", "b", None, None)
    assert len(seldom) == len(SELDOM)
    assert unusual == {
        "fallback_cause": "E_UNREACHABLE_LOCAL",
        "client_retry": True,
        "loading": "load",
        "applied": ("keep_alive",),
    }


@pytest.mark.parametrize("record", [answered(), rare(), turned_away(), begun(ended=100.0)])
def test_values_are_such_as_sqlites_driver_takes_as_they_are(record: CallRecord) -> None:
    """Of a subclass of ``str``, or of a bool, it would look for an adapter each time."""
    always, seldom, _ = put_together(record)
    assert {type(value) for value in (*always, *seldom)} <= {str, int, float, type(None)}


def test_the_line_says_the_values_what_is_unusual_and_what_is_as_usual() -> None:
    record = answered()
    said = line(put_together(record))
    assert said.keys() == {"ts", *ALWAYS, "job_id", "purpose", *USUAL, "planner_latency_ms"}
    assert USUAL.items() <= said.items()
    assert (said["call_e2e_latency_ms"], said["fallback_used"], said["stream"]) == (
        3000,
        False,
        False,
    )
    assert said["started_at"] == "2026-11-23T00:29:03.250Z"
    said = line(put_together(rare()))
    assert (said["experiment"], said["variant"], said["job_id"]) == ("e", "b", "job-1")
    assert (said["fallback_used"], said["client_retry"], said["loading"]) == (True, True, "load")
    assert said["planner_latency_ms"] is None, "it only loads"


@pytest.mark.parametrize(
    ("moment", "since", "us"),
    [(None, 1.0, None), (1.25, 1.0, 250_000), (1.0, 1.25, -250_000), (0.0000014, 0.0, 1)],
)
def test_a_span_is_whole_microseconds(moment: float | None, since: float, us: int | None) -> None:
    assert microseconds(moment, since) == us
