"""Prometheus metrics: canonical seconds, and the policy document's names as views of them.

One observation, two names. Histograms are recorded once, in seconds; ``LegacyNames`` says
the same buckets again in milliseconds under the names the policy document uses, at scrape
time. Every label value comes from a closed set: models outside the policy are ``other``,
so that a client inventing names cannot grow the series.

A refusal takes a millisecond. So a histogram of latencies tells calls apart by their outcome,
or holds answered calls alone: else its quantiles would fall while nobody is answered.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from modelsplit_policy.failures import ERRORS
from modelsplit_policy.health import SEVERITY
from modelsplit_policy.model_names import ModelNames, canonical
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.metrics.families import Counters, Histograms, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.breaker import BreakerView
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.vocabulary import Loading
    from modelsplit_proxy.http.upstream_pool import UpstreamPool
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.runtime.loop_lag import LoopLag
    from modelsplit_proxy.watch.health import HealthMonitor

# Local models take from tens of milliseconds to ten minutes; OpenTelemetry's own buckets
# stop at 82 s. The SLO thresholds (2 s, 5 s, 70 s) and role timeouts are edges.
LATENCY_S: Final = (
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0),
    *(30.0, 60.0, 70.0, 120.0, 300.0, 600.0),
)
WAIT_S: Final = (
    *(0.001, 0.005, 0.025, 0.1, 0.25, 0.5),
    *(1.0, 2.0, 5.0, 8.0, 10.0, 30.0),
)
LAG_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_OUTCOMES: Final = ("ok", "client_gone", "error")
OTHER: Final = "other"


class CallMetrics:
    """All of the process's own metrics on one registry."""

    def __init__(self, policy: Policy) -> None:
        self.registry = CollectorRegistry()
        self._names = ModelNames()
        self._models = {canonical(model): model for model in _policy_models(policy)}
        self._define_histograms()
        self._define_documents()
        self._define_counters()
        self._create_series()

    def _define_histograms(self) -> None:
        registry = self.registry
        self._duration = Histograms(
            "modelsplit_request_duration_seconds",
            "Whole time of a call as its client saw it.",
            ("role", "outcome"),
            LATENCY_S,
            registry,
        )
        self._upstream = Histograms(
            "modelsplit_upstream_duration_seconds",
            "From dispatch to the end of the answer, of the attempt that ended the call.",
            ("role", "outcome"),
            LATENCY_S,
            registry,
        )
        self._wait = Histograms(
            "modelsplit_queue_wait_seconds",
            "Time in line before a seat, or before being turned away.",
            ("role", "outcome"),
            WAIT_S,
            registry,
        )
        self._upstream_wait = Histograms(
            "modelsplit_upstream_wait_seconds",
            "Answered calls: in the upstream, neither load nor prompt nor answer, where known.",
            ("role",),
            WAIT_S,
            registry,
        )
        self._first_byte = Histograms(
            "modelsplit_time_to_first_byte_seconds",
            "Answered calls: from the start to the first byte of the answer.",
            ("role",),
            LATENCY_S,
            registry,
        )
        self._tool = Histograms(
            "modelsplit_tool_duration_seconds",
            "Time of tool calls as jobs report them.",
            (),
            LATENCY_S,
            registry,
        )

    def _define_documents(self) -> None:
        """What the policy document means by its names, where no histogram of ours is that."""
        apart = CollectorRegistry()
        self._waits = Histograms(
            "waits",
            "Answered calls: time in line and, where known, inside the upstream.",
            (),
            WAIT_S,
            apart,
        )
        self._latencies = Histograms(
            "latencies",
            "Answered calls: from dispatch to the end, less load and upstream wait.",
            (),
            LATENCY_S,
            apart,
        )
        self._unknown_waits = Counters(
            "modelsplit_upstream_wait_unknown",
            "Calls sent to the upstream whose wait inside it is unknown.",
            (),
            self.registry,
        )

    def _define_counters(self) -> None:
        registry = self.registry
        self._requests = Counters(
            "modelsplit_requests",
            "Finished calls.",
            ("role", "provider", "model", "outcome"),
            registry,
        )
        self._errors = Counters(
            "modelsplit_errors",
            "Failed calls by code and reason.",
            ("role", "code", "reason"),
            registry,
        )
        self._fallbacks = Counters(
            "modelsplit_fallbacks",
            "Second attempts by the code of the first one's failure.",
            ("role", "code"),
            registry,
        )
        self._tokens = Counters(
            "modelsplit_tokens",
            "Tokens as the upstream reports them.",
            ("role", "model", "direction"),
            registry,
        )
        self._schema = Counters(
            "modelsplit_schema_checks",
            "Answers held against the schema their request asked for.",
            ("role", "result"),
            registry,
        )
        self._client_retries = Counters(
            "modelsplit_client_retries",
            "Calls that an SDK says it is repeating.",
            (),
            registry,
        )
        self._loads = Counters(
            "modelsplit_loads",
            "Calls that only load or unload a model, by what they do.",
            ("role", "kind", "outcome"),
            registry,
        )
        self._passed = Counters(
            "modelsplit_passthrough_requests",
            "Requests outside the inference routes.",
            ("kind", "status"),
            registry,
        )

    def _create_series(self) -> None:
        """Make every common series exist at zero, so that rates start at the beginning."""
        for role, outcome in product(Role, _OUTCOMES):
            for family in (self._duration, self._upstream):
                family.at[role, outcome] = Series(LATENCY_S)
            self._wait.at[role, outcome] = Series(WAIT_S)
        for role in Role:
            self._upstream_wait.at[role,] = Series(WAIT_S)
            self._first_byte.at[role,] = Series(LATENCY_S)

    def call_ended(self, record: CallRecord) -> None:
        """Count one call that has ended, however it ended."""
        routing = record.routing
        role = OTHER if routing is None else routing.role
        outcome = record.outcome
        if outcome not in _OUTCOMES:
            outcome = "error"
        model = self.model_label(record.model)
        if record.loading is not None:
            self._loaded(record, record.loading, role, outcome)
            return
        provider = OTHER if routing is None else routing.provider
        self._requests.at[role, provider, model, outcome] += 1
        if record.client_retry:
            self._client_retries.at[()] += 1
        if record.failure is not None:
            self._errors.at[role, record.failure.code, record.failure.reason] += 1
        if routing is None:
            return
        self._duration.at[role, outcome].observe(record.total_s)
        if record.attempts:
            wait_s = record.queue_wait_s
            self._wait.at[role, outcome].observe(wait_s)
            self._attempted(record, role, outcome, model, wait_s)

    def _loaded(self, record: CallRecord, loading: Loading, role: str, outcome: str) -> None:
        """Nothing was asked: how long it took is no latency of a call."""
        self._loads.at[role, loading, outcome] += 1
        if record.failure is not None:
            self._errors.at[role, record.failure.code, record.failure.reason] += 1

    def passed(self, kind: str, status: int) -> None:
        """Count a request outside the inference routes; ``kind`` is its route's."""
        self._passed.at[kind, f"{status // 100}xx"] += 1

    def model_label(self, model: str) -> str:
        label = self._models.get(model)
        return label if label is not None else self._models.get(self._names.canonical(model), OTHER)

    def _attempted(
        self, record: CallRecord, role: str, outcome: str, model: str, wait_s: float
    ) -> None:
        if record.schema is not None:
            result = record.schema.partition(":")[0]
            self._schema.at[role, result] += 1
        if (latency_s := record.llm_latency_s) is not None:
            self._upstream.at[role, outcome].observe(latency_s)
            inside_s = record.attempts[-1].usage.upstream_wait_s
            if inside_s is None:
                self._unknown_waits.at[()] += 1
            if outcome == "ok":
                self._answered(record, role, latency_s, wait_s, inside_s)
        if len(record.attempts) > 1 and (cause := record.attempts[0].failure) is not None:
            self._fallbacks.at[role, cause.code] += 1
        for attempt in record.attempts:
            usage = attempt.usage
            # The last attempt's model is the record's.
            asked = model if attempt is record.attempts[-1] else self.model_label(attempt.model)
            if usage.prompt_tokens:
                self._tokens.at[role, asked, "input"] += usage.prompt_tokens
            if usage.output_tokens:
                self._tokens.at[role, asked, "output"] += usage.output_tokens

    def _answered(
        self,
        record: CallRecord,
        role: str,
        latency_s: float,
        wait_s: float,
        inside_s: float | None,
    ) -> None:
        """What is told of answered calls alone. ``inside_s``: waiting inside the upstream."""
        if inside_s is not None:
            self._upstream_wait.at[role,].observe(inside_s)
            wait_s += inside_s
            latency_s -= inside_s
        attempt = record.attempts[-1]
        self._latencies.at[()].observe(latency_s - (attempt.usage.load_s or 0.0))
        self._waits.at[()].observe(wait_s)
        if attempt.first_byte is not None:
            self._first_byte.at[role,].observe(attempt.first_byte - record.started)

    def watch(
        self, admission: Admission, pool: UpstreamPool, lag: LoopLag, monitor: HealthMonitor
    ) -> None:
        """Add what is read at scrape time rather than counted."""
        self.registry.register(_Live(admission, pool, monitor, lag, self.model_label))
        self._count_lag(lag)
        self.registry.register(
            LegacyNames(
                {
                    "job_e2e_latency_ms": (self._duration, {"outcome": "ok"}),
                    "planner_latency_ms": (
                        self._duration,
                        {"role": Role.PLANNER, "outcome": "ok"},
                    ),
                    "llm_latency_ms": (self._latencies, {}),
                    "tool_latency_ms": (self._tool, {}),
                    "llm_queue_wait_ms": (self._waits, {}),
                }
            )
        )

    def _count_lag(self, lag: LoopLag) -> None:
        histogram = Histograms(
            "modelsplit_event_loop_lag_seconds",
            "How late the event loop came to a fixed tick.",
            (),
            LAG_S,
            self.registry,
        )
        lag.listen(histogram.at[()].observe)


