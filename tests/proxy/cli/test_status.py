"""One screen of what the running proxy is doing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_proxy.cli import status
from modelsplit_proxy.config.settings import Address
from modelsplit_sim.config import SimConfig
from support.budget_keepers import budget_keeper
from support.harness import Running, running

if TYPE_CHECKING:
    from pathlib import Path


async def shown(
    up: Running, capsys: pytest.CaptureFixture[str], *, as_json: bool = False
) -> tuple[int, str]:
    code = await asyncio.to_thread(status.run, Address("127.0.0.1", up.admin_port), as_json=as_json)
    return code, capsys.readouterr().out


async def test_an_idle_proxy_is_shown_with_all_its_seats_free(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running() as up:
        code, text = await shown(up, capsys)
    assert code == 0
    assert text.startswith("OK  Ollama 0.33.0-rc2 at http://127.0.0.1:")
    idle = ["PLANNER", "0/2", "1", "0/64", "-", "0", "0", "-", "-"]
    assert idle in [line.split() for line in text.splitlines()]
    assert "seats    0 of 6 local ones taken; 0 lent\n" in text
    assert "learned  nothing: the policy says 6 at once; more are started only when" in text
    assert "cost     0.0000 USD, an estimate, since 2" in text


async def test_who_waits_is_shown_with_age_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(SimConfig(token_rate=2, num_parallel=2)) as up:
        clients = [up.client() for _ in range(3)]
        for client in clients:
            await client.ask("POST", "/api/generate", {"model": "planner", "prompt": "hi"})
        await up.sim.wait_for(lambda sim: sim.active == 2)
        code, text = await shown(up, capsys)
        for client in clients:
            await client.close()
    assert code == 0
    assert ["PLANNER", "2/2", "1", "1/64"] in [line.split()[:4] for line in text.splitlines()]
    assert "waiting  PLANNER qwen3:4b" in text
    assert "(role_cap) from 127.0.0.1, place 1\n" in text


async def test_an_absent_ollama_is_degraded_and_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as up:
        await up.sim.stop()
        await up.app.probe.ask()
        up.app.monitor.look()
        code, text = await shown(up, capsys)
        await up.sim.start()
    assert code == 1
    where = f"http://127.0.0.1:{up.sim.port}"
    assert text.startswith(f"CRITICAL  no Ollama answers at {where}: connection refused\n")
    assert f"\nnext     OLLAMA_HOST=127.0.0.1:{up.sim.port} ollama serve\n" in text


async def test_a_proxy_whose_budgets_another_one_counts_says_so_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    why = "another modelsplit has opened the state file; calls that budgets count are refused here"
    async with running(state=tmp_path) as old, old.admin() as admin:
        await old.until(lambda: old.app.budget_keeper.is_open)
        assert (await admin.request("GET", "/healthz")).json["status"] == "ok"
        # As from another machine, by way of a network file system: our lock is not seen there.
        async with budget_keeper(tmp_path) as new:
            code, text = await shown(old, capsys)
            assert (code, text.startswith("DEGRADED  Ollama ")) == (1, True)
            assert f"\ncause    the state file: {why}\n" in text
            assert (await admin.request("GET", "/stats")).json["spending"]["error"] == why
            health = (await admin.request("GET", "/healthz")).json
            assert (health["status"], health["error"]) == ("degraded", f"the state file: {why}")
            metrics = (await admin.request("GET", "/metrics")).body
            assert b"\nmodelsplit_state_taken_over 1.0\n" in metrics
            assert new.budget_keeper.error is None
    assert caplog.text.count(why) == 1


async def test_json_is_what_stats_says(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as up:
        code, text = await shown(up, capsys, as_json=True)
    stats: dict[str, Any] = orjson.loads(text)
    assert code == 0
    assert stats["roles"]["PLANNER"]["seats"] == 2


def test_without_a_proxy_there_is_one_line_and_exit_code_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = status.run(Address("127.0.0.1", 1), as_json=False)
    out, err = capsys.readouterr()
    assert (code, out) == (3, "")
    assert err.startswith("modelsplit: nobody listens at http://127.0.0.1:1:")
    assert "or `modelsplit serve --admin 127.0.0.1:1`" in err
    assert err.count("\n") == 1


async def test_the_wrong_port_is_asked_about(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as up:
        wrong = Address("127.0.0.1", up.port)
        code = await asyncio.to_thread(status.run, wrong, as_json=False)
    assert code == 3
    assert capsys.readouterr().err == (
        f"modelsplit: http://{wrong}/stats answered 404, not as we do; is this the admin port?\n"
    )


async def test_what_is_lost_is_shown_though_all_is_well_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running() as up:
        assert "lost" not in (await shown(up, capsys))[1]
        up.app._recorder.dropped = 3
        up.app.budget_keeper.writes_lost = 2
        _, text = await shown(up, capsys)
        async with up.admin() as admin:
            stats = (await admin.request("GET", "/stats")).json
    assert "note     3 records of calls are lost; the log says which and why" in text
    assert "budget   2 writes of what is counted are lost" in text
    assert (stats["ledger"]["dropped"], stats["spending"]["writes_lost"]) == (3, 2)
