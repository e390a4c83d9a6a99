"""Whether each objective holds, for Prometheus: as it was judged a little while ago.

To judge may mean to read a million records, and whoever scrapes may do so every second. So a
scrape tells of the last report, and has a new one made once that is a minute old, or fifty
times as old as it took to make: judging takes a fiftieth of one processor at most. Where
nobody scrapes, nothing is judged. What is not known is NaN: series that come and go are hard to
alert on.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily

from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from modelsplit_policy.slo.report import Finding, Report
    from modelsplit_proxy.records.slo_judge import SloJudge
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.tasks import Tasks

logger = logging.getLogger("modelsplit")

_EVERY_S: Final = 60.0
_REST: Final = 50
_LABELS: Final = ("objective", "bound", "gate")


class SloMetrics:
    """Read at the scrape. ``report``: the last one; None: there is none yet."""

    def __init__(self, judge: SloJudge, tasks: Tasks, clock: Clock) -> None:
        self._judge = judge
        self._tasks = tasks
        self._clock = clock
        self._due = clock.now()
        self._judging = False
        self.report: Report | None = None

    def collect(self) -> Iterator[Metric]:
        if not self._judging and self._clock.now() >= self._due:
            self._judging = True
            self._tasks.run(self._look(), "judging objectives")
        holds = GaugeMetricFamily(
            "modelsplit_slo_ok",
            "1 while the objective holds, 0 while it does not; NaN without enough data.",
            labels=_LABELS,
        )
        value = GaugeMetricFamily(
            "modelsplit_slo_value", "What was observed, in the objective's unit.", labels=_LABELS
        )
        target = GaugeMetricFamily(
            "modelsplit_slo_objective", "What the value is compared with.", labels=_LABELS
        )
        for finding in _findings(self.report or self._judge.of_nothing()):
            labels = _labels(finding)
            holds.add_metric(labels, _known(finding.holds))
            value.add_metric(labels, _known(finding.value))
            target.add_metric(labels, _known(finding.target))
        yield from (holds, value, target)
        yield self._judged_at()

    def _judged_at(self) -> Metric:
        family = GaugeMetricFamily(
            "modelsplit_slo_judged_timestamp_seconds",
            "When objectives were judged last, since 1970.",
            labels=(),
        )
        family.add_metric((), math.nan if self.report is None else self.report.now_us / 1e6)
        return family

    async def _look(self) -> None:
        begun = self._clock.now()
        try:
            self.report = await self._judge.report()
        except StoreError as error:
            logger.warning("objectives were not judged for the metrics: %s", error)
        finally:
            now = self._clock.now()
            self._due = now + max(_EVERY_S, _REST * (now - begun))
            self._judging = False


def _findings(report: Report) -> Iterator[Finding]:
    for gate in report.gates:
        yield from gate.findings


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _labels(finding: Finding) -> tuple[str, str, str]:
    row = finding.objective
    return row.name, row.bound, "" if row.gate is None else str(row.gate)
