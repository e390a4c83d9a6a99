"""The main job, seen from outside."""

from __future__ import annotations

from modelsplit_sim.config import SimConfig
from support.harness import running


async def test_a_planner_call_is_routed_to_the_primary_model_and_tagged() -> None:
    async with running(SimConfig(tokens=4)) as up, up.client() as client:
        answer = await client.request(
            "POST", "/api/generate", {"model": "planner", "prompt": "hi", "stream": False}
        )
        assert answer.status == 200
        assert answer.json["model"] == "qwen3:4b"
        assert answer["X-LLM-Role"] == "PLANNER"
        assert answer["X-LLM-Context"] == "PLANNER"
        assert answer["X-LLM-Provider"] == "LOCAL"
        assert answer["X-LLM-Model"] == "qwen3:4b"
        assert answer["X-LLM-Requested-Model"] == "planner"
        assert answer["X-LLM-Attempt"] == "1"
        assert answer["X-LLM-Fallback-Used"] == "false"
        assert answer["X-LLM-Route-Reason"] == "alias"
        assert answer["X-Request-Id"] == answer["request-id"]
        assert answer["Via"] == "1.1 modelsplit"
        assert answer.get("X-LLM-Error-Code") is None
        assert answer["Server-Timing"].startswith("queue;dur=")
