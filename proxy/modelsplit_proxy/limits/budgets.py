"""Budgets at work: asked before a call joins a line, charged before it is sent.

``modelsplit_policy`` decides what fits; this module gives it the time, keeps what is counted
on disk, and makes calls wait for that. The order in which a charge comes about is the point:

1. reserved in memory, at once: whatever else runs meanwhile sees it counted;
2. written down, durably; only then is the call sent;
3. settled with what it cost, or given back if provably nothing was computed; written later.

A process killed at any moment has counted on disk whatever it sent, and at most what was in
flight besides. What cannot be written in time is refused; its reservation is taken back in
memory and deleted on disk, should it have got there after all. A call that no budget looks
at meets none of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sqlite3
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.approvals import Approvals, Change, Denied
from modelsplit_policy.budget_clock import Anchor, drift_s
from modelsplit_policy.budgets import (
    MOST_NANO,
    Amount,
    Budgets,
    Charge,
    Claim,
    Counted,
    Exhausted,
    Reservation,
    computed_nothing,
    dollars,
    nano,
    rank,
)
from modelsplit_policy.endpoints import NO_FACTS
from modelsplit_policy.estimates import Estimates
from modelsplit_policy.failures import Reason
from modelsplit_policy.go_json import Fields
from modelsplit_policy.model_names import ModelNames
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.limits import budget_store, egress_store
from modelsplit_proxy.limits.budget_store import ChargeRow, NotKeeperError, RevokedError
from modelsplit_proxy.limits.shared_approvals import name_of
from modelsplit_proxy.limits.shared_sums import AwayError, Patience
from modelsplit_proxy.protocol import budget_text
from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from modelsplit_policy.budgets import Standing
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.prices import Prices
    from modelsplit_policy.roles import Candidate
    from modelsplit_policy.vocabulary import Role
    from modelsplit_proxy.limits.egress_store import Leaving
    from modelsplit_proxy.limits.shared_budgets import SharedBudgets
    from modelsplit_proxy.limits.shared_sums import Sums
    from modelsplit_proxy.records.record import Attempt, CallRecord, Routing
    from modelsplit_proxy.runtime.clock import BudgetClock
    from modelsplit_proxy.storage.writer import Store

logger = logging.getLogger("modelsplit")

_OPENING: Final = "it is still being opened"
_TAKEN_OVER: Final = "another modelsplit has opened it"
_REFUSED_HERE: Final = (
    "another modelsplit has opened the state file; calls that budgets count are refused here"
)
# What a statement raises for the sake of its values, as SQLite or its driver sees them.
_UNWRITABLE: Final = (sqlite3.Error, ArithmeticError, TypeError, ValueError)
# How often to look whether the wall clock was set, and by how much it must have been.
_WATCH_S: Final = 30.0
_DRIFT_S: Final = 1.0
# Charges are deleted this long after the longest window, looked for so often.
_KEPT_S: Final = 7 * 86_400.0
_FORGET_EVERY_S: Final = 86_400.0
# Longer than any approval, and by how much the clocks of machines may differ that charge it.
_APPROVAL_S: Final = 400 * 86_400
_MARGIN_S: Final = 86_400


@dataclass(slots=True)
class Refusals:
    """How many calls each budget refused, and would have refused were it no shadow."""

    refused: Counter[str] = field(default_factory=Counter)
    shadow: Counter[str] = field(default_factory=Counter)


class BudgetKeeper:
    """All budgets and approvals of the process."""

    def __init__(
        self,
        policy: Policy,
        prices: Prices,
        store: Store,
        time: BudgetClock,
        shared: SharedBudgets | None = None,
    ) -> None:
        """``shared``: where other proxies count the same budgets too; None: there are none."""
        self._shared = shared
        if shared is not None:
            shared.counts_for(self)
        self._budgets = Budgets(policy.budgets)
        self._approvals = Approvals()
        self._estimates = Estimates(policy)
        self._prices = prices
        self._store = store
        self._time = time
        self._names = ModelNames()
        self._keeper = secrets.token_hex(8)
        self._is_open = False
        self._taken_over = False
        # Charges of calls under way, with the approvals that they are charged to.
        self._under_way: dict[int, tuple[int, Counted]] = {}
        self._written = time.anchor()
        self._forget_at = 0.0
        self.refusals = Refusals()
        # What was counted here and could not be written down, whatever the reason.
        self.writes_lost = 0
        # Where commands ask this process, if not by themselves; known once it listens.
        self.asked_at = ""

    def __repr__(self) -> str:
        return f"<BudgetKeeper {self._budgets!r}{'' if self._is_open else ' not open'}>"

    # 1. For the process.

    async def open(self) -> None:
        """Read what earlier processes counted; until then nothing that is counted is sent.

        Waits for as long as the file is locked.
        """
        clocks, since_s = self._time.read(), self._budgets.longest_s

        def take_over(db: sqlite3.Connection) -> budget_store.Book:
            # Known only now, should the file have been opened late.
            lost_wall = self._store.lost_at
            return budget_store.take_over(db, self._keeper, clocks, since_s, lost_wall)

        book = await asyncio.wrap_future(self._store.submit(take_over))
        self._written = Anchor(clocks, book.budget_time)
        self._time.begin(self._written)
        for reservation in book.charges:
            self._budgets.restore(reservation)
        self._budgets.begin_after(book.last_id)
        self._approvals.restore(book.spent)
        self._read_changes(book.changes)
        self._is_open = True

    async def watch(self) -> None:
        """Keep the clock on disk true and let go of what is old. Runs for ever."""
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._is_open:
                self.look_at_the_clock()
                self._forget()
                await self.look()

    async def look(self) -> None:
        """Learn what other processes have done to the file; as before if it cannot be read."""
        if self._is_open:
            await self._refresh()

    async def look_everywhere(self) -> None:
        """The same, and what is counted and approved elsewhere by now, as far as that can be had.

        What has been approved here is known there afterwards.
        """
        await self.look()
        if self._shared is not None and self._is_open:
            with contextlib.suppress(AwayError, StoreError):
                await self._shared.ask_now()

    def look_at_the_clock(self) -> None:
        """Write it down if the wall clock was set: a restart of the machine goes by it."""
        if drift_s(self._written, self._time.read()) > _DRIFT_S:
            self._write_clock()

    def close(self) -> None:
        """Before the store is closed: so late was it when the process ended."""
        if self._is_open:
            self._write_clock()

    @property
    def state(self) -> Path:
        """The directory of the state file."""
        return self._store.path.parent.absolute()

    @property
    def is_open(self) -> bool:
        """Whether what earlier processes counted has been read."""
        return self._is_open

    @property
    def shared(self) -> SharedBudgets | None:
        """Where other proxies count the same budgets; None: there are none."""
        return self._shared

    @property
    def error(self) -> str | None:
        """Why calls that budgets count are refused until somebody acts; None if they are not."""
        return _REFUSED_HERE if self._taken_over else None

    def standing(self, charge: Charge | None = None) -> tuple[Standing, ...]:
        """Where every budget stands, or those that a charge concerns; of shared ones, over all."""
        standings = self._budgets.standing(self._time.now(), charge)
        return standings if self._shared is None else tuple(map(self._over_all, standings))

    # For who counts the same elsewhere.

    def now(self) -> float:
        """Budget time."""
        return self._time.now()

    @property
    def longest_s(self) -> int:
        """The longest window."""
        return self._budgets.longest_s

    def counted(self) -> dict[str, tuple[Counted, ...]]:
        """What is counted here, by the names of the budgets that refuse calls, and of approvals."""
        now = self._time.now()
        counted = self._budgets.counted(now)
        for approval in self._approvals.in_force(now):
            counted[name_of(approval.uid)] = tuple(self._charged_to(approval))
        return counted

    def _charged_to(self, approval: Change) -> Iterator[Counted]:
        """What has been settled as one charge, without a number; then those under way."""
        under_way = [c for to, c in self._under_way.values() if to == approval.id]
        spent = self._approvals.spent.get(approval.id, 0)
        settled = spent - sum(charge.nano_usd for charge in under_way)
        if settled:
            yield Counted(0, approval.at, settled)
        yield from under_way

    def all_claims(self) -> tuple[Claim, ...]:
        """A question about every budget that refuses calls, and every approval in force."""
        approvals = self._approvals.in_force(self._time.now())
        return (*self._budgets.claims(), *(self._claim(one, 0) for one in approvals))

    async def changes(self) -> tuple[Change, ...]:
        """The history of approvals, as the file has it now."""
        await self.look()
        return self._approvals.changes

    async def learn(
        self, approvals: Sequence[Change], revocations: Sequence[tuple[str, Change]]
    ) -> None:
        """Add to it what others know; of a revocation the uid of what it revokes. StoreError."""
        await self._store.commit(lambda db: budget_store.learn(db, approvals, revocations))
        await self.look()

    def approved(self) -> tuple[list[Change], float]:
        """The approvals in force, and what is left of them together, in US dollars."""
        valid = self._approvals.in_force(self._time.now())
        known = {} if self._shared is None else self._shared.sums
        for approval in valid:
            if (sums := known.get(name_of(approval.uid))) is not None:
                self._approvals.spent_by_all[approval.id] = sums.nano_usd
        return valid, sum(map(self._approvals.left, valid)) / nano(1)

    def approval_fields(self, approval: Change) -> dict[str, Any]:
        """One approval in force as plain values; money in US dollars, over all who charge it."""
        left = self._approvals.left(approval)
        return {"id": approval.id, "usd": dollars(approval.nano_usd), "usd_left": dollars(left)}

    # 2. For calls.

    def attempt_charge(
        self,
        record: CallRecord,
        routing: Routing,
        candidate: Candidate,
        fields: Fields,
        size: int,
    ) -> AttemptCharge | None:
        """What one attempt is charged; None if nothing counts it. ``size``: bytes of its body."""
        role, provider = routing.role, routing.provider
        model = self._names.canonical(candidate.model)
        # Loading a model of our own, or having it leave, answers nobody.
        unseen = record.loading is not None or not self.looks_at(model, role)
        if provider is Provider.LOCAL and unseen:
            return None
        price = self._prices.of(model, provider)
        most = self._estimates.usd(price, role, candidate, record.endpoint.facts, fields, size)
        # What nobody can bound has room in no budget of money.
        charge = Charge(model, role, provider, MOST_NANO if most is None else nano(most))
        return AttemptCharge(self, record, charge, priced=most is not None)

    def unpriced(self, role: Role, candidate: Candidate) -> Failure | None:
        """Why no approval covers a call to this model of the cloud; None: its price is known."""
        if self._at_most(role, candidate, Provider.CLOUD) is not None:
            return None
        return budget_text.price_unknown(self._names.canonical(candidate.model))

    def foresee(self, role: Role, candidate: Candidate, provider: Provider) -> Failure | None:
        """Why a chat with this model would be refused now; counts nothing.

        It is one that bounds its answer by nothing. Others that count the same are not asked.
        """
        model, most = (
            self._names.canonical(candidate.model),
            self._at_most(role, candidate, provider),
        )
        charge = Charge(model, role, provider, MOST_NANO if most is None else nano(most))
        is_cloud, now = provider is Provider.CLOUD, self._time.now()
        if not (is_cloud or self._budgets.enforced(charge)):
            return None
        refused = self._closed() or (self.unpriced(role, candidate) if is_cloud else None)
        if refused is not None:
            return refused
        if is_cloud:
            self.approved()  # with what others are known to have charged
            denied = self._approvals.choose(now, charge.nano_usd)
            if isinstance(denied, Denied):
                return self._not_approved(denied, charge)
        exhausted = self._budgets.check(now, charge)
        if exhausted is not None:
            return budget_text.refusal(exhausted, self._time.read().wall, self.asked_at)
        unwritten = self._store.error
        return None if unwritten is None else budget_text.unavailable(unwritten, self.asked_at)

    def _at_most(self, role: Role, candidate: Candidate, provider: Provider) -> float | None:
        """What a short chat without bounds may cost, in US dollars; None: nobody knows."""
        price = self._prices.of(self._names.canonical(candidate.model), provider)
        return self._estimates.usd(price, role, candidate, NO_FACTS, Fields(b"", {}), 0)

    def output_tokens(self, record: CallRecord, role: Role, model: str, fields: Fields) -> int:
        """Tokens that an answer is charged with beforehand."""
        return self._estimates.output_tokens(role, model, record.endpoint.facts, fields)

    def looks_at(self, model: str, role: Role) -> bool:
        """Whether a budget counts calls of ``role`` to this local model, by its canonical name."""
        return self._budgets.selected(model, role, Provider.LOCAL)

    def has_room(self, model: str, role: Role, provider: Provider) -> bool:
        """Whether budgets of calls would let one through now."""
        charge = Charge(self._names.canonical(model), role, provider)
        if self._budgets.check(self._time.now(), charge) is not None:
            return False
        claims = () if self._shared is None else self._budgets.claims(charge)
        standings = self.standing(charge) if claims else ()
        names = {claim.name for claim in claims}
        return all(row.calls_left != 0 for row in standings if row.name in names)

    def header_lines(self, record: CallRecord) -> list[bytes]:
        """``RateLimit`` lines for the budgets that concern a call; none for most calls."""
        if not record.budgets:
            return []
        now = [standing for standing in self.standing() if standing.name in record.budgets]
        return budget_text.header_lines(now)

    # 3. For what attempts are charged.

    async def check(self, attempt_charge: AttemptCharge) -> Failure | None:
        """Why the call would be refused now; counts nothing."""
        charge = attempt_charge.charge
        cloud = charge.provider is Provider.CLOUD
        if not (cloud or self._budgets.enforced(charge)):
            return None
        if (closed := self._closed()) is not None:
            return closed
        if cloud:
            return (
                await self._refresh()
                or await self._learn_approvals(attempt_charge)
                or self._check_cloud(attempt_charge)
                or self._check(attempt_charge)
                or await self._check_shared(attempt_charge)
            )
        refused = self._check(attempt_charge)
        if refused is not None and refused.reason is Reason.COUNTS_LOST:
            # Somebody may have said since that it is no matter.
            refused = await self._refresh() or self._check(attempt_charge)
        return refused or await self._check_shared(attempt_charge)

    async def reserve(self, attempt_charge: AttemptCharge) -> Failure | None:
        """Count it, here and on disk; then it may be sent. Else why it may not."""
        charge = attempt_charge.charge
        cloud = charge.provider is Provider.CLOUD
        must = cloud or self._budgets.enforced(charge)
        if (closed := self._closed()) is not None:
            return closed if must else None
        if cloud:
            approval = self._choose(attempt_charge)
            if isinstance(approval, Denied):
                return self._not_approved(approval, charge)
            attempt_charge.approval = approval
        reservation = self._budgets.reserve(self._time.now(), charge)
        if isinstance(reservation, Exhausted):
            return self._refuse(attempt_charge, reservation)
        self._count(attempt_charge, reservation)
        if must:
            return await self._write(attempt_charge, reservation) or await self._share(
                attempt_charge, reservation
            )
        # Shadow budgets alone: nothing is refused, so nothing waits for the disk.
        line = self._line(attempt_charge, reservation)
        self._submit(f"the charge of {line.request_id}", lambda db: budget_store.reserve(db, line))
        return None

    def settle(self, attempt_charge: AttemptCharge, attempt: Attempt) -> None:
        """The attempt has ended: settle, or give back what was not sent, or not computed."""
        reservation = attempt_charge.reservation
        if reservation is None:
            return
        if not attempt.sent or _turned_away(attempt_charge, attempt):
            self._undo(attempt_charge, reservation)
            self._note(attempt_charge)
            return
        keeper, charged = self._keeper, reservation.charge.nano_usd
        cost = _cost(attempt, charged)
        self._budgets.settle(reservation, cost)
        if attempt_charge.approval is not None:
            self._under_way.pop(reservation.id, None)
            self._approvals.charge(attempt_charge.approval.id, cost - charged)
        self._tell_shared(attempt_charge, reservation, cost)
        self._submit(
            f"the cost of {attempt_charge.record.request_id}",
            lambda db: budget_store.settle(db, keeper, reservation.id, cost),
        )

    def leaves(self, leaving: Leaving) -> None:
        """A request is about to leave for a cloud; its charge is on disk already."""
        what = f"what left with {leaving.request_id}"
        self._submit(what, lambda db: egress_store.add(db, leaving))

    def has_left(self, leaving: Leaving, attempt: Attempt) -> None:
        """It has been answered, or not."""
        usage, usd = attempt.usage, attempt.cost_usd
        status = attempt.upstream_status if attempt.sent else egress_store.NOT_SENT
        what = f"what became of {leaving.request_id}"
        self._submit(what, lambda db: egress_store.end(db, leaving, status, usage, usd))

    # 4. Inside.

    def _closed(self) -> Failure | None:
        """Why nothing can be counted here now."""
        if not self._is_open:
            return budget_text.unavailable(self._store.error or _OPENING, self.asked_at)
        return budget_text.unavailable(_TAKEN_OVER, self.asked_at) if self._taken_over else None

    def _lose(self) -> None:
        """Another process keeps the file, and never gives it back: said once."""
        if not self._taken_over:
            self._taken_over = True
            logger.error(_REFUSED_HERE)

    def _check_cloud(self, attempt_charge: AttemptCharge) -> Failure | None:
        charge = attempt_charge.charge
        if not attempt_charge.priced:
            self._note(attempt_charge)
            return budget_text.price_unknown(charge.model)
        denied = self._choose(attempt_charge)
        if isinstance(denied, Denied):
            self._note(attempt_charge)
            return self._not_approved(denied, charge)
        return None

    def _choose(self, attempt_charge: AttemptCharge) -> Change | Denied:
        """The approval that it is to be charged to."""
        nano_usd, full = attempt_charge.charge.nano_usd, attempt_charge.full
        return self._approvals.choose(self._time.now(), nano_usd, full)

    async def _learn_approvals(self, attempt_charge: AttemptCharge) -> Failure | None:
        """Where none here covers it, one may have been given at another proxy just now."""
        if self._shared is None or not isinstance(self._choose(attempt_charge), Denied):
            return None
        return await self._hear_of_changes(attempt_charge)

    async def _hear_of_changes(self, attempt_charge: AttemptCharge) -> Failure | None:
        assert self._shared is not None
        try:
            await self._shared.learn_approvals(attempt_charge.patience)
        except AwayError as error:
            return budget_text.shared_away(str(error), self.asked_at)
        except StoreError as error:
            return budget_text.unavailable(self._why(error), self.asked_at)
        return None

    def _not_approved(self, denied: Denied, charge: Charge) -> Failure:
        return budget_text.not_approved(denied, charge.model, charge.nano_usd, self.asked_at)

    def _check(self, attempt_charge: AttemptCharge) -> Failure | None:
        exhausted = self._budgets.check(self._time.now(), attempt_charge.charge)
        return None if exhausted is None else self._refuse(attempt_charge, exhausted)

    async def _check_shared(self, attempt_charge: AttemptCharge) -> Failure | None:
        """Why there is no room for it among everybody's calls; counts nothing."""
        while self._shared is not None:
            approval = self._approval_of(attempt_charge)
            if isinstance(approval, Denied):
                return self._not_approved(approval, attempt_charge.charge)
            claims = self._claims(attempt_charge.charge, approval)
            if not claims:
                break
            try:
                sums = await self._shared.look(claims, attempt_charge.patience)
            except AwayError as error:
                return budget_text.shared_away(str(error), self.asked_at)
            full = self._full(attempt_charge, claims, sums)
            if full is not None or not await self._is_spent(attempt_charge, approval, sums):
                return full
        return None

    async def _share(
        self, attempt_charge: AttemptCharge, reservation: Reservation
    ) -> Failure | None:
        """Count it among everybody's calls too; where that cannot be, it is not counted here."""
        if self._shared is None:
            return None
        approval = attempt_charge.approval
        if not (claims := self._claims(reservation.charge, approval)):
            return None
        try:
            sums = await self._shared.count(reservation.id, claims, attempt_charge.patience)
        except asyncio.CancelledError:
            self._undo(attempt_charge, reservation)
            raise
        except AwayError as error:
            self._undo(attempt_charge, reservation)
            return budget_text.shared_away(str(error), self.asked_at)
        full = self._full(attempt_charge, claims, sums)
        is_spent = await self._is_spent(attempt_charge, approval, sums)
        if full is not None or is_spent:
            self._undo(attempt_charge, reservation)
        if full is None and is_spent:
            # Another approval may have room for it.
            return await self.reserve(attempt_charge)
        return full

    def _approval_of(self, attempt_charge: AttemptCharge) -> Change | Denied | None:
        """What it would be charged to; None: it needs no approval."""
        is_cloud = attempt_charge.charge.provider is Provider.CLOUD
        return self._choose(attempt_charge) if is_cloud else None

    def _claims(self, charge: Charge, approval: Change | None) -> tuple[Claim, ...]:
        """What it asks of budgets and of its approval among everybody's calls."""
        claims = self._budgets.claims(charge)
        return claims if approval is None else (*claims, self._claim(approval, charge.nano_usd))

    def _claim(self, approval: Change, nano_usd: int) -> Claim:
        """An approval is counted from when it was given until it is over."""
        return Claim(
            name=name_of(approval.uid),
            window_s=_APPROVAL_S,
            max_calls=None,
            max_nano_usd=approval.nano_usd,
            nano_usd=nano_usd,
            lease=Amount(0, int(approval.nano_usd * self._budgets.cloud_lease)),
            approval=approval.uid,
            given_s=max(0, int(self._time.now() - approval.at)) + _MARGIN_S,
        )

    async def _is_spent(
        self, attempt_charge: AttemptCharge, approval: Change | None, sums: Mapping[str, Sums]
    ) -> bool:
        """Whether the approval has no room among everybody's calls; it is then not asked again."""
        if approval is None:
            return False
        of_all = sums[name_of(approval.uid)]
        self._approvals.spent_by_all[approval.id] = of_all.nano_usd
        if of_all.is_revoked:
            await self._hear_of_changes(attempt_charge)
        if not of_all.has_room:
            attempt_charge.full += (approval.id,)
        return not of_all.has_room

    def _full(
        self, attempt_charge: AttemptCharge, claims: Sequence[Claim], sums: Mapping[str, Sums]
    ) -> Failure | None:
        """Of several budgets without room among everybody's calls, the one that opens last."""
        standings = {one.name: one for one in self.standing(attempt_charge.charge)}
        refusals = [
            _exhausted(standings[claim.name], sums[claim.name], claim)
            for claim in claims
            if not (sums[claim.name].has_room or claim.approval)
        ]
        worst = max(refusals, key=lambda one: rank(one.opens_in_s), default=None)
        return None if worst is None else self._refuse(attempt_charge, worst)

    def _tell_shared(
        self, attempt_charge: AttemptCharge, reservation: Reservation, nano_usd: int | None
    ) -> None:
        if self._shared is None:
            return
        if claims := self._claims(reservation.charge, attempt_charge.approval):
            self._shared.settle(reservation.id, claims, nano_usd)

    def _over_all(self, standing: Standing) -> Standing:
        """The same with what all proxies count, as far as that has been asked."""
        assert self._shared is not None
        if standing.shadow:
            return standing
        lease = self._shared.lease(standing.name)
        sums = self._shared.sums.get(standing.name)
        if sums is None:
            return replace(standing, lease=lease)
        return replace(
            standing,
            calls=sums.calls,
            nano_usd=sums.nano_usd,
            frees_in_s=sums.frees_in_s,
            lease=lease,
        )

    def _refuse(self, attempt_charge: AttemptCharge, exhausted: Exhausted) -> Failure:
        name = exhausted.standing.name
        self.refusals.refused[name] += 1
        self._note(attempt_charge, name)
        return budget_text.refusal(exhausted, self._time.read().wall, self.asked_at)

    def _note(self, attempt_charge: AttemptCharge, refused: str | None = None) -> None:
        standings = self.standing(attempt_charge.charge)
        attempt_charge.record.note_budgets(standings, refused)

    def _count(self, attempt_charge: AttemptCharge, reservation: Reservation) -> None:
        attempt_charge.reservation = reservation
        if (approval := attempt_charge.approval) is not None:
            nano_usd = reservation.charge.nano_usd
            self._approvals.charge(approval.id, nano_usd)
            counted = Counted(reservation.id, reservation.at, nano_usd)
            self._under_way[reservation.id] = (approval.id, counted)
        self.refusals.shadow.update(reservation.over)
        self._note(attempt_charge)

    async def _write(
        self, attempt_charge: AttemptCharge, reservation: Reservation
    ) -> Failure | None:
        line = self._line(attempt_charge, reservation)
        try:
            await self._store.commit(lambda db: budget_store.reserve(db, line))
        except asyncio.CancelledError:
            self._undo(attempt_charge, reservation)
            raise
        except RevokedError:
            self._undo(attempt_charge, reservation)
            denied = Denied(Reason.APPROVAL_REVOKED, attempt_charge.approval)
            charge = attempt_charge.charge
            return self._not_approved(denied, charge)
        except NotKeeperError:
            self._lose()
            self._undo(attempt_charge, reservation)
            return self._closed()
        except StoreError as error:
            self._undo(attempt_charge, reservation)
            return budget_text.unavailable(self._why(error), self.asked_at)
        except _UNWRITABLE as error:
            _tell_unwritten(f"the charge of {line.request_id}", error)
            self._undo(attempt_charge, reservation)
            return budget_text.unavailable("this charge cannot be written", self.asked_at)
        self._written = line.anchor
        return None

    def _line(self, attempt_charge: AttemptCharge, reservation: Reservation) -> ChargeRow:
        approval = None if attempt_charge.approval is None else attempt_charge.approval.id
        record = attempt_charge.record
        return ChargeRow(
            self._keeper, self._time.anchor(), reservation, approval, record.request_id
        )

    def _undo(self, attempt_charge: AttemptCharge, reservation: Reservation) -> None:
        """As if it had never been reserved, here and on disk."""
        keeper = self._keeper
        attempt_charge.reservation = None
        self._budgets.give_back(reservation)
        if attempt_charge.approval is not None:
            self._under_way.pop(reservation.id, None)
            self._approvals.charge(attempt_charge.approval.id, -reservation.charge.nano_usd)
        self._tell_shared(attempt_charge, reservation, None)
        # Behind whatever wrote it, should that still be on its way.
        self._submit(
            f"what was given back of {attempt_charge.record.request_id}",
            lambda db: budget_store.give_back(db, keeper, reservation.id),
        )

    async def _refresh(self) -> Failure | None:
        """Read what people have changed; the failure if that cannot be read."""
        keeper = self._keeper
        try:
            kept, changes = await self._store.commit(lambda db: budget_store.news(db, keeper))
        except StoreError as error:
            return budget_text.unavailable(self._why(error), self.asked_at)
        self._read_changes(changes)
        if not kept:
            self._lose()
        return self._closed()

    def _read_changes(self, changes: tuple[Change, ...]) -> None:
        self._approvals.replace(changes)
        self._budgets.presume_used(self._approvals.lost_at())

    def _why(self, error: StoreError) -> str:
        """In few words, and without the path of the file: this is told to clients."""
        return self._store.error or str(error).rpartition(": ")[2]

    def _write_clock(self) -> None:
        self._written = anchor = self._time.anchor()
        self._submit("the time", lambda db: budget_store.set_clock(db, anchor, self._keeper))

    def _forget(self) -> None:
        now = self._time.now()
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_EVERY_S
            before = now - self._budgets.longest_s - _KEPT_S
            self._submit("that old charges go", lambda db: budget_store.forget(db, before))

    def _submit(self, what: str, work: Callable[[sqlite3.Connection], None]) -> None:
        """Have it written a moment later; one that cannot be is counted, and takes no other along.

        What is counted in memory stays counted. On disk a charge stays as it was reserved.
        """

        def written(done: Future[None]) -> None:
            """In the writer's thread, or in ours if the store is closed."""
            error = done.exception()
            # Who has lost the file writes nothing more, which is said elsewhere.
            if error is not None and not isinstance(error, NotKeeperError):
                self.writes_lost += 1
                if not isinstance(error, StoreError):
                    _tell_unwritten(what, error)

        self._store.submit(work).add_done_callback(written)


