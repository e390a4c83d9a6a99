"""What modelsplit adds to a call of a cloud, over asking the provider's stub directly.

The stub answers at once, so what is left is the way. Real processes on loopback: the stub, the
proxy, and here one client with a kept connection. In every round each way is asked in turn, in
an order that moves on by one; ratios and differences are formed within a round, and their median
over the rounds is told.

Also what local calls pay for a cloud that is configured: the same calls of Ollama through a
policy with one and through a policy without.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from kit import ROOT, machine, options, quantile, show, table
from modelsplit_sim.cloud import KEY, Cloud, Script
from support.clouds import ITS_NAME, MODEL, approve, cloud_policy
from support.process import BARE, ollama, serving
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

RESULTS = ROOT / "bench" / "RESULTS-cloud.md"
TURN = [{"role": "user", "content": "How warm is it in Bern? " * 20}]
TEXT = "It is 7 degrees in Bern, and it will be warmer on the day after tomorrow. " * 4
LIMIT = {"max_tokens": 100}
HEAD = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
OPEN: dict[str, Any] = {
    "extends": "default",
    "budgets": [],
    "global": {"forecast": False},
}


@dataclass(frozen=True)
class Way:
    """One way of asking: over which connection, at which route, with what."""

    name: str
    client: Client
    route: str
    body: Mapping[str, Any]

    async def ask(self, *, stream: bool) -> tuple[float, float]:
        """Seconds until the first byte of the answer's body, and until its end."""
        began = time.perf_counter()
        await self.client.ask("POST", self.route, {**self.body, "stream": stream}, HEAD)
        answer = await self.client.head()
        assert answer.status == 200, answer
        first = 0.0
        async for _ in self.client.pieces(answer):
            first = first or time.perf_counter() - began
        return first, time.perf_counter() - began


@contextlib.asynccontextmanager
async def stub() -> AsyncIterator[str]:
    """The provider as a process of its own: its address."""
    code = f"import sys; sys.path.append({str(ROOT / 'bench')!r}); import cloud; cloud.be_stub()"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), stdout=asyncio.subprocess.PIPE, env=BARE
    )
    assert child.stdout is not None
    try:
        yield (await child.stdout.readline()).decode().strip()
    finally:
        child.kill()
        await child.communicate()


def be_stub() -> None:
    """Serve until killed."""

    async def serve() -> None:
        async with Cloud() as cloud:
            cloud.scripts = _Always(Script(text=TEXT))  # type: ignore[assignment]
            sys.stdout.write(f"{cloud.url}\n")
            sys.stdout.flush()
            await asyncio.get_running_loop().create_future()

    uvloop.run(serve())


