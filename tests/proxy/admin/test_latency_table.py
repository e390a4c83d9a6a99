"""The table of latencies that ``modelsplit status`` shows."""

from __future__ import annotations

from typing import Any

from modelsplit_proxy.admin import latency_table


def window(seconds: float, n: int, p95: float | None, p99: float | None) -> dict[str, Any]:
    since = "2026-11-23T00:29:03.000Z"
    return {"since": since, "window_s": seconds, "n": n, "p95": p95, "p99": p99}


def test_a_line_for_each_name_and_its_windows_above() -> None:
    latencies = {
        "planner_latency_ms": {
            "5m": window(303.2, 12, 4210.4, 4800.0),
            "5h": window(18120.0, 300, 5010.9, 7000.0) | {"since": "2026-11-22T20:00:00.000Z"},
        },
        "tool_latency_ms": {
            "5m": window(303.2, 0, None, None),
            "5h": window(18120.0, 1, 0.42, 0.42) | {"since": "2026-11-22T20:00:00.000Z"},
        },
    }
    assert latency_table.lines(latencies) == [
        "LATENCY, MS         N IN 5 MIN   P95   P99  N IN 5.0 H   P95   P99",
        "planner_latency_ms          12  4210  4800         300  5011  7000",
        "tool_latency_ms              0     -     -           1   0.4   0.4",
    ]


def test_a_young_process_has_one_window_and_a_longer_one_when_that_reaches_further() -> None:
    young = {"5m": window(12.3, 1, 352.0, 352.0), "5h": window(12.3, 1, 352.0, 352.0)}
    header, row = latency_table.lines({"llm_latency_ms": young})
    assert header == "LATENCY, MS     N IN 12 S  P95  P99"
    assert row.split() == ["llm_latency_ms", "1", "352", "352"]
    older = {
        "5m": window(300.0, 0, None, None),
        "5h": window(5399.0, 0, None, None) | {"since": "2026-11-22T23:04:04.000Z"},
    }
    assert "N IN 90 MIN" in latency_table.lines({"llm_latency_ms": older})[0]
