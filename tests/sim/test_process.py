"""The stand-in as a process of its own, driven through its control port."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from modelsplit_sim.__main__ import arguments, configure, parse_model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def process(*options: str) -> AsyncIterator[tuple[Any, str, str]]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "modelsplit_sim", *options, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        ready = json.loads(await child.stdout.readline())
        base = "http://127.0.0.1:"
        yield child, f"{base}{ready['port']}", f"{base}{ready['control_port']}"
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def test_a_process_is_watched_broken_and_ended() -> None:
    options = ("--model", "small:1b:rate=100,tokens=100000", "--model", "qwen3:8b")
    async with process(*options) as (child, url, control), aiohttp.ClientSession() as http:
        async with http.get(f"{url}/api/tags") as answer:
            names = [item["name"] for item in (await answer.json())["models"]]
            assert names == ["qwen3:8b", "small:1b"]
        rule = {"kind": "status", "status": 500, "times": 1, "path": "/api/ps"}
        async with http.post(f"{control}/faults", json=rule) as answer:
            assert (await answer.json())["faults"][0]["kind"] == "status"
        async with http.get(f"{url}/api/ps") as answer:
            assert answer.status == 500
        async with http.delete(f"{control}/faults") as answer:
            assert (await answer.json()) == {"faults": []}
        body = {"model": "small:1b", "prompt": "x"}
        async with http.post(f"{url}/api/generate", json=body) as stream:
            await stream.content.readline()
            async with http.post(f"{control}/wait", json={"active": 1, "timeout": None}) as answer:
                assert (answer.status, (await answer.json())["active"]) == (200, 1)
            async with http.post(f"{control}/wait", json={"active": 7, "timeout": 0}) as answer:
                assert answer.status == 504
            child.send_signal(signal.SIGTERM)
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.read()
        assert await child.wait() == 0


async def test_a_port_that_is_taken_is_told_in_a_line() -> None:
    async with process() as (_, url, _):
        port = url.rpartition(":")[2]
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "modelsplit_sim", "--port", port),
            stderr=asyncio.subprocess.PIPE,
        )
        _, told = await child.communicate()
        [line] = told.decode().splitlines()
        assert (child.returncode, "address already in use" in line, port in line) == (1, True, True)
        assert line.endswith("; --port and --control-port choose others")


async def test_the_control_port_shows_calls_and_refuses_nonsense() -> None:
    async with process() as (_, url, control), aiohttp.ClientSession() as http:
        async with http.post(f"{url}/api/show", data=b'{"model":"qwen3:4b"}') as answer:
            assert answer.status == 200
        async with http.get(f"{control}/calls") as answer:
            calls = await answer.json()
            assert [(c["path"], c["state"]) for c in calls] == [("/api/show", "finished")]
        async with http.get(f"{control}/state") as answer:
            assert (await answer.json())["received"] == 1
        for path, wrong in (("faults", {"kind": "nonsense"}), ("wait", {"nonsense": 1})):
            async with http.post(f"{control}/{path}", json=wrong) as answer:
                assert answer.status == 400


def test_model_options() -> None:
    spec = parse_model("qwen3:4b:rate=20,load-ms=500,blob=x")
    assert (spec.name, spec.token_rate, spec.load_ms, spec.blob) == ("qwen3:4b", 20.0, 500.0, "x")
    assert spec.size == 2_497_293_931
    assert parse_model("mine").name == "mine"


def test_options_become_a_configuration() -> None:
    options = arguments().parse_args(["--load-ms", "5", "--num-parallel", "3", "--shared-compute"])
    config = configure(options)
    assert (config.load_ms, config.num_parallel, config.shared_compute) == (5.0, 3, True)
    assert len(config.specs) == 4


def test_a_scenario_says_what_host_the_stand_in_is() -> None:
    config = configure(arguments().parse_args(["--scenario", "fair"]))
    assert (config.shared_compute, config.contention, config.free) == (True, 0.5, 2)
    assert (round(1000 / config.token_rate, 3), config.num_parallel) == (19.0, 1)
    assert (config.max_loaded, config.load_ms) == (3, 1700.0)


@pytest.mark.parametrize(("scenario", "share"), [("roomy", 1), ("fierce", 0)])
def test_a_scenario_says_what_of_a_model_is_in_a_gpu(scenario: str, share: float) -> None:
    assert configure(arguments().parse_args(["--scenario", scenario])).gpu_share == share
