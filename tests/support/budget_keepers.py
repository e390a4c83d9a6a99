"""Purses on real state files, with clocks that a test sets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from modelsplit_policy.budget_clock import ClockReading
from modelsplit_policy.prices import Prices
from modelsplit_policy.roles import Candidate, Route
from modelsplit_policy.vocabulary import Context, Provider, Role, RouteReason
from modelsplit_proxy.limits.budgets import AttemptCharge, BudgetKeeper
from modelsplit_proxy.runtime.clock import BudgetClock
from support.bodies import fields_of
from support.harness import policy
from support.records import routed, routing
from support.stores import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from modelsplit_policy.config.model import Policy
    from modelsplit_proxy.limits.shared_budgets import SharedBudgets
    from modelsplit_proxy.records.record import Attempt, CallRecord
    from modelsplit_proxy.storage.writer import Store
    from support.harness import Overlay

NOON = 1_795_435_200.0  # 2026-11-23T12:00:00Z
HEAVY = Candidate("gpt-oss:20b", 120.0)
OPUS = Candidate("claude-3-opus", 30.0)
ROUTES = {
    HEAVY.model: Route(
        Role.HEAVY, Context.EXECUTOR, Provider.LOCAL, "heavy", (HEAVY,), RouteReason.ALIAS
    ),
    OPUS.model: Route(
        Role.CLOUD, Context.EXECUTOR, Provider.CLOUD, "cloud", (OPUS,), RouteReason.ALIAS
    ),
}


class Clocks:
    """The machine's clocks, as a test sets them."""

    def __init__(self, boot: str | None = "boot-1") -> None:
        self.reading = ClockReading(boot, 1000.0, NOON)

    def __call__(self) -> ClockReading:
        return self.reading

    def wait(self, seconds: float) -> None:
        now = self.reading
        self.reading = replace(now, since_boot=now.since_boot + seconds, wall=now.wall + seconds)

    def set_wall(self, by: float) -> None:
        self.reading = replace(self.reading, wall=self.reading.wall + by)

    def reboot(self, boot: str | None, since_boot: float) -> None:
        self.reading = replace(self.reading, boot=boot, since_boot=since_boot)


class Held:
    """A budget_keeper and what it stands on."""

    def __init__(self, budget_keeper: BudgetKeeper, store: Store, clocks: Clocks) -> None:
        self.budget_keeper = budget_keeper
        self.store = store
        self.clocks = clocks

    def attempt_charge(
        self, candidate: Candidate = HEAVY, fields: dict[str, Any] | None = None, size: int = 100
    ) -> tuple[CallRecord, Attempt, AttemptCharge]:
        """A call, its first attempt, and what that is charged."""
        record = routed(ROUTES[candidate.model])
        price = self.budget_keeper._prices.of(candidate.model, Provider.CLOUD)
        attempt = record.attempt(candidate, 100.0, price)
        attempt_charge = self.budget_keeper.attempt_charge(
            record, routing(record), candidate, fields_of(fields or {}), size
        )
        assert attempt_charge is not None
        return record, attempt, attempt_charge

    async def sent(self, candidate: Candidate = HEAVY) -> str | None:
        """One call through to its end; the reason if it was refused."""
        _, attempt, attempt_charge = self.attempt_charge(candidate)
        refused = await attempt_charge.check() or await attempt_charge.reserve()
        attempt.sent = refused is None
        attempt_charge.close(attempt)
        return None if refused is None else refused.reason


@asynccontextmanager
async def budget_keeper(
    directory: Path,
    clocks: Clocks | None = None,
    overlay: Overlay | None = None,
    shared: Callable[[Store], SharedBudgets] | None = None,
    **store: Any,
) -> AsyncIterator[Held]:
    """An open budget_keeper; closed as the process would, unless the test closed it before.

    ``shared``: makes where others count the same budgets.
    """
    clocks = clocks or Clocks()
    with opened(directory, **store) as made:
        loaded = policy(overlay).policy
        others = None if shared is None else shared(made)
        keeper = BudgetKeeper(loaded, Prices(loaded), made, BudgetClock(clocks), others)
        held = Held(keeper, made, clocks)
        await held.budget_keeper.open()
        yield held
        held.budget_keeper.close()


def without_a_file(policy: Policy) -> BudgetKeeper:
    """A budget_keeper that was never opened: for calls that no budget looks at."""
    return BudgetKeeper(policy, Prices(policy), cast("Store", None), BudgetClock(Clocks()))
