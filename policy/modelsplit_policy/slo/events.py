"""How many of what should be rare came within any stretch of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Most(NamedTuple):
    """The fullest window: ``events`` of them, and the first and last of them by index."""

    events: int
    first: int
    last: int


NONE = Most(0, 0, -1)


def most_in_any_window(moments: Sequence[int], length: int) -> Most:
    """The fullest of the windows of ``length`` that end at one of ``moments``, ascending.

    A window holds what came in the ``length`` before its end, its end included and its
    beginning not. ``NONE`` where there are no moments; of several as full, the last.
    """
    most, first = NONE, 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - length:
            first += 1
        if last - first + 1 >= most.events:
            most = Most(last - first + 1, first, last)
    return most
