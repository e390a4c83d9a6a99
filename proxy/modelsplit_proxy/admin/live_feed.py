"""What people watch as it changes, by Server-Sent Events: made once a second for all of them.

Nobody watches: nothing is made. Whoever does not take what is sent misses some of it, and is cut
off where that goes on: a browser comes back by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.runtime.tasks import Tasks

EVERY_S: Final = 1.0
MOST_VIEWERS: Final = 64
# So many in a row that a viewer did not take.
_MISSED_MAX: Final = 10
# How long a browser waits until it comes back, milliseconds.
_BEGIN: Final = b"retry: 2000\n\n"


class _Viewer:
    __slots__ = ("done", "down", "missed")

    def __init__(self, down: Downstream) -> None:
        self.down = down
        self.missed = 0
        self.done = asyncio.Event()


class LiveFeed:
    """Makes snapshots and sends them. ``made``: how many; ``dropped``: viewers cut off."""

    def __init__(
        self, make: Callable[[], Awaitable[bytes]], tasks: Tasks, every_s: float = EVERY_S
    ) -> None:
        """``make``: one snapshot, one line of text."""
        self._make = make
        self._tasks = tasks
        self._every_s = every_s
        self._viewers: set[_Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self._event = b""
        self.made = 0
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<LiveFeed {len(self._viewers)} viewers, {self.made} made>"

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    @property
    def is_full(self) -> bool:
        return len(self._viewers) >= MOST_VIEWERS

    async def watch(self, down: Downstream) -> None:
        """Send a viewer, whose answer's head is set, all there is until it goes or we end."""
        viewer = _Viewer(down)
        down.write(_BEGIN)
        if self._event:
            down.write(self._event)
        self._viewers.add(viewer)
        if self._task is None or self._task.done():
            self._task = self._tasks.start(self._run(), "live feed")
        try:
            await viewer.done.wait()
        finally:
            self._viewers.discard(viewer)

    def end(self) -> None:
        """Let every viewer go; a browser comes back to whoever listens then."""
        for viewer in self._viewers:
            viewer.done.set()

    async def _run(self) -> None:
        """As long as somebody watches."""
        try:
            while self._viewers:
                data = await self._make()
                self.made += 1
                self._event = b"id: %d\ndata: %b\n\n" % (self.made, data)
                for viewer in tuple(self._viewers):
                    self._send(viewer)
                await asyncio.sleep(self._every_s)
        finally:
            self._event = b""
            self.end()

    def _send(self, viewer: _Viewer) -> None:
        if not viewer.down.writing_paused:
            viewer.missed = 0
            viewer.down.write(self._event)
            return
        viewer.missed += 1
        if viewer.missed > _MISSED_MAX and not viewer.done.is_set():
            self.dropped += 1
            viewer.down.abort()
            viewer.done.set()
