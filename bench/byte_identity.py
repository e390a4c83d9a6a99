"""Byte identity at scale: thousands of random answers, and how long each step of one takes.

A real ``modelsplit serve`` between an upstream that writes random answers in random pieces
and clients that read them. Every answer is compared byte by byte. Half of those that are not
held back are told step by step: a piece is written once the client has read everything
before it, and the time until it has read this one is its delay. The same answers without
the proxy show what of that is the bench's own two ends.

Exits with 1 if a byte differs, an answer is cut, or one does not end.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import uvloop

from kit import machine, options, quantile, show, table, write_policy
from support.process import serving
from support.raw import raw_upstream
from support.told import MODEL, Exchange, Teller, problem, told
from support.wire import Client

GOAL_MS = 10.0
# Far beyond what any answer takes; one that waits for itself is found out by it.
PATIENCE_S = 30.0
NO_LIMITS: dict[str, Any] = {
    "global": {"parallel": 64, "max_concurrent": 64},
    "models": {MODEL: {"parallel": 64}},
    "roles": {"PLANNER": {"max_concurrent": 64}},
}


@dataclass
class Timed(Exchange):
    """An answer whose steps are timed. ``delays``: seconds from a step's write to its reading."""

    delays: list[float] = field(default_factory=list)

    async def reached(self, count: int) -> None:
        began = perf_counter()
        await super().reached(count)
        self.delays.append(perf_counter() - began)


@dataclass
class Run:
    """What was told and read one way. ``delays``: seconds, one per step."""

    way: str
    cases: int = 0
    body_bytes: int = 0
    pieces: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    delays: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    async def ask(self, teller: Teller, client: Client, seed: int) -> bool:
        """One case; False if the connection cannot be used any more."""
        answer = told(Random(seed))
        try:
            async with asyncio.timeout(PATIENCE_S):
                read, exchange = await teller.ask(client, answer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            self.problems.append(f"seed {seed}: {type(error).__name__}: {answer!r}")
            return False
        wrong = problem(answer, read)
        if wrong is not None:
            self.problems.append(f"seed {seed}: {wrong}: {answer!r}")
        self.cases += 1
        self.body_bytes += len(answer.body)
        self.pieces += len(answer.pieces)
        assert isinstance(exchange, Timed)
        self.delays += exchange.delays
        how = "step by step" if answer.stepwise else "held" if answer.held else "as it comes"
        packed = answer.encoding.decode() or "not encoded"
        self.shapes.update([how, answer.framing, packed, answer.kind.decode()])
        framed = read.get("Content-Length") or read.get("Transfer-Encoding")
        return read.whole and framed is not None

    def fields(self) -> dict[str, Any]:
        return {
            "way": self.way,
            "cases": self.cases,
            "body_bytes": self.body_bytes,
            "pieces": self.pieces,
            "steps": len(self.delays),
            "delay_ms": {
                name: round(quantile(self.delays, share) * 1000, 3)
                for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0))
            },
            "shapes": dict(sorted(self.shapes.items())),
            "problems": self.problems,
            "seconds": round(self.seconds, 1),
        }


async def measure(run: Run, teller: Teller, port: int, seeds: range, at_once: int) -> None:
    """All ``seeds``, each on the next free of ``at_once`` connections."""
    left = iter(seeds)

    async def worker() -> None:
        client = Client(port)
        for seed in left:
            if not await run.ask(teller, client, seed):
                await client.close()
                client = Client(port)
        await client.close()

    began = perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    run.seconds = perf_counter() - began


async def main(cases: int, at_once: int, first_seed: int) -> list[Run]:
    seeds = range(first_seed, first_seed + cases)
    teller = Teller(Timed)
    runs = [Run("modelsplit"), Run("direct")]
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        policy = write_policy(room / "policy.json", NO_LIMITS)
        async with (
            raw_upstream(teller.script) as upstream,
            serving(upstream.port, room, "--policy", str(policy)) as process,
        ):
            lines = asyncio.create_task(_drain(process.child.stdout))
            for run, port in zip(runs, (process.port, upstream.port), strict=True):
                await measure(run, teller, port, seeds, at_once)
            lines.cancel()
    return runs


async def _drain(stream: asyncio.StreamReader | None) -> None:
    """Read the request log, or its pipe is full one day."""
    assert stream is not None
    while await stream.read(65536):
        pass


def report(runs: list[Run], at_once: int) -> str:
    ours = runs[0].fields()
    rows = []
    for run in runs:
        told_of = run.fields()
        delay = told_of["delay_ms"]
        rows.append(
            (
                run.way,
                f"{run.cases:,}",
                f"{len(run.problems)}",
                f"{run.body_bytes / 1e6:.1f} MB",
                f"{run.pieces:,}",
                f"{len(run.delays):,}",
                *(f"{delay[name]:.2f}" for name in ("p50", "p99", "p999", "max")),
                f"{run.seconds:.0f} s",
            )
        )
    delays = ("p50 ms", "p99 ms", "p99.9 ms", "max ms")
    head = ("", "answers", "wrong", "bodies", "pieces", "steps", *delays, "took")
    shapes = ", ".join(f"{name} {count:,}" for name, count in ours["shapes"].items())
    goal = "met" if ours["delay_ms"]["p99"] <= GOAL_MS else "missed"
    return "\n\n".join(
        (
            machine(),
            f"{at_once} connections at once. {shapes}.",
            table(head, rows),
            f"Goal: p99 of a step within {GOAL_MS:g} ms: {goal}.",
            *(run.problems[0] for run in runs if run.problems),
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="answers each way")
    parser.add_argument("--at-once", type=int, default=4, help="connections")
    parser.add_argument("--seed", type=int, default=1, help="the first answer's")
    args = options(parser)
    found = uvloop.run(main(args.cases, args.at_once, args.seed))
    show(
        {"runs": [run.fields() for run in found]},
        report(found, args.at_once),
        as_json=args.json,
    )
    sys.exit(any(run.problems for run in found))
