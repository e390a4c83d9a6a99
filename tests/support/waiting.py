"""Waiting for states that tell nobody when they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object]) -> None:
    """Let the loop turn until ``holds()`` is true. A test that hangs here is ended by its guard."""
    while not holds():  # noqa: ASYNC110 - nobody sets an event
        await asyncio.sleep(0)
