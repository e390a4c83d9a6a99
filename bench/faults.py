"""The table of faults: what goes wrong upstream, what a client sees of it, and how soon.

Real processes on loopback: a stand-in Ollama that fails on purpose, and ``modelsplit serve``
with short bounds, so that what they bound can be waited for. PLANNER's first model has the
fault and its second has none; CHAT has no second model. Both are loaded beforehand, but for
the slow load.

A breaker opens after five failures in a row, so before each call the stand-in answers one
well; that is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from kit import machine, options, quantile, show, table, write_policy
from support.calls import call
from support.faults import CHAT, FAULTS, PLANNER, PRIMARY, ROLE_MS, ROUTES, STALL_MS
from support.ports import kept_port
from support.process import ollama, serving
from support.seen import seen
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.process import Process

SECOND = "qwen3:8b"
MODELS = (PRIMARY, SECOND, "gemma3:12b", "gpt-oss:20b", CHAT)
SIM = (
    *("--tokens", "6", "--num-parallel", "8", "--max-loaded", "5"),
    *(word for name in MODELS for word in ("--model", name)),
)
BOUNDS: dict[str, Any] = {
    "load_timeout_ms": 5000,
    "roles": {"PLANNER": {"timeout_ms": ROLE_MS}},
}
# How soon the proxy is sure to know that a model is loaded or is not: its own questions.
KNOWN_S = 10.0
WORDS = (
    "`whole`: complete, an error told in full included. `told`: a stream that ends in an error. "
    "`silent`: framed as whole, and nothing in the body says that it is not. `upstream`: Ollama's "
    "own words in the stream. No call upstream: the connection was refused."
)
LIMIT_S = 20.0


class Stage:
    """The proxy before one stand-in, and both processes' other doors."""

    def __init__(self, process: Process, port: int, control: Client) -> None:
        self.process = process
        self.port = port
        self.control = control

    async def clear(self) -> None:
        await self.control.request("DELETE", "/faults")

    async def strike(self, fault: str, model: str) -> None:
        rule = FAULTS[fault]
        if rule is not None:
            await self.control.request("POST", "/faults", {**rule, "model": model})

    async def received(self) -> int:
        """Calls of clients that have reached the stand-in."""
        calls = (await self.control.request("GET", "/calls")).json
        return sum(one["method"] == "POST" for one in calls)

    async def load(self, model: str, *, keep: bool) -> None:
        """Have the model loaded, or not; then wait until the proxy knows."""
        body = {"model": model} if keep else {"model": model, "keep_alive": 0}
        async with Client(self.port) as client:
            assert (await client.request("POST", "/api/generate", body)).status == 200
        async with self.process.admin() as admin, asyncio.timeout(KNOWN_S):
            while (model in await _resident(admin)) is not keep:  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # another process: nobody sets an event


async def _resident(admin: Client) -> list[str]:
    stats = (await admin.request("GET", "/stats")).json
    return stats["parallelism"]["resident"] or []


@contextlib.asynccontextmanager
async def stage(*, away: bool = False) -> AsyncIterator[Stage]:
    """``away``: the proxy's upstream is a port nobody listens on."""
    with tempfile.TemporaryDirectory() as folder, kept_port() as nobody:
        given = write_policy(Path(folder) / "policy.json", BOUNDS)
        async with ollama(*SIM) as (port, control):
            upstream = nobody if away else port
            bounds = ("--policy", str(given), "--stall-timeout", f"{STALL_MS}ms")
            async with serving(upstream, Path(folder), *bounds) as process:
                yield Stage(process, port, control)


async def once(on: Stage, fault: str, route: str, model: str, *, stream: bool) -> dict[str, Any]:
    """One call into one fault. Milliseconds."""
    target = PRIMARY if model == PLANNER else CHAT
    away = FAULTS[fault] is None
    if not away:
        await on.clear()
        await _well(on, route, model)
        await on.load(target, keep=fault != "slow load")
    await on.strike(fault, target)
    before = await on.received()
    async with on.process.client() as client, asyncio.timeout(LIMIT_S):
        await client.open()
        began = time.monotonic()
        headers = {"X-LLM-Timeout-Ms": str(ROLE_MS)}
        answer = await client.request("POST", route, call(route, model, stream=stream), headers)
        took_ms = (time.monotonic() - began) * 1000
    return {
        "fault": fault,
        "route": route,
        "model": model,
        "stream": stream,
        "saw": str(seen(route, answer)),
        "sent": await on.received() - before,
        "ms": took_ms,
    }


async def _well(on: Stage, route: str, model: str) -> None:
    """A good answer, so that no breaker counts to five."""
    async with on.process.client() as client:
        answer = await client.request("POST", route, call(route, model))
        assert answer.status == 200, answer.body


async def run(rounds: int) -> list[dict[str, Any]]:
    found = []
    async with stage() as on:
        for fault, rule in FAULTS.items():
            if rule is None:
                found += await refused(fault, rounds)
            else:
                found += await each(on, fault, rounds)
    return found


async def refused(fault: str, rounds: int) -> list[dict[str, Any]]:
    """A proxy of its own for each two calls: a third would find the breaker open."""
    found = []
    for model in (PLANNER, CHAT):
        for stream in (True, False):
            for route in ROUTES:
                async with stage(away=True) as on:
                    found += [
                        await once(on, fault, route, model, stream=stream)
                        for _ in range(min(rounds, 2))
                    ]
    return found


async def each(on: Stage, fault: str, rounds: int) -> list[dict[str, Any]]:
    return [
        await once(on, fault, route, model, stream=stream)
        for model in (PLANNER, CHAT)
        for stream in (True, False)
        for route in ROUTES
        for _ in range(rounds)
    ]


def rows(found: list[dict[str, Any]]) -> list[list[str]]:
    """One row for each fault, role and kind of answer; dialects that agree share it."""
    cells: dict[tuple[str, str, bool], dict[tuple[str, int], dict[str, list[float]]]] = {}
    for one in found:
        cell = cells.setdefault((one["fault"], one["model"], one["stream"]), {})
        by_route = cell.setdefault((one["saw"], one["sent"]), {})
        by_route.setdefault(one["route"], []).append(one["ms"])
    return [
        [
            fault,
            "PLANNER" if model == PLANNER else "CHAT",
            "yes" if stream else "no",
            "all" if len(times) == len(ROUTES) else ", ".join(times),
            saw,
            str(sent),
            f"{quantile([ms for some in times.values() for ms in some], 0.5):.0f}",
        ]
        for (fault, model, stream), cell in cells.items()
        for (saw, sent), times in cell.items()
    ]


def text(found: list[dict[str, Any]]) -> str:
    head = ("fault", "role", "stream", "dialects", "the client saw", "calls upstream", "ms, p50")
    return "\n\n".join(
        (
            machine(),
            f"The role's timeout is {ROLE_MS} ms, the longest silence {STALL_MS} ms.",
            table(head, rows(found)),
            WORDS,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What clients see of every fault upstream.")
    parser.add_argument("--rounds", type=int, default=1, help="of each single case")
    given = options(parser)
    found = uvloop.run(run(given.rounds))
    show({"calls": found}, text(found), as_json=given.json)
    if any(one["sent"] > 2 for one in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
