"""Who runs next. The one place where concurrency is held.

The rule, in prose.

*Seats.* A call needs a seat: its role runs fewer calls than its cap; all local roles
together run fewer than all hosts have seats, of which those that other roles have reserved
and not taken are left alone (unless that role lends them); and some host (``hosts``) has a
seat free and runs fewer calls of its model than the model's cap. These limits are hard:
nothing ever exceeds them.

*Hosts.* Of several hosts that may run a call, ``placement`` says which is asked first. Roles' caps
and lines are the fleet's.

*Usefulness.* Within them, a call starts only while one more call at once is worth running
(``parallelism``, learned). A call held back by nothing else that has been held for as long as
its role allows, at the latest shortly before its wait would end, is overdue. It is started
beside the others where that is known to take nothing from them in all; where nobody knows
yet, if waiting is no better; and a role may say that a late answer is better than none
(``starts_late``). Never more than one overdue call runs beside the others on a host, but where
one more is known to take nothing, or where those that run do and a call of a protected role joins
them: each makes those that run slower, which makes more calls overdue. One whose company has ended
is in nobody's way whom it would not harm. A call of a protected role is overdue at once where it
would end sooner beside what runs than behind it, and takes nothing. Whoever is not started is
refused when its wait is over.

*Probes.* What more the host could do is found out by running one call more than is known to
be useful: only while no call of a protected role waits or is likely to come before it would
end, while nobody's wait is about to end, and when the last probe's effect is known; and only
with a call of which it is known how long such calls take. Until two at once are known to pay,
or are expected to cost nothing (``trusts_company``), only beside the last half of a call whose
length is known. A call of a protected role is never a probe before that, for it seldom comes
alone; afterwards it may be one whenever it would have to wait otherwise.

*Reservations* hold for usefulness too: the last useful seat of a host is not given to others
while a call of a protected role is so likely to come that holding it free pays (``rhythm``).

*Forecasts.* Once sixteen calls of a role and model have ended, a call whose expected wait is
longer by half than it may wait is refused at once, with what was expected. Where it may start
beside what runs, overdue, it is expected to wait for that only.

*Order.* Whoever finds a seat and nobody with a better right takes it at once. The others
wait in their role's line (``queue``: first come first served, fair between clients). When
a seat comes free, a role that has fewer calls running than it reserved goes first. Among
the rest, each role stands for its longest waiter: the role whose arrival time plus
``ageing`` is earliest goes next. ``ageing`` is how much longer than the most urgent role a
role is ready to wait: an executor with an ageing of four seconds lets planners pass that
come within four seconds after it, and none that comes later. So nobody starves: a call can
be overtaken only by calls that arrive within its ageing.

*Models.* Of two calls of one role, one whose model is loaded goes before one whose is not,
but a call is passed over for that reason for ``PATIENCE_S`` at most.

Nothing here waits, reads a clock or knows about sockets. A method changes the state;
``fill`` then returns who was seated by the change, and the caller wakes them. A seated
ticket must be given back exactly once, also when nobody was there to receive the seat.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy import host_rules, overload
from modelsplit_policy.failures import Reason
from modelsplit_policy.hosts import HostSeats
from modelsplit_policy.model_names import canonical
from modelsplit_policy.parallelism import Parallelism
from modelsplit_policy.placement import Placement, suits_better
from modelsplit_policy.pools import Pool, PoolLimits
from modelsplit_policy.queue_view import Runner, Waiter
from modelsplit_policy.tickets import Crowd, Hold, Place, Seats, Ticket
from modelsplit_policy.vocabulary import DEFAULT_HOST, Host, Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelsplit_policy.config.model import HostPolicy, Policy, RolePolicy
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.parallelism import Report

# How long a call may be passed over because its model is not loaded. About a cold load.
PATIENCE_S: Final = 2.0
# How many times as long as allowed an expected wait must be for a refusal: it is a mean, and half
# of all waits are shorter.
_FORECAST_MARGIN: Final = 1.5
# How soon at the earliest it is looked again whether a moment for a probe has come.
_LOOK_S: Final = 0.05
# More protected calls than these in line are a burst.
_PAIR: Final = 2
# What runs is long for a call that takes less than this part of what is left of it; and, where that
# lasts beyond the end of the call's wait, less than this.
_LONG: Final = 1 / 6
_LONG_BEYOND: Final = 1 / 3
# A protected call is likely to come if it does so in one case of two.
_LIKELY: Final = 0.5
# Refusals of which a limit is the cause.
# Where a call waits for others that run: while Ollama hangs or is away, it waits for Ollama.
_FOR_OTHERS: Final = frozenset(
    {Hold.ROLE_CAP, Hold.GLOBAL_CAP, Hold.MODEL_CAP, Hold.PARALLELISM, Hold.TURN}
)
_HELD: Final = frozenset({Reason.QUEUE_FULL, Reason.QUEUE_TIMEOUT})
# One in so many calls that would be refused by forecast waits after all: the check on it.
_FORECAST_CHECK: Final = 16


@dataclass(frozen=True, slots=True)
class Shedding:
    """Roles turned away by the Health Guard: ``enter`` entirely, ``wait`` from the line.

    ``health``: its verdict in words, for those who ask later; empty while all is well.
    ``cause``: what they are turned away for.
    """

    enter: frozenset[Role] = frozenset()
    wait: frozenset[Role] = frozenset()
    health: str = field(default="", compare=False)
    cause: str = field(default="", compare=False)


@dataclass(slots=True)
class Forecast:
    """How often a foreseen wait was wrong.

    Of ``checked`` calls that waited in spite of it, ``wrong`` were seated in time.
    """

    refused: int = 0
    checked: int = 0
    wrong: int = 0


class _Candidate(NamedTuple):
    """Who of a role goes next, with its tag in line; ``host`` None: on none of ours."""

    tag: float
    ticket: Ticket
    host: HostSeats | None


class Admission:
    """The lines of all roles, and the seats of all hosts."""

    def __init__(
        self,
        pools: Mapping[Role, PoolLimits],
        hosts: Sequence[HostSeats],
        *,
        forecasts: bool,
        global_seats: int | None = None,
    ) -> None:
        """``global_seats``: the cap over all hosts; None: what they have together."""
        self._pools = {role: Pool(limits) for role, limits in pools.items()}
        self._hosts = tuple(hosts)
        self._by_host = {host.host: host for host in hosts}
        seats = sum(host.seats for host in hosts)
        self._global_seats = seats if global_seats is None else min(seats, global_seats)
        # None: there is one host, and nothing to choose.
        self.placement = Placement(hosts) if _is_choice(hosts) else None
        self._forecasts = forecasts
        self._running_local = 0
        self._in_line = 0
        self._seated: dict[Ticket, None] = {}
        self._kept = sum(pool.kept for pool in self._pools.values())
        self._urgent: OrderedDict[Ticket, None] = OrderedDict()
        self._protected = tuple(pool for pool in self._pools.values() if pool.limits.protected)
        # A protected role's rhythm is known.
        self._has_rhythm = False
        # Until when a seat is held free, and when there is another reason to look; None: no.
        self._held_until: float | None = None
        self._wake_at: float | None = None
        self.shedding = Shedding()
        self.forecast = Forecast()

    def __repr__(self) -> str:
        rows = ", ".join(
            f"{role} {pool.running}/{pool.limits.seats or '-'}+{len(pool.line)}"
            for role, pool in self._pools.items()
        )
        return (
            f"<Admission {self._running_local}/{self._global_seats} local, "
            f"{self.lent} lent: {rows}; {self._hosts!r}>"
        )

    # What is shown.

    def running(self, role: Role) -> int:
        return self._pools[role].running

    def waiting(self, role: Role) -> int:
        return len(self._pools[role].line)

    @property
    def in_line(self) -> int:
        """How many calls wait, of all roles."""
        return self._in_line

    def host(self, host: Host = DEFAULT_HOST) -> HostSeats:
        """What holds for one host; KeyError if there is none of that name."""
        return self._by_host[host]

    @property
    def useful(self) -> int:
        """Calls at once that are worth running, on all hosts that are there."""
        return self._useful()

    @property
    def hosts(self) -> tuple[HostSeats, ...]:
        return self._hosts

    @property
    def host_count(self) -> int:
        return len(self._hosts)

    @property
    def running_local(self) -> int:
        return self._running_local

    @property
    def global_seats(self) -> int:
        return self._global_seats

    @property
    def lent(self) -> int:
        """Reserved seats in other roles' use."""
        idle = sum(
            max(0, pool.limits.reserved - pool.running)
            for pool in self._pools.values()
            if pool.limits.lends
        )
        free = self._global_seats - self._running_local
        return max(0, idle - free)

    def oldest_wait_s(self, role: Role, now: float) -> float:
        """How long the longest waiter of this role has waited; 0 if nobody waits."""
        line = self._pools[role].line
        return now - line.oldest().arrived if line else 0.0

    @property
    def look_at(self) -> float | None:
        """When ``fill`` may seat somebody though nothing happens before; None: never."""
        held, wake = self._held_until, self._wake_at
        return min(held, wake) if held is not None and wake is not None else held or wake

    def limits(self, role: Role) -> PoolLimits:
        return self._pools[role].limits

    def waiters(self, now: float) -> list[Waiter]:
        """Everyone in line, role by role, in order of their places."""
        return [
            Waiter(
                ticket.request_id,
                ticket.role,
                ticket.model,
                ticket.client,
                now - ticket.arrived,
                self.why(ticket),
                place,
                self._expected_s(pool, ticket, place),
            )
            for pool in self._pools.values()
            for place, ticket in enumerate(pool.line.order(), 1)
        ]

    def runners(self, now: float) -> list[Runner]:
        """Everyone who has a seat, in the order in which they got it."""
        return [
            Runner(
                ticket.request_id,
                ticket.role,
                ticket.model,
                ticket.client,
                ticket.host,
                now - ticket.seated,
                ticket.overdue,
            )
            for ticket in self._seated
        ]

    def _expected_s(self, pool: Pool, ticket: Ticket, place: int) -> float | None:
        if not pool.foresees(ticket.model):
            return None
        return self.expected_wait_s(ticket, place - 1)

    def standing(self, ticket: Ticket) -> Seats:
        """What each limit on the ticket stands at now."""
        pool, model = self._pools[ticket.role], ticket.model
        host = self._likely_host(ticket) if ticket.host is None else self._by_host[ticket.host]
        return Seats(
            pool.running,
            pool.limits.seats,
            self._running_local,
            self._global_seats,
            host.by_model.get(model, 0),
            host.model_seats.get(model),
            host.parallelism.host,
            self.shedding.health,
        )

    def crowd(self, ticket: Ticket) -> Crowd:
        """What holds the ticket back now, and who runs and waits."""
        pools = self._pools
        models: Counter[str] = Counter()
        for host in self._hosts:
            models.update(host.by_model)
        return Crowd(
            ticket.held or self.why(ticket),
            {role: pool.running for role, pool in pools.items() if pool.running},
            dict(models),
            {role: len(pool.line) for role, pool in pools.items() if pool.line},
            dict(pools[ticket.role].line.models),
        )

    def refusal(
        self, reason: Reason, ticket: Ticket, now: float, foreseen_s: float | None = None
    ) -> Failure:
        """What to tell a call that is turned away for ``reason`` now."""
        pool = self._pools[ticket.role]
        ticket.position = pool.line.place(ticket)
        ticket.held = self.why(ticket)
        return overload.no_seat(
            reason,
            ticket.role,
            held=self._held_by(ticket, ticket.held) if reason in _HELD else "",
            waiting=(len(pool.line), pool.limits.max_queue),
            retry_after_s=overload.retry_after(self._drained_s(pool, foreseen_s)),
            waited_s=now - ticket.arrived,
            expected=None if foreseen_s is None else (foreseen_s, ticket.max_wait_s),
            health=self.shedding.cause,
        )

    def _held_by(self, ticket: Ticket, hold: Hold) -> str:
        """The limit that the ticket stands at, with its numbers."""
        host = self._likely_host(ticket)
        kept = [role for role, pool in self._pools.items() if pool.kept and role != ticket.role]
        protected = [role for role, pool in self._pools.items() if pool.limits.protected]
        return overload.held_by(
            hold,
            self.standing(ticket),
            model=ticket.model,
            slots=host.parallelism.slots(ticket.model),
            host=host.running,
            kept_for=kept or protected,
        )

    # What happens.

    def ask(self, ticket: Ticket, now: float) -> Failure | None:
        """Seat the ticket, or put it in line (``ticket.place`` says which), or refuse it.

        A ticket put in line may be seated by the next ``fill``.
        """
        pool = self._pools[ticket.role]
        if pool.limits.protected:
            pool.rhythm.note(now)
            self._has_rhythm = self._has_rhythm or pool.rhythm.learned
        if ticket.role in self.shedding.enter:
            return self._refuse(ticket, Reason.SHED, now)
        if self.placement is not None and pool.limits.counts_globally:
            refusal = self.placement.refusal(ticket)
            if refusal is not None:
                ticket.place = Place.GONE
                return refusal
        if self._takes_at_once(pool, ticket, now):
            return None
        is_shed = ticket.role in self.shedding.wait
        if is_shed or len(pool.line) >= pool.limits.max_queue:
            return self._refuse(ticket, Reason.SHED if is_shed else Reason.QUEUE_FULL, now)
        foreseen_s = self._foreseen_s(pool, ticket)
        if foreseen_s > _FORECAST_MARGIN * ticket.max_wait_s and self._trusts_forecast(ticket):
            return self._refuse(ticket, Reason.QUEUE_TIMEOUT, now, foreseen_s)
        ticket.place = Place.WAITING
        ticket.ahead = len(pool.line)
        pool.line.join(ticket)
        self._in_line += 1
        if pool.limits.protected and self._gains_beside(pool, ticket, now):
            self.due(ticket)
        return None

    def _gains_beside(self, pool: Pool, ticket: Ticket, now: float) -> bool:
        """True if a call would end sooner beside what runs than behind it.

        And one more call is known to take nothing from the others in all.
        """
        model = ticket.model
        length_s = pool.known_length_s(model)
        if length_s is None:
            return False
        for host in self._asked(ticket, now):
            left_s = host.parallelism.left_s(now)
            if left_s is not None and left_s > length_s and host.parallelism.harms(model) is False:
                return True
        return False

    def leave(self, ticket: Ticket, now: float, report: Report | None = None) -> None:
        """End the ticket, wherever it stands; harmless if it has ended.

        ``report``: what a call that ran says of itself, for learning.
        """
        pool = self._pools[ticket.role]
        if ticket.place is Place.WAITING:
            self._urgent.pop(ticket, None)
            pool.line.remove(ticket)
            self._in_line -= 1
        elif ticket.place is Place.SEATED:
            self._unseat(ticket, pool, now, report)
        ticket.place = Place.GONE

    def due(self, ticket: Ticket) -> None:
        """The ticket has been held long enough: it is overdue from now on."""
        if ticket.place is Place.WAITING:
            ticket.urgent = True
            self._urgent[ticket] = None

    def first_byte(self, ticket: Ticket, now: float) -> None:
        """The call's answer has begun."""
        flight = ticket.flight
        if flight is not None and flight.loading and ticket.host is not None:
            self._by_host[ticket.host].parallelism.first_byte(flight, now)

    def away(self, host: Host = DEFAULT_HOST, *, is_away: bool) -> None:
        """Whether calls for the host wait because nobody listens there."""
        self._by_host[host].away = is_away

    def mute(self, host: Host = DEFAULT_HOST, *, is_mute: bool) -> None:
        """Whether the host leaves what it is asked unanswered.

        Nobody is held back by it. Of a call that it holds up nothing is learned: how long that
        keeps its seat says nothing of the calls to come.
        """
        self._by_host[host].mute = is_mute
        if is_mute:
            for ticket in self._seated:
                if ticket.host == host:
                    ticket.sample = False

    def note_loaded(
        self, models: Mapping[str, bool], host: Host = DEFAULT_HOST, *, on_gpu: bool = False
    ) -> None:
        """Whether the host has a model loaded, by canonical name; of others nobody knows.

        ``on_gpu``: all that is loaded is known to lie in a GPU's memory.
        """
        seats = self._by_host[host]
        seats.loaded = models
        seats.parallelism.on_gpu = on_gpu

    def note_taken(self, sizes: Mapping[str, int], host: Host) -> None:
        """How many bytes of a host's memory its loaded models take, by canonical name."""
        self._by_host[host].note_taken(sizes)

    def note_installed(self, host: Host, models: Mapping[str, int]) -> None:
        """What a host has installed, by canonical name, and the bytes of each; 0: unknown."""
        self._by_host[host].note_installed(models)
        if self.placement is not None:
            self.placement.changed()

    def fill(self, now: float) -> list[Ticket]:
        """Seat waiters until nobody who waits may run; return who was seated, in order."""
        if self._held_until is not None and now >= self._held_until:
            self._release(now)
        if self._wake_at is not None and now >= self._wake_at:
            self._wake_at = None
        seated: list[Ticket] = []
        while self._in_line and (ticket := self._next(now)) is not None:
            self._in_line -= 1
            seated.append(ticket)
        return seated

    # Seats.

    def _takes_at_once(self, pool: Pool, ticket: Ticket, now: float) -> bool:
        """Seat a newcomer if nobody has a better right."""
        if self._pool_hold(pool) is not None:
            return False
        if not pool.limits.counts_globally:
            self._seat(ticket, pool, None, now)
            return True
        if self._in_line and pool.line.waits_for(ticket.model):
            return False
        host = self._host_for(pool, ticket, now, probing=False)
        # Beyond what is known to be useful only the next in turn may probe, and that is
        # the newcomer only if nobody waits.
        if host is None and not self._in_line:
            host = self._host_for(pool, ticket, now, probing=True)
        if host is None:
            return False
        self._seat(ticket, pool, host, now)
        return True

    def _host_for(
        self, pool: Pool, ticket: Ticket, now: float, *, probing: bool
    ) -> HostSeats | None:
        """The host where the call may run, if there is one.

        ``probing``: run to see what it shows; else within what is known to be useful.
        """
        best: HostSeats | None = None
        model, choice = ticket.model, self.placement
        hosts = self._hosts if choice is None else self._asked(ticket, now)
        near = None if choice is None else choice.near(ticket)
        for host in hosts:
            if host.hold(model) is not None:
                continue
            if choice is not None and choice.is_reserved(self._pools, ticket.role, host):
                continue
            learned = host.parallelism
            if probing:
                if not self._may_probe(pool, host, model, now):
                    continue
            elif not learned.fits(model) or (
                self._has_rhythm and self._is_kept(pool, host, model, now)
            ):
                continue
            if best is None or suits_better(host, best, model, near):
                best = host
        if choice is not None and best is not None and choice.waits_rather(best, hosts, model, now):
            return None
        return best

    def _asked(self, ticket: Ticket, now: float) -> tuple[HostSeats, ...]:
        """The hosts that are asked for a seat for the call now."""
        if self.placement is None:
            return self._hosts
        left_s = self.placement.opens_in_s(ticket, now)
        if left_s < math.inf:
            self._look_by(now + left_s)
        return self.placement.open_to(ticket, now)

    def _may_probe(self, pool: Pool, host: HostSeats, model: str, now: float) -> bool:
        learned = host.parallelism
        if not learned.probe_due(model, now):
            return False
        # Beyond a model's slots a call waits inside the host and takes nothing from others.
        if not learned.is_full:
            return True
        length_s = pool.length_s(model)
        if pool.limits.protected:
            return learned.trusts_company and self._all_can_wait(length_s, now)
        return self._nobody_minds(pool, model, now) and self._is_moment(host, length_s, now)

    def _nobody_minds(self, pool: Pool, model: str, now: float) -> bool:
        """True if a call of ``model`` may make those that run slower for once.

        It must be known how long such calls are: whoever comes meanwhile waits for it.
        """
        length_s = pool.length_s(model)
        if model not in pool.services:
            return False
        for other in self._protected:
            if other.line or other.rhythm.chance(now, length_s) > _LIKELY:
                return False
        return self._all_can_wait(length_s, now)

    def _all_can_wait(self, length_s: float, now: float) -> bool:
        """True if nobody's wait ends before two calls of ``length_s`` would have ended."""
        for pool in self._pools.values():
            if pool.line:
                oldest = pool.line.oldest()
                if oldest.arrived + oldest.max_wait_s < now + 2 * length_s:
                    return False
        return True

    def _is_moment(self, host: HostSeats, length_s: float, now: float) -> bool:
        """True if a call of ``length_s`` would run beside what runs for a part of it only.

        Half of the shorter one shows enough where company costs little, and costs no more
        than that where it costs much. Where two at once are worth running, a third does not
        cost that much; and where no protected call comes there is nobody to be careful for.
        """
        learned = host.parallelism
        if learned.running > 1 or learned.trusts_company:
            return True
        if not any(pool.rhythm.known for pool in self._protected):
            return True
        in_s = learned.last_half_in_s(length_s, now)
        if in_s is not None and in_s > 0:
            self._look_by(now + max(_LOOK_S, in_s))
        return in_s is not None and in_s <= 0

    def _look_by(self, at: float) -> None:
        """``fill`` is to be called again by then."""
        if self._wake_at is None or at < self._wake_at:
            self._wake_at = at

    def _is_kept(self, pool: Pool, host: HostSeats, model: str, now: float) -> bool:
        """True if the host's last useful seat is better held free for a protected role."""
        learned = host.parallelism
        if pool.limits.protected or learned.running + 1 < learned.host:
            return False
        choice = self.placement
        if choice is not None and choice.has_useful_beside(host, self._protected_roles()):
            return False
        hold_s = 0.0
        for other in self._protected:
            if not other.running and not other.line:
                hold_s = max(hold_s, other.rhythm.hold_s(now, pool.length_s(model)))
        if hold_s <= 0:
            return False
        self._hold_until(now, now + hold_s)
        return True

    def _hold_until(self, now: float, until: float) -> None:
        if self._held_until is None:
            for pool in self._protected:
                pool.rhythm.held(now, holding=True)
            self._held_until = until

    def _protected_roles(self) -> tuple[Role, ...]:
        return tuple(role for role, pool in self._pools.items() if pool.limits.protected)

    def _likely_host(self, ticket: Ticket) -> HostSeats:
        """Where a call would go if one host had to be named."""
        choice = self.placement
        hosts = self._hosts if choice is None else choice.may_run(ticket.role, ticket.model)
        best, *others = hosts or self._hosts
        for host in others:
            if suits_better(host, best, ticket.model):
                best = host
        return best

    def _hard_hold(self, pool: Pool, ticket: Ticket) -> Hold | None:
        """The hard limit that keeps the call from a seat, were it the next."""
        hold = self._pool_hold(pool)
        if hold is not None or not pool.limits.counts_globally:
            return hold
        if self.placement is not None:
            return self.placement.hold(ticket)
        return self._hosts[0].hold(ticket.model)

    def _pool_hold(self, pool: Pool) -> Hold | None:
        limits = pool.limits
        if limits.seats is not None and pool.running >= limits.seats:
            return Hold.ROLE_CAP
        if not limits.counts_globally:
            return None
        if self._running_local >= self._global_seats:
            return Hold.GLOBAL_CAP
        if (
            pool.running >= limits.reserved
            and self._running_local + self._kept >= self._global_seats
        ):
            return Hold.RESERVED
        return None

    def _seat(self, ticket: Ticket, pool: Pool, host: HostSeats | None, now: float) -> None:
        """``host`` None: a role that runs on none of ours."""
        ticket.place = Place.SEATED
        ticket.seated = now
        self._seated[ticket] = None
        self._kept += pool.moved(1)
        if ticket.doubted:
            self.forecast.wrong += 1
        if host is not None:
            if self._held_until is not None:
                self._release(now)
            self._running_local += 1
            host.overdue += ticket.overdue
            ticket.host = host.host
            ticket.sample = ticket.sample and not host.mute
            if self.placement is not None:
                self.placement.seated(ticket, host, now)
            ticket.flight = host.take(ticket.model, now, pool.known_length_s(ticket.model))

    def _unseat(self, ticket: Ticket, pool: Pool, now: float, report: Report | None) -> None:
        del self._seated[ticket]
        self._kept += pool.moved(-1)
        held_s = now - ticket.seated
        if ticket.sample:
            pool.served(ticket.model, held_s)
        if ticket.flight is not None and ticket.host is not None:
            self._running_local -= 1
            host = self._by_host[ticket.host]
            host.overdue -= ticket.overdue
            host.give_back(ticket.flight, now, held_s, report if ticket.sample else None)

    def _release(self, now: float) -> None:
        """No seat is held free any longer."""
        self._held_until = None
        for pool in self._protected:
            pool.rhythm.held(now, holding=False)

    # Order.

    def _next(self, now: float) -> Ticket | None:
        """Seat the one call that goes next, if any may."""
        return (
            self._seat_best(now, probing=False)
            or self._seat_best(now, probing=True)
            or self._seat_urgent(now)
        )

    def _seat_best(self, now: float, *, probing: bool) -> Ticket | None:
        best: tuple[tuple[bool, bool, float], Pool, _Candidate] | None = None
        # Nothing that counts globally may start in this pass, whatever its model.
        idle = self._none_takes_any(now, probing=probing)
        for pool in self._pools.values():
            if not pool.line or (idle and pool.limits.counts_globally):
                continue
            if self._pool_hold(pool) is not None:
                continue
            candidate = self._candidate(pool, now, probing=probing)
            if candidate is None:
                continue
            right = (not pool.claims(), not candidate.ticket.front, self._rank(pool))
            if best is None or right < best[0]:
                best = (right, pool, candidate)
        if best is None:
            return None
        _, pool, (tag, ticket, host) = best
        pool.line.serve(ticket, tag)
        self._urgent.pop(ticket, None)
        self._seat(ticket, pool, host, now)
        return ticket

    def _none_takes_any(self, now: float, *, probing: bool) -> bool:
        for host in self._hosts:
            learned = host.parallelism
            if learned.probes_any(now) if probing else not learned.is_full:
                return False
        return True

    def _rank(self, pool: Pool) -> float:
        """The moment this role's claim counts from: the smaller, the earlier its turn."""
        return pool.line.oldest().arrived + pool.limits.ageing_s

    def _candidate(self, pool: Pool, now: float, *, probing: bool) -> _Candidate | None:
        """The call of this role that goes next, among those whose model may run."""
        if not pool.limits.counts_globally:
            return None if probing else _first(pool)
        first: _Candidate | None = None
        for _, tag, _, ticket in pool.line.heads():
            host = self._host_for(pool, ticket, now, probing=probing)
            if host is None:
                continue
            if first is not None:
                if host.loaded.get(ticket.model) is not False:
                    return _Candidate(tag, ticket, host)
                continue
            first = _Candidate(tag, ticket, host)
            if host.loaded.get(ticket.model) is not False or now - ticket.arrived >= PATIENCE_S:
                return first
        return first

    def _seat_urgent(self, now: float) -> Ticket | None:
        for ticket in self._urgent:
            pool = self._pools[ticket.role]
            if self._pool_hold(pool) is not None:
                continue
            host = self._host_for_overdue(pool, ticket, now)
            if host is not None or not pool.limits.counts_globally:
                del self._urgent[ticket]
                pool.line.take_out(ticket)
                ticket.overdue = True
                self._seat(ticket, pool, host, now)
                return ticket
        return None

    def _host_for_overdue(self, pool: Pool, ticket: Ticket, now: float) -> HostSeats | None:
        """Where an overdue call may start beside the others."""
        best: HostSeats | None = None
        for host in self._asked(ticket, now):
            if self._starts_beside(host, pool, ticket, now) and (
                best is None or suits_better(host, best, ticket.model)
            ):
                best = host
        return best

    def _starts_beside(self, host: HostSeats, pool: Pool, ticket: Ticket, now: float) -> bool:
        model = ticket.model
        if host.hold(model) is not None or self._is_taken(host, pool, model):
            return False
        if pool.limits.starts_late:
            return True
        harms = host.parallelism.harms(model)
        return self._may_show(host, pool, ticket, now) if harms is None else not harms

    def _is_taken(self, host: HostSeats, pool: Pool, model: str) -> bool:
        """True if an overdue call runs, and one more of ``model`` would be one too many beside it.

        Not where one more is known to take nothing; nor, where nobody knows, beside one that has no
        company any more, or for a call that may join (``_joins``).
        """
        if not host.overdue:
            return False
        harms = host.parallelism.harms(model)
        if harms is not None:
            return harms
        return host.parallelism.is_beyond and not self._joins(host, pool)

    def _joins(self, host: HostSeats, pool: Pool) -> bool:
        """True if those that run take nothing from each other: then a protected call may join."""
        learned = host.parallelism
        return pool.limits.protected and learned.is_beyond and learned.company_harms is False

    def _may_show(self, host: HostSeats, pool: Pool, ticket: Ticket, now: float) -> bool:
        """Whether an overdue call may be the one that shows what company costs."""
        return (
            not self._delays_protected(host, pool)
            and self._has_shown(host, pool, ticket, now)
            and not self._better_waits(host, pool, ticket, now)
        )

    def _delays_protected(self, host: HostSeats, pool: Pool) -> bool:
        """True if protected calls would wait for what an overdue one of ``pool`` shows.

        In a burst all of them would. While two at once may do a third of the work of one, any that
        waits would, and one that runs and has waited already is not made to wait again; but of two
        protected calls neither takes long.
        """
        most = _PAIR
        if host.parallelism.may_collapse:
            if not pool.limits.protected:
                most = 0
                if self._runs_late(host):
                    return True
            elif not self._runs_protected(host):
                most = 1
        return any(len(other.line) > most for other in self._protected)

    def _runs_protected(self, host: HostSeats) -> bool:
        """True if only protected calls run there."""
        return all(
            self._pools[ticket.role].limits.protected
            for ticket in self._seated
            if ticket.host == host.host
        )

    def _runs_late(self, host: HostSeats) -> bool:
        """True if a protected call runs there that has waited longer than such calls take."""
        for ticket in self._seated:
            pool = self._pools[ticket.role]
            if ticket.host == host.host and pool.limits.protected:
                waited_s = ticket.seated - ticket.arrived
                if waited_s > pool.length_s(ticket.model):
                    return True
        return False

    def _has_shown(self, host: HostSeats, pool: Pool, ticket: Ticket, now: float) -> bool:
        """True if the call need not wait for what others are about to show.

        Where calls run beside each other and that takes nothing, a protected one joins them. One
        whose wait ends does not wait for a call that has no company any more.
        """
        learned = host.parallelism
        if learned.settled:
            return True
        if learned.is_beyond:
            return self._joins(host, pool)
        ends = ticket.arrived + ticket.last_in_s
        if now < ends:
            self._look_by(ends)
        return now >= ends

    def _better_waits(self, host: HostSeats, pool: Pool, ticket: Ticket, now: float) -> bool:
        """True if an overdue call is better off behind what runs than beside it.

        Two at once may do a third of the work of one. So unless they are known to pay, it
        starts beside a call that is nearly over, and there is little to lose; or so long that
        waiting is no better; or when its own wait ends.
        """
        learned = host.parallelism
        ends = ticket.arrived + ticket.last_in_s
        if learned.trusts_company or now >= ends:
            return False
        length_s = pool.length_s(ticket.model)
        left_s = learned.left_s(now)
        if left_s is not None:
            long = _LONG_BEYOND if now + left_s > ends else _LONG
            if length_s <= long * left_s:
                return False
        if self._is_moment(host, length_s, now):
            return False
        self._look_by(ends)
        return True

    def why(self, ticket: Ticket) -> Hold:
        """What holds a waiting call back now."""
        hold = self._why(ticket)
        if hold not in _FOR_OTHERS or not self._pools[ticket.role].limits.counts_globally:
            return hold
        hosts = self._hosts if self.placement is None else self.placement.hosts_of(ticket)
        if not hosts or not all(host.mute or host.away for host in hosts):
            return hold
        return Hold.AWAY if any(host.away for host in hosts) else Hold.MUTE

    def _why(self, ticket: Ticket) -> Hold:
        """The limit that holds it back."""
        hold = self._hard_hold(self._pools[ticket.role], ticket)
        if hold is not None:
            return hold
        choice = self.placement
        for host in self._hosts if choice is None else choice.hosts_of(ticket):
            if host.parallelism.fits(ticket.model):
                return Hold.TURN if self._held_until is None else Hold.RESERVED
        return Hold.PARALLELISM

    # What is foreseen.

    def _refuse(
        self, ticket: Ticket, reason: Reason, now: float, foreseen_s: float | None = None
    ) -> Failure:
        ticket.place = Place.GONE
        return self.refusal(reason, ticket, now, foreseen_s)

    def _foreseen_s(self, pool: Pool, ticket: Ticket) -> float:
        """How long a call that joins now is expected to wait; 0 where too little is known."""
        if not self._forecasts or not pool.foresees(ticket.model):
            return 0.0
        return self.expected_wait_s(ticket, len(pool.line))

    def expected_wait_s(self, ticket: Ticket, ahead: int) -> float:
        """How long the next in line behind ``ahead`` others of its role is expected to wait.

        What runs is half done on average; that, and all who go before it, is shared by the
        calls at once that are worth running. Calls of a role that has reserved seats wait for
        their own kind alone there. And no role has more than its own seats.
        """
        pool = self._pools[ticket.role]
        limits, own_s = pool.limits, ahead * pool.service_s
        role_s = 0.0
        if limits.seats is not None and pool.running + ahead >= limits.seats:
            role_s = (pool.service_s * pool.running / 2 + own_s) / limits.seats
        useful = self._useful()
        if not limits.counts_globally or self._running_local + ahead < useful:
            return role_s
        half_s = first_s = 0.0
        rank = ticket.arrived + limits.ageing_s
        for other in self._pools.values():
            if not other.limits.counts_globally:
                continue
            half_s += other.running * other.service_s / 2
            waits = other is not pool and other.line
            if waits and (other.claims() or self._rank(other) < rank):
                first_s += len(other.line) * other.service_s
        host_s = (half_s + first_s + own_s) / useful
        if limits.reserved:
            host_s = min(host_s, half_s / useful + own_s / min(useful, limits.reserved))
        return max(role_s, min(host_s, self._beside_s(pool, ticket, ahead)))

    def _beside_s(self, pool: Pool, ticket: Ticket, ahead: int) -> float:
        """How long until the call is expected to start beside what runs, overdue; inf: never.

        Those of a protected role do so one after the other; of others only the first one may.
        """
        model, protected = ticket.model, pool.limits.protected
        others = any(other is not ticket for other in self._urgent)
        for host in self._hosts if self.placement is None else self.placement.hosts_of(ticket):
            taken = self._is_taken(host, pool, model)
            learned = host.parallelism
            harms = learned.company_harms if taken else learned.harms(model)
            if host.hold(model) is not None or (harms and not pool.limits.starts_late):
                continue
            behind = ahead + (0.5 if taken else 0.0)
            if protected or not (behind or others):
                return max(ticket.due_in_s, behind * pool.service_s)
        return math.inf

    def _useful(self) -> int:
        """Calls at once that are worth running, on all hosts."""
        useful = 0
        for host in self._hosts:
            # Of one host alone what it did before holds on.
            if not host.is_shut or self.placement is None:
                useful += host.parallelism.host
        return useful or self._hosts[0].parallelism.host

    def _trusts_forecast(self, ticket: Ticket) -> bool:
        self.forecast.refused += 1
        if self.forecast.refused % _FORECAST_CHECK:
            return True
        self.forecast.checked += 1
        ticket.doubted = True
        return False

    def _drained_s(self, pool: Pool, foreseen_s: float | None) -> float:
        """Until the line as it stands has drained, or as it was foreseen."""
        if foreseen_s is not None:
            return foreseen_s
        seats = min(pool.limits.seats or self._global_seats, self._useful())
        return pool.service_s * (len(pool.line) + 1) / max(1, seats)


