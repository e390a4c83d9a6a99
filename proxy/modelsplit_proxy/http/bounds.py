"""What ends an answer early: silence, or a deadline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from modelsplit_policy.deadlines import Bounds
    from modelsplit_policy.failures import Reason
    from modelsplit_proxy.http.upstream import UpstreamError


class Watch:
    """Ends a wait by silence or by deadline, whichever comes first.

    ``last``: loop time of the last piece, which whoever receives pieces keeps up to date.
    ``ping``: called with ``last`` in a silence when the bounds say so; it may end the wait, by
    the reason that it returns.
    """

    __slots__ = ("_bounds", "_done", "_loop", "_ping", "_pinged", "_timer", "held", "last")

    def __init__(
        self,
        bounds: Bounds,
        done: asyncio.Future[UpstreamError | Reason | None],
        ping: Callable[[float], Reason | None] | None = None,
    ) -> None:
        self._bounds = bounds
        self._ping = ping
        self._pinged = -math.inf
        self._done = done
        self._loop = done.get_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.held = False
        self.last = self._loop.time()
        self._arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        moment = self._bounds.next_look(self.last, self._pinged)
        if moment is not None:
            self._timer = self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self.held:
            # We stopped reading because the client is slow: not the upstream's silence.
            self.last = now
        reason = self._bounds.ended_by(now, self.last)
        if reason is None and self._bounds.pings(now, self.last, self._pinged):
            self._pinged = now
            reason = None if self._ping is None else self._ping(self.last)
        if reason is None:
            self._arm()
        else:
            self._end(reason)

    def _end(self, reason: Reason) -> None:
        if not self._done.done():
            self._done.set_result(reason)
