"""Waiting for an answer to begin, for as long as the attempt's bounds say.

``modelsplit_policy.deadlines`` decides; this module waits, reads the loop's clock and asks
what is known of loaded models, and whether the upstream answers at all.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from modelsplit_policy.deadlines import FAR_S, LAST_LOOK_S
from modelsplit_policy.hints import Absence

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from modelsplit_policy.deadlines import Deadline, Look
    from modelsplit_policy.failures import Reason
    from modelsplit_proxy.http.upstream import Exchange, UpstreamHead

# A timer of the loop may fire so much before its moment.
_COARSE_S: Final = 0.01


class Signs(Protocol):
    """Whether an upstream is there: ``up`` None, nobody knows; ``mute_since`` None, it speaks.

    ``absence``: how it is not there, where ``up`` is False.
    """

    @property
    def mute_since(self) -> float | None: ...
    @property
    def up(self) -> bool | None: ...
    @property
    def absence(self) -> Absence: ...


class LoadedModels(Protocol):
    """What is loaded, and how to learn more of it."""

    def loaded(self, model: str) -> bool | None: ...
    async def ask(self, wait_s: float) -> None: ...
    def hurried(self) -> AbstractContextManager[None]: ...


class Known(NamedTuple):
    """What is known of the upstream."""

    loaded_models: LoadedModels
    probe: Signs


class _NoLoads:
    """Models elsewhere are never loaded here."""

    def loaded(self, model: str) -> bool | None:
        del model
        return True

    async def ask(self, wait_s: float) -> None:
        del wait_s

    def hurried(self) -> AbstractContextManager[None]:
        return nullcontext()


class _Elsewhere:
    """Who is asked elsewhere tells nothing of itself but by its answers."""

    mute_since: float | None = None
    up: bool | None = None
    absence: Absence = Absence.GONE


# What is known of a cloud that is asked over its own API.
ELSEWHERE: Final = Known(_NoLoads(), _Elsewhere())


class LateError(Exception):
    """A bound has fired; ``reason`` says which."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


async def first_byte(
    exchange: Exchange, deadline: Deadline, known: Known, model: str
) -> UpstreamHead:
    """Wait for the answer to begin; LateError or UpstreamError if it does not."""
    sent = deadline.sent
    loaded = known.loaded_models.loaded(model)
    look = deadline.look(sent, loaded, mute_since=known.probe.mute_since)
    if not look.hurried:
        until = look.until
        if until is not None and until - sent > FAR_S:
            until = None
        head = await exchange.ready_by(until)
        if head is not None:
            return head
        look = _next_look(deadline, known, model, look)
    while look.ended_by is None:
        head, look = await _wait(exchange, deadline, known, model, look)
        if head is not None:
            return head
    raise LateError(look.ended_by)


async def _wait(
    exchange: Exchange, deadline: Deadline, known: Known, model: str, look: Look
) -> tuple[UpstreamHead | None, Look]:
    """Do once what ``look`` says: the head if the answer has begun, and the next look."""
    if look.hurried:
        return await _while_loading(exchange, deadline, known, model, look)
    if look.asks:
        await known.loaded_models.ask(LAST_LOOK_S)
        # It may have begun meanwhile.
        head = await exchange.ready_by(asyncio.get_running_loop().time())
    else:
        head = await exchange.ready_by(look.until)
    return head, look if head is not None else _next_look(deadline, known, model, look)


async def _while_loading(
    exchange: Exchange, deadline: Deadline, known: Known, model: str, look: Look
) -> tuple[UpstreamHead | None, Look]:
    """Wait while the model is being loaded: until the answer begins, or there is another look."""
    with known.loaded_models.hurried():
        while look.hurried:
            head = await exchange.ready_by(look.until)
            if head is not None:
                # It answers, so it is loaded, even if /api/ps was not asked since.
                deadline.begun(asyncio.get_running_loop().time())
                return head, look
            look = _next_look(deadline, known, model, look)
    return None, look


def _next_look(deadline: Deadline, known: Known, model: str, look: Look) -> Look:
    """What to do now that the wait of ``look`` is over."""
    now = asyncio.get_running_loop().time()
    if look.until is not None and look.until - now < _COARSE_S:
        now = max(now, look.until)
    return deadline.look(
        now,
        known.loaded_models.loaded(model),
        asked=look.asks,
        mute_since=known.probe.mute_since,
    )
