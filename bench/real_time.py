"""One run of a scenario in real time, with real processes and sockets, beside the virtual one.

    python bench/real_time.py fierce --seed 101 --seconds 100

The stand-in Ollama plays the scenario's host (``--scenario``), the proxy in front of it has the
shipped policy, and the clients are the trace's: the same calls as in ``virtual.py``. What comes
out is laid beside what the virtual host says of the same seed.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from kit import options, policy, quantile, show, table
from modelsplit_sim.replay.run import Contender, Run, Traffic
from modelsplit_sim.virtual_traffic import read_scenario
from support.process import ollama, serving
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_sim.virtual_traffic import Arrival, Scenario

CHAT = "qwen3:8b"
MODELS = ("qwen3:4b", CHAT, "gemma3:12b")


@dataclass(slots=True)
class Outcome:
    """``status`` None: the client's patience ended."""

    role: str
    status: int | None
    latency_s: float


async def call(port: int, arrival: Arrival, began: float) -> Outcome:
    await asyncio.sleep(max(0.0, began + arrival.at - time.monotonic()))
    model = CHAT if arrival.role == "CHAT" else arrival.role.lower()
    body: dict[str, Any] = {"model": model, "prompt": "go", "stream": False}
    body["options"] = {"num_predict": arrival.tokens}
    asked = time.monotonic()
    client = Client(port)
    status = None
    try:
        async with asyncio.timeout(arrival.patience_s):
            status = (await client.request("POST", "/api/generate", body)).status
    except TimeoutError:
        client.reset()
    finally:
        await client.close()
    return Outcome(arrival.role, status, time.monotonic() - asked)


async def real(scenario: str, arrivals: list[Arrival]) -> tuple[list[Outcome], dict[str, Any]]:
    named = [word for model in MODELS for word in ("--model", model)]
    with tempfile.TemporaryDirectory() as state:
        async with (
            ollama("--scenario", scenario, *named) as (upstream, _),
            serving(upstream, Path(state)) as process,
        ):
            for model in MODELS:
                async with Client(upstream) as client:
                    await client.request("POST", "/api/generate", {"model": model})
            began = time.monotonic()
            outcomes = await asyncio.gather(
                *(call(process.port, arrival, began) for arrival in arrivals)
            )
            async with process.admin() as admin:
                stats = (await admin.request("GET", "/stats")).json
    return outcomes, stats["parallelism"]


def virtual(scenario: Scenario, arrivals: list[Arrival], seed: int) -> list[Outcome]:
    traffic = Traffic([arrival.demand(CHAT) for arrival in arrivals])
    run = Run(Contender("virtual", policy()), scenario.host, traffic, seed, loaded=MODELS)
    return [
        Outcome(
            str(call.route.role), 200 if call.ok else None if call.gone else 503, call.latency_s
        )
        for call in run.play().calls
    ]


def rows(name: str, outcomes: Iterable[Outcome]) -> list[list[str]]:
    by_role: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_role.setdefault(outcome.role, []).append(outcome)
    lines = []
    for role, found in by_role.items():
        well = [outcome.latency_s for outcome in found if outcome.status == 200]
        late = sum(outcome.status is None for outcome in found)
        cells = [f"{quantile(well, share):.2f}" for share in (0.5, 0.95)]
        refused = len(found) - len(well) - late
        lines.append([role, name, str(len(found)), str(late), str(refused), *cells])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="A scenario in real time and in virtual time.")
    parser.add_argument("scenario", help="a shipped one, or a file")
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument("--seconds", type=float, default=100.0)
    given = options(parser)
    scenario = read_scenario(given.scenario)
    arrivals = scenario.traffic.trace(given.seconds, given.seed)
    outcomes, learned = uvloop.run(real(given.scenario, arrivals))
    found = sorted(
        rows("real", outcomes) + rows("virtual", virtual(scenario, arrivals, given.seed))
    )
    head = ["role", "time", "calls", "late", "refused", "P50 s", "P95 s"]
    text = f"{table(head, found)}\n\nLearned in real time: {learned}"
    show({"rows": found, "learned": learned}, text, as_json=given.json)


if __name__ == "__main__":
    main()
