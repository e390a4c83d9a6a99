"""Objectives judged by what the running proxy has kept, one report at a time.

In a thread, and gently: calls go on meanwhile. A file of so many records that this takes
too long is for the command, which has a process of its own.
"""

from __future__ import annotations

import asyncio
from shlex import quote
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from modelsplit_policy.config.model import SloPolicy
    from modelsplit_policy.slo.report import Report
    from modelsplit_proxy.records.recorder import Recorder
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.storage.writer import Store

    Slo = Mapping[str, SloPolicy | None]

LIMIT_S: Final = 60.0


class SloJudge:
    """Judges for the admin port and for the metrics."""

    def __init__(self, slo: Slo, recorder: Recorder, store: Store, clock: Clock) -> None:
        self._slo = slo
        self._recorder = recorder
        self._store = store
        self._clock = clock
        self._turn = asyncio.Lock()
        self._closing = False

    def close(self) -> None:
        """End what is being judged, so that nobody waits for its thread when the process ends."""
        self._closing = True

    def of_nothing(self) -> Report:
        """What a report says where there is no record: each objective and its bound."""
        from modelsplit_proxy.records.slo_reading import report_of_nothing  # noqa: PLC0415

        return report_of_nothing(self._slo, round(self._clock.wall() * 1e6))

    async def report(
        self, since_s: int | None = None, gates: Collection[int] | None = None
    ) -> Report:
        """Raises StoreError, also where it takes longer than ``LIMIT_S``."""
        async with self._turn:
            return await asyncio.to_thread(self._report, since_s, gates)

    def _report(self, since_s: int | None, gates: Collection[int] | None) -> Report:
        """In a thread."""
        from modelsplit_proxy.records.slo_reading import report_of  # noqa: PLC0415

        # What has ended is on the disk; later pages need not ask again.
        self._recorder.read("SELECT 1", ())
        end = self._clock.now() + LIMIT_S

        def check() -> None:
            if self._closing:
                raise StoreError("objectives are not judged while the process ends")
            if self._clock.now() >= end:
                command = f"modelsplit slo --state {quote(str(self._store.path.parent))}"
                raise StoreError(
                    f"judging took too long here; `{command}` reads the file itself and takes its "
                    "time"
                )

        return report_of(self._store.read, self._slo, self._clock, since_s, gates, check)
