"""Where there is a table there is ``--json``, and what it prints is JSON and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from modelsplit_proxy.cli.commands import COMMANDS
from modelsplit_proxy.cli.main import run
from modelsplit_sim.config import SimConfig
from support.fleets import fleet_up
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelsplit_proxy.cli.command import Command

# What prints no table, and why.
NO_TABLE = {
    "serve": "its log",
    "demo": "the same",
    "print-unit": "a file",
    "print-policy": "a file, which is JSON",
    "completion": "a file",
}
# What is asked beside --json; {admin}, {state} and {keys} are those of the test.
WORDS = {
    "status": "--admin {admin}",
    "top": "--admin {admin}",
    "requests": "--admin {admin}",
    "jobs": "--admin {admin}",
    "experiments": "--admin {admin}",
    "slo": "--admin {admin}",
    "slo review": "--state {state}",
    "baseline record": "--state {state} --since 1h",
    "baseline show": "--state {state}",
    "baseline import": "--state {state} --timeouts 26",
    "budget show": "--state {state}",
    "budget egress": "--state {state}",
    "budget approve": "--state {state} --usd 1 --days 1 --reason test",
    "budget revoke": "--state {state} --reason test",
    "budget reset": "--state {state} --reason test",
    "doctor": "--admin {admin} --state {state}",
    "config show": "",
    "check-config": "",
    "route": "planner --admin {admin}",
    "keys new": "--name laptop --into {keys}",
    "keys check": "{keys}",
    "simulate": "--workload burst --seeds 1 --load 0.02",
}
# The same before several hosts.
OF_HOSTS = {
    "host list": "--admin {admin}",
    "host drain": "a --admin {admin}",
    "host undrain": "a --admin {admin}",
}
# What is not there, so that there is nothing to tell: an error in words, and no table.
TOLD_IN_WORDS = {"baseline record", "budget reset"}


def runnable(commands: tuple[Command, ...], before: str = "") -> Iterator[tuple[str, Command]]:
    """Every command and verb that does something, by the words that are typed for it."""
    for command in commands:
        name = f"{before}{command.name}"
        if command.run is not None:
            yield name, command
        yield from runnable(command.verbs, f"{name} ")


EVERY = dict(runnable(COMMANDS))


def test_every_command_with_a_table_has_it() -> None:
    flags = {
        name: [flag for argument in command.arguments for flag in argument.names]
        for name, command in EVERY.items()
    }
    assert {name for name, names in flags.items() if "--json" not in names} == {*NO_TABLE}
    assert {*WORDS, *OF_HOSTS} == EVERY.keys() - NO_TABLE.keys()


async def test_what_it_prints_of_hosts_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    async with fleet_up(a=(SimConfig(), {}), b=(SimConfig(), {})) as fleet:
        for name, words in OF_HOSTS.items():
            admin = f"127.0.0.1:{fleet.up.admin_port}"
            typed = [*name.split(), *words.format(admin=admin).split(), "--json"]
            assert await asyncio.to_thread(run, typed, {}) == 0
            assert orjson.loads(capsys.readouterr().out)


async def test_what_it_prints_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {}
    async with running(state=tmp_path / "state") as up:
        places = {
            "admin": f"127.0.0.1:{up.admin_port}",
            "state": tmp_path / "state",
            "keys": tmp_path / "keys.json",
        }
        for name, words in WORDS.items():
            typed = [*name.split(), *words.format(**places).split(), "--json"]
            await asyncio.to_thread(run, typed, {})
            told = capsys.readouterr()
            try:
                orjson.loads(told.out)
            except orjson.JSONDecodeError:
                wrong[name] = told
    assert wrong.keys() == TOLD_IN_WORDS, wrong
