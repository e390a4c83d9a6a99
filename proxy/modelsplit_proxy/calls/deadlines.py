"""Waiting for an answer to begin, for as long as the attempt's bounds say.

``modelsplit_policy.deadlines`` decides; this module waits, reads the loop's clock and asks
what is known of loaded models.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modelsplit_policy.deadlines import LAST_LOOK_S

if TYPE_CHECKING:
    from modelsplit_policy.deadlines import Deadline, Look
    from modelsplit_policy.failures import Reason
    from modelsplit_proxy.http.upstream import Exchange, UpstreamHead
    from modelsplit_proxy.watch.loaded_models import Residency


class LateError(Exception):
    """A bound has fired; ``reason`` says which."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


async def first_byte(
    exchange: Exchange, deadline: Deadline, residency: Residency, model: str
) -> UpstreamHead:
    """Wait for the answer to begin; LateError or UpstreamError if it does not."""
    look = deadline.look(deadline.sent, residency.loaded(model))
    if not look.hurried:
        head = await exchange.ready_by(look.until)
        if head is not None:
            return head
        look = _next_look(deadline, residency, model, look)
    while look.ended_by is None:
        head, look = await _wait(exchange, deadline, residency, model, look)
        if head is not None:
            return head
    raise LateError(look.ended_by)


async def _wait(
    exchange: Exchange, deadline: Deadline, residency: Residency, model: str, look: Look
) -> tuple[UpstreamHead | None, Look]:
    """Do once what ``look`` says: the head if the answer has begun, and the next look."""
    if look.hurried:
        return await _while_loading(exchange, deadline, residency, model, look)
    if look.asks:
        await residency.ask(LAST_LOOK_S)
        return None, _next_look(deadline, residency, model, look)
    head = await exchange.ready_by(look.until)
    return head, look if head is not None else _next_look(deadline, residency, model, look)


async def _while_loading(
    exchange: Exchange, deadline: Deadline, residency: Residency, model: str, look: Look
) -> tuple[UpstreamHead | None, Look]:
    """Wait while the model is being loaded: until the answer begins, or there is another look."""
    with residency.hurried():
        while look.hurried:
            head = await exchange.ready_by(look.until)
            if head is not None:
                # It answers, so it is loaded, even if /api/ps was not asked since.
                deadline.begun(asyncio.get_running_loop().time())
                return head, look
            look = _next_look(deadline, residency, model, look)
    return None, look


def _next_look(deadline: Deadline, residency: Residency, model: str, look: Look) -> Look:
    """What to do now that the wait of ``look`` is over."""
    now = asyncio.get_running_loop().time()
    # The loop's clock is coarse: its timer may fire a moment before it shows that moment.
    now = now if look.until is None else max(now, look.until)
    return deadline.look(now, residency.loaded(model), asked=look.asks)