class _Always:
    """As many of one script as anybody wants."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def popleft(self) -> Script:
        return self._script


async def measured(
    ways: list[Way], rounds: int, calls: int, *, stream: bool
) -> list[dict[str, list[tuple[float, float]]]]:
    """Of each round and way, what each call took; the first round is thrown away."""
    found = []
    for number in range(rounds + 1):
        shift = number % len(ways)
        taken: dict[str, list[tuple[float, float]]] = {}
        for way in ways[shift:] + ways[:shift]:
            taken[way.name] = [await way.ask(stream=stream) for _ in range(calls)]
        found.append(taken)
    return found[1:]


def row(
    name: str, rounds: list[dict[str, list[tuple[float, float]]]], base: str, which: int
) -> list[str]:
    """p50 and p99 of one way in ms, and against ``base``; ``which``: the first byte, or the end."""

    def of(way: str, share: float) -> list[float]:
        return [quantile((call[which] for call in taken[way]), share) for taken in rounds]

    cells = []
    for share in (0.5, 0.99):
        own, other = of(name, share), of(base, share)
        ratios = [a / b for a, b in zip(own, other, strict=True)]
        added = [a - b for a, b in zip(own, other, strict=True)]
        spread = "~" if max(ratios) > 1.15 * min(ratios) else ""
        cells += [f"{statistics.median(own) * 1000:.2f}"]
        told = [f"{statistics.median(added) * 1000:.2f}"]
        told += [f"{min(added) * 1000:.2f}"] if share == 0.5 else []
        told += [f"{statistics.median(ratios):.2f}{spread}"]
        cells += ["-"] * len(told) if name == base else told
    return [name, *cells]


_READ = """\
Added and ÷: against the stub, asked directly in the same round; medians over the rounds.
Least: what was added in the round in which it was least. ~: the ratios of the rounds lie more
than 15 % apart, as they do where others use the machine. A real provider takes a second or
more; the stub answers at once, as a process in Python does. A charge is on the disk before
its call leaves."""
COLUMNS = (
    *("asked", "p50 ms", "added", "least", "÷"),
    *("p99 ms", "added", "÷"),
)


async def clouds(rounds: int, calls: int) -> dict[str, list[list[str]]]:
    with tempfile.TemporaryDirectory() as folder:
        state, policy = Path(folder) / "state", Path(folder) / "policy.json"
        async with stub() as url, ollama() as (upstream, _):
            policy.write_text(json.dumps({**OPEN, **cloud_policy(url)}))
            env = {"ANTHROPIC_API_KEY": KEY}
            async with serving(upstream, state, "--policy", str(policy), env=env) as proxy:
                approve(state, 100_000.0)
                async with Client(int(url.rpartition(":")[2])) as stubs, proxy.client() as ours:
                    ways = [
                        Way("the stub", stubs, "/v1/messages", _asked(ITS_NAME, **LIMIT)),
                        Way("/v1/messages", ours, "/v1/messages", _asked(MODEL, **LIMIT)),
                        Way("/v1/chat/completions", ours, "/v1/chat/completions", _asked(MODEL)),
                        Way("/api/chat", ours, "/api/chat", _asked(MODEL)),
                    ]
                    whole = await measured(ways, rounds, calls, stream=False)
                    streams = await measured(ways, rounds, calls, stream=True)
    names = [way.name for way in ways]
    return {
        "Whole answers": [row(name, whole, "the stub", 1) for name in names],
        "Streams: the first piece": [row(name, streams, "the stub", 0) for name in names],
        "Streams: the end": [row(name, streams, "the stub", 1) for name in names],
    }


def _asked(model: str, **more: Any) -> dict[str, Any]:
    name = model if model == ITS_NAME else "cloud"
    return {"model": name, "messages": TURN, **more}


async def local(rounds: int, calls: int) -> list[list[str]]:
    """Calls of Ollama through a proxy without a cloud, and through one that has one."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, cloud in (("without", {}), ("with", cloud_policy("http://127.0.0.1:9"))):
            (place / f"{name}.json").write_text(json.dumps({**OPEN, **cloud}))
        env = {"ANTHROPIC_API_KEY": KEY}
        async with ollama("--tokens", "4") as (upstream, _), contextlib.AsyncExitStack() as stack:
            ways = []
            for name in ("without", "with"):
                serve = serving(
                    *(upstream, place / name, "--policy", str(place / f"{name}.json")), env=env
                )
                proxy = await stack.enter_async_context(serve)
                client = await stack.enter_async_context(proxy.client())
                body = {"model": "qwen3:4b", "messages": TURN}
                ways.append(Way(f"{name} a cloud", client, "/api/chat", body))
            found = await measured(ways, rounds, calls, stream=False)
    return [row(way.name, found, "without a cloud", 1) for way in ways]


def text(found: dict[str, Any], seconds: float, rounds: int, calls: int) -> str:
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
    parts = [
        "# Clouds: what modelsplit adds",
        f"{when}, by `bench/cloud.py`, in {seconds:.0f} s: {rounds} rounds of {calls} calls a way.",
        machine(),
        _READ,
    ]
    for title, rows in found["clouds"].items():
        parts += [f"## {title}", table(COLUMNS, rows)]
    parts += [
        "## Local calls beside a configured cloud",
        "Added and ÷: against a proxy whose policy has none.",
        table(COLUMNS, found["local"]),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=60, help="of each way in each round")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    asked = options(parser)
    began = time.monotonic()
    found = {
        "clouds": uvloop.run(clouds(asked.rounds, asked.calls)),
        "local": uvloop.run(local(asked.rounds, asked.calls)),
    }
    page = text(found, time.monotonic() - began, asked.rounds, asked.calls)
    if asked.write:
        RESULTS.write_text(page, encoding="utf-8")
    show(found, page, as_json=asked.json)


if __name__ == "__main__":
    main()
