"""Several proxies that count budgets together, each with a state file of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from modelsplit_policy.approvals import ApprovalAction, Change
from modelsplit_policy.budgets import nano
from modelsplit_proxy.limits import budget_store
from modelsplit_proxy.limits.shared_budgets import SharedBudgets
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.runtime.tasks import Tasks
from modelsplit_proxy.storage.state_file import FILE_NAME
from support.budget_keepers import NOON, Clocks, Held, budget_keeper
from support.fake_time import clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from modelsplit_proxy.storage.writer import Store
    from support.harness import Overlay

# No machine is slow enough to be taken for a server that hangs.
PATIENT_S = 600.0
DAY = 86_400.0
TWO: Overlay = {"budgets": [{"name": "two", "models": ["gpt-oss:20b"], "calls": 2, "window": "1h"}]}
TEN: Overlay = {"budgets": [{**TWO["budgets"][0], "name": "ten", "calls": 10}]}


class FastClock(SystemClock):
    """Of a machine whose wall clock is fast by so many seconds."""

    def __init__(self, by: float) -> None:
        self._by = by

    def wall(self) -> float:
        return super().wall() + self._by


@contextlib.asynccontextmanager
async def sharing(
    home: Path,
    url: str,
    name: str,
    overlay: Overlay = TWO,
    timeout_s: float = PATIENT_S,
    fast_by: float = 0.0,
) -> AsyncIterator[Held]:
    """One of several; it has looked after the server once. ``fast_by``: its clock, in seconds."""
    directory = home / name
    directory.mkdir(exist_ok=True)
    clocks, tasks = Clocks(), Tasks()

    def shared(store: Store) -> SharedBudgets:
        its_clock = clock() or SystemClock()
        if fast_by:
            its_clock = FastClock(fast_by)
        return SharedBudgets(url, "test", store, tasks, its_clock, timeout_s)

    async with budget_keeper(directory, clocks, overlay, shared=shared) as held:
        await of(held).look_after()
        try:
            yield held
        finally:
            await tasks.close()
            await of(held).close()


def of(held: Held) -> SharedBudgets:
    shared = held.budget_keeper.shared
    assert shared is not None
    return shared


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - nobody sets an event
        await asyncio.sleep(0)


async def is_told(held: Held) -> None:
    """Everything that the server is told a moment later."""
    await until(lambda: not of(held)._tasks._running)


async def is_open(held: Held) -> None:
    await are_open(held)


async def are_open(*proxies: Held) -> None:
    """They may have to wait for each other."""
    while any(of(held).error is not None for held in proxies):
        for held in proxies:
            await of(held).look_after()


def approve(held: Held, usd: float = 5.0, days: float = 7.0) -> int:
    """As ``budget approve`` does beside the running proxy; the number of the approval."""
    values = (nano(usd), NOON + days * DAY)
    return _written(held, Change(0, NOON, NOON, ApprovalAction.APPROVE, "kim", "a trial", *values))


def revoke(held: Held, approval: int) -> None:
    change = Change(0, NOON, NOON, ApprovalAction.REVOKE, "kim", "enough", target=approval)
    _written(held, change)


def _written(held: Held, change: Change) -> int:
    with closing(sqlite3.connect(held.budget_keeper.state / FILE_NAME)) as db, db:
        return budget_store.add_change(db, change)
