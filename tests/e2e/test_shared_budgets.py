"""Several proxies, one budget: calls over real sockets, before a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.cli import main as cli
from modelsplit_sim.config import SimConfig
from modelsplit_sim.models import DEFAULT_MODELS, ModelSpec
from support.harness import running
from support.ports import stand_in
from support.process import Process, serving
from support.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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
        told |= {"next": None, "calls_on_lease": 0, "same_ollama": [], "copies": []}
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


# -- commands beside real processes ---------------------------------------------------------------

CLOUD: Overlay = {
    "extends": "default",
    "budgets": [{"name": "cloud", "provider": "CLOUD", "usd": 5.0, "window": "1d"}],
}
WITH_OPUS = SimConfig((*DEFAULT_MODELS, ModelSpec("claude-3-opus")), tokens=1, max_loaded=5)
APPROVE = ("approve", "--usd", "5", "--days", "7", "--by", "kim", "--reason", "a trial")
REVOKE = ("revoke", "--by", "ann", "--reason", "enough")


@contextlib.asynccontextmanager
async def processes(
    server: RedisServer, home: Path, names: tuple[str, ...]
) -> AsyncIterator[list[Process]]:
    """Each with an Ollama and a state file of its own, that have found each other."""
    (home / "policy.json").write_text(json.dumps(CLOUD))
    options = ("--policy", str(home / "policy.json"), "--shared", server.url)
    async with contextlib.AsyncExitStack() as stack:
        started = []
        for name in names:
            sim = await stack.enter_async_context(stand_in(WITH_OPUS))
            (home / name).mkdir()
            child = serving(sim.port, home / name, *options)
            started.append(await stack.enter_async_context(child))
        for process in started:
            await shared(process, lambda told: told["proxies"] == len(names))
        yield started


async def shared(process: Process, holds: Callable[[dict[str, Any]], bool]) -> None:
    """Until ``holds`` of what it tells of the others."""
    while True:
        async with process.admin() as admin:
            told = (await admin.request("GET", "/stats")).json["spending"]["shared"]
        if told["error"] is None and holds(told):
            return


async def ask_opus(process: Process) -> tuple[int, str]:
    async with process.client() as client:
        body = {"model": "cloud", "prompt": "hi", "stream": False}
        answer = await client.request("POST", "/api/generate", body)
        return answer.status, answer.json.get("reason", "")


@dataclass
class Commands:
    """``modelsplit budget`` as a person types it."""

    capsys: pytest.CaptureFixture[str]

    async def run(self, at: Process | Path, *verb: str, code: int = 0) -> str:
        """What it prints: beside a process, or on a state file that nobody serves from."""
        where = ("--state", str(at))
        if isinstance(at, Process):
            where = ("--admin", f"127.0.0.1:{at.admin_port}")
        assert await asyncio.to_thread(cli.run, ["budget", *verb, *where], {}) == code
        return self.capsys.readouterr().out

    async def shown(self, at: Process) -> tuple[Any, ...]:
        """Budgets and approvals there, but for the numbers of its own file."""
        fields = json.loads(await self.run(at, "show", "--json"))
        approvals = [
            {name: row[name] for name in ("usd", "usd_left", "by", "reason")}
            for row in fields["approvals"]
        ]
        budgets = [(row["name"], row["usd"], row["usd_left"]) for row in fields["budgets"]]
        return budgets, approvals


async def test_what_is_approved_or_taken_back_at_one_holds_at_once_at_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = Commands(capsys)
    async with (
        redis_server(tmp_path) as server,
        processes(server, tmp_path, ("a", "b")) as (a, b),
    ):
        assert await ask_opus(b) == (403, "no_approval")
        text = await budget.run(a, *APPROVE)
        assert text.endswith("by kim: a trial\non all 2 modelsplits that count together\n")
        assert await ask_opus(b) == (200, "")
        # What a call has cost is told a moment after it has ended.
        while await budget.shown(a) != await budget.shown(b):
            pass
        [(_, usd, _)], [approval] = await budget.shown(a)
        assert (approval["usd"], approval["by"]) == (5.0, "kim")
        assert 0 < usd == pytest.approx(5.0 - approval["usd_left"])
        text = await budget.run(b, *REVOKE)
        assert text == "approval 1 is revoked\non all 2 modelsplits that count together\n"
        assert await ask_opus(a) == (403, "approval_revoked")
        assert await budget.shown(a) == await budget.shown(b)
        assert (await budget.shown(a))[1] == []


async def test_without_the_server_commands_say_so_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = Commands(capsys)
    async with (
        redis_server(tmp_path) as server,
        processes(server, tmp_path, ("a", "b")) as (a, b),
    ):
        await server.kill()
        step = f"next     redis-cli -s {server.socket} ping\n"
        text = await budget.run(a, *APPROVE)
        words = "the other modelsplits know of it once the shared Redis is back: it is away: "
        assert words in text
        assert text.endswith(step)
        text = await budget.run(b, "show")
        assert "approval none: the cloud is closed\n" in text
        assert "shared   nothing can be counted for " in text
        assert text.endswith(step)
        assert await ask_opus(a) == (429, "ledger_unavailable")
        await server.start()
        for process in (a, b):
            await shared(process, lambda told: told["next"] is None)
        assert await ask_opus(b) == (200, "")
        await server.kill()
        text = await budget.run(b, *REVOKE)
        assert text.startswith("approval 1 is revoked\n" + words)
        assert text.endswith(step)
        assert await ask_opus(b) == (429, "ledger_unavailable")
    # Nor does anybody run there.
    text = await budget.run(tmp_path / "a", "show")
    assert "shared   what others count is not known: no modelsplit runs with this state" in text
    text = await budget.run(tmp_path / "a", *APPROVE)
    assert text.endswith("\nthe other modelsplits know of it once one runs with this state file\n")
    text = await budget.run(tmp_path / "a", *REVOKE)
    assert text.endswith("\nthe other modelsplits know of it once one runs with this state file\n")


async def test_a_wrong_password_is_told_by_all_and_is_in_nothing_that_they_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "policy.json").write_text(json.dumps(CLOUD))
    async with (
        redis_server(tmp_path, "--requirepass", "right-0ne") as server,
        stand_in(WITH_OPUS) as sim,
    ):
        env = {"MODELSPLIT_SHARED": f"unix://team:gu3ssed@{server.socket}"}
        options = ("--policy", str(tmp_path / "policy.json"))
        async with serving(sim.port, tmp_path / "state", *options, env=env) as process:
            assert await ask_opus(process) == (429, "ledger_unavailable")
            async with process.admin() as admin:
                paths = ("/healthz", "/stats", "/stats?format=text", "/policy", "/metrics")
                told = [(await admin.request("GET", path)).body.decode() for path in paths]
            at = ("--admin", f"127.0.0.1:{process.admin_port}")
            for command in (["doctor", *at], ["config", "show", *at], ["budget", "show", *at]):
                await asyncio.to_thread(cli.run, command, env)
                told.append("".join(capsys.readouterr()))
        step = f"redis-cli -s {server.socket} --user team --askpass ping"
        words = [("invalid username-password pair" in text, step in text) for text in told]
        # Health, figures, the screen, the doctor and the budgets; not the policy, say.
        assert [words[place] for place in (0, 1, 2, 5, 7)] == [(True, True)] * 5
        assert not [text for text in told if "gu3ssed" in text or "right-0ne" in text]
