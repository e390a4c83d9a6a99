"""Waiting for states that tell nobody when they change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def blocking_until(holds: Callable[[], object]) -> None:
    """Wait until another thread has made ``holds()`` true."""
    while not holds():
        time.sleep(0.001)


async def settled(value: Callable[[], object], turns: int = 500) -> None:
    """Let the loop turn until ``value()`` has stayed the same for so many turns.

    For what can only be seen to have stopped. Too early an end must not fail the test.
    """
    last, left = value(), turns
    while left:
        await asyncio.sleep(0)
        left = left - 1 if value() == last else turns
        last = value()


async def until(holds: Callable[[], object]) -> None:
    """Let the loop turn until ``holds()`` is true. A test that hangs here is ended by its guard."""
    while not holds():  # noqa: ASYNC110 - nobody sets an event
        await asyncio.sleep(0)
