"""The page in a real browser: what it shows, that axe finds nothing, that it works by keyboard."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clients import install
from clients.absence import absent
from modelsplit_sim.config import SimConfig
from support.harness import Running, running

FOLDER = Path(__file__).parent
HOSTILE = "<img src=x onerror=alert(1)>"
VIEWS = [
    {"width": 1440, "scheme": "light"},
    {"width": 390, "scheme": "dark"},
    {"width": 2560, "scheme": "dark"},
]
JSON = {"Content-Type": "application/json"}
CALL = {"prompt": "x", "stream": False}


async def seed(up: Running) -> None:
    """A job with two calls and a tool, and calls that failed."""
    async with up.client() as client, up.admin() as admin:
        for model in ("planner", "executor"):
            body, headers = CALL | {"model": model}, {"X-LLM-Job-Id": "build-17"}
            answer = await client.request("POST", "/api/generate", body, headers)
            assert answer.status == 200
        tool = {"name": "grep", "duration_ms": 80.5, "ok": True}
        assert (await admin.request("POST", "/jobs/build-17/tool", tool, JSON)).status == 200
        for model in (HOSTILE, "nobody:1b"):
            answer = await client.request("POST", "/api/generate", CALL | {"model": model})
            assert answer.status in {400, 404}
    await up.calls.wait(4)


async def looked(up: Running, modules: Path, output: Path) -> dict[str, Any]:
    """What the browser saw of the page in every view."""
    chromium, node = shutil.which("chromium"), shutil.which("node")
    assert chromium is not None
    assert node is not None
    url = f"http://127.0.0.1:{up.admin_port}/"
    child = await asyncio.create_subprocess_exec(
        *(node, FOLDER / "page.mjs", modules, chromium, url, output, json.dumps(VIEWS)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, talk = await child.communicate()
    assert child.returncode == 0, talk.decode()
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.tools("chromium", "node", "npm")
async def test_the_page_in_every_width_and_scheme(tmp_path: Path) -> None:
    try:
        modules = await asyncio.to_thread(
            install.node_packages, "browser", FOLDER / "package.json", FOLDER / "package-lock.json"
        )
    except install.Unavailable as reason:
        absent(reason, "playwright-core")
    async with running(SimConfig(tokens=2)) as up:
        await seed(up)
        found = await looked(up, modules, tmp_path)
        host = f"127.0.0.1:{up.admin_port}"
    assert [view["view"] for view in found["views"]] == VIEWS
    for view in found["views"]:
        assert view["title"] == "[LLM OBSERVABILITY]"
        assert (view["page"], view["call"], view["job"]) == ([], [], [])
        assert (view["errors"], view["hosts"], view["sideways"]) == ([], [host], 0)
        # What somebody calls a model is text, whatever it looks like.
        assert HOSTILE in view["models"]
        assert view["images"] == 0
        assert view["planner"][0].startswith("PLANNER")
        assert (view["address"], view["closed"], view["linked"]) == (True, True, True)
        assert view["unknown"] == 'no call has the request id "nobody-has-this"'
    assert "stats?format=text" in found["noscript"]
