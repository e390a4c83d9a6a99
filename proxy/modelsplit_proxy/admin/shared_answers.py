"""Answers that several people ask for within a moment: made once, for all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from modelsplit_proxy.runtime.clock import Clock

# Filters that people type make keys without end.
_MOST_KEPT: Final = 32


class SharedAnswers:
    """Keeps answers by key. ``made``: how many were made."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[float, bytes]] = {}
        self._making: dict[str, asyncio.Lock] = {}
        self.made = 0

    async def get(self, key: str, max_age_s: float, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """An answer no older than that. Raises what ``make`` raises."""
        lock = self._making.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                kept = self._kept.get(key)
                if kept is None or self._clock.now() - kept[0] >= max_age_s:
                    kept = await self._make(key, make)
                return kept[1]
        finally:
            if not lock.locked():
                self._making.pop(key, None)

    async def _make(self, key: str, make: Callable[[], Awaitable[bytes]]) -> tuple[float, bytes]:
        self.made += 1
        answer = await make()
        self._kept.pop(key, None)
        while len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        kept = self._kept[key] = (self._clock.now(), answer)
        return kept
