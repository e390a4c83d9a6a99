"""Metrics as Prometheus's own tool and a hostile client see them, and their quantiles."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelsplit_proxy.admin import status_text
from modelsplit_proxy.metrics.document_names import LAG
from modelsplit_sim.config import SimConfig
from support.calls import BODIES, call
from support.harness import running

if TYPE_CHECKING:
    from support.harness import Running

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"
JSON = {"Content-Type": "application/json"}
QUICK = SimConfig(tokens=4, num_parallel=8, max_loaded=4)
OURS = re.compile(r"(# (HELP|TYPE) )?modelsplit_")
NAMES = (
    "job_e2e_latency_ms",
    "planner_latency_ms",
    "llm_latency_ms",
    "tool_latency_ms",
    "llm_queue_wait_ms",
    LAG,
)


async def scrape(up: Running) -> str:
    async with up.admin() as admin:
        return (await admin.request("GET", "/metrics")).body.decode()


def canonical(text: str) -> str:
    """What is ours of a scrape; the document's names break a rule on purpose: milliseconds."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if OURS.match(line))


async def asked(up: Running) -> None:
    """Calls of every kind: answered, refused, unknown, broken, loading, passed through."""
    async with up.client() as client:
        for model in ("planner", "executor", "cloud", "nosuch:1b", "gpt-oss:20b"):
            await client.request("POST", ROUTE, call(ROUTE, model))
        await client.request("POST", ROUTE, b"{")
        await client.request("POST", ROUTE, {"model": "planner"})
        await client.request("GET", "/api/tags")


async def told(up: Running) -> None:
    """A job with a tool, from start to finish."""
    async with up.admin() as admin:
        for verb, body in (
            ("start", {}),
            ("tool", {"name": "grep", "duration_ms": 120, "ok": True}),
            ("finish", {"ok": True}),
        ):
            answer = await admin.request("POST", f"/jobs/job-1/{verb}", body, JSON)
            assert answer.status == 200


@pytest.mark.tools("promtool")
async def test_promtool_has_nothing_to_say_of_our_names() -> None:
    async with running(QUICK) as up:
        await asked(up)
        await told(up)
        # The first scrape has the objectives judged.
        while "modelsplit_slo_judged_timestamp_seconds NaN" in (text := await scrape(up)):
            pass
        text = canonical(text)
    assert text.count("# TYPE ") > 30
    checked = await asyncio.to_thread(
        subprocess.run,
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


async def test_only_the_documents_names_are_not_ours() -> None:
    async with running(QUICK) as up:
        names = {family.name for family in text_string_to_metric_families(await scrape(up))}
    assert {name for name in names if not name.startswith("modelsplit_")} == set(NAMES)


async def test_four_hundred_invented_names_add_few_series() -> None:
    """Models, roles, paths, contexts and jobs, each name new."""
    chance = random.Random(7)
    async with running(QUICK) as up, up.client() as client:
        await client.request("POST", ROUTE, call(ROUTE, "planner"))
        before = series(await scrape(up))
        for number in range(400):
            word = f"n{number}-{chance.getrandbits(40):x}"
            path, body, headers = invented(number % 5, word)
            answer = await client.request("POST", path, body, headers)
            assert answer.status < 500
        added = series(await scrape(up)) - before
    assert not any("n3" in label for labels in added for label in labels)
    assert len(added) <= 60, sorted(added)


def invented(what: int, word: str) -> tuple[str, dict[str, Any], dict[str, str]]:
    """A request with a word nobody has said before, where a client may say one."""
    path, model, headers = ROUTE, "planner", {}
    if what == 0:
        model = word
    elif what == 1:
        headers = {"X-LLM-Role": word}
    elif what == 2:
        path = f"/{word}"
    elif what == 3:
        headers = {"X-LLM-Context": word}
    else:
        headers = {"X-LLM-Job-Id": word, "X-Request-Id": word, "User-Agent": word}
    return path, call(ROUTE, model), headers


def series(text: str) -> set[tuple[str, ...]]:
    """Each series by its name and labels."""
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_every_name_has_its_quantiles_in_stats_and_status() -> None:
    async with running(QUICK) as up:
        await asked(up)
        async with up.admin() as admin:
            stats = (await admin.request("GET", "/stats")).json
    latencies = stats["latencies"]
    assert tuple(latencies) == NAMES
    for by_window in latencies.values():
        assert list(by_window) == ["5m", "5h"]
        for window in by_window.values():
            assert window.keys() == {"since", "window_s", "n", "p95", "p99"}
            assert (window["p95"] is None) == (window["n"] == 0)
    assert latencies["planner_latency_ms"]["5m"]["n"] == 1
    assert latencies["llm_latency_ms"]["5h"]["n"] == 3
    text = "\n".join(status_text.lines(stats))
    for name in NAMES:
        assert f"\n{name} " in text
    assert " N IN " in text


@pytest.mark.parametrize("path", [path for path in BODIES if path.startswith("/v1/")][:1])
async def test_other_dialects_count_under_the_same_names(path: str) -> None:
    async with running(QUICK) as up, up.client() as client:
        assert (await client.request("POST", path, call(path, "planner"))).status == 200
        async with up.admin() as admin:
            stats = (await admin.request("GET", "/stats")).json
    assert stats["latencies"]["planner_latency_ms"]["5m"]["n"] == 1
