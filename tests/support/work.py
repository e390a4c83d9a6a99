"""Counting work where a time would depend on the machine: bytes looked at, bytes made.

What takes as long for each piece as everything before it is long is quadratic, and shows here
as sixteen times the work for four times the bytes.
"""

from __future__ import annotations

import re
import tracemalloc
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from support.hooks import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

P = ParamSpec("P")
T = TypeVar("T")

# Native methods that look at no more than they are given.
_CHEAP = frozenset({"append", "clear", "endswith", "extend", "join", "startswith"})


@dataclass
class Work:
    """``looked_at``: bytes that native calls may have looked at. ``made``: bytes allocated.

    What one call allocates counts as its highest point above where it began: a copy made and
    dropped counts, the growth of a buffer counts once.
    """

    looked_at: int = 0
    made: int = 0

    @property
    def total(self) -> int:
        return self.looked_at + self.made

    def measured(self, call: Callable[P, T]) -> Callable[P, T]:
        """``call``, adding to this what it does. Memory must be traced (``tracing``)."""

        def measure(*args: P.args, **kwargs: P.kwargs) -> T:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            try:
                with Hook(self._profile):
                    return call(*args, **kwargs)
            finally:
                self.made += tracemalloc.get_traced_memory()[1] - before

        return measure

    def _profile(self, frame: FrameType, event: str, called: object) -> None:
        del frame
        if event == "c_call" and getattr(called, "__name__", "") not in _CHEAP:
            owner = getattr(called, "__self__", None)
            if isinstance(owner, bytes | bytearray):
                self.looked_at += len(owner)


class CountedPattern:
    """A compiled pattern whose searches count as bytes looked at."""

    def __init__(self, pattern: re.Pattern[bytes], work: Work) -> None:
        self._pattern = pattern
        self._work = work

    def search(self, text: bytes | bytearray, start: int = 0) -> re.Match[bytes] | None:
        self._work.looked_at += len(text) - start
        return self._pattern.search(text, start)


@contextmanager
def tracing() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def work_of(feed: Callable[[bytes], object], pieces: Iterable[bytes], work: Work) -> int:
    """What it takes to feed these pieces one by one."""
    measured = work.measured(feed)
    with tracing():
        for piece in pieces:
            measured(piece)
    return work.total


def is_linear(work_for: Callable[[int], int], size: int) -> bool:
    """Whether four times the size is about four times the work."""
    work_for(size)  # what is made once
    once = work_for(size)
    return once <= work_for(4 * size) <= 6 * once
