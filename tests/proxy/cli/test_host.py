"""``modelsplit host``, as somebody at a terminal sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from modelsplit_proxy.cli import main
from modelsplit_sim.config import SimConfig
from support.fleets import fleet_up
from support.harness import Running, running

QUICK = SimConfig(tokens=1)


async def host(up: Running, *words: str) -> int:
    admin = f"127.0.0.1:{up.admin_port}"
    return await asyncio.to_thread(main.run, ["host", *words, "--admin", admin], {})


async def test_hosts_are_listed_drained_and_let_in_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet:
        assert await host(fleet.up, "drain", "a") == 0
        assert capsys.readouterr().out == "a takes no new calls\n"
        assert await host(fleet.up, "list") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[:2] for line in lines[1:]] == [["a", "drained"], ["b", "up"]]
        assert await host(fleet.up, "list", "--json") == 0
        rows: list[dict[str, Any]] = orjson.loads(capsys.readouterr().out)
        assert [row["drained"] for row in rows] == [True, False]
        assert await host(fleet.up, "undrain", "a") == 0
        assert capsys.readouterr().out == "a takes calls again\n"


async def test_a_name_nobody_knows_and_a_policy_without_hosts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet:
        assert await host(fleet.up, "drain", "c") == 1
        assert 'there is no host "c": a, b' in capsys.readouterr().err
    async with running(QUICK) as up:
        assert await host(up, "list") == 0
        out, err = capsys.readouterr()
        assert (out, "the policy names no hosts" in err) == ("", True)


def test_without_a_proxy_there_is_one_line_and_exit_code_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["list"], ["drain", "a"]):
        assert main.run(["host", *words, "--admin", "127.0.0.1:1"], {}) == 3
        assert "nobody listens at http://127.0.0.1:1" in capsys.readouterr().err
