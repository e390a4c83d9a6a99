"""What looks back over the kept records, on the admin port."""

from __future__ import annotations

from modelsplit_sim.config import SimConfig
from support.harness import running


async def test_what_calls_have_cost_and_what_experiments_have_shown() -> None:
    async with running(SimConfig(tokens=2)) as up, up.client() as client, up.admin() as admin:
        body = {"model": "planner", "prompt": "x", "stream": False}
        assert (await client.request("POST", "/api/generate", body)).status == 200
        cost = (await admin.request("GET", "/cost?since=1h")).json
        [part] = cost["parts"]
        assert (part["llm_role"], part["model"], part["calls"]) == ("PLANNER", "qwen3:4b", 1)
        assert (await admin.request("GET", "/cost?since=never")).status == 400
        assert (await admin.request("GET", "/experiments")).status == 200
        assert (await admin.request("GET", "/experiments?name=nobody")).status == 404
