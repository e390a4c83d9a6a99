"""The table: which objective belongs to which gate, over which window, and what it compares.

A bound that several gates ask for has a row for each. A row without a window looks back as
far as the policy's ``window`` of its objective says.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

HOUR_S: Final = 3_600
DAY_S: Final = 24 * HOUR_S
GATES: Final = (0, 1, 2, 3, 4)


class Holds(StrEnum):
    """When an objective holds: its value is so, compared with the bound."""

    BELOW = "<"
    AT_MOST = "<="
    AT_LEAST = ">="


@dataclass(frozen=True, slots=True)
class Objective:
    """One row. ``bound``: the key of the policy's ``slo.<name>`` that it is held to.

    ``gate`` None: a target that no gate asks for. ``window_s`` None: as the policy says.
    ``sliding``: the most within any stretch of the policy's ``window`` is what counts.
    """

    name: str
    bound: str
    gate: int | None
    holds: Holds
    window_s: int | None = None
    sliding: bool = False


_BELOW, _AT_MOST, _AT_LEAST = Holds.BELOW, Holds.AT_MOST, Holds.AT_LEAST
_HALF_DAY: Final = 12 * HOUR_S
_WEEK: Final = 7 * DAY_S

TABLE: Final = (
    # Gate 0: it is observed, and does not grow.
    Objective("covered_hours", "min", 0, _AT_LEAST),
    Objective("telemetry_fields", "min", 0, _AT_LEAST),
    Objective("memory_growth", "max", 0, _BELOW),
    Objective("descriptor_growth", "max", 0, _BELOW),
    Objective("task_growth", "max", 0, _BELOW),
    Objective("state_file_share", "max", 0, _BELOW),
    Objective("planner_failure_rate", "max", 0, _AT_MOST, _HALF_DAY),
    # Gate 1: fewer timeouts, short waits, every failure told in full.
    Objective("timeouts", "of_baseline", 1, _AT_MOST),
    Objective("llm_queue_wait_ms", "p95", 1, _BELOW),
    Objective("error_classification", "min", 1, _AT_LEAST),
    Objective("planner_failure_rate", "max", 1, _AT_MOST),
    # Gate 2: the planner is fast, and its answers are right at once.
    Objective("planner_latency_ms", "p95", 2, _BELOW),
    Objective("schema_error_rate", "max", 2, _BELOW),
    Objective("fallback_rate", "max", 2, _BELOW),
    Objective("planner_failure_rate", "max", 2, _AT_MOST),
    # Gate 3: models are asked where they are needed, and jobs end as well as before.
    Objective("executor_job_rate", "max", 3, _BELOW),
    Objective("job_success_rate", "of_baseline", 3, _AT_LEAST),
    Objective("hallucination_rate", "of_baseline", 3, _AT_MOST),
    Objective("planner_failure_rate", "max", 3, _AT_MOST),
    # Gate 4: all of that for a week.
    Objective("covered_days", "min", 4, _AT_LEAST),
    Objective("planner_latency_ms", "p95", 4, _BELOW, _WEEK),
    Objective("timeouts", "max", 4, _BELOW, _WEEK, sliding=True),
    Objective("job_e2e_latency_ms", "p99", 4, _BELOW, _WEEK),
    Objective("cloud_calls", "max", 4, _BELOW, _WEEK, sliding=True),
    Objective("uptime", "min", 4, _AT_LEAST),
    Objective("planner_failure_rate", "max", 4, _AT_MOST, _WEEK),
    # Targets beside the gates, and bounds that a policy may set.
    Objective("llm_latency_ms", "p95", None, _BELOW),
    Objective("event_loop_lag_p99", "max", None, _BELOW),
    Objective("job_e2e_latency_ms", "p95", None, _BELOW),
    Objective("planner_latency_ms", "p99", None, _BELOW),
    Objective("llm_latency_ms", "p99", None, _BELOW),
    Objective("llm_queue_wait_ms", "p99", None, _BELOW),
    Objective("tool_latency_ms", "p95", None, _BELOW),
    Objective("tool_latency_ms", "p99", None, _BELOW),
    Objective("job_success_rate", "min", None, _AT_LEAST),
    Objective("hallucination_rate", "max", None, _BELOW),
)

UNSHIPPED: Final = frozenset(
    {
        ("planner_latency_ms", "p99"),
        ("llm_latency_ms", "p99"),
        ("llm_queue_wait_ms", "p99"),
        ("tool_latency_ms", "p95"),
        ("tool_latency_ms", "p99"),
        ("job_success_rate", "min"),
        ("hallucination_rate", "max"),
    }
)
"""Bounds that only a policy of one's own has: without one they are not even named."""
