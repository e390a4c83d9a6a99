"""What is a number to be counted by, and what is none."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.quantity import LIMIT, count, in_digits, quantities, quantity

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(),
    st.lists(st.integers()),
)
UNKNOWN: list[Any] = [
    *(None, True, False, "7", "", b"7", [], {}, [7], 1j),
    *(-1, -0.5, LIMIT, 2**63, 2**64 - 1, 2**64, -(2**64), 10**400),
    *(9007199254740992.0, 1e22, 1e308, math.inf, -math.inf, math.nan),
]


@pytest.mark.parametrize("value", UNKNOWN, ids=repr)
def test_what_is_no_quantity_is_unknown(value: object) -> None:
    assert quantity(value) is None
    assert count(value) is None


@pytest.mark.parametrize("value", [0, 7, LIMIT - 1, 0.0, 0.5, 9007199254740991.0])
def test_a_quantity_stays_as_it_is(value: float) -> None:
    assert quantity(value) is value
    assert count(value) == (value if type(value) is int else None)


@given(ANYTHING)
def test_whatever_is_said_what_is_known_is_finite_and_bounded(value: object) -> None:
    known = quantity(value)
    if known is None:
        assert count(value) is None
    else:
        assert known is value
        assert math.isfinite(known)
        assert 0 <= known < LIMIT
        assert int(known) == float(int(known))


@given(st.lists(ANYTHING, max_size=8))
def test_many_are_judged_one_by_one(values: list[object]) -> None:
    assert quantities(values) == list(map(quantity, values))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5e6, "5000000"),
        (5.0, "5"),
        (7, "7"),
        (0.5, "0.5"),
        (1234567.25, "1234567.25"),
        (0.1 + 0.2, "0.3"),
        (0.00001, "0.00001"),
        (0.0, "0"),
        (-1.0, "-1"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (1e300, "1e+300"),
    ],
)
def test_a_number_is_written_in_digits(value: float, text: str) -> None:
    assert in_digits(value) == text
