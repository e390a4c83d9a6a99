"""Ceilings over sliding windows: how much of each is used, and whether one more call fits.

A charge is one attempt that is about to be sent. It is counted by every budget whose
selectors it matches, from the moment it is reserved and for the length of that budget's
window: in any window's length of time no more is reserved than the budget says. If one
budget has no room, none counts it. A shadow budget counts and never refuses.

Money is reserved as the most that the call can cost, and settled with what it did cost. It
is counted in whole billionths of a US dollar: sums of floats drift, and never quite empty.

Time is budget time (``budget_clock``), in seconds. One that goes back is taken as standing still.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import starmap
from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import Reason
from modelsplit_policy.model_names import canonical
from modelsplit_policy.quantity import LIMIT
from modelsplit_policy.sliding_window import SlidingWindow
from modelsplit_policy.vocabulary import Provider

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from modelsplit_policy.config.model import BudgetPolicy
    from modelsplit_policy.vocabulary import Role

_NANO: Final = 1_000_000_000
MOST_NANO: Final = LIMIT - 1
# Statuses that say that the request was looked at and turned away: not done, and not owed for.
# Not 408 and 499, which also end a computation, nor 409 and 424, which can mean that one was
# done. 501 and 505: the server does not do such things at all; 529: it has too much to do.
_TURNED_AWAY: Final = frozenset(
    {
        *(400, 401, 402, 403, 404, 405, 406, 407, 410, 411, 412, 413, 414, 415, 416, 417),
        *(421, 422, 425, 426, 428, 429, 431, 451, 501, 505, 529),
    }
)
# Ollama's answer when its line is full, before it looks for a runner.
_BUSY: Final = 503
_BAD_REQUEST: Final = 400


def nano(usd: float) -> int:
    """US dollars as whole billionths; of more than can be counted, ``MOST_NANO``.

    That is 9 million dollars, more than any budget: nothing that costs so much has room.
    """
    return round(usd * _NANO) if usd * _NANO < MOST_NANO else MOST_NANO


def computed_nothing(status: int | None, provider: Provider, *, embeds: bool = False) -> bool:
    """Whether an answer of that status proves that nothing was computed; None: there was none.

    Of Ollama's own 503 that is known, of a cloud's not. ``embeds``: the request may hold
    many texts, and Ollama's 400 for one of them comes while the others are computed.
    """
    if embeds and status == _BAD_REQUEST:
        return False
    return status in _TURNED_AWAY or (status == _BUSY and provider is Provider.LOCAL)


def dollars(nano_usd: int) -> float:
    return nano_usd / _NANO


@dataclass(frozen=True, slots=True)
class Charge:
    """What one attempt is charged with: one call, and so much money.

    ``model``: what all its spellings have in common (``model_names.canonical``).
    """

    model: str
    role: Role
    provider: Provider
    nano_usd: int = 0


@dataclass(frozen=True, slots=True)
class Amount:
    """So many calls, and so much money."""

    calls: int = 0
    nano_usd: int = 0


NO_AMOUNT: Final = Amount()


@dataclass(frozen=True, slots=True)
class Standing:
    """One budget at one moment. A limit of None: it has none of that kind.

    ``frees_in_s``: when the next of what is counted leaves the window; None: nothing is
    counted. ``presumed``: what was counted is lost, and all of it taken as used.
    ``nano_usd``: what calls have cost and what is reserved for those under way;
    ``nano_usd_reserved``: the latter alone. ``lease``: what may be spent though nobody knows now
    how much is used, which other numbers then say of the last time that it was known; None: it
    is known.
    """

    name: str
    window: str
    window_s: int
    shadow: bool
    calls: int
    max_calls: int | None
    nano_usd: int
    max_nano_usd: int | None
    frees_in_s: float | None
    presumed: bool
    nano_usd_reserved: int = 0
    lease: Amount | None = None

    @property
    def calls_left(self) -> int | None:
        if self.max_calls is None:
            return None
        if self.lease is not None:
            return self.lease.calls
        return 0 if self.presumed else max(0, self.max_calls - self.calls)

    @property
    def nano_usd_left(self) -> int | None:
        if self.max_nano_usd is None:
            return None
        if self.lease is not None:
            return self.lease.nano_usd
        return 0 if self.presumed else max(0, self.max_nano_usd - self.nano_usd)


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A budget without room for one more charge.

    ``opens_in_s``: when there will be room, if nothing else is charged; None: never, the
    limit is less than this one charge.
    """

    standing: Standing
    reason: Reason
    nano_usd: int
    opens_in_s: float | None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a charge asks of one budget that could refuse it, for who counts it elsewhere too.

    A limit of None: it has none of that kind. ``lease``: the most that may be spent of it while
    nobody can be asked. ``approval``: the uid of the approval that it is, of a budget empty;
    ``given_s``: how long ago that was given, before which nothing was charged to it.
    """

    name: str
    window_s: int
    max_calls: int | None
    max_nano_usd: int | None
    nano_usd: int
    lease: Amount = NO_AMOUNT
    approval: str = ""
    given_s: int = 0

    @property
    def reach_s(self) -> int:
        """How long ago a charge can have been that still counts."""
        return self.given_s if self.approval else self.window_s


@dataclass(frozen=True, slots=True)
class Counted:
    """One charge as one budget counts it: the id of its reservation, budget time, cost."""

    id: int
    at: float
    nano_usd: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """A charge that is counted. ``over``: the shadow budgets that would have refused it."""

    id: int
    at: float
    charge: Charge
    over: tuple[str, ...] = ()


class _Window:
    """One budget and what it counts."""

    def __init__(self, policy: BudgetPolicy) -> None:
        self.policy = policy
        self._models = None if policy.models is None else {canonical(m) for m in policy.models}
        self._max_calls = policy.calls
        self._max_nano = None if policy.usd is None else nano(policy.usd)
        self._window_s = policy.window_s
        self._charges = SlidingWindow()
        # Money of charges that are not settled, by their ids.
        self._reserved: dict[int, int] = {}
        self._lost_at: float | None = None

    def selects(self, model: str, role: Role, provider: Provider) -> bool:
        policy = self.policy
        return (
            (self._models is None or model in self._models)
            and (policy.role is None or policy.role is role)
            and (policy.provider is None or policy.provider is provider)
        )

    def counts(self, charge: Charge) -> bool:
        """Whether it is any of this budget's business: money says nothing of what is free."""
        weighs = self._max_calls is not None or charge.nano_usd > 0
        return weighs and self.selects(charge.model, charge.role, charge.provider)

    def claim(self, nano_usd: int) -> Claim:
        name, share = self.policy.name, self.policy.lease
        lease = Amount(int((self._max_calls or 0) * share), int((self._max_nano or 0) * share))
        return Claim(name, self._window_s, self._max_calls, self._max_nano, nano_usd, lease)

    def counted(self) -> Iterator[Counted]:
        """Everything that it counts, oldest first."""
        return starmap(Counted, self._charges.entries())

    def advance(self, now: float) -> None:
        """Let go of what is older than the window."""
        self._charges.expire(now - self._window_s)
        if self._lost_at is not None and self._lost_at + self._window_s <= now:
            self._lost_at = None

    def lost(self, at: float | None) -> None:
        self._lost_at = at

    def refusal(self, now: float, nano_usd: int) -> Exhausted | None:
        """Why there is no room for one more call that may cost so much."""
        lost = 0.0 if self._lost_at is None else self._lost_at + self._window_s - now
        waits = {
            Reason.CALLS: self._calls_wait(now),
            Reason.USD: self._money_wait(now, nano_usd),
            Reason.COUNTS_LOST: lost,
        }
        reason, opens_in_s = max(waits.items(), key=lambda item: rank(item[1]))
        if opens_in_s == 0.0:
            return None
        return Exhausted(self.standing(now), reason, nano_usd, opens_in_s)

    def _calls_wait(self, now: float) -> float | None:
        """Seconds until one more call fits; None: never."""
        limit, count = self._max_calls, self._charges.count
        if limit is None or count < limit:
            return 0.0
        if limit == 0:
            return None
        return self._charges.nth_at(count - limit + 1) + self._window_s - now

    def _money_wait(self, now: float, nano_usd: int) -> float | None:
        limit = self._max_nano
        if limit is None or nano_usd == 0:
            return 0.0
        too_much = self._charges.total + nano_usd - limit
        if too_much <= 0:
            return 0.0
        if nano_usd > limit:
            return None
        return self._charges.freed_at(too_much) + self._window_s - now

    def reserve(self, key: int, at: float, nano_usd: int) -> None:
        """Count a charge whose cost is not known yet, as the most that it may be."""
        self.add(key, at, nano_usd)
        if nano_usd:
            self._reserved[key] = nano_usd

    def add(self, key: int, at: float, nano_usd: int) -> None:
        self._charges.add(key, at, nano_usd)

    def change(self, key: int, nano_usd: int) -> None:
        """The charge costs so much after all; one that has left the window costs nothing here."""
        self._reserved.pop(key, None)
        self._charges.change(key, nano_usd)

    def remove(self, key: int) -> None:
        self._reserved.pop(key, None)
        self._charges.remove(key)

    def standing(self, now: float) -> Standing:
        charges = self._charges
        leaves = [at for at in (charges.oldest_at, self._lost_at) if at is not None]
        return Standing(
            name=self.policy.name,
            window=self.policy.window,
            window_s=self._window_s,
            shadow=self.policy.shadow,
            calls=charges.count,
            max_calls=self._max_calls,
            nano_usd=charges.total,
            max_nano_usd=self._max_nano,
            frees_in_s=min(leaves) + self._window_s - now if leaves else None,
            presumed=self._lost_at is not None,
            nano_usd_reserved=min(charges.total, sum(self._reserved.values())),
        )


