"""What the other tests lean on: time that passes when told, an end for what hangs, counts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy import cli
from support import patience
from support.fake_time import fake_time, passes
from support.hanging import Loop, guarded
from support.hooks import Hook
from support.workers import scope_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


@pytest.mark.fake_time
async def test_time_stands_still_until_it_is_told_to_pass() -> None:
    loop, fired = asyncio.get_running_loop(), list[float]()
    began = loop.time()
    for delay in (0.3, 0.1, 0.2):
        loop.call_later(delay, lambda: fired.append(round(loop.time() - began, 6)))
    loop.call_later(0.15, fired.append, 99).cancel()
    await asyncio.to_thread(lambda: None)
    assert (fired, loop.time()) == ([], began)
    await passes(0.2)
    assert fired == [0.1, 0.2]
    await passes(5)
    assert fired == [0.1, 0.2, 0.3]
    assert loop.time() - began == pytest.approx(5.2)
    assert fake_time().next_due() is None


@pytest.mark.fake_time
async def test_one_that_sleeps_again_and_again_wakes_at_each_of_its_moments() -> None:
    loop, woke = asyncio.get_running_loop(), list[float]()

    async def sleeper() -> None:
        while True:
            await asyncio.sleep(1)
            woke.append(loop.time())

    task = loop.create_task(sleeper())
    began = loop.time()
    await asyncio.sleep(0)
    await passes(3.5)
    assert woke == [began + 1, began + 2, began + 3]
    task.cancel()


@pytest.mark.fake_time
async def test_a_timeout_is_told_too() -> None:
    async def late() -> None:
        async with asyncio.timeout(2):
            await asyncio.get_running_loop().create_future()

    task = asyncio.get_running_loop().create_task(late())
    await asyncio.sleep(0)
    await passes(1.9)
    assert not task.done()
    await passes(0.1)
    with pytest.raises(TimeoutError):
        await task


@pytest.mark.parametrize("where", [pytest.param("x", marks=pytest.mark.fake_time, id="fake"), "y"])
async def test_what_hangs_is_ended_and_says_where(
    where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    del where
    with pytest.raises(TimeoutError, match=r"hangs: not done after 0\.01 s"):
        await guarded(never, 0.01)()
    assert ".never\n" in capsys.readouterr().err


async def test_what_ends_is_let_be() -> None:
    async def answer() -> int:
        return 42

    assert await guarded(answer)() == 42


async def test_one_that_is_cancelled_by_another_is_cancelled() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await guarded(cancelled)()


def test_a_loop_ends_and_tells_what_is_left_open() -> None:
    loop = Loop()
    left_open = loop.run_until_complete(asyncio.start_server(lambda *_: None, "127.0.0.1", 0))
    with pytest.raises(ResourceWarning, match="unclosed"):
        loop.close()
    assert loop.is_closed()
    del left_open


@pytest.mark.flowing_time
async def test_flowing_time_passes_while_the_loop_turns() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    woke = list[float]()
    loop.call_later(0.015, lambda: woke.append(loop.time()))
    await asyncio.sleep(0.5)
    assert loop.time() == pytest.approx(began + 0.5, abs=0.011)
    assert woke == [pytest.approx(began + 0.015)]


@pytest.mark.flowing_time
async def test_flowing_time_stands_still_while_the_loop_does() -> None:
    loop = asyncio.get_running_loop()
    fired = asyncio.Event()
    loop.call_later(0.1, fired.set)
    for _ in range(20):
        time.sleep(0.02)  # noqa: ASYNC251 - to hold the loop up
        await asyncio.sleep(0)
    assert not fired.is_set()
    await fired.wait()


def test_every_bound_on_what_a_command_asks_is_far_away() -> None:
    bounded = re.compile(r"\btimeout(?:_s)?=(_[A-Z_]+)\b")
    found = {
        (path.stem, name)
        for path in Path(cli.__file__).parent.glob("*.py")
        for name in bounded.findall(path.read_text(encoding="utf-8"))
    }
    far = {(module.__name__.rpartition(".")[2], name) for module, name in patience.COMMANDS}
    assert found <= far
    assert all(getattr(module, name) == patience.FAR_AWAY_S for module, name in patience.COMMANDS)


def test_only_hooks_set_hooks() -> None:
    tests = Path(__file__).parent
    files = [*tests.rglob("*.py"), *(tests.parent / "bench").rglob("*.py")]
    setting = {
        file.name for file in files if re.search(r"sys\.set(profile|trace)\b", file.read_text())
    }
    assert setting == {"hooks.py", Path(__file__).name}


@pytest.mark.parametrize("lines", [False, True], ids=["calls", "lines"])
def test_a_hook_that_raises_is_heard_of_at_the_end_and_not_where_it_looks(lines: bool) -> None:
    went_on = False

    def hook(frame: FrameType, *_: object) -> None:
        if frame.f_code is watched.__code__:
            raise ZeroDivisionError

    def watched() -> bool:
        return len("abc") == 3

    with pytest.raises(RuntimeError, match="has raised") as caught, Hook(hook, lines=lines):
        went_on = watched()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert went_on


@pytest.mark.parametrize("lines", [False, True], ids=["calls", "lines"])
def test_a_hook_that_is_taken_away_is_missed(lines: bool) -> None:
    def see(*_: object) -> None:
        pass

    get: Callable[[], Any] = sys.gettrace if lines else sys.getprofile
    put: Callable[[Any], None] = sys.settrace if lines else sys.setprofile
    before = get()
    with pytest.raises(RuntimeError, match="taken away"), Hook(see, lines=lines):
        put(before)
    assert get() is before


def test_a_hook_that_ends_late_takes_away_no_other() -> None:
    def see(frame: FrameType, event: str, _: object) -> None:
        del frame
        seen.append(event)

    seen: list[str] = []
    left = Hook(see)
    left.__enter__()
    sys.setprofile(None)
    with Hook(see):
        with pytest.raises(RuntimeError, match="taken away"):
            left.__exit__(None)
        seen.clear()
        len("abc")
    assert "c_call" in seen
    assert gc.isenabled()


def test_no_collection_takes_a_hook_away_where_the_stack_is_full() -> None:
    """A callback of the collector is seen as any call is, and where none fits is the end of a hook.

    The decoder nests until nothing fits any more. Hypothesis has such a callback.
    """

    def callback(*_: object) -> None:
        pass

    before = gc.get_threshold()
    gc.callbacks.append(callback)
    try:
        for threshold in range(1, 60):
            gc.set_threshold(threshold)
            with Hook(callback), contextlib.suppress(RecursionError):
                json.loads("[" * 2400)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(callback)


def test_no_garbage_is_collected_under_a_hook() -> None:
    class Loop:
        def __init__(self) -> None:
            self.me = self

    gone = weakref.ref(Loop())
    with Hook(lambda *_: None):
        kept: list[list[int]] = [[] for _ in range(100_000)]
        assert gone() is not None
    gc.collect()
    assert gone() is None
    del kept


# Which process runs what, where several share a run.


def test_what_is_dear_is_made_in_one_process() -> None:
    assert scope_of("tests/policy/test_roles.py::test_a") == "tests/policy/test_roles.py"
    assert scope_of("tests/clients/test_page.py::test_a[x::y]") == "tests/clients/"
