"""What is read of an upstream's advice on asking again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.quantity import LIMIT
from modelsplit_proxy.http.upstream import UpstreamHead
from modelsplit_proxy.protocol.retry_advice import retry_after_s, should_retry

# Sun, 06 Nov 1994 08:49:37 GMT
NOW = 784_111_777.0
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


def head(**lines: bytes) -> UpstreamHead:
    pairs = [(name.replace("_", "-").encode(), value) for name, value in lines.items()]
    return UpstreamHead(503, b"Busy", pairs, 0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"25", 25),
        (b" 25 ", 25),
        (b"86400", 86_400),
        # Never less than what is asked for.
        (b"1.2", 2),
        # Zero is no reason to come at once.
        (b"0", 1),
        (b"Sun, 06 Nov 1994 08:50:07 GMT", 30),
        (b"Sunday, 06-Nov-94 08:50:07 GMT", 30),
        (b"Sun Nov  6 08:50:07 1994", 30),
        (b"Sun, 06 Nov 1994 08:00:00 GMT", 1),
        (b"Sun, 06 Nov 1994 10:50:07 +0200", 30),
        # What is no number of seconds is not known.
        (b"", None),
        (b"-5", None),
        (b"1e9", None),
        (b"NaN", None),
        (b"soon", None),
        (b"9" * 16, None),
        (b"9" * 5000, None),
        (b"\xff\xfe", None),
        (b"Sun, 99 Nov 1994 08:50:07 GMT", None),
        (b"Sun, 06 Nov 99999 08:50:07 GMT", None),
        (b"Sun, 06 Nov 1994 08:50:07 GMT" + b" " * 5000, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: bytes, seconds: int | None) -> None:
    assert retry_after_s(head(Retry_After=value), NOW) == seconds


def test_a_date_counts_from_the_upstreams_own_clock_where_it_says_so() -> None:
    asked = head(Retry_After=b"Sun, 06 Nov 1994 08:50:07 GMT", Date=DATE)
    assert retry_after_s(asked, NOW + 3600.0) == 30
    assert retry_after_s(head(Retry_After=b"Sun, 06 Nov 1994 08:50:07 GMT", Date=b"?"), NOW) == 30


@pytest.mark.parametrize(
    ("millis", "after", "seconds"),
    [(b"1500", b"", 2), (b"1500", b"25", 25), (b"60000", b"25", 60), (b"x", b"25", 25)],
)
def test_of_seconds_and_milliseconds_the_longer_holds(
    millis: bytes, after: bytes, seconds: int
) -> None:
    assert retry_after_s(head(retry_after_ms=millis, Retry_After=after), NOW) == seconds


def test_without_a_word_nothing_is_known() -> None:
    assert retry_after_s(head(), NOW) is None
    assert should_retry(head()) is None


@pytest.mark.parametrize(
    ("value", "known"), [(b"true", True), (b"False", False), (b"no", None), (b"", None)]
)
def test_whether_to_retry_is_true_or_false_or_nothing(value: bytes, known: bool | None) -> None:
    assert should_retry(head(x_should_retry=value)) is known


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=40))
def test_whatever_it_says_it_is_a_number_of_seconds_or_nothing(
    after: bytes, date: bytes, millis: bytes
) -> None:
    seconds = retry_after_s(head(Retry_After=after, Date=date, retry_after_ms=millis), NOW)
    assert seconds is None or 1 <= seconds <= LIMIT