class Budgets:
    """All budgets of one policy."""

    def __init__(self, policies: Iterable[BudgetPolicy]) -> None:
        self._windows = [_Window(policy) for policy in policies]
        self._next_id = 1
        self._now = 0.0

    def __repr__(self) -> str:
        return f"<Budgets {[window.policy.name for window in self._windows]}>"

    @property
    def longest_s(self) -> int:
        """The longest window; what is older counts for nothing."""
        return max((window.policy.window_s for window in self._windows), default=0)

    @property
    def cloud_lease(self) -> float:
        """The share of an approval that may be spent while nobody can be asked."""
        shares = [
            window.policy.lease
            for window in self._windows
            if window.policy.provider is Provider.CLOUD and not window.policy.shadow
        ]
        return min(shares, default=0.0)

    def selected(self, model: str, role: Role, provider: Provider) -> bool:
        """Whether any budget looks at such calls."""
        return any(window.selects(model, role, provider) for window in self._windows)

    def enforced(self, charge: Charge) -> bool:
        """Whether any budget could refuse the charge."""
        return any(w.counts(charge) and not w.policy.shadow for w in self._windows)

    def claims(self, charge: Charge | None = None) -> tuple[Claim, ...]:
        """What the charge asks of each budget that could refuse it; of none: nothing, of all."""
        return tuple(
            window.claim(0 if charge is None else charge.nano_usd)
            for window in self._windows
            if not window.policy.shadow and (charge is None or window.counts(charge))
        )

    def counted(self, now: float) -> dict[str, tuple[Counted, ...]]:
        """By their names, what the budgets that refuse calls count."""
        self._advance(now)
        return {
            window.policy.name: tuple(window.counted())
            for window in self._windows
            if not window.policy.shadow
        }

    def check(self, now: float, charge: Charge) -> Exhausted | None:
        """What ``reserve`` would refuse it for now; counts nothing.

        Of several budgets without room, the one that opens last.
        """
        now = self._advance(now)
        refusals = [
            refusal
            for window in self._windows
            if window.counts(charge) and not window.policy.shadow
            if (refusal := window.refusal(now, charge.nano_usd)) is not None
        ]
        return max(refusals, key=lambda exhausted: rank(exhausted.opens_in_s), default=None)

    def reserve(self, now: float, charge: Charge) -> Reservation | Exhausted:
        """Count the charge in every budget that it concerns, or in none."""
        refused = self.check(now, charge)
        if refused is not None:
            return refused
        now = self._now
        concerned = [window for window in self._windows if window.counts(charge)]
        over = [w.policy.name for w in concerned if w.refusal(now, charge.nano_usd) is not None]
        reservation = Reservation(self._next_id, now, charge, tuple(over))
        self._next_id += 1
        for window in concerned:
            window.reserve(reservation.id, now, charge.nano_usd)
        return reservation

    def settle(self, reservation: Reservation, nano_usd: int) -> None:
        """The call has cost so much."""
        for window in self._windows:
            window.change(reservation.id, nano_usd)

    def give_back(self, reservation: Reservation) -> None:
        """Nothing was computed: as if it had never been reserved."""
        for window in self._windows:
            window.remove(reservation.id)

    def restore(self, reservation: Reservation) -> None:
        """Count what an earlier process reserved. In the order of their times, before others."""
        self._next_id = max(self._next_id, reservation.id + 1)
        self._now = max(self._now, reservation.at)
        for window in self._windows:
            if window.counts(reservation.charge):
                window.add(reservation.id, reservation.at, reservation.charge.nano_usd)

    def begin_after(self, last_id: int) -> None:
        """Identify reservations by numbers above this one."""
        self._next_id = max(self._next_id, last_id + 1)

    def presume_used(self, lost_at: float | None) -> None:
        """What was counted until then is lost: each budget is full for one window from then on.

        None: it is not lost after all.
        """
        for window in self._windows:
            window.lost(lost_at)

    def standing(self, now: float, charge: Charge | None = None) -> tuple[Standing, ...]:
        """Where all budgets stand, or those that a charge concerns."""
        now = self._advance(now)
        return tuple(
            window.standing(now)
            for window in self._windows
            if charge is None or window.counts(charge)
        )

    def _advance(self, now: float) -> float:
        self._now = max(self._now, now)
        for window in self._windows:
            window.advance(self._now)
        return self._now


def rank(wait_s: float | None) -> float:
    """For comparing waits: None, which is never, is the longest."""
    return float("inf") if wait_s is None else wait_s
