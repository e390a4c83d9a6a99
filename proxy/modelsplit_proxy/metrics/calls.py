"""Ended calls, counted for Prometheus: canonical names, in seconds.

What the policy document calls by names of its own is observed here too, where a call is known
(``document_names``). Every label value comes from a closed set: models outside the policy are
``other``, so that a client inventing names cannot grow the series.

A refusal takes a millisecond. So a histogram of latencies tells calls apart by their outcome,
or holds answered calls alone: else its quantiles would fall while nobody is answered.
"""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client import CollectorRegistry

from modelsplit_policy.failures import ERRORS
from modelsplit_policy.model_names import ModelNames, canonical
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.metrics.buckets import FINE_S, LATENCY_S, WAIT_S
from modelsplit_proxy.metrics.families import Counters, Histograms, KeptSeries, Series

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.vocabulary import Loading
    from modelsplit_proxy.metrics.document_names import DocumentNames
    from modelsplit_proxy.records.record import CallRecord

_OUTCOMES: Final = ("ok", "client_gone", "error")
OTHER: Final = "other"


class Totals(NamedTuple):
    """What has been counted so far. ``calls``: by role; ``errors``: by role, code and reason.

    ``answered``: by role, how many answered calls took how long, as the series has it.
    """

    calls: Mapping[str, int]
    errors: Mapping[tuple[str, ...], int]
    answered: Mapping[Role, tuple[int, ...]]


class CallMetrics:
    """Counts ended calls, for the process's one registry and under the document's names.

    ``answered``: by role, how long answered calls took.
    """

    def __init__(self, policy: Policy, documents: DocumentNames) -> None:
        self._documents = documents
        self.registry = CollectorRegistry()
        self.answered: dict[Role, KeptSeries] = {}
        self._names = ModelNames()
        self._models = {canonical(model): model for model in _policy_models(policy)}
        self._define_histograms()
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
        self._unknown_waits = Counters(
            "modelsplit_upstream_wait_unknown",
            "Calls sent to the upstream whose wait inside it is unknown.",
            (),
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
        for role in Role:
            # Of these quantiles are told, role by role.
            self._duration.at[role, "ok"] = self.answered[role] = KeptSeries(FINE_S)
            self._wait.at[role, "ok"] = Series(WAIT_S)
            self._upstream_wait.at[role,] = Series(WAIT_S)
            self._first_byte.at[role,] = Series(LATENCY_S)
        # The same observations under two names: counted once, so that no two figures differ.
        self._duration.at[Role.PLANNER, "ok"] = self._documents.planner
        self.answered[Role.PLANNER] = self._documents.planner

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

    def totals(self) -> Totals:
        """A copy of what has been counted of calls, by role."""
        calls: Counter[str] = Counter()
        for (role, *_), count in self._requests.at.items():
            calls[role] += int(count)
        errors = {labels: int(count) for labels, count in self._errors.at.items()}
        return Totals(
            calls, errors, {role: tuple(series.counts) for role, series in self.answered.items()}
        )

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
        self._documents.llm.observe(latency_s - (attempt.usage.load_s or 0.0))
        self._documents.queue_wait.observe(wait_s)
        if attempt.first_byte is not None:
            self._first_byte.at[role,].observe(attempt.first_byte - record.started)


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
