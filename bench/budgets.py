"""What budgets promise, counted: never one call too many, and none forgotten by a killed process.

Real processes on loopback, the stand-in Ollama keeping its own count.

1. *At once.* 200 calls on 200 connections against a budget of 10: how many reach the upstream,
   in each of many runs, every run on a state file of its own.
2. *Killed.* SIGKILL at a random moment under load, again and again on one state file: what the
   next process finds counted, against what the stand-in received.

Also what it costs a call to be counted: the time to its answer, with a budget and without.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from kit import ROOT, machine, options, quantile, show, table
from modelsplit_sim.config import SimConfig
from modelsplit_sim.models import ModelSpec
from modelsplit_sim.server import Sim
from support.calls import call
from support.kills import CLIENTS, MODEL, ROUTE, Killed, Load, kill_again_and_again
from support.process import serving
from support.wire import Client

RESULTS = ROOT / "bench" / "RESULTS-budgets.md"
FREE = "qwen3:4b"
# Everybody may be sent at once, so that the budget alone decides.
OPEN: dict[str, Any] = {
    "extends": "default",
    "global": {"max_concurrent": 200, "parallel": 200, "forecast": False},
    "models": {name: {"max_concurrent": 200, "parallel": 200} for name in (MODEL, FREE)},
    "roles": {"CHAT": {"max_queue": 400}},
}
PLENTY = SimConfig(
    (ModelSpec(MODEL), ModelSpec(FREE)),
    tokens=4,
    num_parallel=200,
    max_loaded=2,
    log_size=10**6,
    log_body_bytes=0,
)


def budget(calls: int) -> dict[str, Any]:
    row = {"name": "heavy-20b", "models": [MODEL], "calls": calls, "window": "1h"}
    return OPEN | {"budgets": [row]}


# 1. At once.


async def at_once(runs: int, calls: int, limit: int) -> dict[str, Any]:
    reached, ended, took = Counter[int](), Counter[str](), []
    async with Sim(PLENTY) as sim:
        for _ in range(runs):
            before = received(sim)
            with tempfile.TemporaryDirectory() as state:
                outcomes, seconds = await _burst(sim, Path(state), calls, limit)
            reached[received(sim) - before] += 1
            ended += outcomes
            took.append(seconds)
    return {
        "runs": runs,
        "calls": calls,
        "limit": limit,
        "reached": dict(reached),
        "ended": dict(ended),
        "took_s": quantile(took, 0.5),
        "kept": set(reached) == {limit},
    }


async def _burst(sim: Sim, state: Path, calls: int, limit: int) -> tuple[Counter[str], float]:
    policy = state / "policy.json"
    policy.write_text(json.dumps(budget(limit)))
    async with serving(sim.port, state, "--policy", str(policy)) as process:
        clients = [Client(process.port) for _ in range(calls)]
        for client in clients:
            await client.open()
        began = time.monotonic()
        answers = await asyncio.gather(
            *(client.request("POST", ROUTE, call(ROUTE, MODEL)) for client in clients)
        )
        took = time.monotonic() - began
        for client in clients:
            await client.close()
    told = Counter(
        "answered" if answer.status == 200 else f"{answer.status} {answer.json['reason']}"
        for answer in answers
    )
    return told, took


def received(sim: Sim) -> int:
    return sum(sent.method == "POST" for sent in sim.calls)


# 2. Killed.


async def killed(times: int, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)

    async def moment(load: Load) -> None:
        del load
        await asyncio.sleep(chance.uniform(0.02, 1.2))

    with tempfile.TemporaryDirectory() as state:
        lives = await kill_again_and_again(Path(state), times, moment)
    return {
        "kills": len(lives),
        "clients": CLIENTS,
        "answered": sum(life.answered for life in lives),
        "reached": sum(life.reached for life in lives),
        "counted": sum(life.counted for life in lives),
        "in_flight": sum(life.in_flight for life in lives),
        "lost": sum(life.lost for life in lives),
        "over": sum(life.over for life in lives),
        "worst_over": max(life.over for life in lives),
        "kept": all(kept(life) for life in lives),
    }


def kept(life: Killed) -> bool:
    return life.lost == 0 and life.over <= life.in_flight and life.answered <= life.counted


# 3. What it costs.


async def cost(calls: int) -> dict[str, Any]:
    """Milliseconds to the answer, one call at a time, in turn with and without a budget."""
    took: dict[str, list[float]] = {MODEL: [], FREE: []}
    async with Sim(PLENTY) as sim:
        with tempfile.TemporaryDirectory() as state:
            policy = Path(state) / "policy.json"
            policy.write_text(json.dumps(budget(10**6)))
            async with (
                serving(sim.port, Path(state), "--policy", str(policy)) as process,
                Client(process.port) as client,
            ):
                for turn in range(calls + 10):
                    for model, found in took.items():
                        began = time.monotonic()
                        await client.request("POST", ROUTE, call(ROUTE, model))
                        if turn >= 10:
                            found.append((time.monotonic() - began) * 1000)
    return {
        name: {"p50": quantile(found, 0.5), "p99": quantile(found, 0.99)}
        for name, found in (("counted", took[MODEL]), ("not counted", took[FREE]))
    }


def text(found: dict[str, Any]) -> str:
    once, kills, times = found["at_once"], found["killed"], found["cost"]
    reached = ", ".join(f"{count} in {n} runs" for count, n in sorted(once["reached"].items()))
    ended = ", ".join(f"{count} {how}" for how, count in sorted(once["ended"].items()))
    return "\n\n".join(
        (
            "## At once",
            (
                f"{once['runs']} runs of {once['calls']} calls at once against a budget of "
                f"{once['limit']}, {once['took_s']:.2f} s each (median)."
            ),
            table(
                ("", "promised", "found"),
                [
                    ("reached the upstream", f"{once['limit']} in every run", reached),
                    ("calls ended", "", ended),
                ],
            ),
            "## Killed",
            (
                f"{kills['kills']} times SIGKILL, 0.02 to 1.2 s after the start of the load, "
                f"{kills['clients']} clients, one state file."
            ),
            table(
                ("", "promised", "found"),
                [
                    ("answers that clients had", "", kills["answered"]),
                    ("calls that reached the upstream", "", kills["reached"]),
                    ("calls counted", "", kills["counted"]),
                    ("calls lost", "0", kills["lost"]),
                    (
                        "counted, but never sent",
                        f"at most {kills['in_flight']} in flight",
                        f"{kills['over']} (at most {kills['worst_over']} at one kill)",
                    ),
                ],
            ),
            "## What it costs to be counted",
            table(
                ("ms to the whole answer, one call at a time", "p50", "p99"),
                [(n, f"{row['p50']:.1f}", f"{row['p99']:.1f}") for n, row in times.items()],
            ),
            (
                "The difference is the write that is synced before the call is sent. Calls at "
                "once share one."
            ),
        )
    )


async def run(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "at_once": await at_once(args.runs, 200, 10),
        "killed": await killed(args.kills, args.seed),
        "cost": await cost(args.calls),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=50, help="bursts of 200 calls")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--calls", type=int, default=300, help="calls timed, of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help=f"into bench/{RESULTS.name}")
    args = options(parser)
    with contextlib.suppress(KeyboardInterrupt):
        host, when = machine(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
        found = uvloop.run(run(args))
        said = f"# Budgets: what was measured\n\n{when}, by `bench/budgets.py`.\n\n{host}\n\n"
        said += text(found)
        show(found, said, as_json=args.json)
        if args.write:
            RESULTS.write_text(said + "\n")
        return 0 if found["at_once"]["kept"] and found["killed"]["kept"] else 1
    return 130


if __name__ == "__main__":
    sys.exit(main())
