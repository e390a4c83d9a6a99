"""Several modelsplits, one budget: what holds whatever becomes of Redis, and what it costs.

Real processes on loopback: three modelsplits, three stand-in Ollamas, HAProxy with the shipped
configuration, and a redis-server that keeps what it says yes to (``appendfsync always``). Between
each modelsplit and Redis is a relay that can be cut.

1. *At once.* 500 calls on 500 connections against a budget of 10: how many reach an Ollama.
2. *Faults.* Three calls; then Redis is killed, stopped (SIGSTOP), or cut off from one modelsplit,
   under a load that goes on until the fault is over and the budget used up: how many reach an
   Ollama in all, and how long the slowest refusal took.
3. *Cost.* Calls one after the other, without a budget, with one that is counted here, and with
   one that is counted in Redis; and how many steps of counting one Redis does in a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from kit import ROOT, machine, options, quantile, show, table
from modelsplit_proxy.limits import shared_scripts
from modelsplit_sim.config import SimConfig
from modelsplit_sim.models import ModelSpec
from modelsplit_sim.server import Sim
from support.ports import kept_port
from support.process import serving
from support.redis_server import RedisServer, Relay, redis_server
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

RESULTS = ROOT / "bench" / "RESULTS-fleet.md"
MODEL = "gpt-oss:20b"
CALLS = 10
PROXIES = 3
AT_ONCE = 500
BODY = {"model": MODEL, "prompt": "hi", "stream": False, "options": {"num_predict": 2}}
STEPS = 20_000
QUICK = SimConfig(
    (ModelSpec(MODEL),),
    tokens=2,
    token_rate=1000.0,
    num_parallel=200,
    log_size=10**6,
    log_body_bytes=0,
)


def policy(calls: int, lease: float = 0.0) -> dict[str, Any]:
    row = {"name": "ten", "models": [MODEL], "calls": calls, "window": "1h", "lease": lease}
    return {
        "extends": "default",
        "global": {"max_concurrent": 200, "parallel": 200, "forecast": False},
        "models": {MODEL: {"max_concurrent": 200, "parallel": 200}},
        "roles": {"CHAT": {"max_queue": 1000}},
        "budgets": [row] if calls else [],
    }


@dataclass
class Fleet:
    """What runs. ``port``: the balancer's."""

    server: RedisServer
    relays: list[Relay]
    sims: list[Sim]
    ports: list[int]
    port: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refusals_s: list[float] = field(default_factory=list)

    @property
    def reached(self) -> int:
        return sum(call.path == "/api/generate" for sim in self.sims for call in sim.calls)

    async def ask(self) -> str:
        """One call through the balancer: what became of it."""
        began = time.perf_counter()
        async with Client(self.port) as client:
            answer = await client.request("POST", "/api/generate", BODY)
        took = time.perf_counter() - began
        outcome = "answered" if answer.status == 200 else str(answer.json.get("reason"))
        self.outcomes[outcome] += 1
        if outcome != "answered":
            self.refusals_s.append(took)
        return outcome


@contextlib.asynccontextmanager
async def fleet(home: Path, document: dict[str, Any]) -> AsyncIterator[Fleet]:
    path = home / "policy.json"
    path.write_text(json.dumps(document))
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(redis_server(home))
        made = Fleet(server, [], [], [])
        rows = []
        for number in range(1, PROXIES + 1):
            sim = Sim(QUICK)
            await sim.start(0)
            stack.push_async_callback(sim.stop)
            relay = Relay(server.socket, home / f"relay{number}.sock")
            await stack.enter_async_context(relay)
            agent = stack.enter_context(kept_port())
            state = home / f"state{number}"
            state.mkdir()
            proxy = await stack.enter_async_context(
                serving(
                    sim.port,
                    state,
                    *("--policy", str(path), "--shared", relay.url),
                    *("--agent", f"127.0.0.1:{agent}"),
                    patient=False,
                )
            )
            made.relays.append(relay)
            made.sims.append(sim)
            made.ports.append(proxy.port)
            rows.append(f"    server gpu{number} 127.0.0.1:{proxy.port} agent-port {agent}")
            await counted_by(proxy.admin_port)
        made.port = stack.enter_context(kept_port())
        await stack.enter_async_context(haproxy(home, made.port, rows))
        yield made


async def counted_by(admin: int) -> None:
    """Until that modelsplit counts in Redis."""
    while True:
        async with Client(admin) as client:
            stats = (await client.request("GET", "/stats")).json
        if stats["spending"]["shared"]["error"] is None:
            return
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def haproxy(home: Path, port: int, rows: Sequence[str]) -> AsyncIterator[None]:
    """The shipped configuration with these servers, once all are up."""
    text = (ROOT / "contrib" / "haproxy.cfg").read_text().replace(":11430", f":{port}")
    text = re.sub(r"(    server gpu\d.*\n)+", "\n".join(rows) + "\n", text)
    (home / "haproxy.cfg").write_text(text)
    child = await asyncio.create_subprocess_exec(
        "haproxy", "-db", "-q", "-f", str(home / "haproxy.cfg")
    )
    try:
        while True:
            with contextlib.suppress(OSError, EOFError):
                async with Client(port) as client:
                    if (await client.request("GET", "/api/version")).status == 200:
                        break
            await asyncio.sleep(0.05)
        yield
    finally:
        child.terminate()
        await child.wait()


