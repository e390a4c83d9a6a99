"""What requests and the process's end must know of each other."""

from __future__ import annotations

import asyncio


class Lifecycle:
    """What requests and the process's end must know of each other.

    ``draining``: no new calls. ``cutting``: the time for those under way is over too, and who
    is cancelled now has not been left by its client.
    """

    def __init__(self) -> None:
        self.draining = False
        self.cutting = False
        self._active = 0
        self._idle = asyncio.Event()

    @property
    def active(self) -> int:
        """Requests being answered."""
        return self._active

    def begin(self) -> None:
        """One more request is being answered; ``end`` is then owed."""
        self._active += 1

    def end(self) -> None:
        self._active -= 1
        if self._active == 0:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        while self._active:
            self._idle.clear()
            await self._idle.wait()
