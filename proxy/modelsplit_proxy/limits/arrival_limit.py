"""How fast one client may send calls: aiolimiter's leaky bucket, asked without waiting.

It is a limit on arrivals, not a queue. aiolimiter's own waiting serves small requests
before large ones and lets newcomers in front, so ``acquire`` is only ever called when it is
certain not to wait: with capacity it completes without suspending, which makes
"look, then take" one step for everybody else on the loop.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from aiolimiter import AsyncLimiter

from modelsplit_policy.overload import retry_after
from modelsplit_policy.quantity import in_digits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.config.model import ClientsPolicy

# Clients remembered; beyond that the one not heard of for longest starts afresh.
_MAX_CLIENTS: Final = 1024


class ArrivalLimit:
    """``rate_per_s`` calls a second per client, ``burst`` at once; None: no limit.

    ``own``: clients, by name, whose limits are not those of everybody.
    """

    def __init__(
        self, common: ClientsPolicy, own: Mapping[str, ClientsPolicy] | None = None
    ) -> None:
        self._common = common
        self._own = own or {}
        self._clients: OrderedDict[str, AsyncLimiter] = OrderedDict()

    def text(self, client: str) -> str:
        """The limit of this client, in words."""
        limits = self._own.get(client, self._common)
        return f"{in_digits(limits.rate_per_s or 0.0)}/s, {limits.burst} at once"

    async def take(self, client: str) -> int | None:
        """None if this call may pass; else whole seconds until the next one may."""
        limits = self._own.get(client, self._common)
        if limits.rate_per_s is None:
            return None
        limiter = self._limiter(client, limits.burst, limits.rate_per_s)
        if not limiter.has_capacity(1):
            return retry_after(1 / limits.rate_per_s)
        await limiter.acquire(1)
        return None

    def _limiter(self, client: str, burst: int, rate_per_s: float) -> AsyncLimiter:
        limiter = self._clients.get(client)
        if limiter is None:
            limiter = AsyncLimiter(burst, burst / rate_per_s)
            self._clients[client] = limiter
            if len(self._clients) > _MAX_CLIENTS:
                self._clients.popitem(last=False)
        self._clients.move_to_end(client)
        return limiter
