"""Answers that several people ask for within a moment: made once, for all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from modelsplit_proxy.runtime.clock import Clock

# Filters that people type make keys without end.
_MOST_KEPT: Final = 32


class _Made(NamedTuple):
    """What came of it, when, and how long it took; an error: why there is no answer."""

    answer: bytes | StoreError
    at_s: float
    took_s: float


class SharedAnswers:
    """Keeps answers by key. ``made``: how many were made."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Made] = {}
        self._making: dict[str, asyncio.Lock] = {}
        self.made = 0

    async def get(
        self, key: str, max_age_s: float, make: Callable[[], Awaitable[bytes]], rest: float = 0.0
    ) -> bytes:
        """An answer no older than that, or than ``rest`` times what it took to make.

        With a rest of 100 a kind of answer takes a hundredth of one processor at most, however
        much there is to look through. Raises what ``make`` raises; that an answer could not be
        had from the state file is told for as long as it took times ``rest``.
        """
        lock = self._making.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                kept = self._kept.get(key)
                if kept is None or self._clock.now() - kept.at_s >= _keeps_s(kept, max_age_s, rest):
                    kept = await self._make(key, make)
                if isinstance(kept.answer, StoreError):
                    raise kept.answer.with_traceback(None)
                return kept.answer
        finally:
            if not lock.locked():
                self._making.pop(key, None)

    async def _make(self, key: str, make: Callable[[], Awaitable[bytes]]) -> _Made:
        self.made += 1
        begun = self._clock.now()
        answer: bytes | StoreError
        try:
            answer = await make()
        except StoreError as error:
            answer = error
        now = self._clock.now()
        self._kept.pop(key, None)
        while len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        kept = self._kept[key] = _Made(answer, now, now - begun)
        return kept


def _keeps_s(made: _Made, max_age_s: float, rest: float) -> float:
    rest_s = rest * made.took_s
    return rest_s if isinstance(made.answer, StoreError) else max(max_age_s, rest_s)
