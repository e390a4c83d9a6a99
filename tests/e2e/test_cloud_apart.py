"""One cloud's trouble is nobody else's: not another provider's, not Ollama's, not the service's."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.health import Level
from modelsplit_sim.cloud import KEY, Cloud, Script
from modelsplit_sim.config import SimConfig
from modelsplit_sim.models import DEFAULT_MODELS
from support.clouds import ITS_NAME, approve
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.harness import Running
    from support.wire import Client

pytestmark = pytest.mark.flowing_time

NATIVE = "/api/chat"
OLLAMAS = "glm-4.6:cloud"
PRICE = {"price": {"input": 1.0, "output": 1.0}}
SIM = SimConfig((*DEFAULT_MODELS, OLLAMAS), tokens=2, num_parallel=8, max_loaded=5)
FAILURES = 5


@contextlib.asynccontextmanager
async def two_clouds(state: Path) -> AsyncIterator[tuple[Running, Cloud, Cloud]]:
    """``left`` and ``right`` are asked of one provider each, OLLAMAS of Ollama."""
    async with Cloud() as left, Cloud() as right:
        providers = {
            name: {"base_url": cloud.url, "models": {name: ITS_NAME}}
            for name, cloud in (("left", left), ("right", right))
        }
        overlay = {
            "cloud": {"providers": providers},
            "models": dict.fromkeys(("left", "right", OLLAMAS), PRICE),
            "budgets": [],
        }
        async with running(
            SIM, overlay, state=state, environ={"ANTHROPIC_API_KEY": KEY}, curious=False
        ) as up:
            approve(state)
            yield up, left, right


async def ask(client: Client, model: str, text: str = "hi") -> Any:
    body = {
        "model": model,
        "stream": False,
        "messages": [{"role": "user", "content": text}],
        "options": {"num_predict": 8},
    }
    return await client.request("POST", NATIVE, body, {"X-LLM-Role": "CLOUD"})


async def others_are_served(up: Running, client: Client) -> None:
    for model in ("right", OLLAMAS):
        answer = await ask(client, model)
        assert (answer.status, answer["X-LLM-Provider"]) == (200, "CLOUD")
    local = await client.request("POST", NATIVE, {"model": "planner", "messages": []})
    assert local.status == 200
    async with up.admin() as admin:
        health = (await admin.request("GET", "/healthz")).json
    assert health["status"] in {"ok", "degraded"}


async def test_a_provider_that_is_not_there_stops_calls_to_itself_alone(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as (up, left, _), up.client() as client:
        await left.stop()
        for number in range(FAILURES):
            answer = await ask(client, "left", f"try {number}")
            assert answer.json["error_code"] == "E_UNREACHABLE_CLOUD"
        stopped = await ask(client, "left")
        assert (stopped.status, stopped.json["error_code"]) == (502, "E_UNREACHABLE_CLOUD")
        [view] = up.app.breakers.snapshot()
        assert (str(view.key), view.state) == ("CLOUD at provider left", "open")
        await others_are_served(up, client)


async def test_a_model_that_fails_at_one_provider_is_another_at_the_next(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as (up, left, _), up.client() as client:
        left.scripts += [Script(status=500)] * FAILURES
        for number in range(FAILURES):
            assert (await ask(client, "left", f"try {number}")).status == 500
        stopped = await ask(client, "left")
        assert (stopped.status, stopped.json["reason"]) == (503, "breaker_open")
        assert "CLOUD/left at provider left" in stopped.json["error"]
        await others_are_served(up, client)


@pytest.mark.parametrize("status", [401, 403, 429, 529, 400, 404, 413])
async def test_a_refusal_opens_nothing_at_all(tmp_path: Path, status: int) -> None:
    async with two_clouds(tmp_path) as (up, left, _), up.client() as client:
        left.scripts += [Script(status=status)] * (FAILURES + 1)
        for number in range(FAILURES + 1):
            assert (await ask(client, "left", f"try {number}")).status >= 400
        assert up.app.breakers.snapshot() == ()
        assert (await ask(client, "left")).status == 200
        await others_are_served(up, client)


async def test_a_provider_that_is_back_is_asked_again(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as (up, left, _), up.client() as client:
        port = left.port
        await left.stop()
        for number in range(FAILURES):
            await ask(client, "left", f"try {number}")
        await left.start(port)
        while (answer := await ask(client, "left")).status != 200:
            assert answer.json["error_code"] == "E_UNREACHABLE_CLOUD"
        assert up.app.breakers.snapshot() == ()


async def test_ollama_that_is_away_stops_its_own_cloud_and_no_other(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as (up, _, _), up.client() as client:
        await up.sim.stop()
        for number in range(FAILURES):
            await ask(client, OLLAMAS, f"try {number}")
        keys = {str(view.key) for view in up.app.breakers.snapshot()}
        assert "CLOUD" in keys
        for model in ("left", "right"):
            assert (await ask(client, model)).status == 200


async def test_health_says_which_cloud_is_not_asked(tmp_path: Path) -> None:
    async with two_clouds(tmp_path) as (up, left, _), up.client() as client:
        await left.stop()
        for number in range(FAILURES):
            await ask(client, "left", f"try {number}")
        await up.until(lambda: up.app.monitor.guard.level is not Level.OK)
        async with up.admin() as admin:
            health = (await admin.request("GET", "/healthz")).json
        assert health["status"] == "degraded"
        assert "calls are stopped: CLOUD at provider left (5 failures in a row" in repr(health)
