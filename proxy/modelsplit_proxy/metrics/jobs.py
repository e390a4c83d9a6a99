"""Metrics of jobs: how they ended, how long they and their tools took."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily

from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.metrics.buckets import LATENCY_S
from modelsplit_proxy.metrics.families import Counters, Histograms, Series

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from modelsplit_proxy.metrics.document_names import DocumentNames
    from modelsplit_proxy.records.job_keeper import JobKeeper
    from modelsplit_proxy.records.job_store import EndedJob, Tool

_ENDS: Final = (JobState.OK, JobState.FAILED, JobState.EXPIRED)
_YES_NO: Final = ("yes", "no")


class JobMetrics:
    """To be told of jobs by their keeper."""

    def __init__(
        self, keeper: JobKeeper, registry: CollectorRegistry, documents: DocumentNames
    ) -> None:
        self._keeper = keeper
        self._documents = documents
        self._jobs = Counters(
            "modelsplit_jobs",
            "Jobs that have ended, by how, and whether they had a call of the context EXECUTOR.",
            ("state", "executor"),
            registry,
        )
        self._duration = Histograms(
            "modelsplit_job_duration_seconds",
            "From start to finish, of jobs that were finished.",
            ("state",),
            LATENCY_S,
            registry,
        )
        self._tools = Histograms(
            "modelsplit_tool_duration_seconds",
            "Time of tools as jobs report them.",
            (),
            LATENCY_S,
            registry,
        )
        for state, executor in product(_ENDS, _YES_NO):
            self._jobs.at[state, executor] = 0.0
        for state in (JobState.OK, JobState.FAILED):
            self._duration.at[state,] = Series(LATENCY_S)
        registry.register(self)

    def job_ended(self, job: EndedJob) -> None:
        self._jobs.at[job.state, "yes" if job.executor else "no"] += 1
        if job.e2e_us is not None:
            self._duration.at[job.state,].observe(job.e2e_us / 1e6)
            self._documents.job_e2e.observe(job.e2e_us / 1e6)

    def tool_ran(self, tool: Tool) -> None:
        self._tools.at[()].observe(tool.duration_us / 1e6)
        self._documents.tool.observe(tool.duration_us / 1e6)

    def collect(self) -> Iterator[Metric]:
        """What is read at the scrape."""
        yield GaugeMetricFamily(
            "modelsplit_jobs_open",
            "Jobs that have not ended, as counted every ten seconds.",
            value=self._keeper.open,
        )
