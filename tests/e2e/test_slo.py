"""The real command beside a real proxy, and after it; heartbeats over a drain and a kill."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.config import SimConfig
from support.harness import running
from support.process import ollama, serving, spawned
from support.waiting import until

PLANNER = {"model": "planner", "prompt": "x", "stream": False}
JSON = {"Content-Type": "application/json"}
FILE = ("--admin", "127.0.0.1:1")


def beats(state: Path) -> list[tuple[str, int]]:
    """The run and whether it had drained, of every heartbeat."""
    with closing(sqlite3.connect(state / FILE_NAME)) as db:
        rows: list[tuple[str, int]] = db.execute(
            "SELECT run, drained FROM heartbeats ORDER BY minute"
        ).fetchall()
    return rows


async def slo(*arguments: str) -> tuple[int, dict[str, Any], str]:
    async with spawned("modelsplit_proxy", "slo", "--json", *arguments) as command:
        code, out, talk = await command.outcome()
    return code, json.loads(out), talk


async def test_it_answers_while_the_proxy_runs_and_when_it_does_not(tmp_path: Path) -> None:
    async with ollama() as (port, _), serving(port, state=tmp_path) as proxy:
        async with proxy.client() as client:
            assert (await client.request("POST", "/api/generate", PLANNER)).status == 200
        code, beside, talk = await slo("--admin", f"127.0.0.1:{proxy.admin_port}")
        assert (code, talk) == (3, "")
        proxy.signal(signal.SIGTERM)
        assert await proxy.ended() == 0
    code, after, talk = await slo(*FILE, "--state", str(tmp_path))
    assert (code, talk) == (3, "")
    for told in (beside, after):
        assert told["gates"][0]["planner"]["calls"] == 1
        assert told["timeouts"][0]["calls"] == 1


async def test_who_drains_says_so_in_its_last_heartbeat_and_who_is_killed_does_not(
    tmp_path: Path,
) -> None:
    async with ollama() as (port, _):
        async with serving(port, state=tmp_path) as proxy:
            proxy.signal(signal.SIGTERM)
            assert await proxy.ended() == 0
        [*_, (first, drained)] = beats(tmp_path)
        assert drained == 1
        async with serving(port, state=tmp_path) as proxy:
            await until(lambda: beats(tmp_path)[-1][0] != first)
            proxy.signal(signal.SIGKILL)
            await proxy.ended()
    assert beats(tmp_path)[-1][1] == 0


async def test_jobs_that_clients_tell_of_are_judged_and_their_calls_reviewed() -> None:
    async with running(SimConfig(tokens=2)) as up, up.admin() as admin:
        for number in range(4):
            job = f"job-{number}"
            async with up.client() as client:
                headers = {"X-LLM-Job-Id": job, "X-LLM-Purpose": "failure_analysis"}
                body = PLANNER | {"model": "executor" if number else "planner"}
                answer = await client.request("POST", "/api/generate", body, headers)
                assert answer.status == 200
            tool = {"name": "grep", "duration_ms": 80.5, "ok": True}
            assert (await admin.request("POST", f"/jobs/{job}/tool", tool, JSON)).status == 200
            ended = {"ok": number < 3}
            assert (await admin.request("POST", f"/jobs/{job}/finish", ended, JSON)).status == 200
        told = (await admin.request("GET", "/slo?gate=3")).json
        state = ("--state", str(up.app.store.path.parent))
        async with spawned("modelsplit_proxy", "slo", "review", "--json", *state) as command:
            code, out, _ = await command.outcome()
    found = {row["objective"]: row for row in told["gates"][0]["objectives"]}
    assert (found["executor_job_rate"]["value"], found["executor_job_rate"]["n"]) == (0.75, 4)
    assert found["job_success_rate"]["value"] == 0.75
    assert code == 0
    assert {row["job_id"] for row in json.loads(out)} == {"job-1", "job-2", "job-3"}
    assert {row["purpose"] for row in json.loads(out)} == {"failure_analysis"}
