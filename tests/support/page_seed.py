"""A little of everything for the page to show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from support.harness import Running

HOSTILE: Final = "<img src=x onerror=alert(1)>"
JSON: Final = {"Content-Type": "application/json"}
CALL: Final = {"prompt": "x", "stream": False}

EXPERIMENT: Final = {
    "experiments": [
        {
            "name": "t",
            "role": "PLANNER",
            "enabled": True,
            "sticky": "job",
            "arms": [
                {"name": "small", "model": "qwen3:4b", "weight": 1},
                {"name": "large", "model": "gemma3:12b", "weight": 1},
            ],
        }
    ]
}


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
