"""Times as people read and type them: in the zone of the machine they are told on, which is named.

What is kept, and what is told as JSON, is in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_MINUTE: Final = "%Y-%m-%d %H:%M"


def minute(stamp: str) -> str:
    """``2026-11-23 02:02 CET`` of a moment as records have it: ``2026-11-23T01:02:03.456Z``."""
    return _told(datetime.fromisoformat(stamp), _MINUTE)


def second(stamp: str) -> str:
    """``2026-11-23 02:02:03 CET`` of the same."""
    return _told(datetime.fromisoformat(stamp), f"{_MINUTE}:%S")


def time_of_day(stamp: str) -> str:
    """``02:02:03 CET`` of the same."""
    return _told(datetime.fromisoformat(stamp), "%H:%M:%S")


def millisecond(stamp: str) -> str:
    """``2026-11-23 02:02:03.456 CET`` of the same."""
    moment = datetime.fromisoformat(stamp)
    return _told(moment, f"{_MINUTE}:%S.{moment.microsecond // 1000:03}")


def minute_of(wall: float) -> str:
    """The minute of so many seconds since the epoch."""
    return _told(datetime.fromtimestamp(wall, UTC), _MINUTE)


def zoned(raw: str) -> str:
    """A time that somebody typed, with our zone where it has none; anything else as it is."""
    try:
        moment = datetime.fromisoformat(raw)
    except ValueError:
        return raw
    return moment.astimezone().isoformat() if moment.tzinfo is None else raw


def _told(moment: datetime, form: str) -> str:
    return moment.astimezone().strftime(f"{form} %Z")
