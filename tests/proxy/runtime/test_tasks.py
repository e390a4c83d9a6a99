"""Background tasks: held, told when they fail, ended together."""

from __future__ import annotations

import asyncio
import gc

import pytest

from modelsplit_proxy.runtime.tasks import Steps, Tasks, in_steps, trouble
from support.fake_time import passes
from support.waiting import until


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_a_task_nobody_else_holds_is_not_collected() -> None:
    tasks = Tasks()
    tasks.run(for_ever(), "probe")
    await asyncio.sleep(0)
    gc.collect()
    assert repr(tasks) == "<Tasks ['probe']>"
    await tasks.close()
    assert repr(tasks) == "<Tasks []>"


async def test_close_cancels_and_waits_for_the_end() -> None:
    ended = []

    async def tidies_up(name: str) -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    tasks = Tasks()
    for name in ("a", "b"):
        tasks.run(tidies_up(name), name)
    await asyncio.sleep(0)
    await tasks.close()
    assert sorted(ended) == ["a", "b"]


async def test_a_task_that_fails_is_told_by_name_with_its_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails() -> None:
        raise ZeroDivisionError("by zero")

    tasks = Tasks()
    task = tasks.start(fails(), "arithmetic")
    await asyncio.wait([task])
    await tasks.close()
    (record,) = caplog.records
    assert record.getMessage() == "background task arithmetic failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_a_task_that_ends_or_is_cancelled_is_not_worth_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ends() -> None:
        return

    tasks = Tasks()
    await tasks.start(ends(), "done")
    tasks.run(for_ever(), "cancelled")
    await asyncio.sleep(0)
    await tasks.close()
    assert caplog.records == []


async def test_a_task_that_fails_while_being_cancelled_is_told_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails_late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while leaving")

    tasks = Tasks()
    tasks.run(fails_late(), "late")
    await asyncio.sleep(0)
    await tasks.close()
    assert [record.getMessage() for record in caplog.records] == ["background task late failed"]


async def test_others_have_a_turn_between_two_steps_of_a_work() -> None:
    heard: list[str] = []

    def work() -> Steps[str]:
        for step in ("one", "two"):
            heard.append(step)
            yield
        return "done"

    async def other() -> None:
        for _ in range(2):
            heard.append("other")
            await asyncio.sleep(0)

    tasks = Tasks()
    tasks.run(other(), "other")
    assert await in_steps(work()) == "done"
    assert heard == ["one", "other", "two", "other"]
    await tasks.close()


@pytest.mark.fake_time
async def test_a_watcher_that_raises_is_started_again_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun: list[float] = []

    async def watch() -> None:
        begun.append(asyncio.get_running_loop().time())
        if len(begun) < 4:
            raise ZeroDivisionError("by zero")
        await for_ever()

    tasks = Tasks()
    tasks.keep(watch, "probe")
    assert [watcher.well for watcher in tasks.watchers()] == [True]
    await until(lambda: not tasks.watchers()[0].running)
    (watcher,) = tasks.watchers()
    assert (watcher.name, watcher.running, watcher.failures) == ("probe", False, 1)
    assert trouble([watcher]) == (
        "background tasks failed: probe, 1 times, last: ZeroDivisionError: by zero "
        "(it waits to be started again)"
    )
    await passes(10.0)
    assert [at - begun[0] for at in begun] == [0.0, 1.0, 3.0, 7.0]
    (watcher,) = tasks.watchers()
    assert (watcher.running, watcher.failures, watcher.well) == (True, 3, False)
    await passes(120.0)
    assert trouble(tasks.watchers()) is None
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False]
    assert caplog.records[1].getMessage() == (
        "background task probe failed (ZeroDivisionError: by zero), 2 times so far; "
        "it starts again in 2 s"
    )
    await tasks.close()


@pytest.mark.fake_time
async def test_a_watcher_that_ends_is_started_again_too() -> None:
    begun: list[str] = []

    async def watch() -> None:
        begun.append("again")

    tasks = Tasks()
    tasks.keep(watch, "probe")
    await until(lambda: not tasks.watchers()[0].running)
    await passes(1.0)
    assert len(begun) == 2
    assert tasks.watchers()[0].error == "it ended"
    await tasks.close()
    await passes(100.0)
    assert len(begun) == 2


async def test_a_watcher_that_fails_while_being_cancelled_stays_ended() -> None:
    async def watch() -> None:
        try:
            await for_ever()
        finally:
            raise ValueError("while leaving")

    tasks = Tasks()
    tasks.keep(watch, "probe")
    await asyncio.sleep(0)
    await tasks.close()
    assert repr(tasks) == "<Tasks []>"
    assert not tasks._timers
