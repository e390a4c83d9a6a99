"""Who runs next. The one place where concurrency is held.

The rule, in prose. Every call asks for a seat in its role's pool. A seat is free when the
role runs fewer calls than its own cap and, for local roles, all local roles together run
fewer than the global cap. A call that finds a free seat and nobody of its role in front
takes it at once. Otherwise it waits in its role's line, first come first served, unless
the line already holds as many as it may. When a seat comes back, the call that has waited
longest among those whose role has a free seat gets it.

Nothing here waits, reads a clock or knows about sockets. Every method changes the state,
then returns who was granted a seat by that change; the caller wakes them. A granted ticket
must be given back exactly once, also when nobody was there to receive it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from modelsplit_policy.facts import Role
from modelsplit_policy.failures import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.config import Policy

# The longest a client is ever told to stay away: SDKs sleep whatever they are sent.
RETRY_AFTER_MAX_S = 30
# How fast the mean service time follows what is seen; about the last eight calls count.
SMOOTHING = 0.2


class Place(StrEnum):
    """Where a ticket stands."""

    NEW = "new"
    WAITING = "waiting"
    SEATED = "seated"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """One role's limits. ``seats`` None: only the global cap (or, for cloud, none) holds."""

    seats: int | None
    max_queue: int
    counts_globally: bool


@dataclass(slots=True, eq=False)
class Ticket:
    """One call's claim to a seat. Times are seconds of the caller's monotonic clock."""

    role: Role
    model: str
    arrived: float
    place: Place = Place.NEW
    seated: float = 0.0
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a ticket got no seat, with the numbers a person needs to believe it."""

    reason: Reason
    role: Role
    running: int
    seats: int
    waiting: int
    max_queue: int
    retry_after_s: int


class _Pool:
    """One role's seats and its line."""

    __slots__ = ("limits", "line", "running", "service_s")

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.running = 0
        self.line: deque[Ticket] = deque()
        self.service_s = 1.0

    def has_seat(self) -> bool:
        return self.limits.seats is None or self.running < self.limits.seats


class Admission:
    """The seats and the lines of all roles."""

    def __init__(self, global_seats: int, pools: Mapping[Role, PoolLimits]) -> None:
        self._global_seats = global_seats
        self._pools = {role: _Pool(limits) for role, limits in pools.items()}
        self._running_local = 0

    def __repr__(self) -> str:
        rows = ", ".join(
            f"{role} {pool.running}/{pool.limits.seats or '-'}+{len(pool.line)}"
            for role, pool in self._pools.items()
        )
        return f"<Admission {self._running_local}/{self._global_seats} local: {rows}>"

    def running(self, role: Role) -> int:
        return self._pools[role].running

    def waiting(self, role: Role) -> int:
        return len(self._pools[role].line)

    @property
    def running_local(self) -> int:
        return self._running_local

    @property
    def global_seats(self) -> int:
        return self._global_seats

    def limits(self, role: Role) -> PoolLimits:
        return self._pools[role].limits

    def ask(self, ticket: Ticket, now: float) -> Refusal | None:
        """Seat the ticket, or put it in line (``ticket.place`` says which), or refuse it."""
        pool = self._pools[ticket.role]
        if not pool.line and self._free(pool):
            self._seat(ticket, pool, now)
            return None
        if len(pool.line) >= pool.limits.max_queue:
            ticket.place = Place.GONE
            return self.refusal(Reason.QUEUE_FULL, ticket.role)
        ticket.place = Place.WAITING
        ticket.ahead = len(pool.line)
        pool.line.append(ticket)
        return None

    def leave(self, ticket: Ticket, now: float) -> list[Ticket]:
        """End the ticket, wherever it stands; return the tickets this seated."""
        pool = self._pools[ticket.role]
        if ticket.place is Place.WAITING:
            pool.line.remove(ticket)
        elif ticket.place is Place.SEATED:
            pool.running -= 1
            self._running_local -= pool.limits.counts_globally
            held = now - ticket.seated
            pool.service_s += SMOOTHING * (held - pool.service_s)
        ticket.place = Place.GONE
        return self._fill(now)

    def refusal(self, reason: Reason, role: Role) -> Refusal:
        """What to tell a call of ``role`` that is turned away for ``reason`` now."""
        pool = self._pools[role]
        return Refusal(
            reason=reason,
            role=role,
            running=pool.running,
            seats=pool.limits.seats or self._global_seats,
            waiting=len(pool.line),
            max_queue=pool.limits.max_queue,
            retry_after_s=self._retry_after(pool),
        )

    def _free(self, pool: _Pool) -> bool:
        if pool.limits.counts_globally and self._running_local >= self._global_seats:
            return False
        return pool.has_seat()

    def _seat(self, ticket: Ticket, pool: _Pool, now: float) -> None:
        ticket.place = Place.SEATED
        ticket.seated = now
        pool.running += 1
        self._running_local += pool.limits.counts_globally

    def _fill(self, now: float) -> list[Ticket]:
        """Seat waiters until no free seat has one; the longest wait goes first."""
        seated: list[Ticket] = []
        while True:
            ready = [p for p in self._pools.values() if p.line and self._free(p)]
            if not ready:
                return seated
            pool = min(ready, key=lambda p: p.line[0].arrived)
            ticket = pool.line.popleft()
            self._seat(ticket, pool, now)
            seated.append(ticket)

    def _retry_after(self, pool: _Pool) -> int:
        """Whole seconds until the line as it stands has drained, bounded 1 to 30."""
        seats = pool.limits.seats or self._global_seats
        drained_s = pool.service_s * (len(pool.line) + 1) / seats
        return max(1, min(RETRY_AFTER_MAX_S, math.ceil(drained_s)))


def from_policy(policy: Policy) -> Admission:
    """The lines and seats that the policy describes, all empty."""
    pools = {
        role: PoolLimits(
            seats=row.max_concurrent,
            max_queue=row.max_queue,
            counts_globally=role is not Role.CLOUD,
        )
        for role, row in policy.roles.items()
    }
    return Admission(policy.global_.max_concurrent, pools)