def _first(pool: Pool) -> _Candidate | None:
    """The head of a line whose calls run on no host of ours."""
    for _, tag, _, ticket in pool.line.heads():
        return _Candidate(tag, ticket, None)
    return None


def _is_choice(hosts: Sequence[HostSeats]) -> bool:
    """Whether there is anything to choose: several hosts, or one that does not take every call."""
    return len(hosts) > 1 or hosts[0].rules is not host_rules.EVERYTHING


def from_policy(policy: Policy) -> Admission:
    """The lines and seats that the policy describes, all empty."""
    return Admission(
        {role: _limits(role, row) for role, row in policy.roles.items()},
        tuple(_host(policy, Host(name), row) for name, row in policy.hosts.items())
        or (_host(policy, DEFAULT_HOST),),
        forecasts=policy.global_.forecast,
        global_seats=policy.global_.max_concurrent,
    )


def _host(policy: Policy, host: Host, row: HostPolicy | None = None) -> HostSeats:
    """``row`` None: the one host of a policy that names none."""
    seats, parallel = policy.global_.max_concurrent, policy.global_.parallel
    if row is not None:
        seats = min(seats, row.max_concurrent or seats)
        parallel = row.parallel or parallel
    models = [(canonical(name), row) for name, row in policy.models.items()]
    learned = Parallelism(
        cap=seats,
        host=parallel,
        models={name: row.parallel for name, row in models if row.parallel is not None},
    )
    caps = {name: row.max_concurrent for name, row in models if row.max_concurrent is not None}
    rules = host_rules.EVERYTHING if row is None else host_rules.rules_of(row)
    return HostSeats(seats, caps, learned, host, rules)


def _limits(role: Role, row: RolePolicy) -> PoolLimits:
    return PoolLimits(
        seats=row.max_concurrent,
        max_queue=row.max_queue,
        counts_globally=role is not Role.CLOUD,
        reserved=row.reserved,
        lends=row.lend_reserved,
        ageing_s=row.ageing_ms / 1000,
        protected=role is Role.PLANNER or row.reserved > 0,
        starts_late=row.when_late == "start",
    )
