"""Background tasks that somebody holds.

The event loop keeps only weak references to tasks, and a task nobody awaits takes its
error with it. Every task of the process is started here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from modelsplit_policy.restarts import Restarts

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

logger = logging.getLogger("modelsplit")

# An error's text may hold anything.
_ERROR_MAX: Final = 200

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


class Watcher(NamedTuple):
    """A task that is to run for ever, and how it has fared.

    ``error``: why it last failed, empty if it never did. ``well``: it runs, and has not failed
    lately.
    """

    name: str
    running: bool
    failures: int
    error: str
    well: bool


class Tasks:
    """Starts tasks, keeps them until they end, reports their errors, ends them together."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._closing = False
        self._watchers: dict[str, Restarts] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

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

    def keep(self, work: Callable[[], Coroutine[None, None, None]], name: str) -> None:
        """Keep a task running that goes on for ever: one that ends is started again, later."""
        restarts = self._watchers.setdefault(name, Restarts())
        self._timers.pop(name, None)
        loop = asyncio.get_running_loop()
        if restarts.waits:
            restarts.started(loop.time())
        task = loop.create_task(work(), name=name)
        self._running.add(task)
        task.add_done_callback(partial(self._start_again, work))

    def watchers(self) -> list[Watcher]:
        """How the tasks fare that are to run for ever; those that never failed too."""
        now = asyncio.get_running_loop().time()
        return [
            Watcher(name, not kept.waits, kept.failures, kept.error, kept.is_well(now))
            for name, kept in self._watchers.items()
        ]

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        self._closing = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background task %s failed", task.get_name(), exc_info=error)

    def _start_again(
        self, work: Callable[[], Coroutine[None, None, None]], task: asyncio.Task[None]
    ) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        name, error = task.get_name(), task.exception()
        loop = task.get_loop()
        restarts = self._watchers[name]
        why = "it ended" if error is None else f"{type(error).__name__}: {error}"[:_ERROR_MAX]
        # The same error again is the same news: its traceback is in the log already.
        news = None if why == restarts.error else error
        wait_s = restarts.failed(why, loop.time())
        text = "background task %s failed (%s), %d times so far; it starts again in %g s"
        logger.error(text, name, why, restarts.failures, wait_s, exc_info=news)
        if self._closing:
            return
        self._timers[name] = loop.call_later(wait_s, self.keep, work, name)


def trouble(watchers: Iterable[Watcher]) -> str | None:
    """What is wrong with them in words; None: nothing."""
    unwell = [watcher for watcher in watchers if not watcher.well]
    if not unwell:
        return None
    each = (
        f"{watcher.name}, {watcher.failures} times, last: {watcher.error}"
        + ("" if watcher.running else " (it waits to be started again)")
        for watcher in unwell
    )
    return f"background tasks failed: {'; '.join(each)}"
