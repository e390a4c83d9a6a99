"""One figure, read in every place that tells it: P95 of the planners of one seeded run.

All calls lie inside every window of a process that has just begun. Places that keep each call
agree exactly; places that count in buckets agree within the bucket.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.admin import status_text
from modelsplit_proxy.cli import requests
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.records import trace
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.config import SimConfig
from support.calls import call
from support.harness import running

if TYPE_CHECKING:
    from pathlib import Path

    from modelsplit_proxy.records.record import CallRecord
    from support.harness import Running

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"
SEED, PLANNERS = 20261123, 60
# Half of the calls are short, a few are ten times as long.
TOKENS = (3, 5, 8, 12, 30, 80)
SLOW = SimConfig(token_rate=50, num_parallel=8, max_loaded=4)


async def seeded_run(up: Running) -> None:
    """Planners two at a time, and between them what must not count: refusals, other roles."""
    chance = random.Random(SEED)
    lengths = [chance.choice(TOKENS) for _ in range(PLANNERS)]
    turns = iter(enumerate(lengths))

    async def client() -> None:
        async with up.client() as connection:
            for number, tokens in turns:
                limit = {"num_predict": tokens}
                asked = call(ROUTE, "planner", options=limit)
                answer = await connection.request("POST", ROUTE, asked)
                assert answer.status == 200
                if number % 3 == 0:
                    wrong = {"X-LLM-Max-Wait-Ms": "soon"}
                    refused = await connection.request("POST", ROUTE, asked, wrong)
                    assert refused.status == 400
                if number % 10 == 0:
                    asked = call(ROUTE, "executor", options=limit)
                    assert (await connection.request("POST", ROUTE, asked)).status == 200

    await asyncio.gather(client(), client())


def p95(values: list[float]) -> float:
    """The value of that rank."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


async def exported(up: Running, capfdbinary: pytest.CaptureFixture[bytes]) -> list[dict[str, Any]]:
    """What ``modelsplit requests --role PLANNER --outcome ok --export`` prints."""
    words = {"role": "PLANNER", "outcome": "ok"}
    asked = requests.RequestsArguments(None, words, 50, as_json=False, export=True)
    admin = Address("127.0.0.1", up.admin_port)
    capfdbinary.readouterr()
    await asyncio.to_thread(requests.run, asked, admin, None, SystemClock())
    return [trace.read(line) for line in capfdbinary.readouterr().out.splitlines()]


def from_sql(state: Path) -> float:
    """The same rank, asked of the state file in SQL, in milliseconds."""
    of_planners = "FROM calls WHERE role = 'PLANNER' AND outcome = 'ok'"
    with closing(sqlite3.connect(f"file:{state / FILE_NAME}?mode=ro", uri=True)) as file:
        [(count,)] = file.execute(f"SELECT count(*) {of_planners}")
        place = math.ceil(0.95 * count) - 1
        [(total_us,)] = file.execute(
            f"SELECT total_us {of_planners} ORDER BY total_us LIMIT 1 OFFSET ?", (place,)
        )
    return float(total_us) / 1000


def bucket(text: str, name: str, labels: dict[str, str]) -> tuple[float, float]:
    """Between which edges of a scraped histogram the value of that rank is, and of how many."""
    edges = [
        (float(sample.labels["le"]), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"{name}_bucket" and sample.labels.items() >= labels.items()
    ]
    assert edges[-1][1] == PLANNERS
    at = next(number for number, (_, upto) in enumerate(edges) if upto >= 0.95 * PLANNERS)
    return (edges[at - 1][0] if at else 0.0), edges[at][0]


async def test_planner_p95_is_one_figure_everywhere(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with running(SLOW, state=tmp_path) as up:
        await seeded_run(up)
        records = await exported(up, capfdbinary)
        sql_ms = from_sql(tmp_path)
        async with up.admin() as admin:
            stats = (await admin.request("GET", "/stats")).json
            text = (await admin.request("GET", "/metrics")).body.decode()
            judged = (await admin.request("GET", "/slo?gate=2")).json
            told = (await admin.request("GET", "/slo?gate=2&format=text")).body.decode()
    assert len(records) == PLANNERS
    exact_ms = p95([record["call_e2e_latency_ms"] for record in records])

    # Every call: exactly.
    assert sql_ms == exact_ms
    ended = [record.total_s for record in up.calls.records if is_answered_planner(record)]
    assert p95(ended) * 1000 == pytest.approx(exact_ms, abs=0.001)

    found = objective(judged)
    assert (found["value"], found["n"]) == (exact_ms, PLANNERS)
    assert re.search(rf"planner P95 +{exact_ms / 1000:.3g} s ", told)

    # Few enough to be kept, in both windows, which hold the whole run.
    windows = stats["latencies"]["planner_latency_ms"]
    for window in windows.values():
        assert window["n"] == PLANNERS
        assert window["p95"] == exact_ms
    assert windows["5m"]["p95"] == windows["5h"]["p95"]

    # The role's row of the same screen.
    assert stats["recent"]["roles"]["PLANNER"]["p95_ms"] == windows["5m"]["p95"]

    # Its line in ``status``, to the millisecond.
    line = next(line for line in status_text.lines(stats) if line.startswith("planner_latency_ms"))
    assert line.split() == ["planner_latency_ms", *cells(windows["5m"])]

    # Coarse buckets: between the same edges, in seconds and in milliseconds.
    low, high = bucket(text, "planner_latency_ms", {})
    assert low < exact_ms <= high
    where = {"role": "PLANNER", "outcome": "ok"}
    seconds = bucket(text, "modelsplit_request_duration_seconds", where)
    assert (low, high) == (seconds[0] * 1000, seconds[1] * 1000)


def objective(judged: dict[str, Any]) -> dict[str, Any]:
    """What ``/slo`` says of the planners' P95."""
    [gate] = judged["gates"]
    [found] = [row for row in gate["objectives"] if row["objective"] == "planner_latency_ms"]
    assert isinstance(found, dict)
    return found


def is_answered_planner(record: CallRecord) -> bool:
    routing = record.routing
    return record.outcome == "ok" and routing is not None and routing.role is Role.PLANNER


def cells(window: dict[str, Any]) -> list[str]:
    return [str(window["n"]), f"{window['p95']:.0f}", f"{window['p99']:.0f}"]


async def test_every_figure_prints_its_window() -> None:
    async with running(SLOW) as up, up.admin() as admin:
        stats = (await admin.request("GET", "/stats")).json
    for by_window in stats["latencies"].values():
        for window in by_window.values():
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", window["since"])
            assert 0 <= window["window_s"] < 300
    header = next(line for line in status_text.lines(stats) if line.startswith("LATENCY"))
    # As yet both are the same.
    assert len(re.findall(r"N IN \d+ (?:S|MIN)", header)) == 1