class AttemptCharge:
    """What one attempt is charged: asked, reserved, and in the end settled."""

    __slots__ = (
        *("_budget_keeper", "_patience", "approval", "charge", "full", "priced", "record"),
        "reservation",
    )

    def __init__(
        self, budget_keeper: BudgetKeeper, record: CallRecord, charge: Charge, *, priced: bool
    ) -> None:
        self._budget_keeper = budget_keeper
        self.record = record
        self.charge = charge
        self.priced = priced
        self.reservation: Reservation | None = None
        self.approval: Change | None = None
        # Approvals that others have said to have no room for it.
        self.full: tuple[int, ...] = ()
        self._patience: Patience | None = None

    @property
    def patience(self) -> Patience:
        """For how long it still waits for who counts it elsewhere."""
        if self._patience is None:
            shared = self._budget_keeper.shared
            self._patience = Patience() if shared is None else shared.patience()
        return self._patience

    async def check(self) -> Failure | None:
        return await self._budget_keeper.check(self)

    async def reserve(self) -> Failure | None:
        return await self._budget_keeper.reserve(self)

    def close(self, attempt: Attempt) -> None:
        self._budget_keeper.settle(self, attempt)


def _exhausted(standing: Standing, sums: Sums, claim: Claim) -> Exhausted:
    """What there is no room for among everybody's calls."""
    by_calls = rank(sums.calls_wait_s) >= rank(sums.money_wait_s)
    reason, wait_s = (
        (Reason.CALLS, sums.calls_wait_s) if by_calls else (Reason.USD, sums.money_wait_s)
    )
    return Exhausted(standing, reason, claim.nano_usd, wait_s)


def _tell_unwritten(what: str, error: BaseException) -> None:
    logger.error("%s cannot be written: %s: %s", what, type(error).__name__, error)


def _turned_away(attempt_charge: AttemptCharge, attempt: Attempt) -> bool:
    embeds = attempt_charge.record.endpoint.facts.embeds
    return computed_nothing(attempt.upstream_status, attempt_charge.charge.provider, embeds=embeds)


def _cost(attempt: Attempt, charged: int) -> int:
    """What the attempt cost; what was charged, where that cannot be known.

    A cost that is more than can be counted is none that anybody knows.
    """
    cost = attempt.cost_usd
    if cost is None or (paid := nano(cost)) == MOST_NANO:
        return charged
    return paid
