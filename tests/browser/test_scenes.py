"""The page while something is so: nothing yet, a full line, Ollama away; and its figures."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import ModelSpec
from support.browsers import PROGRAMS, driven
from support.fleets import MODEL, fleet_up
from support.harness import Running, running

LONG = {
    "max_queue": 256,
    "max_wait_ms": 600_000,
    "allow_long_wait": True,
    "timeout_ms": None,
    "total_timeout_ms": None,
}
ROLES = "#roles-t tbody tr"
# What stands where nothing is known.
NONE = "\N{EN DASH}"


async def seen(
    up: Running, driver: Path, output: Path, *scenes: dict[str, Any]
) -> list[dict[str, Any]]:
    """What the browser saw in each scene, in which nothing may be wrong with the page itself."""
    url = f"http://127.0.0.1:{up.admin_port}/"
    whole = [{"width": 1440, "scheme": "light", "reads": {}} | scene for scene in scenes]
    found: list[dict[str, Any]] = await driven("scene.mjs", driver, url, output, json.dumps(whole))
    for scene in found:
        assert (scene["violations"], scene["errors"], scene["sideways"]) == ([], [], 0), scene
    return found


@pytest.mark.tools(*PROGRAMS)
async def test_in_its_first_minute_it_says_that_there_is_nothing_yet(
    driver: Path, output: Path
) -> None:
    waits = [
        ["#level", "OK"],
        [ROLES, "PLANNER"],
        ["#queue .empty:visible", "Nobody waits."],
        ["#requests .empty:visible", "No calls yet."],
        ["#jobs .empty:visible", "None is kept."],
        ["#slo-t tbody tr", "not enough data"],
    ]
    scene = {"name": "empty", "waits": waits, "reads": {"roles": ROLES}}
    async with running() as up:
        found = await seen(up, driver, output, scene, scene | {"width": 390, "scheme": "dark"})
    for view in found:
        assert [row[:4] for row in view["texts"]["roles"]][:2] == [
            ["PLANNER", "0 / 2", "0 / 64", NONE],
            ["EXECUTOR", "0 / 5", "0 / 64", NONE],
        ]


@pytest.mark.tools(*PROGRAMS)
async def test_a_line_of_256_is_shown_by_its_longest_and_by_its_number(
    driver: Path, output: Path
) -> None:
    overlay = {"roles": {"EXECUTOR": LONG}}
    sim = SimConfig(tokens=1_000_000, token_rate=1, num_parallel=1)
    async with AsyncExitStack() as stack, running(sim, overlay) as up:
        for _ in range(256 + 5):
            client = await stack.enter_async_context(up.client())
            await client.ask("POST", "/api/generate", {"model": "executor", "prompt": "x"})
        await up.until(lambda: up.seats() == (5, 256))
        waits = [["#waiting-n", "256"], ["#waiting-t tbody tr", "EXECUTOR"]]
        reads = {"count": "#waiting-n", "rows": "#waiting-t tbody tr", "note": "#waiting-note"}
        scene = {"name": "full", "waits": waits, "reads": reads}
        found = await seen(up, driver, output, scene, scene | {"width": 390, "scheme": "dark"})
    for view in found:
        texts = view["texts"]
        assert texts["count"] == [["256"]]
        assert len(texts["rows"]) == 100
        assert texts["note"] == [["The 100 that have waited longest."]]


@pytest.mark.tools(*PROGRAMS)
async def test_that_ollama_is_away_is_the_first_thing_it_says(driver: Path, output: Path) -> None:
    async with running() as up:
        await up.sim.stop()
        await up.app.probe.ask()
        waits = [["#level", "CRITICAL"], ["#facts", "does not answer"]]
        reads = {
            "level": "#level",
            "cause": "#cause",
            "next": "#next-step",
            "loaded": "#loaded-empty",
        }
        scene = {"name": "away", "waits": waits, "reads": reads}
        found = await seen(up, driver, output, scene, scene | {"width": 390, "scheme": "dark"})
    for view in found:
        assert view["texts"]["level"] == [["✖ CRITICAL"]]
        assert "Ollama" in view["texts"]["cause"][0][0]
        assert view["texts"]["next"][0][0]
        assert view["texts"]["loaded"] == [["What is loaded is not known."]]


@pytest.mark.tools(*PROGRAMS)
async def test_several_hosts_are_drawn_and_one_is_not(driver: Path, output: Path) -> None:
    sim = SimConfig(tokens=1, models=(ModelSpec(MODEL, size=6 * 2**30),))
    async with fleet_up(a=(sim, {"memory_gb": 24}), b=(sim, {"tier": 2}), c=(sim, {})) as fleet:
        await fleet.load()
        fleet.stall("a", times=1)
        client = fleet.up.client()
        await fleet.begun(client)
        async with fleet.up.admin() as admin:
            await admin.request("POST", "/hosts/b/drain")
        await fleet.sims["c"].stop()
        await fleet.up.until(lambda: fleet.is_known("c", up=False))
        await fleet.up.until(lambda: fleet.up.app.hosts[2].loaded_models.models is None)
        waits = [["#hosts-t tbody tr", "1 / 6"], ["#hosts-t tbody tr", "drained"]]
        waits += [["#hosts-t tbody tr", "away"], ["#running-t tbody tr", f"{MODEL} at a"]]
        waits += [["#loaded-t tbody tr", f"{MODEL} at b"]]
        reads = {"there": "#hosts-there", "hosts": "#hosts-t tbody tr"}
        reads |= {"loaded": "#loaded-t tbody tr", "link": "#hosts-link:visible"}
        scene = {"name": "hosts", "waits": waits, "reads": reads}
        found = await seen(
            fleet.up, driver, output, scene, scene | {"width": 390, "scheme": "dark"}
        )
        await client.close()
    for view in found:
        texts = view["texts"]
        assert texts["there"] == [["1 of 3 take calls"]]
        assert texts["link"] == [["Hosts"]]
        assert [row[:5] for row in texts["hosts"]] == [
            ["a", "answers", "1 / 6", "6", "1"],
            ["b", "drained", "0 / 6", "6", "2"],
            ["c", "away", "0 / 6", "6", "1"],
        ]
        loaded = [row[5:8] for row in texts["hosts"]]
        version = loaded[0][2]
        assert loaded == [
            # The stand-in computes on the processor.
            [MODEL, "0.0 GiB of 24 GiB, 24 GiB free", version],
            [MODEL, "0.0 GiB", version],
            ["not known", NONE, NONE],
        ]
        assert [row[0] for row in texts["loaded"]] == [f"{MODEL} at a", f"{MODEL} at b"]
    async with running() as up:
        alone = {"name": "one-host", "waits": [[ROLES, "PLANNER"]]}
        hidden = {"hosts": "#hosts:visible", "link": "#hosts-link:visible"}
        [view] = await seen(up, driver, output, alone | {"reads": hidden})
    assert view["texts"] == {"hosts": [], "link": []}


@pytest.mark.tools(*PROGRAMS)
async def test_where_events_do_not_come_through_it_asks_and_says_so(
    driver: Path, output: Path
) -> None:
    """And where nothing comes any more, since when."""
    asks = {
        "name": "asks",
        "blocks": ["**/dashboard/events"],
        "waits": [["#link-text", "asking"], [ROLES, "PLANNER"]],
        "reads": {"link": "#link-text"},
    }
    stale = asks | {
        "name": "stale",
        "loses": ["**/dashboard/*"],
        "then": [["#link-text", "stale since"]],
        "reads": {"link": "#link-text", "roles": ROLES},
    }
    async with running() as up:
        asking, lost = await seen(up, driver, output, asks, stale)
    assert asking["texts"]["link"] == [["asking"]]
    # What was known is still there, with its age.
    assert re.fullmatch(r"stale since \d\d:\d\d:\d\d", lost["texts"]["link"][0][0])
    assert lost["texts"]["roles"][0][0] == "PLANNER"


@pytest.mark.tools(*PROGRAMS)
async def test_its_figures_are_those_of_the_metrics_and_of_the_status(
    driver: Path, output: Path
) -> None:
    sim = SimConfig(tokens=5)
    async with running(sim) as up:
        await _calls(up)
        waits = [["#roles-t tbody tr", "qwen3:8b"], ["#asked-t tbody tr", "qwen3:8b"]]
        waits += [["#requests-t tbody tr", "E_UPSTREAM_LOCAL"], ["#budgets-t tbody tr", "heavy"]]
        waits += [["#slo-t tbody tr", "not enough data"]]
        reads = {"roles": ROLES, "models": "#asked-t tbody tr", "budgets": "#budgets-t tbody tr"}
        reads["objectives"] = "#slo-t tbody tr"
        [view] = await seen(up, driver, output, {"name": "figures", "waits": waits, "reads": reads})
        async with up.admin() as admin:
            metrics = (await admin.request("GET", "/metrics")).body.decode()
            status = (await admin.request("GET", "/stats?format=text")).body.decode()
    samples = [s for f in text_string_to_metric_families(metrics) for s in f.samples]

    def total(name: str, **labels: str) -> int:
        fitting = (s for s in samples if s.name == name and labels.items() <= s.labels.items())
        return round(sum(sample.value for sample in fitting))

    for row in view["texts"]["roles"]:
        role = row[0]
        [line] = re.findall(rf"^{role} +(\S+) +\S+ +(\S+) +\S+ +(\d+) +(\d+)", status, re.MULTILINE)
        run, wait, calls, failed = line
        assert row[1].replace(" ", "").replace("nocap", "-") == run
        assert row[2].replace(" ", "") == wait
        assert int(run.partition("/")[0]) == total("modelsplit_in_flight", role=role)
        assert int(wait.partition("/")[0]) == total("modelsplit_queue_depth", role=role)
        assert int(row[10]) == int(calls) == total("modelsplit_requests_total", role=role)
        shown_failed = int(row[11])
        assert shown_failed == total("modelsplit_requests_total", role=role, outcome="error")
        assert shown_failed == int(failed)
    assert {row[0] for row in view["texts"]["models"]} >= {"qwen3:4b", "qwen3:8b"}
    for model, calls, failed, _, _, tokens, *_ in view["texts"]["models"]:
        assert int(calls) == total("modelsplit_requests_total", model=model)
        assert int(failed) == total("modelsplit_requests_total", model=model, outcome="error")
        assert int(tokens) == total("modelsplit_tokens_total", model=model, direction="output")
    # What cannot be judged yet has no budget that could be used up.
    left = [row[6] for row in view["texts"]["objectives"] if row[2] == "not enough data"]
    assert left
    assert set(left) == {NONE}
    for name, _, calls, usd, *_ in view["texts"]["budgets"]:
        used = total("modelsplit_budget_used", budget=name, unit="calls")
        assert calls.startswith(f"{used} of ")
        assert usd == NONE or usd.startswith("0 USD of ")


async def _calls(up: Running) -> None:
    """Of three models: answered ones, and one that fails for good."""
    async with up.client() as client:
        for model, count in (("planner", 3), ("executor", 2), ("heavy", 1)):
            for _ in range(count):
                body = {"model": model, "prompt": "x", "stream": False}
                assert (await client.request("POST", "/api/generate", body)).status == 200
        up.sim.faults.add(Kind.STATUS, status=500, body='{"error":"died"}')
        body = {"model": "heavy", "prompt": "x", "stream": False}
        assert (await client.request("POST", "/api/generate", body)).status >= 500
    await up.calls.wait(7)
