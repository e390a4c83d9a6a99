"""Background tasks that somebody holds.

The event loop keeps only weak references to tasks, and a task nobody awaits takes its
error with it. Every task of the process is started here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

logger = logging.getLogger("modelsplit")

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work that is done a step at a time; its result is what the generator returns."""


async def in_steps(work: Steps[T]) -> T:
    """The result of ``work``. Between two steps everybody else on the loop has a turn."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(0)


class Tasks:
    """Starts tasks, keeps them until they end, reports their errors, ends them together."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Tasks {sorted(task.get_name() for task in self._running)}>"

    def start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def run(self, work: Coroutine[None, None, None], name: str) -> None:
        """Start a task that nobody waits for until ``close``."""
        task = self.start(work, name)
        del task

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background task %s failed", task.get_name(), exc_info=error)
