"""A test that hangs ends with the stack of every task, and never silently.

This is the only bound of the tests that is real time. It says nothing about speed: it is many
times what the slowest test takes on a busy machine. Where the loop itself is stuck,
``faulthandler_timeout`` in pyproject.toml prints the stack of every thread and ends the run.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import warnings
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

HANGS_AFTER_S = 240.0


class Loop(uvloop.Loop):
    """uvloop, that ends also where something is left open, as a test that fails leaves it.

    It warns of that while it closes its handles. Where warnings are errors the handle then stays
    open, and closing waits for it for ever; so here it warns once all is closed.
    """

    def close(self) -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            super().close()
        for warning in told:
            warnings.warn(warning.message, stacklevel=2)


P = ParamSpec("P")
T = TypeVar("T")


def guarded(
    test: Callable[P, Coroutine[Any, Any, T]], after_s: float = HANGS_AFTER_S
) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same function; TimeoutError, and the stacks on stderr, where it takes ``after_s``."""

    @functools.wraps(test)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        task, hangs = asyncio.current_task(), False
        assert task is not None

        def give_up() -> None:
            nonlocal hangs
            hangs = True
            for each in asyncio.all_tasks():
                print(f"{each.get_name()}:", *awaits(each), sep="\n  ", file=sys.stderr)
            task.cancel()

        loop = asyncio.get_running_loop()
        assert isinstance(loop, uvloop.Loop)
        # uvloop's own timer: the loop's time may be a fake.
        timer = uvloop.Loop.call_later(loop, after_s, give_up)
        try:
            return await test(*args, **kwargs)
        except asyncio.CancelledError as error:
            if hangs:
                raise TimeoutError(f"it hangs: not done after {after_s:g} s") from error
            raise
        finally:
            timer.cancel()

    return run


def awaits(task: asyncio.Task[Any]) -> Iterator[str]:
    """Where each coroutine of a task waits, the innermost last: asyncio shows the first alone."""
    waiting: Any = task.get_coro()
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        yield f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        waiting = waiting.cr_await
