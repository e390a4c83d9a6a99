"""What one machine may spend of budgets that it counts with others, while it cannot ask.

Of each such budget it holds a lease: a part that is counted as used wherever the others look, so
that nobody else spends it. Away from the others it spends its leases and nothing more; what it
spends it counts as ever, and tells the others when it is back.

Together all machines never spend more than the budget while none is away for longer than its
lease holds, which is the budget's window, a day at most. Then the others no longer count the
lease, which it may have spent at the last moment: in one window the budget can be overspent by at
most one lease of each machine that was away.

Time is monotonic, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from modelsplit_policy.budgets import NO_AMOUNT, Amount

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from modelsplit_policy.budgets import Claim


@dataclass(frozen=True, slots=True)
class Lease:
    """A part of one budget. ``until``: from then on it is somebody else's.

    ``revision``: a later one of the same budget has a greater number.
    """

    revision: int
    amount: Amount
    until: float


@dataclass(frozen=True, slots=True)
class _Held:
    """A lease, and what is left of it. ``since``: how often the others were lost before it."""

    lease: Lease
    left: Amount
    since: int


class Leases:
    """The leases of one machine, and what it spends of them."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        # What was spent of leases, by the charge.
        self._spent: dict[int, tuple[Claim, ...]] = {}
        self._times_lost = 0

    def __repr__(self) -> str:
        return f"<Leases of {sorted(self._held)}>"

    @property
    def times_lost(self) -> int:
        """How often ``lose`` was called: to be had with each question to the others."""
        return self._times_lost

    def lose(self) -> None:
        """The others cannot be asked from now on: leases that are on their way come too late."""
        self._times_lost += 1

    def renew(self, name: str, lease: Lease, asked: int) -> None:
        """The others count this lease. ``asked``: ``times_lost`` when they were asked."""
        held = self._held.get(name)
        if asked != self._times_lost:
            # What has been spent since may not have been known there.
            return
        if held is None or held.since != asked or lease.revision >= held.lease.revision:
            self._held[name] = _Held(lease, lease.amount, asked)

    def left(self, name: str, now: float) -> Amount:
        """What may still be spent of this budget."""
        held = self._held.get(name)
        return NO_AMOUNT if held is None or held.lease.until <= now else held.left

    def cover(self, claims: Sequence[Claim], now: float) -> bool:
        """Whether the leases have room for a charge that claims so; spends nothing."""
        return all(_fits(claim, self.left(claim.name, now)) for claim in claims)

    def spend(self, charge: int, claims: Sequence[Claim], now: float) -> bool:
        """Take the charge from the lease of each budget, or from none; whether that was done."""
        if not self.cover(claims, now):
            return False
        self._spent[charge] = tuple(claims)
        self._change(claims, -1)
        return True

    def settle(self, charge: int, nano_usd: int | None) -> None:
        """It has cost so much; None: it is none after all. Any charge may be named."""
        claims = self._spent.pop(charge, ())
        self._change(claims, 1)
        if nano_usd is not None:
            self._change([replace(claim, nano_usd=nano_usd) for claim in claims], -1)

    def told(self) -> None:
        """The others know of everything that was spent."""
        self._spent.clear()

    def _change(self, claims: Iterable[Claim], sign: int) -> None:
        for claim in claims:
            held = self._held[claim.name]
            calls = held.left.calls + (sign if claim.max_calls is not None else 0)
            nano_usd = held.left.nano_usd + sign * claim.nano_usd
            self._held[claim.name] = replace(held, left=Amount(calls, max(0, nano_usd)))


def _fits(claim: Claim, left: Amount) -> bool:
    return (claim.max_calls is None or left.calls >= 1) and (
        claim.max_nano_usd is None or left.nano_usd >= claim.nano_usd
    )
