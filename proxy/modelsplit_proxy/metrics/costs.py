"""What calls have cost since the process started, by role and model: estimates, in US dollars.

Attempts whose cost cannot be known are counted beside the sum, never as nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily

from modelsplit_proxy.runtime.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from modelsplit_policy.vocabulary import Role
    from modelsplit_proxy.records.record import CallRecord


@dataclass(slots=True)
class _Spent:
    usd: float = 0.0
    attempts: int = 0
    unknown: int = 0


class Costs:
    """Adds up finished calls; a collector of metrics and a part of the statistics."""

    def __init__(self, since: float, table: str | None, model_label: Callable[[str], str]) -> None:
        """``since``: seconds since 1970. ``model_label``: bounds what models are told apart."""
        self._since = since
        self.table = table
        self._model_label = model_label
        self._spent: dict[tuple[Role, str], _Spent] = {}

    def call_ended(self, record: CallRecord) -> None:
        if record.routing is None:
            return
        role = record.routing.role
        for attempt in record.attempts:
            if not attempt.sent:
                continue
            key = (role, self._model_label(attempt.model))
            spent = self._spent.get(key)
            if spent is None:
                spent = self._spent[key] = _Spent()
            spent.attempts += 1
            cost = attempt.cost_usd_by(attempt.ended)
            if cost is None:
                spent.unknown += 1
            else:
                spent.usd += cost

    def fields(self) -> dict[str, Any]:
        """For ``/stats``: the total, what it leaves out, and the parts."""
        spent = self._spent
        return {
            "estimate": True,
            "since": rfc3339(self._since),
            "usd": round(sum(part.usd for part in spent.values()), 9),
            "unknown": sum(part.unknown for part in spent.values()),
            "price_table": self.table,
            "parts": [
                {
                    "llm_role": role,
                    "model": model,
                    "usd": round(part.usd, 9),
                    "attempts": part.attempts,
                    "unknown": part.unknown,
                }
                for (role, model), part in sorted(spent.items())
            ],
        }

    def collect(self) -> Iterator[Metric]:
        usd = CounterMetricFamily(
            "modelsplit_cost_usd", "What attempts cost, estimated.", labels=["role", "model"]
        )
        unknown = CounterMetricFamily(
            "modelsplit_cost_unknown",
            "Attempts whose cost cannot be known.",
            labels=["role", "model"],
        )
        for key, part in self._spent.items():
            usd.add_metric(key, part.usd)
            unknown.add_metric(key, part.unknown)
        yield usd
        yield unknown
