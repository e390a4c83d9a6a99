"""``examples/llm-client.mjs``: sixty lines, and its jobs as modelsplit then shows them."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from clients import install
from clients.absence import absent
from clients.readme import ROOT
from modelsplit_sim.config import SimConfig
from support.harness import Running, running
from support.ports import kept_port

PROGRAM = ROOT / "examples" / "llm-client.mjs"
SCRIPT = Path(__file__).parent / "node" / "job.mjs"
SIM = SimConfig(tokens=5, max_loaded=8, num_parallel=8)
DONE = ["qwen3:8b 1", "found", "done"]


def test_it_is_sixty_lines_at_most() -> None:
    assert len(PROGRAM.read_text(encoding="utf-8").splitlines()) <= 60


async def ran(up: Running, room: Path, ends: str, admin: int) -> tuple[list[str], str]:
    """The lines that the job's program printed, and what it warned of."""
    try:
        program = install.node()
    except install.Unavailable as reason:
        absent(reason, "llm-client.mjs")
    for source in (PROGRAM, SCRIPT):
        shutil.copy(source, room)
    child = await asyncio.create_subprocess_exec(
        *(program, room / SCRIPT.name, ends),
        cwd=room,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(room),
            "MODELSPLIT_URL": up.url,
            "MODELSPLIT_ADMIN": f"http://127.0.0.1:{admin}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, talk = await child.communicate()
    assert child.returncode == 0, talk.decode()
    return out.decode().splitlines(), talk.decode()


async def told(up: Running) -> dict[str, Any]:
    async with up.admin() as admin:
        found: dict[str, Any] = (await admin.request("GET", "/jobs/build-17")).json
    return found


@pytest.mark.tools("node", "npm")
async def test_a_job_is_told_from_its_start_to_its_end(tmp_path: Path) -> None:
    async with running(SIM) as up:
        lines, talk = await ran(up, tmp_path, "well", up.admin_port)
        job = await told(up)
    assert (lines, talk) == (DONE, "")
    assert (job["state"], job["calls"]) == ("ok", 2)
    assert job["start_told_at"] is not None
    tools = [item for item in job["timeline"] if item["what"] == "tool"]
    assert [(tool["name"], tool["ok"]) for tool in tools] == [("grep", True), ("make", False)]
    calls = [item["purpose"] for item in job["timeline"] if item["what"] == "call"]
    assert calls == [None, "failure_analysis"]


@pytest.mark.tools("node", "npm")
async def test_an_error_has_all_fields_and_ends_the_job_as_failed(tmp_path: Path) -> None:
    async with running(SIM) as up:
        lines, talk = await ran(up, tmp_path, "refused", up.admin_port)
        job = await told(up)
    assert lines[-1] == "LLMError E_BUDGET_NOT_APPROVED no_approval CLOUD 403"
    assert (job["state"], job["why"], talk) == ("failed", "E_BUDGET_NOT_APPROVED", "")


@pytest.mark.tools("node", "npm")
async def test_reports_that_nobody_takes_are_said_once_and_fail_nothing(tmp_path: Path) -> None:
    with kept_port() as nobody:
        async with running(SIM) as up:
            lines, talk = await ran(up, tmp_path, "well", nobody)
            records = await up.calls.wait(2)
    assert lines == DONE
    assert talk.count("job reports are not taken by") == 1
    assert {record.job_id for record in records} == {"build-17"}
