"""What the kept records say of some time, and that asking them is bounded and goes by an index."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from modelsplit_proxy.records import history
from modelsplit_proxy.records.history import SPANS, History
from modelsplit_proxy.storage.state_file import FILE_NAME
from support.stores import execute, opened

NOW_US = 1_795_393_740_000_000
SPAN = SPANS["15m"]

BY_START = "SEARCH calls USING INDEX calls_by_start (started_us>? AND started_us<?)"


def keep(directory: Path, calls: list[dict[str, Any]]) -> None:
    """Calls as rows; what is not said of one is as usual."""
    with closing(sqlite3.connect(directory / FILE_NAME)) as db, db:
        for number, said in enumerate(calls, 1):
            call = {
                "id": number,
                "started_us": NOW_US - 60_000_000,
                "total_us": 2_000_000,
                "wait_us": 500_000,
                "request_id": f"r{number}",
                "role": "PLANNER",
                "model": "qwen3:4b",
                "outcome": "ok",
                "attempts": 1,
                "fallback": 0,
                "output_tokens": 30,
                "cost_usd": 0.0,
                **said,
            }
            names = ", ".join(call)
            marks = ", ".join("?" * len(call))
            db.execute(f"INSERT INTO calls ({names}) VALUES ({marks})", tuple(call.values()))
            db.execute(
                "INSERT INTO attempts (call_id, number, outcome, eval_us) VALUES (?, 1, 'ok', ?)",
                (number, 500_000),
            )


def test_the_figures_of_roles_and_models(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        keep(
            tmp_path,
            [
                {"total_us": 1_000_000},
                {"total_us": 3_000_000, "wait_us": 0, "fallback": 1, "model": "qwen3:8b"},
                {"outcome": "E_TIMEOUT_LOCAL", "reason": "role_timeout", "load_us": 800_000},
                {"outcome": "client_gone", "reason": "queued", "role": "CHAT", "model": "<b>"},
                {"started_us": NOW_US - 3_600_000_000},
            ],
        )
        fields = History(store.read).fields(SPAN, NOW_US)
    planner = fields["roles"]["PLANNER"]
    assert (planner["calls"], planner["failed"]) == (3, 1)
    assert (planner["timeouts"], planner["fallbacks"]) == (1, 1)
    assert planner["latency_ms"] == {"p50": 1000.0, "p95": 3000.0, "p99": 3000.0}
    assert planner["wait_ms"] == {"p50": 500.0, "p95": 500.0, "p99": 500.0}
    assert planner["models"] == [["qwen3:4b", 2], ["qwen3:8b", 1]]
    assert (fields["roles"]["CHAT"]["calls"], fields["roles"]["CHAT"]["failed"]) == (1, 0)
    first, *_ = fields["models"]
    assert (first["model"], first["calls"], first["failed"]) == ("qwen3:4b", 2, 1)
    assert first["causes"] == [["role_timeout", 1]]
    assert first["tokens_per_s"] == 60.0
    assert first["load_ms"] == {"p50": 800.0, "most": 800.0}
    assert (fields["calls"], fields["sampled"], fields["other_models"]) == (4, False, 0)


def test_the_series_have_a_value_a_step_and_none_where_there_was_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        keep(tmp_path, [{}, {"started_us": NOW_US - 600_000_000, "total_us": 4_000_000}])
        minute = NOW_US // 60_000_000 - 2
        execute(
            tmp_path,
            "INSERT INTO heartbeats (minute, at_us, run, drained, lag_p99_us) "
            f"VALUES ({minute}, {minute * 60_000_000}, 'a', 0, 2500)",
        )
        fields = History(store.read).fields(SPAN, NOW_US)
    series = fields["series"]["PLANNER"]
    assert all(len(values) == SPAN.steps for values in (*series.values(), fields["lag_ms"]))
    assert [value for value in series["latency_p95_ms"] if value is not None] == [4000.0, 2000.0]
    assert sum(series["calls"]) == 2
    assert sum(series["tokens_per_s"]) == 4.0
    assert [value for value in fields["lag_ms"] if value is not None] == [2.5]
    at = fields["lag_ms"].index(2.5)
    assert fields["from"] + at * SPAN.step_s <= minute * 60 < fields["from"] + (at + 1) * 15
    last = fields["from"] + SPAN.length_s
    assert last - SPAN.step_s <= NOW_US / 1e6 < last


def test_of_very_many_the_newest_are_summed_and_a_few_of_each_step_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_CALLS", 6)
    monkeypatch.setattr(history, "MOST_OF_STEP", 2)
    with opened(tmp_path) as store:
        old = [{"started_us": NOW_US - 600_000_000 + n, "model": "old"} for n in range(5)]
        new = [{"started_us": NOW_US - 60_000_000 + n, "model": f"m{n}"} for n in range(4)]
        keep(tmp_path, [*old, *new])
        fields = History(store.read).fields(SPAN, NOW_US)
    assert (fields["calls"], fields["sampled"]) == (6, True)
    assert fields["sums_since"] == (NOW_US - 600_000_000 + 3) / 1e6
    series = fields["series"]["PLANNER"]
    # All are counted, whatever was looked at.
    assert [count for count in series["calls"] if count] == [5, 4]
    assert [value for value in series["tokens_per_s"] if value] == [10.0, 8.0]


def test_models_without_end_are_told_as_a_number(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        keep(tmp_path, [{"model": f"<img onerror={n}>"} for n in range(100)])
        fields = History(store.read).fields(SPAN, NOW_US)
    assert (len(fields["models"]), fields["other_models"]) == (40, 60)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (history.NEWEST, BY_START),
        (history.OF_STEP, BY_START),
        (
            history.COUNT,
            "SEARCH calls USING COVERING INDEX calls_by_start (started_us>? AND started_us<?)",
        ),
        (history.LAG, "SEARCH heartbeats USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
    ],
)
def test_every_query_goes_by_an_index(query: str, index: str, tmp_path: Path) -> None:
    with opened(tmp_path):
        plan = execute(tmp_path, "EXPLAIN QUERY PLAN " + query.replace("?", "1"))
    steps = [row[3] for row in plan]
    assert index in steps
    assert not any(step.startswith("SCAN") for step in steps)
    assert "LIMIT" in query or query in {history.COUNT, history.LAG}
    joined = [step for step in steps if "attempts" in step]
    assert all("USING PRIMARY KEY (call_id=? AND number=?)" in step for step in joined)


@pytest.mark.parametrize("span", SPANS.values())
def test_a_span_is_a_whole_number_of_steps(span: history.Span) -> None:
    assert span.steps * span.step_s == span.length_s
    assert span.steps <= 100
