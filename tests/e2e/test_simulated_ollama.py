"""A real Ollama's calls, replayed in virtual time on the host that their records show.

Left out unless asked for: ``MODELSPLIT_TEST_OLLAMA=127.0.0.1:11434 pytest -m ollama``. It asks a
model that is there for some hundred tokens. ``bench/beside_ollama.py`` compares more than that.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from typing import TYPE_CHECKING

import orjson
import pytest

from beside_ollama import PROMPT
from kit import policy, traced
from modelsplit_sim.replay.fit import fit
from modelsplit_sim.replay.from_trace import RecordedTraffic
from modelsplit_sim.replay.run import Contender, play
from real_time import written
from support.process import serving
from support.wire import Client

if TYPE_CHECKING:
    from pathlib import Path

    from support.process import Process

pytestmark = pytest.mark.ollama

CLIENTS, CALLS = 2, 8
# As far as a simulation of a real Ollama may be from it.
WITHIN = 0.15


async def a_model(port: int) -> str:
    """The first one that answers prompts."""
    async with Client(port) as ollama:
        models = orjson.loads((await ollama.request("GET", "/api/tags")).body)["models"]
    return next(str(row["name"]) for row in models if "completion" in row["capabilities"])


async def one_after_the_other(process: Process, model: str, client: int) -> None:
    for number in range(CALLS):
        options = {"num_predict": 16 + 8 * number, "seed": number}
        body = {"model": model, "prompt": PROMPT.format(10 * client + number), "options": options}
        async with process.client() as own:
            answer = await own.request("POST", "/api/generate", body)
            assert answer.status == 200, answer.body


async def test_calls_take_as_long_in_virtual_time(tmp_path: Path) -> None:
    """Two clients share a model, each of whose calls comes as its last one has ended."""
    port = int(os.environ["MODELSPLIT_TEST_OLLAMA"].rpartition(":")[2])
    model = await a_model(port)
    async with serving(port, tmp_path) as process:
        await asyncio.gather(
            *(one_after_the_other(process, model, client) for client in range(CLIENTS))
        )
        calls = traced(await written(process, CLIENTS * CALLS))
    host = fit(calls).shape
    traffic, _ = RecordedTraffic(calls, policy(), host).drawn(1)
    played = play(Contender("shipped", policy()), host, traffic, 1).calls
    recorded = statistics.fmean((call.latency_ms or 0.0) / 1000 for call in calls)
    assert statistics.fmean(call.latency_s for call in played) == pytest.approx(
        recorded, rel=WITHIN
    )
