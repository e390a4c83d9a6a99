"""The objectives by name, with the bounds that each may have and the unit of its value."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Unit(StrEnum):
    """What a value is counted in."""

    MS = "ms"
    SHARE = "share"
    COUNT = "count"
    HOURS = "hours"
    DAYS = "days"


_LATENCY: Final = (Unit.MS, ("p95", "p99"))
_MOST: Final = (Unit.SHARE, ("max",))
_LEAST: Final = (Unit.SHARE, ("min",))

OBJECTIVES: Final = MappingProxyType(
    {
        "job_e2e_latency_ms": _LATENCY,
        "planner_latency_ms": _LATENCY,
        "llm_latency_ms": _LATENCY,
        "tool_latency_ms": _LATENCY,
        "llm_queue_wait_ms": _LATENCY,
        "event_loop_lag_p99": (Unit.MS, ("max",)),
        "timeouts": (Unit.COUNT, ("max", "of_baseline")),
        "planner_failure_rate": _MOST,
        "fallback_rate": _MOST,
        "schema_error_rate": _MOST,
        "error_classification": _LEAST,
        "executor_job_rate": _MOST,
        "job_success_rate": (Unit.SHARE, ("min", "of_baseline")),
        "hallucination_rate": (Unit.SHARE, ("max", "of_baseline")),
        "cloud_calls": (Unit.COUNT, ("max",)),
        "uptime": _LEAST,
        "covered_hours": (Unit.HOURS, ("min",)),
        "covered_days": (Unit.DAYS, ("min",)),
        "telemetry_fields": _LEAST,
        "memory_growth": _MOST,
        "descriptor_growth": _MOST,
        "task_growth": _MOST,
        "state_file_share": _MOST,
    }
)
"""Every name the policy's ``slo`` may hold, in the order reports show them."""

AT_MOST_ALL: Final = frozenset(
    {
        "planner_failure_rate",
        "fallback_rate",
        "schema_error_rate",
        "error_classification",
        "executor_job_rate",
        "job_success_rate",
        "hallucination_rate",
        "uptime",
        "telemetry_fields",
    }
)
"""Shares of something counted, which cannot be more than 1."""

BOUNDS: Final = ("p95", "p99", "max", "min", "of_baseline")
"""Every key of an objective that is a bound."""
