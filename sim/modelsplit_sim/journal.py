"""What the stand-in saw: the record by which a proxy in front of it is judged."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable


class CallState(StrEnum):
    RECEIVED = "received"
    QUEUED = "queued"
    LOADING = "loading"
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"  # the answer went out whole, an error answer included
    ABORTED = "aborted"  # the client left, or a fault broke the answer off


OPEN_STATES = frozenset(CallState) - {CallState.FINISHED, CallState.ABORTED}


@dataclass(slots=True, eq=False)
class Call:
    """One request as it arrived. Times are loop seconds (asyncio's clock), None for "not yet".

    body holds the first bytes only; body_size and body_sha256 speak for all that was read.
    left_at: when the client was seen to leave (FIN, half-close or RST) before the answer ended.
    """

    id: int
    connection: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    arrived_at: float
    model: str | None = None
    state: CallState = CallState.RECEIVED
    status: int | None = None
    tokens: int = 0
    started_at: float | None = None
    first_byte_at: float | None = None
    ended_at: float | None = None
    left_at: float | None = None
    fault: str | None = None
    body: bytes = b""
    body_size: int = 0
    body_sha256: str = ""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def json(self) -> Any:
        """The body decoded; only for bodies no longer than the log keeps."""
        return orjson.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first value of a header, name without case."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; the body as Latin-1 text so that any byte survives."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {"body": self.body.decode("latin-1"), "path": self.path}


@dataclass(slots=True)
class Counts:
    """Totals since the stand-in was made; they survive stop and start."""

    received: int = 0
    finished: int = 0
    aborted: int = 0
    left: int = 0
    tokens: int = 0
    loads: int = 0
    active: int = 0  # generations holding a slot now
    max_active: int = 0
    connections_open: int = 0
    connections_accepted: int = 0
    leaked: int = 0
    active_by_model: Counter[str] = field(default_factory=Counter)
    max_active_by_model: Counter[str] = field(default_factory=Counter)


class Journal:
    """The calls and counts, and the waiters to tell when something changes."""

    def __init__(self, log_size: int) -> None:
        self.calls: deque[Call] = deque(maxlen=log_size)
        self.counts = Counts()
        self._waiters: dict[asyncio.Future[None], Callable[[], bool]] = {}

    def enter(self, model: str) -> None:
        """A generation took a slot."""
        counts = self.counts
        counts.active += 1
        counts.max_active = max(counts.max_active, counts.active)
        counts.active_by_model[model] += 1
        peak = max(counts.max_active_by_model[model], counts.active_by_model[model])
        counts.max_active_by_model[model] = peak

    def leave(self, model: str) -> None:
        self.counts.active -= 1
        self.counts.active_by_model[model] -= 1

    def end(self, call: Call, state: CallState, now: float) -> None:
        """Close a call's record once; later calls change nothing."""
        if call.state not in OPEN_STATES:
            return
        call.state, call.ended_at = state, now
        self.counts.finished += state is CallState.FINISHED
        self.counts.aborted += state is CallState.ABORTED
        self.counts.left += call.left_at is not None
        self.changed()

    def changed(self) -> None:
        """Something moved: wake those whose condition holds at this very moment."""
        for future, holds in list(self._waiters.items()):
            if not future.done() and holds():
                future.set_result(None)

    async def wait_for(self, holds: Callable[[], bool], timeout_s: float | None) -> None:
        """Return once `holds()` was true at some change; TimeoutError after timeout_s.

        None: wait for as long as it takes.
        """
        if holds():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[future] = holds
        try:
            async with asyncio.timeout(timeout_s):
                await future
        finally:
            del self._waiters[future]
