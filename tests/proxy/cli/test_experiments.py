"""``modelsplit experiments``, as somebody at a terminal sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from modelsplit_proxy.cli import experiments
from modelsplit_proxy.config.settings import Address
from modelsplit_sim.config import SimConfig
from support.calls import call
from support.harness import Running, running

ROUTE = "/api/generate"
ARMS = [
    {"name": "small", "model": "qwen3:4b", "weight": 1},
    {"name": "large", "model": "gemma3:12b", "weight": 1},
]
TRIAL = {
    "experiments": [
        {"name": "t", "role": "PLANNER", "arms": ARMS, "sticky": "request", "enabled": True}
    ]
}
SIM = SimConfig(max_loaded=4, tokens=2)


async def asked(
    up: Running, name: str | None = None, since: str | None = None, *, as_json: bool = False
) -> int:
    admin = Address("127.0.0.1", up.admin_port)
    return await asyncio.to_thread(experiments.run, admin, name, since, as_json=as_json)


async def test_calls_that_have_just_ended_are_in_the_report(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running(SIM, TRIAL) as up, up.client() as client:
        for _ in range(6):
            await client.request("POST", ROUTE, call(ROUTE, "planner"))
        assert await asked(up, "t", "1h", as_json=True) == 0
        told: dict[str, Any] = orjson.loads(capsys.readouterr().out)
        assert await asked(up) == 0
        text = capsys.readouterr().out
    [one] = told["experiments"]
    assert one["calls"] == 6
    assert sum(arm["answered"] for arm in one["arms"]) == 6
    assert text.startswith("t  PLANNER, by request, running\n  6 calls from 2")


async def test_a_name_nobody_knows_and_a_time_nobody_can_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running(SIM, TRIAL) as up:
        assert await asked(up, "tt") == 1
        unknown = capsys.readouterr()
        assert await asked(up, since="soon") == 2
        unread = capsys.readouterr()
    assert (unknown.out, unread.out) == ("", "")
    assert unknown.err == 'modelsplit: no experiment is named "tt"; known: t\n'
    assert unread.err.startswith('modelsplit: since "soon" is neither a time ago')


def test_without_a_proxy_there_is_one_line_and_exit_code_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert experiments.run(Address("127.0.0.1", 1), None, None, as_json=False) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("modelsplit: nobody listens at http://127.0.0.1:1:")
