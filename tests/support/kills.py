"""A proxy killed under load, again and again, and what its state file then has counted.

The stand-in runs in this process and keeps its own count of what reached it; the proxy is a
real process that gets SIGKILL while clients wait for answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from modelsplit_sim.config import SimConfig
from modelsplit_sim.models import ModelSpec
from modelsplit_sim.server import Sim
from support.calls import call
from support.process import Process, serving
from support.wire import Client

MODEL = "gpt-oss:20b"
ROUTE = "/api/generate"
CLIENTS = 16
# Each answer takes 20 ms or so: long enough to be killed in every state.
UPSTREAM = SimConfig(
    (ModelSpec(MODEL),),
    tokens=4,
    token_rate=200,
    num_parallel=CLIENTS,
    log_size=10**6,
    log_body_bytes=0,
)
POLICY = {
    "extends": "default",
    "global": {"max_concurrent": CLIENTS, "parallel": CLIENTS, "forecast": False},
    "models": {MODEL: {"max_concurrent": CLIENTS, "parallel": CLIENTS}},
    "budgets": [{"name": "all", "models": [MODEL], "calls": 10**6, "window": "1d"}],
}


@dataclass(frozen=True)
class Killed:
    """One life of the proxy. ``answered`` and ``in_flight``: as its clients saw it.

    ``reached``: calls the stand-in received. ``counted``: calls its budget had counted, read
    by the process that came after it.
    """

    answered: int
    in_flight: int
    reached: int
    counted: int

    @property
    def lost(self) -> int:
        """Calls that were sent and not counted: promised to be none."""
        return max(0, self.reached - self.counted)

    @property
    def over(self) -> int:
        """Calls counted that were never sent: promised to be no more than were in flight."""
        return max(0, self.counted - self.reached)


class Load:
    """Clients that ask, one call after the other, until their proxy is gone."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._waiting = 0
        self.answered = 0
        self.refused = 0
        self._progress = asyncio.Event()

    @property
    def in_flight(self) -> int:
        return self._waiting

    async def until_answered(self, count: int) -> None:
        while self.answered < count:
            self._progress.clear()
            await self._progress.wait()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client())

    async def _client(self) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            async with Client(self._port) as client:
                while True:
                    await self._one(client)

    async def _one(self, client: Client) -> None:
        self._waiting += 1
        answer = await client.request("POST", ROUTE, call(ROUTE, MODEL))
        if not answer.whole:
            raise ConnectionError
        self._waiting -= 1
        if answer.status == 200:
            self.answered += 1
        else:
            # A busy machine, or a disk that was too slow: nothing is sent, and nothing counted.
            assert answer.json["reason"] in {"ledger_unavailable", "shed"}, answer.body
            self.refused += 1
        self._progress.set()


async def kill_again_and_again(
    directory: Path, times: int, moment: Callable[[Load], Awaitable[None]]
) -> list[Killed]:
    """Kill ``times`` proxies on one state file, each at its ``moment``."""
    policy = directory / "policy.json"
    policy.write_text(json.dumps(POLICY))
    lives: list[Killed] = []
    before, ended = 0, Load(0)
    async with Sim(UPSTREAM) as sim:
        reached_before = 0
        for life in range(times + 1):
            async with serving(sim.port, directory, "--policy", str(policy)) as process:
                counted = await _counted(process)
                if life:
                    reached = sum(sent.method == "POST" for sent in sim.calls)
                    lives.append(
                        Killed(
                            answered=ended.answered,
                            in_flight=ended.in_flight,
                            reached=reached - reached_before,
                            counted=counted - before,
                        )
                    )
                    reached_before, before = reached, counted
                if life < times:
                    ended = Load(process.port)
                    await _live_and_die(process, ended, moment)
                    await sim.wait_for(lambda it: it.counts.connections_open == 0)
    return lives


async def _live_and_die(
    process: Process, load: Load, moment: Callable[[Load], Awaitable[None]]
) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run())
        await moment(load)
        process.signal(signal.SIGKILL)
        await process.ended()


async def _counted(process: Process) -> int:
    async with process.admin() as admin:
        stats = (await admin.request("GET", "/stats")).json
    assert stats["spending"]["open"]
    calls: int = stats["spending"]["budgets"][0]["calls"]
    return calls
