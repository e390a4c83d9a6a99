"""What one request's handling is given: everything that outlives the request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelsplit_policy.config import Policy
    from modelsplit_policy.roles import Roles
    from modelsplit_proxy.clientseats import ClientSeats
    from modelsplit_proxy.clock import Clock
    from modelsplit_proxy.fuses import Fuses
    from modelsplit_proxy.gate import Gate
    from modelsplit_proxy.guard import Guard
    from modelsplit_proxy.intercept import Intercept
    from modelsplit_proxy.keys import Keyring
    from modelsplit_proxy.lanes import Lanes
    from modelsplit_proxy.lastgood import LastGood
    from modelsplit_proxy.live import LiveCalls
    from modelsplit_proxy.metrics import Metrics
    from modelsplit_proxy.purse import Purse
    from modelsplit_proxy.rate import ArrivalLimit
    from modelsplit_proxy.requestlog import RequestLog
    from modelsplit_proxy.residency import Residency
    from modelsplit_proxy.tasks import Tasks
    from modelsplit_proxy.upstream import Pool


@dataclass(frozen=True, slots=True)
class UpstreamTarget:
    """Where Ollama is: ``host`` and ``port`` to connect to, ``authority`` for ``Host``.

    ``host_line``: that header line, as every request carries it.
    """

    host: str
    port: int
    authority: str
    host_line: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        line = b"Host: %b\r\n" % self.authority.encode("ascii")
        object.__setattr__(self, "host_line", line)


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


@dataclass(frozen=True, slots=True)
class Services:
    """The parts a request meets, wired once by ``app``. ``keyring`` None: nobody needs a key."""

    policy: Policy
    roles: Roles
    gate: Gate
    pool: Pool
    residency: Residency
    guard: Guard
    intercept: Intercept
    lanes: Lanes
    last_good: LastGood
    rate: ArrivalLimit
    client_seats: ClientSeats
    fuses: Fuses
    purse: Purse
    metrics: Metrics
    log: RequestLog
    live: LiveCalls
    clock: Clock
    tasks: Tasks
    target: UpstreamTarget
    lifecycle: Lifecycle
    stall_s: float
    max_body_bytes: int
    keyring: Keyring | None = None
