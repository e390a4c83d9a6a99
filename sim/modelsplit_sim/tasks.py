"""The one place in the stand-in that starts tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Tasks:
    """Holds every task it started: a task nobody holds can be collected while it runs."""

    def __init__(self) -> None:
        self._held: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)  # noqa: TID251 - this is the holder
        self._held.add(task)
        task.add_done_callback(self._held.discard)
        return task

    async def cancel_all(self) -> None:
        """Cancel what runs and wait until it has ended, errors included."""
        held = list(self._held)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