class _Live:
    """Seats, lines, connections and loop lag as they stand at the scrape."""

    def __init__(
        self,
        admission: Admission,
        pool: UpstreamPool,
        monitor: HealthMonitor,
        lag: LoopLag,
        model_label: Callable[[str], str],
    ) -> None:
        self._admission = admission
        self._pool = pool
        self._monitor = monitor
        self._lag = lag
        self._model_label = model_label

    def collect(self) -> Iterator[Metric]:
        yield from self._lines()
        yield from self._learned()
        yield GaugeMetricFamily(
            "modelsplit_health_level",
            "What the Health Guard says: 0 OK, 1 DEGRADED, 2 CRITICAL.",
            value=SEVERITY[self._monitor.guard.level],
        )
        open_breakers = GaugeMetricFamily(
            "modelsplit_breaker_open",
            "1 while calls to it are stopped.",
            labels=["provider", "model"],
        )
        # Several models outside the policy share one label; a series may be told only once.
        for labels in {self._breaker_labels(view) for view in self._monitor.open_breakers()}:
            open_breakers.add_metric(labels, 1)
        yield open_breakers
        yield GaugeMetricFamily(
            "modelsplit_upstream_connections",
            "Open connections to the upstream.",
            value=self._pool.open_connections,
        )
        yield GaugeMetricFamily(
            "event_loop_lag_p99",
            "P99 of event loop lag over the sliding window, in milliseconds.",
            value=self._lag.quantile(0.99) * 1000,
        )

    def _breaker_labels(self, view: BreakerView) -> tuple[str, str]:
        model = view.key.model
        return view.key.provider, "" if model is None else self._model_label(model)

    def _learned(self) -> Iterator[Metric]:
        """What is useful to run at once, and how often a foreseen wait was wrong."""
        learned, forecast = self._admission.host().parallelism, self._admission.forecast
        yield GaugeMetricFamily(
            "modelsplit_parallelism_host",
            "Calls at once that are worth running on the host.",
            value=learned.host,
        )
        yield GaugeMetricFamily(
            "modelsplit_parallelism_contention",
            "How much one more call slows the others: 0 not at all, 1 by its whole share.",
            value=learned.contention,
        )
        yield GaugeMetricFamily(
            "modelsplit_seats_lent",
            "Reserved seats in other roles' use.",
            value=self._admission.lent,
        )
        counts = CounterMetricFamily(
            "modelsplit_forecasts",
            "Calls whose wait was foreseen to be too long, by what became of them.",
            labels=["what"],
        )
        for what in ("refused", "checked", "wrong"):
            counts.add_metric([what], getattr(forecast, what))
        yield counts

    def _lines(self) -> Iterator[Metric]:
        in_flight = GaugeMetricFamily(
            "modelsplit_in_flight", "Calls holding a seat.", labels=["role"]
        )
        depth = GaugeMetricFamily("modelsplit_queue_depth", "Calls in line.", labels=["role"])
        for role in Role:
            in_flight.add_metric([role], self._admission.running(role))
            depth.add_metric([role], self._admission.waiting(role))
        yield in_flight
        yield depth


