"""How long an attempt may take, and which bound it was that ended it.

A role's clock does not run while its model is being loaded: a client that leaves during a
load makes Ollama throw the load away, so ending the wait there would pay for the load and
get nothing. Loading has a bound of its own. It begins when the model is not loaded and
ends when ``/api/ps`` shows the model or the first byte comes, whichever is seen first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.failures import Reason
from modelsplit_proxy.relay import Bounds

if TYPE_CHECKING:
    from modelsplit_proxy.residency import Residency
    from modelsplit_proxy.upstream import Exchange, UpstreamHead

# How soon after it is known that a model is loaded the role's clock starts.
LOOK_EVERY_S: Final = 0.1
# How long a call that is out of time may be kept to ask whether it is being loaded for.
LAST_LOOK_S: Final = 0.5


class Limits(NamedTuple):
    """The bounds of one attempt. Seconds; ``total_at`` is loop time; None: no bound."""

    role_s: float | None
    load_s: float
    stall_s: float
    total_at: float | None = None
    total_s: float = 0.0

    def seconds(self, reason: Reason) -> float:
        """The number of the bound that fired."""
        return {
            Reason.ROLE_TIMEOUT: self.role_s or 0.0,
            Reason.LOAD_TIMEOUT: self.load_s,
            Reason.STALL: self.stall_s,
            Reason.TOTAL_TIMEOUT: self.total_s,
        }[reason]


class LateError(Exception):
    """A bound has fired; ``reason`` says which."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Deadline:
    """The clock of one attempt. Loop time throughout."""

    __slots__ = ("_from", "_limits", "_loop", "_model", "_residency", "_sent")

    def __init__(self, limits: Limits, residency: Residency, model: str) -> None:
        self._limits = limits
        self._residency = residency
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._sent = self._loop.time()
        # The role's clock counts from here; it moves on when a load ends.
        self._from = self._sent

    def at(self) -> tuple[float | None, Reason]:
        """When the role's clock, or the whole call's, runs out, and which of the two."""
        limits = self._limits
        role_at = None if limits.role_s is None else self._from + limits.role_s
        if limits.total_at is None:
            return role_at, Reason.ROLE_TIMEOUT
        return _sooner(role_at, Reason.ROLE_TIMEOUT, limits.total_at)

    def bounds(self) -> Bounds:
        """What ends the answer once it has begun."""
        return Bounds(*self.at(), self._limits.stall_s)

    async def first_byte(self, exchange: Exchange) -> UpstreamHead:
        """Wait for the answer to begin; LateError or UpstreamError if it does not."""
        loading = self._residency.loaded(self._model) is False
        while True:
            if loading:
                head = await self._while_loading(exchange)
                if head is not None:
                    return head
                loading = False
            bound, reason = self.at()
            head = await exchange.ready_by(bound)
            if head is not None:
                return head
            loading = reason is Reason.ROLE_TIMEOUT and await self._is_loading()
            if not loading:
                raise LateError(reason)

    async def _while_loading(self, exchange: Exchange) -> UpstreamHead | None:
        """Wait while the model is being loaded.

        The head, if the answer begins meanwhile; None once the model is loaded: only now
        does the role's clock start.
        """
        load_at = self._sent + self._limits.load_s
        bound, reason = _sooner(load_at, Reason.LOAD_TIMEOUT, self._limits.total_at)
        assert bound is not None
        with self._residency.hurried():
            while self._residency.loaded(self._model) is not True:
                if self._loop.time() >= bound:
                    raise LateError(reason)
                head = await exchange.ready_by(min(bound, self._loop.time() + LOOK_EVERY_S))
                if head is not None:
                    # It answers, so it is loaded, even if /api/ps was not asked since.
                    self._from = self._loop.time()
                    return head
        self._from = self._loop.time()
        return None

    async def _is_loading(self) -> bool:
        """What was known at dispatch may be old: ask before giving a load away."""
        if self._loop.time() >= self._sent + self._limits.load_s:
            return False
        await self._residency.ask(LAST_LOOK_S)
        return self._residency.loaded(self._model) is False


def _sooner(
    bound: float | None, reason: Reason, total_at: float | None
) -> tuple[float | None, Reason]:
    if total_at is not None and (bound is None or total_at < bound):
        return total_at, Reason.TOTAL_TIMEOUT
    return bound, reason
