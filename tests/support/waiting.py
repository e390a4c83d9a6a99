"""Waiting for states that tell nobody when they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object], within_s: float = 5.0) -> None:
    """Let the loop turn until ``holds()`` is true; TimeoutError after ``within_s``."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0)
