"""Objectives judged by what a state file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.slo.judge import judge, longest_window_s
from modelsplit_policy.slo.samples import Samples
from modelsplit_proxy.records.slo_data import SloData

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from modelsplit_policy.config.model import SloPolicy
    from modelsplit_policy.slo.report import Report
    from modelsplit_proxy.records.reader import Read
    from modelsplit_proxy.runtime.clock import Clock

    Slo = Mapping[str, SloPolicy | None]


def report_of(
    read: Read,
    slo: Slo,
    clock: Clock,
    since_s: int | None = None,
    gates: Collection[int] | None = None,
    check: Callable[[], None] | None = None,
) -> Report:
    """Judge what a state file holds; blocks on disk and computes. Raises StoreError.

    ``check``: called again and again, raises StoreError to end it; read gently then. None: as
    long and as fast as it goes.
    """
    now_us = round(clock.wall() * 1e6)
    since_us = now_us - 1_000_000 * longest_window_s(slo, since_s, gates)
    data = SloData(read, check, gently=check is not None)
    return judge(data.samples(since_us, now_us), slo, now_us, since_s, gates)


def report_of_nothing(slo: Slo, now_us: int) -> Report:
    """What a report says where there is no record: each objective and its bound."""
    return judge(Samples(), slo, now_us)
