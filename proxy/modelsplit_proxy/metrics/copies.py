"""Copies of what had been counted at some moments: what happened since is the difference."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Copies(Generic[T]):
    """Keeps what reaches back by ``length_s``, or to the first copy there was.

    ``apart_s``: no copy is kept sooner than this after the last.
    """

    def __init__(self, length_s: float, apart_s: float = 0.0) -> None:
        self._length_s = length_s
        self._apart_s = apart_s
        self._copies: deque[tuple[float, T]] = deque()

    def __len__(self) -> int:
        return len(self._copies)

    def keep(self, now: float, counted: T) -> None:
        if self._copies and now - self._copies[-1][0] < self._apart_s:
            return
        self._copies.append((now, counted))
        self._forget(now)

    def oldest(self, now: float) -> tuple[float, T]:
        """When the latest copy was made that is as old as the length, else the first; and it."""
        self._forget(now)
        return self._copies[0]

    def before(self, now: float, length_s: float) -> T:
        """The latest copy that is so old, else the first there is."""
        found = self._copies[0][1]
        for at, counted in self._copies:
            if now - at < length_s:
                break
            found = counted
        return found

    def _forget(self, now: float) -> None:
        while len(self._copies) > 1 and now - self._copies[1][0] >= self._length_s:
            self._copies.popleft()
