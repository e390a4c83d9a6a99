"""Objectives judged by what the running proxy has kept, one report at a time.

In a thread, and gently: calls go on meanwhile. A file of so many records that this takes
too long is for the command, which has a process of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from modelsplit_policy.slo.judge import judge, longest_window_s
from modelsplit_proxy.records.slo_data import SloData

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from modelsplit_policy.config.model import SloPolicy
    from modelsplit_policy.slo.report import Report
    from modelsplit_proxy.records.reader import Read
    from modelsplit_proxy.records.recorder import Recorder
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.storage.writer import Store

    Slo = Mapping[str, SloPolicy | None]

LIMIT_S: Final = 60.0


def report_of(
    read: Read,
    slo: Slo,
    clock: Clock,
    since_s: int | None = None,
    gates: Collection[int] | None = None,
    limit_s: float | None = None,
) -> Report:
    """Judge what a state file holds; blocks on disk and computes.

    ``limit_s``: no longer than this, and gently; None: as long and as fast as it goes.
    Raises StoreError.
    """
    now_us = round(clock.wall() * 1e6)
    since_us = now_us - 1_000_000 * longest_window_s(slo, since_s, gates)
    data = SloData(read)
    if limit_s is not None:
        end = clock.now() + limit_s
        data = SloData(read, lambda: clock.now() < end, gently=True)
    return judge(data.samples(since_us, now_us), slo, now_us, since_s, gates)


class SloJudge:
    """Judges for the admin port and for the metrics."""

    def __init__(self, slo: Slo, recorder: Recorder, store: Store, clock: Clock) -> None:
        self._slo = slo
        self._recorder = recorder
        self._store = store
        self._clock = clock
        self._turn = asyncio.Lock()

    async def report(
        self, since_s: int | None = None, gates: Collection[int] | None = None
    ) -> Report:
        """Raises StoreError, also where it takes longer than ``LIMIT_S``."""
        async with self._turn:
            return await asyncio.to_thread(self._report, since_s, gates)

    def _report(self, since_s: int | None, gates: Collection[int] | None) -> Report:
        # What has ended is on the disk; later pages need not ask again.
        self._recorder.read("SELECT 1", ())
        return report_of(self._store.read, self._slo, self._clock, since_s, gates, LIMIT_S)
