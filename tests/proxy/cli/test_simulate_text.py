"""The report of a simulation as people read it."""

from __future__ import annotations

from typing import Any

from modelsplit_proxy.cli.simulate_text import fit_lines, lines
from support.simulate_report import GAP


def figure(value: float) -> dict[str, float | None]:
    return {"value": value, "low": value - 1, "high": value + 1}


ROLE: dict[str, Any] = {
    "calls": 100.0,
    "retries": 3.0,
    "objective_s": 5.0,
    "latency_curve": [(0.5, 1.0)],
    "failures": [{"code": "E_OVERLOAD_THROTTLED", "reason": "queue_full", "calls": 2.5}],
    **{
        name: figure(2.0)
        for name in (
            *("failed", "goodput", "fallback", "cost_usd"),
            *("latency_p50_s", "latency_p95_s", "latency_p99_s"),
            *("llm_queue_wait_p50_s", "llm_queue_wait_p95_s", "upstream_wait_p95_s"),
        )
    },
    "llm_queue_wait_p99_s": None,
}
POLICY: dict[str, Any] = {
    "name": "new.json",
    "roles": {"PLANNER": ROLE},
    "model_loads": {"qwen3:4b": 1.5},
    "seats_held": figure(1.25),
    "seats": 6,
    "host_busy": figure(40.0),
    "shed_s": figure(10.0),
    "gates": [
        {
            "gate": 2,
            "verdict": "breach",
            "runs": {"breach": 2, "pass": 1},
            "objectives": [
                {
                    "name": "planner_latency_ms",
                    "bound": "p95",
                    "holds": "<",
                    "limit": 5000.0,
                    "value": 6123.4,
                    "verdict": "breach",
                    "runs": {"breach": 2, "pass": 1},
                }
            ],
        }
    ],
}
REPORT: dict[str, Any] = {
    "warnings": ["little was replayed"],
    "summary": "planner P95 4.1 → 2.6 s",
    "seeds": 3,
    "policies": [POLICY],
    "differences": [],
    "drift": 0.07,
    "coverage": {
        "calls": 100,
        "seconds": 7200,
        "parts": {"prompt": {"recorded": 3, "assumed": 1}},
        "left_out": {"that named no model": 2},
    },
}


def test_warnings_come_first_and_then_the_sentence() -> None:
    first, second, *_ = lines(REPORT)
    assert (first, second) == ("warning: little was replayed", "planner P95 4.1 → 2.6 s")


def test_what_is_not_known_is_a_dash() -> None:
    [row] = [each for each in lines(REPORT) if each.startswith("PLANNER  new.json")][:1]
    assert row.split()[1:3] == ["new.json", "100"]
    assert " - " in row


def test_failures_retries_host_and_coverage_are_told() -> None:
    text = "\n".join(lines(REPORT))
    assert "E_OVERLOAD_THROTTLED  queue_full    2.5" in text
    assert "tried again by clients' libraries: PLANNER 3.0 (new.json)" in text
    assert "new.json   1.25 of 6       40 %      10 s  qwen3:4b 1.5" in text
    assert "  prompt: 75 % recorded, 25 % assumed" in text
    assert "  left out: 2 that named no model" in text
    assert "  the machine's own speed: drawn for each run, standard deviation 7 %" in text
    assert "own speed" not in "\n".join(lines(REPORT | {"drift": 0.0}))


def test_of_differences_those_that_lead_are_shown_and_changes_are_marked() -> None:
    alone = GAP | {"measure": "failed", "low": None, "high": None, "told": False}
    minor = GAP | {"measure": "latency_p50_s", "leads": False}
    other = POLICY | {"name": "old.json"}
    report = REPORT | {"policies": [other, POLICY], "differences": [GAP, alone, minor]}
    text = "\n".join(lines(report))
    assert "*  PLANNER  latency P95    4.10 s    2.60 s  -1.50 ± 0.30" in text
    assert "   PLANNER  failed         4.10 s    2.60 s         -1.50" in text
    assert "latency P50" not in text


def test_gates_are_told_with_in_how_many_runs_they_broke() -> None:
    text = "\n".join(lines(REPORT))
    assert "2     new.json  planner_latency_ms p95  < 5000   6123  breach (2 of 3)" in text
    assert "gates of new.json: 2 breach" in text


def test_a_fit_is_told_with_intervals_and_warnings() -> None:
    figure = {"name": "contention", "value": 1.05, "low": 0.9, "high": 1.2, "calls": 40}
    alone = figure | {"name": "batching", "low": None}
    assert list(fit_lines([figure, alone], ["add gb"])) == [
        "figure      value  95 % interval      from",
        "contention   1.05     0.9 to 1.2  40 calls",
        "batching     1.05              -  40 calls",
        "warning: add gb",
    ]
