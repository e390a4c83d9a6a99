"""The policy in force and a dry run of it, on the admin port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from modelsplit_sim.config import SimConfig
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.harness import Running


@pytest.fixture
async def up() -> AsyncIterator[Running]:
    async with running(SimConfig(tokens=2)) as up:
        yield up


async def test_the_policy_in_force(up: Running) -> None:
    async with up.admin() as admin:
        shown = (await admin.request("GET", "/policy")).json
        assert shown["policy"]["roles"]["PLANNER"]["primary"] == "qwen3:4b"
        assert shown["policy"]["global"]["max_concurrent"] == 6
        assert (shown["source"], len(shown["digest"])) == ("test", 64)


async def test_a_dry_run(up: Running) -> None:
    async with up.admin() as admin:
        shown = (await admin.request("GET", "/route?model=planner")).json
        assert (shown["llm_role"], shown["route_reason"]) == ("PLANNER", "alias")
        assert shown["candidates"] == [
            {"model": "qwen3:4b", "timeout_s": 15.0, "installed": True},
            {"model": "qwen3:8b", "timeout_s": 30.0, "installed": True},
        ]
        assert shown["not_found"] is None
        shown = (await admin.request("GET", "/route?model=x&role=executor")).json
        assert [c["model"] for c in shown["candidates"]] == ["x", "gemma3:12b"]
        assert shown["needs_approval"] is False
        assert shown["refused"] is None
        shown = (await admin.request("GET", "/route?model=cloud")).json
        assert (shown["llm_provider"], shown["needs_approval"]) == ("CLOUD", True)
        assert shown["refused"]["reason"] == "no_approval"
        refused = await admin.request("GET", "/route?model=x&role=boss")
        assert (refused.status, refused.json["error_code"]) == (400, "E_BAD_REQUEST")
    assert up.asked == []


async def test_a_dry_run_tells_of_models_that_are_not_installed() -> None:
    async with running(SimConfig(models=("qwen3:8b",))) as up, up.admin() as admin:

        async def shown(query: str) -> tuple[list[bool | None], str | None]:
            fields = (await admin.request("GET", f"/route?{query}")).json
            return [row["installed"] for row in fields["candidates"]], fields["not_found"]

        pull = f"OLLAMA_HOST={up.sim.url} ollama pull"
        assert await shown("model=planner") == ([False, True], None)
        missing = f"{pull} gemma3:12b && {pull} gpt-oss:20b"
        assert await shown("model=heavy") == (
            [False, False],
            f"HEAVY cannot be served: none of its models is installed; try `{missing}`",
        )
        installed, text = await shown("model=qwen3:8")
        assert (installed, text) == (
            [False],
            f'model "qwen3:8" not found; did you mean "qwen3:8b"? Else `{pull} qwen3:8`',
        )
        # What runs elsewhere is nowhere in its list.
        assert await shown("model=cloud") == ([None], None)
        assert await shown("model=glm-4.6:cloud") == ([None], None)
    assert up.asked == []
