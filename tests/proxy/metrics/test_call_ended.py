"""The series of what failed at the end of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from modelsplit_proxy.metrics.call_ended import CallEndedMetrics
from modelsplit_proxy.records.call_ended import CallEnded
from support.records import answered

if TYPE_CHECKING:
    from modelsplit_proxy.records.record import CallRecord

NAME = "modelsplit_call_end_failures_total"


def fails(record: CallRecord) -> None:
    raise ZeroDivisionError(record.request_id)


def test_each_listener_has_a_series_from_the_start_and_its_failures_count() -> None:
    ended, registry = CallEnded(), CollectorRegistry()
    registry.register(CallEndedMetrics(ended))
    ended.listen("costs", fails)
    assert registry.get_sample_value(NAME, {"listener": "costs"}) == 0
    ended.tell(answered())
    ended.tell(answered())
    assert registry.get_sample_value(NAME, {"listener": "costs"}) == 2
