"""What is sent to whom, over connections whose clients read when the test says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from modelsplit_proxy.admin.live_feed import LiveFeed
from modelsplit_proxy.runtime.tasks import Tasks
from support.fake_time import passes, turns

if TYPE_CHECKING:
    from modelsplit_proxy.http.downstream import Downstream

pytestmark = pytest.mark.fake_time


class Down:
    """An answer whose client may be slow."""

    def __init__(self) -> None:
        self.writing_paused = False
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


def feed(tasks: Tasks) -> LiveFeed:
    async def make() -> bytes:
        return b"{}"

    return LiveFeed(make, tasks)


async def started(live: LiveFeed, down: Down) -> asyncio.Task[None]:
    task = asyncio.get_running_loop().create_task(live.watch(cast("Downstream", down)))
    await turns()
    return task


async def test_a_slow_viewer_misses_some_and_is_cut_off_where_that_goes_on() -> None:
    tasks = Tasks()
    live, quick, slow = feed(tasks), Down(), Down()
    first, second = await started(live, quick), await started(live, slow)
    await passes(1)
    slow.writing_paused = True
    await passes(5)
    slow.writing_paused = False
    await passes(1)
    assert not slow.aborted
    assert slow.written[-1] == quick.written[-1]
    assert len(quick.written) - len(slow.written) in {5, 6}
    slow.writing_paused = True
    await passes(12)
    assert second.done()
    assert slow.aborted
    assert (live.dropped, live.viewers) == (1, 1)
    assert not first.done()
    first.cancel()
    await asyncio.wait([first])
    await passes(2)
    assert live.viewers == 0
    await tasks.close()


async def test_events_are_numbered_and_a_browser_is_told_when_to_come_back() -> None:
    tasks = Tasks()
    live, down = feed(tasks), Down()
    task = await started(live, down)
    await passes(2)
    assert down.written[:3] == [
        b"retry: 2000\n\n",
        b"id: 1\ndata: {}\n\n",
        b"id: 2\ndata: {}\n\n",
    ]
    assert repr(live) == f"<LiveFeed 1 viewers, {live.made} made>"
    live.end()
    await asyncio.wait([task])
    await tasks.close()


async def test_where_no_snapshot_can_be_made_viewers_are_let_go(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> bytes:
        raise KeyError("x")

    tasks = Tasks()
    live = LiveFeed(broken, tasks)
    await (await started(live, Down()))
    assert "background task live feed failed" in caplog.text
    await tasks.close()
