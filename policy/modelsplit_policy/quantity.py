"""Which numbers from outside are known quantities.

Answers, tables and files come from elsewhere and may say anything: 2⁶⁴, -1, 1e400, NaN, true,
"7". What is to be stored, counted, compared with a limit or charged is a number, finite, not
negative, and less than 2⁵³: below that, floats, JSON and SQLite hold all whole numbers exactly.
Anything else is unknown, None: neither nothing, nor a number near it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT: Final = 2**53


def quantities(values: Iterable[object]) -> list[int | float | None]:
    """Each value that is a known quantity, as it is; None for each that is none.

    A boolean is no number, nor is a text that spells one.
    """
    return [
        # NaN is not at least 0. Exact types: true is an ``int`` too.
        value if (type(value) is int or type(value) is float) and 0 <= value < LIMIT else None
        for value in values
    ]


def quantity(value: object) -> int | float | None:
    """The same for one value."""
    [known] = quantities((value,))
    return known


def count(value: object) -> int | None:
    """``value`` if it is a known quantity and of a whole type: 7, but not 7.0."""
    known = quantity(value)
    return known if type(known) is int else None


def in_digits(value: float) -> str:
    """A number as people write it, to twelve digits and without an exponent: 5000000, 0.00001.

    One that is no quantity is written as Python writes it.
    """
    if quantity(value) is None:
        return f"{value:g}"
    if value == int(value):
        return str(int(value))
    text = f"{value:.12g}"
    return f"{value:.12f}".rstrip("0") if "e" in text else text
