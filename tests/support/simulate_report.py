"""A piece of a simulation's report, for tests of how it is told."""

from __future__ import annotations

from typing import Any, Final

GAP: Final[dict[str, Any]] = {
    "role": "PLANNER",
    "measure": "latency_p95_s",
    "unit": "s",
    "before": 4.1,
    "after": 2.6,
    "difference": -1.5,
    "low": -1.8,
    "high": -1.2,
    "leads": True,
    "told": True,
}
