"""How fast one client may send calls: aiolimiter's leaky bucket, asked without waiting.

It is a limit on arrivals, not a queue. aiolimiter's own waiting serves small requests
before large ones and lets newcomers in front, so ``acquire`` is only ever called when it is
certain not to wait: with capacity it completes without suspending, which makes
"look, then take" one step for everybody else on the loop.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from aiolimiter import AsyncLimiter

from modelsplit_policy.admission import RETRY_AFTER_MAX_S

# Clients remembered; beyond that the one not heard of for longest starts afresh.
_MAX_CLIENTS: Final = 1024


class ArrivalLimit:
    """``rate_per_s`` calls a second per client, ``burst`` at once; None: no limit."""

    def __init__(self, rate_per_s: float | None, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clients: OrderedDict[str, AsyncLimiter] = OrderedDict()

    @property
    def text(self) -> str:
        return f"{self._rate_per_s:g}/s, {self._burst} at once"

    async def take(self, client: str) -> int | None:
        """None if this call may pass; else whole seconds until the next one may."""
        if self._rate_per_s is None:
            return None
        limiter = self._limiter(client)
        if not limiter.has_capacity(1):
            return max(1, min(RETRY_AFTER_MAX_S, math.ceil(1 / self._rate_per_s)))
        await limiter.acquire(1)
        return None

    def _limiter(self, client: str) -> AsyncLimiter:
        assert self._rate_per_s is not None
        limiter = self._clients.get(client)
        if limiter is None:
            limiter = AsyncLimiter(self._burst, self._burst / self._rate_per_s)
            self._clients[client] = limiter
            if len(self._clients) > _MAX_CLIENTS:
                self._clients.popitem(last=False)
        self._clients.move_to_end(client)
        return limiter
