"""Jobs beside each other, each in a process of its own: as many at once as there are cores.

For jobs that hang on nothing but what they are given, so that what comes of one is the same
wherever it ran. Where processes cannot be split off safely, one follows the other.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing import get_context
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

T = TypeVar("T")

# Each has what it works on in memory.
_MOST: Final = 8
# What serves calls on this machine goes first.
_NICE: Final = 5


def cores() -> int:
    """How many jobs may go on at once here; 1: one after the other."""
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return 1
    return min(_MOST, len(os.sched_getaffinity(0)))


def results(
    at_once: int, jobs: Sequence[Callable[[], T]], ended: Callable[[int], None] | None = None
) -> list[T]:
    """What the jobs return, in their order; that can be pickled. What one raises is raised here.

    ``ended``: told how many have ended, after each.
    """
    found: dict[int, T] = {}

    def keep(number: int, value: T) -> None:
        found[number] = value
        if ended is not None:
            ended(len(found))

    if at_once <= 1 or len(jobs) <= 1:
        for number, job in enumerate(jobs):
            keep(number, job())
    else:
        _in_processes(jobs, at_once, keep)
    return [found[number] for number in range(len(jobs))]


def _in_processes(
    jobs: Sequence[Callable[[], T]], at_once: int, keep: Callable[[int, T], None]
) -> None:
    context = get_context("fork")
    waiting = list(enumerate(jobs))[::-1]
    running: dict[Connection, tuple[int, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, job = waiting.pop()
                here, there = context.Pipe(duplex=False)
                child = context.Process(target=_work, args=(job, there), daemon=True)
                child.start()
                there.close()
                running[here] = (number, child)
            ready = wait(list(running))
            for end in [own for own in running if own in ready]:
                number, child = running.pop(end)
                keep(number, _received(end, jobs[number]))
                child.join()
    finally:
        for _, child in running.values():
            child.kill()
            child.join()


def _received(end: Any, job: Callable[[], T]) -> T:
    """What the child sent; where it could not, the job is done here, and raises what it raises."""
    with end:
        try:
            value: T = end.recv()
        except EOFError:
            return job()
        return value


def _work(job: Callable[[], object], there: Connection) -> None:
    """In the child. One that is interrupted, or fails, says nothing: the parent finds out."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.nice(_NICE)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for as long as the child lives
    with there:
        there.send(job())