@contextlib.asynccontextmanager
async def fresh(document: dict[str, Any]) -> AsyncIterator[Fleet]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        async with fleet(Path(home), document) as made:
            yield made


# -- 1. at once -----------------------------------------------------------------------------------


async def at_once(runs: int) -> list[dict[str, Any]]:
    found = []
    for _ in range(runs):
        async with fresh(policy(CALLS)) as made:
            began = time.perf_counter()
            await asyncio.gather(*(made.ask() for _ in range(AT_ONCE)))
            took = time.perf_counter() - began
            found.append(
                {"reached": made.reached, "outcomes": dict(made.outcomes), "seconds": took}
            )
            talk(f"at once: {found[-1]}")
    return found


# -- 2. faults ------------------------------------------------------------------------------------


async def killed(made: Fleet) -> None:
    await made.server.kill()


async def started(made: Fleet) -> None:
    await made.server.start()


async def stopped(made: Fleet) -> None:
    made.server.hold_up()


async def continued(made: Fleet) -> None:
    made.server.go_on()


async def cut(made: Fleet) -> None:
    made.relays[0].cut()


async def mended(made: Fleet) -> None:
    made.relays[0].mend()


FAULTS = {
    "killed, started again": (killed, started),
    "stopped (SIGSTOP), continued": (stopped, continued),
    "cut off from one of the three": (cut, mended),
}


async def fault(name: str, lease: float, seconds: float, workers: int) -> dict[str, Any]:
    begin, end = FAULTS[name]
    async with fresh(policy(CALLS, lease)) as made:
        for _ in range(3):
            await made.ask()
        await begin(made)
        over = asyncio.Event()

        async def load() -> None:
            while not over.is_set():
                await made.ask()
                await asyncio.sleep(0.01)

        loads = [asyncio.create_task(load()) for _ in range(workers)]
        await asyncio.sleep(seconds)
        during = made.reached
        await end(made)
        # Long enough to find it again, and to use the budget up.
        await asyncio.sleep(2 * seconds)
        over.set()
        await asyncio.gather(*loads)
        waits = [1000 * took for took in made.refusals_s]
        found = {
            "fault": name,
            "lease": int(CALLS * lease),
            "before": 3,
            "during": during - 3,
            "in_all": made.reached,
            "outcomes": dict(made.outcomes),
            "refused_p50_ms": quantile(waits, 0.5),
            "refused_max_ms": max(waits),
        }
        talk(str(found))
        return found


# -- 3. cost --------------------------------------------------------------------------------------


