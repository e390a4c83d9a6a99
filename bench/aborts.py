"""Clients that leave: what of them reaches the upstream, and how soon their seats serve others.

Real processes on loopback: a stand-in Ollama and ``modelsplit serve``. Half of the clients
leave by FIN (closed), half by RST (crashed).

1. *Queued.* One call runs, one waits, a third waits behind it. The second leaves: the upstream
   must never see it. Then the first leaves: when does the third have its first line?
2. *Storm.* Many calls leave at random moments: queued, before the first byte, mid-stream.
   When is the upstream idle, and are all seats good afterwards?
3. *Gone.* One call at a time, alone, in each state: from the client's leaving until the
   upstream's connection is closed. The upstream here is the bench itself, so that one clock
   sees both ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from kit import options, quantile, show, table, write_policy
from support.process import ollama, serving
from support.raw import chunk, raw_upstream
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.process import Process
    from support.raw import Peer

ROUTE = "/api/generate"
MODELS = ("planner", "executor", "heavy", "chat:1b")
IDLE_S = 2.5
# Enough for the storm to find calls in every state.
SEATS = 24
PLANNERS = 8
# Every seat may be used at once: what is judged here is whether seats come back.
ALL_SEATS: dict[str, Any] = {
    "global": {"max_concurrent": SEATS, "parallel": SEATS, "forecast": False},
    "models": {name: {"parallel": SEATS} for name in ("qwen3:4b", "qwen3:8b", "chat:1b")},
    "roles": {
        role: {"max_queue": 400, "max_wait_ms": 60000, "allow_long_wait": True, **more}
        for role, more in (
            ("PLANNER", {"max_concurrent": PLANNERS}),
            ("EXECUTOR", {"max_concurrent": SEATS - PLANNERS}),
            ("HEAVY", {}),
            ("CHAT", {}),
        )
    },
}
ENDLESS = (
    *("--tokens", "1000000", "--token-rate", "100", "--num-parallel", "64", "--max-loaded", "5"),
    *("--model", "qwen3:4b", "--model", "qwen3:8b", "--model", "gemma3:12b", "--model", "chat:1b"),
    *("--prefill-ms", "8"),
)


def body(model: str, mark: str, *, stream: bool = True) -> dict[str, Any]:
    return {"model": model, "prompt": f"mark {mark} " + "word " * 10, "stream": stream}


async def asked(port: int, model: str, mark: str, *, stream: bool = True) -> Client:
    client = Client(port)
    await client.ask("POST", ROUTE, body(model, mark, stream=stream))
    return client


async def first_line(client: Client) -> None:
    """The head, and the first line of a stream."""
    answer = await client.head()
    assert answer.status == 200, answer.headers
    await anext(client.pieces(answer))


async def leave(client: Client, how: str) -> None:
    if how == "rst":
        client.reset()
    else:
        await client.close()


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[tuple[Process, Client, Client]]:
    """The proxy, its admin port's client, and the stand-in's control client."""
    with tempfile.TemporaryDirectory() as folder:
        given = write_policy(Path(folder) / "policy.json", ALL_SEATS)
        async with (
            ollama(*ENDLESS) as (port, control),
            serving(port, Path(folder), "--policy", str(given)) as process,
            process.admin() as admin,
        ):
            yield process, admin, control


async def stats(admin: Client) -> dict[str, Any]:
    found: dict[str, Any] = (await admin.request("GET", "/stats")).json
    return found


async def until(admin: Client, running: int, waiting: int, limit_s: float = 10.0) -> float:
    """Poll until so many run and wait; how long it took, seconds."""
    began = time.monotonic()
    now = None
    while time.monotonic() - began < limit_s:
        roles = (await stats(admin))["roles"].values()
        now = sum(row["running"] for row in roles), sum(row["waiting"] for row in roles)
        if now == (running, waiting):
            return time.monotonic() - began
        await asyncio.sleep(0.002)
    raise AssertionError(f"never {running} running and {waiting} waiting, but {now}")


# 1. Queued.


async def queued(process: Process, admin: Client, control: Client, rounds: int) -> dict[str, Any]:
    served_ms: list[float] = []
    for number in range(rounds):
        how = ("fin", "rst")[number % 2]
        first = await asked(process.port, "heavy", f"first{number}.")
        await first_line(first)
        second = await asked(process.port, "heavy", f"second{number}.")
        await until(admin, 1, 1)
        third = await asked(process.port, "heavy", f"third{number}.")
        await until(admin, 1, 2)
        await leave(second, how)
        await until(admin, 1, 1)
        began = time.monotonic()
        await leave(first, how)
        await first_line(third)
        served_ms.append((time.monotonic() - began) * 1000)
        await leave(third, how)
        await until(admin, 0, 0)
    calls = (await control.request("GET", "/calls")).json
    seen = sum("mark second" in call["body"] for call in calls)
    return {"rounds": rounds, "seen_upstream": seen, "next_served_ms": served_ms}


# 2. Storm.


async def stormy(process: Process, rng: random.Random, ends: Counter[str]) -> None:
    """One client that comes and leaves when it likes."""
    await asyncio.sleep(rng.uniform(0, 1.5))
    how = rng.choice(("fin", "rst"))
    client = await asked(process.port, rng.choice(MODELS), "storm.", stream=rng.random() < 0.8)
    state = "no byte yet"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(rng.choice((0.05, 0.3, 2.0)) * rng.random()):
            await first_line(client)
            state = "mid-stream"
            await asyncio.get_running_loop().create_future()
    ends[f"{state}, {how}"] += 1
    await leave(client, how)


async def storm(process: Process, admin: Client, control: Client, clients: int) -> dict[str, Any]:
    rng = random.Random(clients)
    ends: Counter[str] = Counter()
    # Calls that hold all seats, so that many of the storm's leave while queued.
    held = [await asked(process.port, model, "held.") for model in MODELS for _ in range(8)]
    holders = asyncio.gather(*(_left_after(client, 0.7) for client in held))
    await asyncio.gather(*(stormy(process, rng, ends) for _ in range(clients)))
    await holders
    left = time.monotonic()
    answer = await control.request("POST", "/wait", {"active": 0, "timeout": IDLE_S})
    idle_ms = (time.monotonic() - left) * 1000
    await until(admin, 0, 0)
    settled_ms = (time.monotonic() - left) * 1000
    return {
        "clients": clients,
        "ends": dict(sorted(ends.items())),
        "upstream_idle": answer.status == 200,
        "upstream_idle_ms": idle_ms,
        "nobody_here_ms": settled_ms,
        "told": await reasons(admin),
        **await all_seats(process, admin, control),
    }


async def reasons(admin: Client) -> dict[str, int]:
    """How the proxy's own records say that the storm's calls ended."""
    await asyncio.sleep(0.5)
    records = (await admin.request("GET", "/requests?limit=1000")).json
    return dict(Counter(str(record.get("reason") or record.get("outcome")) for record in records))


async def _left_after(client: Client, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await client.close()


async def all_seats(process: Process, admin: Client, control: Client) -> dict[str, Any]:
    """As many calls as there are seats must run at once: planners and executors."""
    began = time.monotonic()
    models = ["planner"] * PLANNERS + ["executor"] * (SEATS - PLANNERS)
    clients = [await asked(process.port, model, "after.") for model in models]
    await asyncio.gather(*(first_line(client) for client in clients))
    spent_ms = (time.monotonic() - began) * 1000
    active = (await control.request("GET", "/state")).json["active"]
    for client in clients:
        client.reset()
    await until(admin, 0, 0)
    return {"seats_usable": active, "seats_usable_ms": spent_ms}


# 3. Gone.


class Upstream:
    """Answers as the state wants it, and notes when its connection was closed."""

    def __init__(self) -> None:
        self.streams = False
        self.asked = asyncio.Event()
        self.closed: asyncio.Future[float] | None = None

    async def script(self, peer: Peer) -> None:
        await peer.request()
        if self.streams:
            peer.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
                + chunk(b'{"model":"m","response":"a","done":false}\n')
            )
            await peer.flush()
        self.asked.set()
        await peer.gone()
        if self.closed is not None and not self.closed.done():
            self.closed.set_result(time.monotonic())

    def expect(self, *, streams: bool) -> asyncio.Future[float]:
        self.streams = streams
        self.asked.clear()
        self.closed = asyncio.get_running_loop().create_future()
        return self.closed


async def gone_once(
    process: Process, upstream: Upstream, *, stream: bool, begun: bool, how: str
) -> float:
    """Milliseconds from the client's leaving to the upstream's connection closed."""
    closed = upstream.expect(streams=begun)
    client = await asked(process.port, "planner", "gone.", stream=stream)
    async with asyncio.timeout(5):
        await upstream.asked.wait()
        if begun:
            await first_line(client)
        await asyncio.sleep(0.005)
        began = time.monotonic()
        await leave(client, how)
        return (await closed - began) * 1000


async def gone(rounds: int) -> list[dict[str, Any]]:
    upstream = Upstream()
    found = []
    async with raw_upstream(upstream.script) as raw:
        with tempfile.TemporaryDirectory() as folder:
            async with serving(raw.port, Path(folder)) as process:
                for state, stream, begun in (
                    ("before the first byte", True, False),
                    ("before the first byte, not streamed", False, False),
                    ("mid-stream", True, True),
                ):
                    for how in ("fin", "rst"):
                        times = [
                            await gone_once(process, upstream, stream=stream, begun=begun, how=how)
                            for _ in range(rounds)
                        ]
                        found.append({"state": state, "how": how, "ms": times})
    return found


async def run(rounds: int, clients: int) -> dict[str, Any]:
    async with stage() as (process, admin, control):
        found_queued = await queued(process, admin, control, rounds)
        found_storm = await storm(process, admin, control, clients)
    return {"queued": found_queued, "storm": found_storm, "gone": await gone(rounds)}


def text(found: dict[str, Any]) -> str:
    first, second = found["queued"], found["storm"]
    served = first["next_served_ms"]
    rows = [
        [f"aborted while queued, of {first['rounds']}, seen upstream", first["seen_upstream"]],
        ["next waiter's first line after the seat's holder left, p50 / max ms", _pair(served)],
        [f"storm of {second['clients']}: left", _words(second["ends"])],
        ["the proxy's records of all calls so far", _words(second["told"])],
        ["upstream idle after the last left, ms", f"{second['upstream_idle_ms']:.0f}"],
        ["nobody runs or waits in the proxy, ms", f"{second['nobody_here_ms']:.0f}"],
        [f"seats in use at once afterwards, of {SEATS}", second["seats_usable"]],
        ["all of them streaming after, ms", f"{second['seats_usable_ms']:.0f}"],
    ]
    gone_rows = [
        [row["state"], row["how"], *(f"{quantile(row['ms'], share):.2f}" for share in (0.5, 0.95))]
        for row in found["gone"]
    ]
    return "\n\n".join(
        (
            table(["aborts", ""], rows),
            "The next waiter's first line includes the stand-in's prefill, about 0.2 s.",
            table(["client gone", "by", "upstream closed, p50 ms", "p95 ms"], gone_rows),
        )
    )


def _pair(values: list[float]) -> str:
    return f"{quantile(values, 0.5):.0f} / {max(values):.0f}"


def _words(ends: dict[str, int]) -> str:
    return "; ".join(f"{name} {count}" for name, count in ends.items())


def failed(found: dict[str, Any]) -> bool:
    first, second = found["queued"], found["storm"]
    return bool(
        first["seen_upstream"]
        or max(first["next_served_ms"]) > 500
        or not second["upstream_idle"]
        or second["seats_usable"] != SEATS
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Clients that leave, in every state.")
    parser.add_argument("--rounds", type=int, default=20, help="of each single case")
    parser.add_argument("--clients", type=int, default=150, help="in the storm")
    given = options(parser)
    found = uvloop.run(run(given.rounds, given.clients))
    show(found, text(found), as_json=given.json)
    if failed(found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
