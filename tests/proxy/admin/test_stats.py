"""Everything as it stands, on the admin port."""

from __future__ import annotations

import asyncio

from modelsplit_proxy.admin import status_text
from support.harness import running


async def test_a_background_task_that_fails_is_started_again_and_told() -> None:
    async with running() as up, up.admin() as admin:
        up.app._tasks._watchers["health"].failed("KeyError: 'x'", asyncio.get_running_loop().time())
        stats = (await admin.request("GET", "/stats")).json
        watchers = {watcher["name"]: watcher for watcher in stats["watchers"]}
        assert {"probe", "residency", "learned", "retention", "budgets"} <= watchers.keys()
        assert watchers["health"] == {
            "name": "health",
            "running": False,
            "failures": 1,
            "error": "KeyError: 'x'",
            "well": False,
        }
        health = (await admin.request("GET", "/healthz")).json
        assert health["status"] == "degraded"
        assert "health, 1 times, last: KeyError: 'x'" in health["error"]
        shown = "\n".join(status_text.lines(stats))
        assert "task     health failed 1 times, waits to be started again: KeyError: 'x'" in shown
        assert "\ncause    background tasks failed: health, 1 times, last: KeyError" in shown


async def test_a_queue_with_nobody_in_it() -> None:
    async with running() as up, up.admin() as admin:
        assert (await admin.request("GET", "/queue")).json == {"waiting": [], "running": []}


async def test_as_text_it_is_what_the_command_shows() -> None:
    async with running() as up, up.admin() as admin:
        text = await admin.request("GET", "/stats?format=text")
        assert text["Content-Type"] == "text/plain; charset=utf-8"
        first, _, role, *_ = text.body.decode().splitlines()
        assert first.startswith("OK  Ollama ")
        assert role.startswith("ROLE ")
        accepted = await admin.request("GET", "/stats", None, {"Accept": "text/plain"})
        assert accepted.body.startswith(b"OK  Ollama ")
        assert (await admin.request("GET", "/stats?format=xml")).status == 400
