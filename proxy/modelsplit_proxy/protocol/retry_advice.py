"""What an upstream's answer says of asking again: when, and whether at all.

``Retry-After`` (RFC 9110 §10.2.3) is seconds or a date; ``retry-after-ms`` and
``x-should-retry`` are what the SDKs of OpenAI and Anthropic read before it. A moment is told
on as seconds, which need no common clock.
"""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from modelsplit_policy.quantity import quantity

if TYPE_CHECKING:
    from modelsplit_proxy.http.upstream import UpstreamHead

# As many digits as a known quantity has.
_NUMBER: Final = re.compile(rb"[0-9]{1,16}(?:\.[0-9]{1,9})?")
_DATE_MAX: Final = 64
_WORDS: Final = MappingProxyType({b"true": True, b"false": False})


def retry_after_s(head: UpstreamHead, wall: float) -> int | None:
    """Whole seconds, at least 1 and never less than asked for; None: nothing that can be read.

    ``wall``: the time by our clock, in seconds since 1970, for a head that does not say its own.
    """
    millis = _number(head.get(b"retry-after-ms"))
    asked = [
        None if millis is None else millis / 1000,
        _seconds(head.get(b"retry-after"), head.get(b"date"), wall),
    ]
    known = [value for value in map(quantity, asked) if value is not None]
    return max(1, math.ceil(max(known))) if known else None


def should_retry(head: UpstreamHead) -> bool | None:
    """What ``x-should-retry`` says; None: nothing."""
    return _WORDS.get(head.get(b"x-should-retry").strip().lower())


def _seconds(value: bytes, date: bytes, wall: float) -> float | None:
    number = _number(value)
    if number is not None:
        return number
    until = _date(value)
    if until is None:
        return None
    sent = _date(date)
    # A moment that has passed asks for nothing, but it can be read.
    return max(0.0, until - (wall if sent is None else sent))


def _number(value: bytes) -> float | None:
    value = value.strip()
    return None if _NUMBER.fullmatch(value) is None else float(value)


def _date(value: bytes) -> float | None:
    """Seconds since 1970 of an HTTP-date, in any of its three forms."""
    if not value or len(value) > _DATE_MAX:
        return None
    try:
        moment = parsedate_to_datetime(value.decode("latin-1"))
        # The form without a zone means UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
