"""Grafana's dashboard: sound by itself, and every query answered by a real Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tempfile
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.harness import Running, running
from support.page_seed import EXPERIMENT
from support.ports import kept_port
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from prometheus_client.metrics_core import Metric

CONTRIB = Path(__file__).parents[2] / "contrib"
BOARD = json.loads((CONTRIB / "grafana" / "modelsplit.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
VARIABLES = {"$__rate_interval": "1h", "$job": ".*", "$instance": ".*", "$role": ".*"}
JSON = {"Content-Type": "application/json"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
SCRAPED = "count_over_time(modelsplit_health_level[1h]) >= 3"
CONFIG = """\
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: modelsplit
    scrape_interval: 1s
    scrape_timeout: 1s
    static_configs: [{{targets: ['127.0.0.1:{port}']}}]
"""


def test_every_panel_has_a_place_of_its_own_and_says_what_it_shows() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    for one, other in combinations(BOARD["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one["title"], other["title"])
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        assert panel["description"].endswith((".", "here", "docs/errors.md."))


def test_every_query_asks_the_chosen_prometheus_for_the_chosen_processes() -> None:
    names = [variable["name"] for variable in BOARD["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "role"]
    for panel in PANELS:
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
            selectors = re.findall(r"\{(.*?)\}", target["expr"])
            assert selectors
            assert all('job=~"$job",instance=~"$instance"' in selector for selector in selectors)


def test_the_lag_is_in_no_panel_of_latencies() -> None:
    for panel in PANELS:
        of_lag = ["event_loop_lag" in target["expr"] for target in panel["targets"]]
        assert len(set(of_lag)) == 1, panel["title"]


class Scrapes:
    """A collector that has nothing to tell and knows how often it was asked."""

    def __init__(self) -> None:
        self._count = 0
        self._came = asyncio.Event()

    def collect(self) -> Iterator[Metric]:
        self._count += 1
        self._came.set()
        yield from ()

    async def wait(self, count: int) -> None:
        while self._count < count:
            self._came.clear()
            await self._came.wait()


async def seed(up: Running) -> None:
    """Calls that show in every panel: answered, held to a schema, fallen back, failed; a job."""
    up.sim.faults.add(Kind.STATUS, status=500, body='{"error":"died"}', model="qwen3:4b")
    async with up.client() as client, up.admin() as admin:
        for number in range(6):
            body = {"model": "planner", "prompt": "x", "stream": False, "format": SCHEMA}
            headers = {"X-LLM-Job-Id": f"job-{number}"}
            await client.request("POST", "/api/generate", body, headers)
        body = {"model": "nobody:1b", "prompt": "x", "stream": False}
        assert (await client.request("POST", "/api/generate", body)).status == 404
        tool = {"name": "grep", "duration_ms": 80.5, "ok": True}
        assert (await admin.request("POST", "/jobs/job-2/tool", tool, JSON)).status == 200
        finish = await admin.request("POST", "/jobs/job-1/finish", {"ok": True}, JSON)
        assert finish.status == 200
    await up.calls.wait(7)


@contextlib.asynccontextmanager
async def prometheus(scraped: int, folder: Path) -> AsyncIterator[Client]:
    """One that scrapes that port, ready to be asked."""
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(port=scraped))
    with kept_port() as port:
        child = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert child.stderr is not None
        try:
            while b"Server is ready" not in (line := await child.stderr.readline()):
                assert line, "it ended before it was ready"
            draining = asyncio.create_task(child.stderr.read())
            async with Client(port) as client:
                yield client
            draining.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def asked(client: Client, query: str) -> list[dict[str, Any]]:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    answer = await client.request("GET", f"/api/v1/query?{urlencode({'query': query})}")
    assert answer.status == 200, (query, answer.body)
    found: list[dict[str, Any]] = answer.json["data"]["result"]
    return found


@pytest.mark.tools("prometheus")
async def test_a_real_prometheus_answers_every_query_with_something() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with running(SimConfig(tokens=4), EXPERIMENT) as up:
            await seed(up)
            scrapes = Scrapes()
            up.app.metrics.registry.register(scrapes)
            async with prometheus(up.admin_port, Path(folder)) as client:
                # A rate is of two scrapes at least.
                await scrapes.wait(3)
                while not await asked(client, SCRAPED):
                    pass  # what was scraped is taken in a moment later
                empty = [p.id for p in QUERIES if not await asked(client, str(p.values[0]))]
    assert empty == []
