"""Times for people: in the machine's zone, by its name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.runtime import local_time

if TYPE_CHECKING:
    from collections.abc import Iterator

SUMMER, WINTER = "2026-07-14T22:30:05.678Z", "2026-11-23T22:30:05.678Z"


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # By its rule, not by its name: not every machine has the table of names.
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("tell", "expected"),
    [
        (local_time.minute, "2026-11-23 23:30 CET"),
        (local_time.second, "2026-11-23 23:30:05 CET"),
        (local_time.millisecond, "2026-11-23 23:30:05.678 CET"),
        (local_time.time_of_day, "23:30:05 CET"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_moment_of_the_records_is_told_in_our_zone(tell: object, expected: str) -> None:
    assert callable(tell)
    assert tell(WINTER) == expected


def test_each_moment_has_the_name_that_the_zone_had_then() -> None:
    assert local_time.minute(SUMMER) == "2026-07-15 00:30 CEST"
    assert local_time.minute_of(1_784_068_205.0) == "2026-07-15 00:30 CEST"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2026-11-23 23:30", "2026-11-23T23:30:00+01:00"),
        ("2026-07-15", "2026-07-15T00:00:00+02:00"),
        ("2026-11-23T23:30Z", "2026-11-23T23:30Z"),
        ("7d", "7d"),
        ("", ""),
        ("soon", "soon"),
    ],
)
def test_a_time_that_is_typed_without_a_zone_is_in_ours(typed: str, meant: str) -> None:
    assert local_time.zoned(typed) == meant
