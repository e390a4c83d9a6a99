"""Which of several hosts a call goes to.

The rule, in prose.

*Which may.* A host takes the roles and models that the policy gives it (``host_rules``). Of these,
one that is known not to have the model installed is left out where another may have it. One that
is drained takes nobody new.

*Which are asked now.* A host that is barred (nobody listens there, it answers nothing, or its
breaker is open) is passed over while another one is not; where all are, they are asked all the
same, and what they fail of is told. So is the host at which the same call failed before.

*Which is best.* Of those with a useful seat free: one where the model need not push a busy one out
of memory; then the lowest tier; then one that has the model loaded; then the one with the fewest
calls for its weight; then the one that was asked what begins as this does (``prompt_affinity``).
Where it would push one out everywhere, the call waits rather for a host that has the model loaded
and is expected to be free sooner than the other could begin.

*Reservations* hold on each host too: a role that has reserved seats finds them on hosts that take
its calls, and nobody else takes the last of those.

Nothing here changes anything; ``admission`` asks, and seats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from modelsplit_policy import overload
from modelsplit_policy.bounded_memo import BoundedMemo
from modelsplit_policy.prompt_affinity import PromptAffinity
from modelsplit_policy.tickets import Hold, Placed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from modelsplit_policy.failures import Failure
    from modelsplit_policy.hosts import HostSeats
    from modelsplit_policy.pools import Pool
    from modelsplit_policy.tickets import Ticket
    from modelsplit_policy.vocabulary import Host, Role


# In the order of ``_order``: what its parts say.
_DECIDES: Final = (Placed.ROOM, Placed.TIER, Placed.LOADED, Placed.FEWEST, Placed.PROMPT)


def _none_is_barred(host: Host, model: str, now: float) -> float:
    del host, model, now
    return 0.0


class Placement:
    """Several hosts, in the order of the policy.

    ``bar``: for how many seconds from a moment a host is better not asked for a model; 0 or less:
    it is. inf: nobody knows. ``asked_at``: where our commands ask, if not by themselves.
    """

    __slots__ = ("_affinity", "_may", "asked_at", "bar", "hosts")

    def __init__(self, hosts: Sequence[HostSeats]) -> None:
        self.hosts = tuple(hosts)
        self._affinity = PromptAffinity()
        self.asked_at = ""
        self.bar: Callable[[Host, str, float], float] = _none_is_barred
        self._may: BoundedMemo[tuple[Role, str], tuple[HostSeats, ...]] = BoundedMemo()

    def __repr__(self) -> str:
        return f"<Placement on {', '.join(host.host for host in self.hosts)}>"

    def may_run(self, role: Role, model: str) -> tuple[HostSeats, ...]:
        """The hosts for calls of ``role`` to ``model``, drained ones too; empty: none is."""
        known = self._may.get((role, model))
        if known is not None:
            return known
        takes = tuple(host for host in self.hosts if host.rules.takes(role, model))
        have = tuple(host for host in takes if host.has(model) is not False)
        return self._may.keep(model, (role, model), have or takes)

    def changed(self) -> None:
        """What a host has installed is known anew."""
        self._may.clear()

    def open_to(self, ticket: Ticket, now: float) -> tuple[HostSeats, ...]:
        """The hosts that are asked for a seat for the call now."""
        hosts, bar, model = self.hosts_of(ticket), self.bar, ticket.model
        hosts = tuple(host for host in hosts if bar(host.host, model, now) <= 0) or hosts
        if ticket.avoid is None:
            return hosts
        others = (host for host in hosts if host.host != ticket.avoid and not host.away)
        return tuple(others) or hosts

    def opens_in_s(self, ticket: Ticket, now: float) -> float:
        """How long until another host may be asked for the call; inf: nobody knows."""
        hosts = self.hosts_of(ticket)
        bars = (self.bar(host.host, ticket.model, now) for host in hosts)
        return min((left_s for left_s in bars if left_s > 0), default=math.inf)

    def has_other(self, ticket: Ticket, now: float) -> bool:
        """Whether a host that may be asked now is another than the one that the call was at."""
        return any(
            not host.away and self.bar(host.host, ticket.model, now) <= 0
            for host in self.hosts_of(ticket)
            if host.host != ticket.host
        )

    def near(self, ticket: Ticket) -> Host | None:
        """The host that may have the beginning of its prompt in its cache; None: nobody knows."""
        return self._affinity.host(ticket.model, ticket.marks) if ticket.marks else None

    def seated(self, ticket: Ticket, host: HostSeats, now: float) -> None:
        """The call goes to the host, and has not yet taken its seat there."""
        ticket.placed = self._why(ticket, host, now)
        if ticket.marks:
            self._affinity.asked(ticket.model, ticket.marks, host.host)

    def _why(self, ticket: Ticket, host: HostSeats, now: float) -> Placed:
        """What decided for the host: the first thing that tells it from the next best."""
        model, near = ticket.model, self.near(ticket)
        others = [
            _order(other, model, near)
            for other in self.open_to(ticket, now)
            if other is not host and other.hold(model) is None and other.parallelism.fits(model)
        ]
        if not others:
            return Placed.ONLY
        own, next_best = _order(host, model, near), min(others)
        for reason, here, there in zip(_DECIDES, own, next_best, strict=True):
            if here != there:
                # One that suits better was kept for others.
                return reason if here < there else Placed.ONLY
        return Placed.FIRST

    def hosts_of(self, ticket: Ticket) -> tuple[HostSeats, ...]:
        """The hosts that may run the call and take new ones."""
        may_run = self.may_run(ticket.role, ticket.model)
        return tuple(host for host in may_run if not host.drained)

    def refusal(self, ticket: Ticket) -> Failure | None:
        """Why no host takes the call, and none would if it waited."""
        if self.hosts_of(ticket):
            return None
        if self.may_run(ticket.role, ticket.model):
            return overload.drained(ticket.model, self.asked_at)
        return overload.no_host(ticket.role, ticket.model)

    def hold(self, ticket: Ticket) -> Hold | None:
        """The hard limit that keeps the call from a seat on all of its hosts; or None.

        A limit that passes with a call is told rather than a host that is away.
        """
        hosts = self.hosts_of(ticket)
        if not hosts:
            return Hold.DRAINED
        holds = {host.hold(ticket.model) for host in hosts}
        if None in holds:
            return None
        return next((hold for hold in Hold if hold in holds and hold is not Hold.AWAY), Hold.AWAY)

    def waits_rather(
        self, best: HostSeats, hosts: Iterable[HostSeats], model: str, now: float
    ) -> bool:
        """True if a call rather waits for a host that has its model loaded than takes ``best``."""
        if best.loaded.get(model) is True or not evicts(best, model):
            return False
        until_s = best.parallelism.left_s(now)
        if until_s is None:
            return False
        left = (
            host.parallelism.left_s(now)
            for host in hosts
            if host.loaded.get(model) is True and not host.away
        )
        return any(left_s is not None and left_s <= until_s for left_s in left)

    def is_reserved(self, pools: Mapping[Role, Pool], role: Role, host: HostSeats) -> bool:
        """True if the host's free seat is one of the last for another role that has reserved it."""
        for other, pool in pools.items():
            if other is role or not pool.kept or not host.rules.takes_role(other):
                continue
            free = sum(
                host.seats - host.running
                for host in self.hosts
                if not host.away and not host.drained and host.rules.takes_role(other)
            )
            if free <= pool.kept:
                return True
        return False

    def has_useful_beside(self, host: HostSeats, protected: Iterable[Role]) -> bool:
        """True if a call of each protected role would find a useful seat on another host."""
        return all(
            any(
                other.rules.takes_role(role) and not other.is_shut and not other.parallelism.is_full
                for other in self.hosts
                if other is not host
            )
            for role in protected
        )


def evicts(host: HostSeats, model: str) -> bool:
    """Whether to load ``model`` there may push out one that runs.

    Where the memory or a size is not known: if another model runs there.
    """
    busy = [name for name in host.by_model if name != model]
    if not busy:
        return False
    size = host.sizes.get(model)
    taken = [host.sizes.get(name) for name in busy]
    if host.rules.memory is None or size is None or None in taken:
        return True
    return size + sum(known for known in taken if known is not None) > host.rules.memory


def suits_better(host: HostSeats, other: HostSeats, model: str, near: Host | None = None) -> bool:
    """Whether one more call of ``model`` had better go to ``host``. ``near``: as ``near`` says."""
    return _order(host, model, near) < _order(other, model, near)


def _order(host: HostSeats, model: str, near: Host | None) -> tuple[bool, int, bool, float, bool]:
    is_loaded = host.loaded.get(model) is True
    pushes = not is_loaded and evicts(host, model)
    share = (host.running + 1) / host.rules.weight
    return (pushes, host.rules.tier, not is_loaded, share, host.host != near)