async def cost(calls: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, document, is_shared in (
        ("no budget", policy(0), False),
        ("counted here", policy(1_000_000), False),
        ("counted in Redis", policy(1_000_000), True),
    ):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            found[name] = await _cost(Path(home), document, calls, is_shared=is_shared)
            talk(f"{name}: {found[name]}")
    return found


async def _cost(
    home: Path, document: dict[str, Any], calls: int, *, is_shared: bool
) -> dict[str, Any]:
    (home / "policy.json").write_text(json.dumps(document))
    (home / "state").mkdir()
    sim = Sim(SimConfig((ModelSpec(MODEL),), tokens=1, num_parallel=8, log_body_bytes=0))
    await sim.start(0)
    async with redis_server(home) as server:
        shared = ("--shared", server.url) if is_shared else ()
        more = ("--policy", str(home / "policy.json"), *shared)
        async with serving(sim.port, home / "state", *more, patient=False) as proxy:
            if is_shared:
                await counted_by(proxy.admin_port)
            async with Client(proxy.port) as client:
                for _ in range(20):
                    await client.request("POST", "/api/generate", BODY)
                before, took = await scripts_run(server), []
                for _ in range(calls):
                    began = time.perf_counter()
                    answer = await client.request("POST", "/api/generate", BODY)
                    took.append(1000 * (time.perf_counter() - began))
                    assert answer.status == 200, answer
                asked = await scripts_run(server) - before
    await sim.stop()
    return {
        "p50_ms": quantile(took, 0.5),
        "p95_ms": quantile(took, 0.95),
        "questions_per_call": asked / calls,
    }


async def scripts_run(server: RedisServer) -> int:
    client = server.client()
    stats = await client.info("commandstats")
    await client.aclose()
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


async def carried(charges: int, fsync: str) -> float:
    """Steps of counting in a second, with so many charges in the window, from 16 connections."""
    with tempfile.TemporaryDirectory() as name:
        durable = ("--appendonly", "yes", "--appendfsync", fsync)
        async with redis_server(Path(name), *durable) as server:
            client: Any = server.client()
            epoch = f"{(await client.info('server'))['run_id']}:1"
            await client.hset("{b}:state", "", epoch)
            places = ["{b}:times:b", "{b}:costs:b"]
            seed = client.register_script(shared_scripts.SEED)
            rows = [cell for n in range(charges) for cell in (f"a:{n}", 1000, 7)]
            await seed(keys=["{b}:state", *places], args=[epoch, "b", 3_600_000, "", *rows])
            sha = await client.script_load(shared_scripts.COUNT)
            await client.aclose()
            keys = ["{b}:state", "{b}:expected", "{b}:seeded", "{b}:changes", *places, "{b}:leases"]
            budget = ["b", 3_600_000, 1_000_000, 10**15, 7, 0, 0, "", 3_600_000]
            child = await asyncio.create_subprocess_exec(
                *(
                    "redis-benchmark",
                    "-s",
                    str(server.socket),
                    "-c",
                    "16",
                    "-n",
                    str(STEPS),
                    "--csv",
                ),
                *("evalsha", sha, str(len(keys)), *keys, epoch, "a", "a:x", "count"),
                *map(str, budget),
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await child.communicate()
            return float(out.decode().splitlines()[-1].split('","')[1])


# -- the report -----------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> str:
    runs, faults = found["at_once"], found["faults"]
    outcomes = sum((Counter(run["outcomes"]) for run in runs), Counter())
    seconds = quantile([run["seconds"] for run in runs], 0.5)
    reached = sorted({run["reached"] for run in runs})
    parts = [
        "# A fleet: what was measured",
        f"{found['at']}, by `bench/fleet.py`.",
        found["machine"],
        "## At once",
        (
            f"{len(runs)} runs of {AT_ONCE} calls at once through HAProxy to {PROXIES} "
            f"modelsplits, against one budget of {CALLS} calls, {seconds:.2f} s each (median)."
        ),
        table(
            ("", "promised", "found"),
            [
                ("reached an Ollama", f"{CALLS} in every run", f"{reached} in {len(runs)} runs"),
                ("calls ended", "", ", ".join(f"{n} {word}" for word, n in outcomes.most_common())),
            ],
        ),
        "## Whatever becomes of Redis",
        (
            f"Three calls, then the fault under load for {found['seconds']:g} s, then until the "
            "budget is used up. A lease is of each of the three. A refusal may wait for Redis for "
            "0.3 s; the time told is of the whole call, on a machine that runs everything."
        ),
        table(
            ("Redis is", "lease", "sent meanwhile", "in all", "at most", "refused p50", "max"),
            [
                (
                    row["fault"],
                    row["lease"],
                    row["during"],
                    row["in_all"],
                    CALLS,
                    f"{row['refused_p50_ms']:.1f} ms",
                    f"{row['refused_max_ms']:.0f} ms",
                )
                for row in faults
            ],
        ),
        "## What a call costs",
        "One call after the other on one connection, to an Ollama that answers at once.",
        table(
            ("", "p50", "p95", "questions to Redis per call"),
            [
                (
                    name,
                    f"{row['p50_ms']:.2f} ms",
                    f"{row['p95_ms']:.2f} ms",
                    f"{row['questions_per_call']:.1f}",
                )
                for name, row in found["cost"].items()
            ],
        ),
        "## What one Redis carries",
        "Steps of counting in a second, 16 connections, `redis-benchmark`.",
        table(
            ("charges in the window", "appendfsync", "steps/s"),
            [(row["charges"], row["fsync"], f"{row['steps']:.0f}") for row in found["carried"]],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def talk(text: str) -> None:
    sys.stderr.write(text + "\n")


def broken(found: dict[str, Any]) -> bool:
    """Whether one call too many was sent anywhere."""
    return any(run["reached"] != CALLS for run in found["at_once"]) or any(
        row["in_all"] > CALLS for row in found["faults"]
    )


async def main(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
        "machine": machine(),
        "seconds": args.seconds,
        "at_once": await at_once(args.runs),
    }
    found["faults"] = [
        await fault(name, lease, args.seconds, args.workers)
        for name in FAULTS
        for lease in (0.0, 0.2)
    ]
    found["cost"] = await cost(args.calls)
    found["carried"] = [
        {"charges": charges, "fsync": fsync, "steps": await carried(charges, fsync)}
        for fsync in ("always", "everysec")
        for charges in (10, 1000)
    ]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of 500 calls at once (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a fault lasts (2)")
    parser.add_argument("--workers", type=int, default=12, help="who ask during a fault (12)")
    parser.add_argument("--calls", type=int, default=400, help="whose cost is measured (400)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    arguments = options(parser)
    results = uvloop.run(main(arguments))
    text = report(results)
    if arguments.write:
        RESULTS.write_text(text)
    show(results, text, as_json=arguments.json)
    sys.exit(broken(results))
