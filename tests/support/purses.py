"""Purses on real state files, with clocks that a test sets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from modelsplit_policy.facts import Context, Provider, Role, RouteReason
from modelsplit_policy.ledgertime import Reading
from modelsplit_policy.prices import Prices
from modelsplit_policy.roles import Candidate, Route
from modelsplit_proxy.clock import LedgerTime
from modelsplit_proxy.purse import Payment, Purse
from support.harness import policy
from support.records import routed
from support.stores import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from modelsplit_policy.config import Policy
    from modelsplit_proxy.record import Attempt, CallRecord
    from modelsplit_proxy.store import Store
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
        self.reading = Reading(boot, 1000.0, NOON)

    def __call__(self) -> Reading:
        return self.reading

    def wait(self, seconds: float) -> None:
        now = self.reading
        self.reading = replace(now, since_boot=now.since_boot + seconds, wall=now.wall + seconds)

    def set_wall(self, by: float) -> None:
        self.reading = replace(self.reading, wall=self.reading.wall + by)

    def reboot(self, boot: str | None, since_boot: float) -> None:
        self.reading = replace(self.reading, boot=boot, since_boot=since_boot)


class Held:
    """A purse and what it stands on."""

    def __init__(self, purse: Purse, store: Store, clocks: Clocks) -> None:
        self.purse = purse
        self.store = store
        self.clocks = clocks

    def payment(
        self, candidate: Candidate = HEAVY, fields: dict[str, Any] | None = None, size: int = 100
    ) -> tuple[CallRecord, Attempt, Payment]:
        """A call, its first attempt, and what that is charged."""
        record = routed(ROUTES[candidate.model])
        price = self.purse._prices.of(candidate.model, Provider.CLOUD)
        attempt = record.attempt(candidate, 100.0, price)
        payment = self.purse.payment(record, candidate, fields or {}, size)
        assert payment is not None
        return record, attempt, payment

    async def sent(self, candidate: Candidate = HEAVY) -> str | None:
        """One call through to its end; the reason if it was refused."""
        _, attempt, payment = self.payment(candidate)
        refused = await payment.check() or await payment.reserve()
        attempt.sent = refused is None
        payment.close(attempt)
        return None if refused is None else refused.reason


@asynccontextmanager
async def purse(
    directory: Path, clocks: Clocks | None = None, overlay: Overlay | None = None, **store: Any
) -> AsyncIterator[Held]:
    """An open purse; closed as the process would, unless the test closed it before."""
    clocks = clocks or Clocks()
    with opened(directory, **({"urgent_s": 5.0} | store)) as made:
        loaded = policy(overlay).policy
        held = Held(Purse(loaded, Prices(loaded), made, LedgerTime(clocks)), made, clocks)
        await held.purse.open()
        yield held
        held.purse.close()


def without_a_file(policy: Policy) -> Purse:
    """A purse that was never opened: for calls that no budget looks at."""
    return Purse(policy, Prices(policy), cast("Store", None), LedgerTime(Clocks()))
