"""The examples, as somebody runs them: beside a ``modelsplit demo``."""

from __future__ import annotations

import re
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from pathlib import Path

from support.process import BARE, spawned
from support.wire import Client

EXAMPLES = Path(__file__).parents[2] / "examples"


async def test_the_planner_and_its_executor() -> None:
    """One tool says little, one says much, one fails: two questions for two reasons."""
    ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    async with spawned("modelsplit_proxy", "demo", *ports) as demo:
        asked = await demo.said("/api/generate")
        admin = await demo.said("/stats")
        urls = [re.findall(r"http://[\d.]+:\d+", line)[0] for line in (asked, admin)]
        program = EXAMPLES / "planner_executor.py"
        child = await create_subprocess_exec(
            *(sys.executable, program, *urls), env=BARE, stdout=PIPE, stderr=PIPE
        )
        out, talk = (text.decode() for text in await child.communicate())
        async with Client(int(urls[1].rpartition(":")[2])) as page:
            job = (await page.request("GET", f"/jobs/{out.split()[1]}")).json
    assert (child.returncode, talk) == (0, "")
    assert (job["state"], job["roles"]) == ("ok", {"PLANNER": 1, "EXECUTOR": 2})
    tools = [(tool["name"], tool["ok"]) for tool in job["timeline"] if tool["what"] == "tool"]
    assert tools == [("free_space", True), ("known_modules", True), ("try_import", False)]
    purposes = [call["purpose"] for call in job["timeline"] if call["what"] == "call"]
    assert purposes == [None, "complex_output", "failure_analysis"]
    told = [line.partition(":")[0] for line in out.splitlines() if re.match(r"\w+: ", line)]
    assert told == ["plan", "free_space", "known_modules", "try_import"]
    assert re.findall(r"^(\w+): (failure_analysis|complex_output): \S", out, re.MULTILINE) == [
        ("known_modules", "complex_output"),
        ("try_import", "failure_analysis"),
    ]
    assert re.findall(r"^  (\w+) (\S+), waited", out, re.MULTILINE) == [
        ("PLANNER", "qwen3:4b"),
        ("EXECUTOR", "qwen3:8b"),
        ("EXECUTOR", "qwen3:8b"),
    ]
