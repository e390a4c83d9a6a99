"""Several proxies, one budget: calls over real sockets, before a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_sim.config import SimConfig
from support.harness import running
from support.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.harness import Overlay, Running
    from support.redis_server import RedisServer

pytestmark = pytest.mark.tools("redis-server")

BIG = {"model": "gpt-oss:20b", "prompt": "hi", "stream": False}
TEN: Overlay = {
    "budgets": [{"name": "ten", "models": ["gpt-oss:20b"], "calls": 10, "window": "1h"}],
}


@contextlib.asynccontextmanager
async def proxies(server: RedisServer, count: int) -> AsyncIterator[list[Running]]:
    """So many, each with an Ollama and a state file of its own, that have found the server."""
    async with contextlib.AsyncExitStack() as stack:
        config = SimConfig(tokens=1, num_parallel=8)
        ups = [
            await stack.enter_async_context(running(config, TEN, shared=server.url))
            for _ in range(count)
        ]
        for up in ups:
            # No machine is slow enough to be taken for a server that hangs.
            assert up.app.shared is not None
            up.app.shared._link.timeout_s = 600.0
            await counts(up)
        for up in ups:
            # Each hears of those that came after it.
            assert up.app.shared is not None
            await up.app.shared.look_after()
        yield ups


async def counts(up: Running) -> None:
    shared = up.app.shared
    assert shared is not None
    while shared.error is not None:
        await shared.look_after()


async def ask(up: Running) -> tuple[int, str]:
    async with up.client() as client:
        answer = await client.request("POST", "/api/generate", BIG)
        return answer.status, answer.json.get("reason", "")


async def test_of_calls_at_three_proxies_as_many_as_the_budget_has_are_served(
    tmp_path: Path,
) -> None:
    async with redis_server(tmp_path) as server, proxies(server, 3) as ups:
        answers = []
        for _ in range(5):
            answers += await asyncio.gather(*map(ask, ups))
        assert sorted(answers) == [(200, "")] * 10 + [(429, "calls")] * 5
        assert sum(len(up.asked) for up in ups) == 10
        async with ups[0].admin() as admin:
            spending = (await admin.request("GET", "/stats")).json["spending"]
        told: dict[str, Any] = {"error": None, "since": None, "away_s": None, "proxies": 3}
        told |= {"calls_on_lease": 0, "same_ollama": []}
        assert spending["shared"] == told
        assert spending["budgets"][0]["calls"] == 10


async def test_without_the_server_calls_that_nobody_counts_go_on(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, proxies(server, 1) as [up]:
        await server.kill()
        async with up.client() as client:
            refused = await client.request("POST", "/api/generate", BIG)
        assert (refused.status, refused.json["reason"]) == (429, "ledger_unavailable")
        assert "must be counted in the shared Redis, but it is away" in refused.json["error"]
        assert dict(refused.headers).get("RateLimit", '"ten";r=0') == '"ten";r=0'
        async with up.client() as client:
            chat = {"model": "qwen3:4b", "prompt": "hi", "stream": False}
            assert (await client.request("POST", "/api/generate", chat)).status == 200
        async with up.admin() as admin:
            health = (await admin.request("GET", "/healthz")).json
            assert "the shared Redis: it is away" in health["error"]
            assert f"redis-cli -s {server.socket} ping" in str(health["health"])
            scraped = (await admin.request("GET", "/metrics")).body
            spending = (await admin.request("GET", "/stats")).json["spending"]
            status = (await admin.request("GET", "/stats?format=text")).body.decode()
        assert b"modelsplit_shared_budgets_open 0.0" in scraped
        assert b'modelsplit_budget_used{budget="ten"' not in scraped
        # Nobody knows how much is used, so nothing says so.
        assert "ten  ?/10 calls in 1h; the shared Redis is away, nothing is sent\n" in status
        assert "shared   nothing can be counted for " in status
        assert spending["shared"]["since"]
        [budget] = spending["budgets"]
        assert (budget["known"], budget["calls_left"]) == (False, 0)
        await server.start()
        await counts(up)
        assert await ask(up) == (200, "")


async def test_two_before_one_ollama_find_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        redis_server(tmp_path) as server,
        running(SimConfig(tokens=1), TEN, shared=server.url) as first,
        running(None, TEN, upstream=first.app._settings.upstream, shared=server.url) as second,
    ):
        for up in (first, second, first, second):
            assert up.app.shared is not None
            up.app.shared._link.timeout_s = 600.0
            await counts(up)
            await up.app.shared.look_after()
        for up, other in ((first, second), (second, first)):
            async with up.admin() as admin:
                status = (await admin.request("GET", "/stats?format=text")).body.decode()
            told = f"is asked by another modelsplit too, {other.app.address} on "
            assert told in status
            assert any(told in line for line in caplog.messages)