class LegacyNames:
    """Histograms said again in milliseconds, under the policy document's names."""

    def __init__(self, views: dict[str, tuple[Histograms, dict[str, str]]]) -> None:
        self._views = views

    def collect(self) -> Iterator[Metric]:
        for name, (histogram, where) in self._views.items():
            yield _in_milliseconds(name, histogram, where)


def _in_milliseconds(
    name: str, histogram: Histograms, where: dict[str, str]
) -> HistogramMetricFamily:
    """The sum of the histogram's series that match ``where``, times one thousand."""
    counts: dict[str, float] = {}
    total = 0.0
    family = next(iter(histogram.collect()))
    for sample in family.samples:
        if any(sample.labels.get(key) != value for key, value in where.items()):
            continue
        if sample.name.endswith("_bucket"):
            edge = sample.labels["le"]
            counts[edge] = counts.get(edge, 0.0) + sample.value
        elif sample.name.endswith("_sum"):
            total += sample.value
    view = HistogramMetricFamily(name, f"{family.documentation} Milliseconds.")
    buckets = [(_edge_in_milliseconds(edge), count) for edge, count in counts.items()]
    view.add_metric([], buckets=buckets, sum_value=total * 1000)
    return view


def _edge_in_milliseconds(edge: str) -> str:
    return edge if edge == "+Inf" else f"{float(edge) * 1000:g}"


def _policy_models(policy: Policy) -> Iterator[str]:
    yield from policy.models
    for row in policy.roles.values():
        yield from row.claims
        if row.primary is not None:
            yield row.primary
        if row.fallback is not None:
            yield row.fallback
    for test in policy.experiments:
        yield from (arm.model for arm in test.arms)


def label_values() -> dict[str, frozenset[str]]:
    """The closed sets that bounded labels come from; documentation and tests read this."""
    reasons = frozenset(reason for spec in ERRORS.values() for reason in spec.reasons)
    return {
        "role": frozenset((*Role, OTHER)),
        "provider": frozenset((*Provider, OTHER)),
        "outcome": frozenset(_OUTCOMES),
        "code": frozenset(ERRORS),
        "reason": reasons,
    }
