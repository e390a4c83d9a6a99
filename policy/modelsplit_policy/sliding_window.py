"""Amounts over a sliding window of time: their number, their sum, and when room comes.

An entry has a time and an amount; entries are added in the order of their times. What is
asked of a window that many calls have filled must not cost more for each of them: every
method takes time in the logarithm of the number of entries, ``count``, ``total`` and
``oldest_at`` take constant time.

Entries stand at ascending positions of two Fenwick trees (Fenwick, 1994), one of ones and
one of amounts. A position is used once; when all are, what is left is set out anew.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAST: Final = 64


class _Entry(NamedTuple):
    position: int
    at: float
    amount: int


class SlidingWindow:
    """Entries by their keys. Amounts are whole numbers, not below zero."""

    def __init__(self) -> None:
        # In the order of time. A dict would look past every entry that has left.
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._set_out()
        self.total = 0

    def __repr__(self) -> str:
        return f"<SlidingWindow {self.count} entries, {self.total} in all>"

    @property
    def count(self) -> int:
        return len(self._entries)

    @property
    def oldest_at(self) -> float | None:
        """The time of the oldest entry; None: there is none."""
        return next(iter(self._entries.values())).at if self._entries else None

    def entries(self) -> Iterator[tuple[int, float, int]]:
        """Key, time and amount of each, oldest first."""
        return ((key, entry.at, entry.amount) for key, entry in self._entries.items())

    def add(self, key: int, at: float, amount: int) -> None:
        """One more entry, the youngest. ``key`` must be new."""
        if self._used == len(self._at) - 1:
            self._set_out()
        self._used += 1
        self._entries[key] = _Entry(self._used, at, amount)
        self._place(self._used, at, amount)

    def change(self, key: int, amount: int) -> None:
        """The entry's amount is another one; nothing where it has left the window."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries[key] = entry._replace(amount=amount)
            self._shift(entry.position, 0, amount - entry.amount)

    def remove(self, key: int) -> None:
        """As if it had never been added; nothing where it has left the window."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._shift(entry.position, -1, -entry.amount)

    def expire(self, until: float) -> None:
        """Let go of every entry whose time is ``until`` or before."""
        while (oldest := self.oldest_at) is not None and oldest <= until:
            _, entry = self._entries.popitem(last=False)
            self._shift(entry.position, -1, -entry.amount)

    def nth_at(self, n: int) -> float:
        """The time of the n-th oldest entry, counted from one. There must be so many."""
        return self._at[_find(self._ones, n)]

    def freed_at(self, amount: int) -> float:
        """The time of the entry with which, oldest first, ``amount`` has left the window.

        There must be so much, and ``amount`` is above zero.
        """
        return self._at[_find(self._sums, amount)]

    def _set_out(self) -> None:
        """Move what is left to the first positions, with as many free ones behind."""
        size = max(_LEAST, 2 * len(self._entries))
        self._at = [0.0] * (size + 1)
        self._ones = [0] * (size + 1)
        self._sums = [0] * (size + 1)
        self._used = self.total = 0
        for key, entry in self._entries.items():
            self._used += 1
            self._entries[key] = entry._replace(position=self._used)
            self._place(self._used, entry.at, entry.amount)

    def _place(self, position: int, at: float, amount: int) -> None:
        self._at[position] = at
        self._shift(position, 1, amount)

    def _shift(self, position: int, ones: int, amount: int) -> None:
        self.total += amount
        while position < len(self._ones):
            self._ones[position] += ones
            self._sums[position] += amount
            position += position & -position


def _find(tree: list[int], wanted: int) -> int:
    """The first position up to which the tree's values add up to ``wanted``."""
    position = 0
    step = 1 << (len(tree) - 1).bit_length()
    while step:
        after = position + step
        if after < len(tree) and tree[after] < wanted:
            position = after
            wanted -= tree[after]
        step >>= 1
    return position + 1
