"""Several Ollama hosts behind one modelsplit: one is killed under load, one is added to it.

Real processes on loopback: one modelsplit, two stand-in Ollamas that run two calls at once each,
and clients that stream one answer after the other.

1. *Killed.* One host is killed (SIGKILL) in the middle of the load: what became of the streams that
   it had begun, of the calls that it had and of which nothing had come, and of everybody in line.
2. *Added.* One host is not there when the load begins, and is started in the middle of it: how long
   it takes until it gets its share, and how large that share then is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import uvloop

from kit import ROOT, machine, options, quantile, show, table
from support.ports import kept_port
from support.process import Process, serving, spawned
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RESULTS = ROOT / "bench" / "RESULTS-hosts.md"
MODEL = "qwen3:8b"
NAMES = ("a", "b")
CLIENTS = 16
CALLS = 240
BODY = {"model": MODEL, "prompt": "hi", "stream": True}
SIM = ("--model", MODEL, "--tokens", "20", "--token-rate", "40", "--num-parallel", "2")
# A share is one of so many calls, and is reached at two fifths of them.
WINDOW = 20
REACHED = 0.4


@dataclass
class Call:
    """One call as its client saw it. ``host`` None: no head came. ``pieces``: of the answer."""

    began: float
    host: str | None = None
    head: float | None = None
    pieces: int = 0
    ended: float | None = None
    outcome: str = ""
    attempt: str = ""


@dataclass
class Load:
    """Clients that call one after the other. ``left``: how many calls they still begin."""

    port: int
    left: int = CALLS
    calls: list[Call] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def until(self, ended: int) -> None:
        while sum(call.ended is not None for call in self.calls) < ended:
            self.changed.clear()
            await self.changed.wait()

    async def _client(self) -> None:
        while self.left > 0:
            self.left -= 1
            call = Call(time.perf_counter())
            self.calls.append(call)
            await self._call(call)
            call.ended = time.perf_counter()
            self.changed.set()

    async def _call(self, call: Call) -> None:
        async with Client(self.port) as client:
            await client.ask("POST", "/api/generate", BODY)
            head = await client.head()
            call.host, call.attempt = head.get("X-LLM-Host"), head["X-LLM-Attempt"]
            call.head = time.perf_counter()
            last = b""
            async for piece in client.pieces(head):
                call.pieces += 1
                last = piece
        line = orjson.loads(last)
        call.outcome = "served" if line.get("done") else f"told {line.get('error_code')}"


@contextlib.asynccontextmanager
async def host(port: int) -> AsyncIterator[Process]:
    async with spawned("modelsplit_sim", "--port", str(port), *SIM) as child:
        await child.said()
        yield child


@contextlib.asynccontextmanager
async def fleet(home: Path) -> AsyncIterator[tuple[Process, dict[str, int]]]:
    """A modelsplit in front of two hosts by name, none of which is started."""
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(kept_port()) for name in NAMES}
        rows = {
            name: {"url": f"http://127.0.0.1:{port}", "parallel": 2, "max_concurrent": 2}
            for name, port in ports.items()
        }
        # As many wait as there are clients, and nobody's wait ends.
        chat = {"allow_long_wait": True, "max_wait_ms": 600_000, "max_queue": 1000}
        document = {
            "extends": "default",
            "hosts": rows,
            "roles": {"PLANNER": {"reserved": 0}, "CHAT": chat},
        }
        path = home / "policy.json"
        path.write_text(json.dumps(document))
        async with serving(1, home, "--policy", str(path), patient=False) as proxy:
            yield proxy, ports


async def state(proxy: Process, name: str) -> str:
    async with proxy.admin() as admin:
        rows = (await admin.request("GET", "/hosts")).json
    return str(next(row["state"] for row in rows if row["name"] == name))


async def until(proxy: Process, name: str, wanted: str) -> None:
    # Another process, which tells nobody.
    while await state(proxy, name) != wanted:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def killed(home: Path) -> dict[str, Any]:
    async with fleet(home) as (proxy, ports), host(ports["a"]) as one, host(ports["b"]):
        for name in NAMES:
            await until(proxy, name, "up")
        load = Load(proxy.port)
        running = asyncio.ensure_future(load.run())
        await load.until(CALLS // 4)
        one.signal(signal.SIGKILL)
        at = time.perf_counter()
        # Who is there now, before anything comes of it.
        open_now = [call for call in load.calls if call.ended is None]
        streams = {id(call) for call in open_now if call.head is not None and call.host == "a"}
        await running
    after = [call for call in load.calls if call.ended is not None and call.ended > at]
    begun = [call for call in after if id(call) in streams]
    others = [call for call in after if id(call) not in streams]
    waited = [call for call in others if call.began < at and call.head and call.head > at]
    return {
        "streams_cut": len(begun),
        "streams": Counter(call.outcome for call in begun),
        "told_within_ms": 1000 * max((call.ended or at) - at for call in begun) if begun else 0.0,
        "waiting": len(waited),
        "waiting_outcomes": Counter(call.outcome for call in waited),
        "second_attempts": sum(call.attempt == "2" for call in waited),
        "others": Counter(call.outcome for call in others),
        "first_served_after_ms": 1000
        * min(
            (call.ended - at for call in waited if call.ended and call.outcome == "served"),
            default=float("nan"),
        ),
    }


async def added(home: Path) -> dict[str, Any]:
    async with fleet(home) as (proxy, ports), host(ports["b"]), contextlib.AsyncExitStack() as late:
        await until(proxy, "b", "up")
        await until(proxy, "a", "away")
        load = Load(proxy.port)
        running = asyncio.ensure_future(load.run())
        await load.until(CALLS // 4)
        await late.enter_async_context(host(ports["a"]))
        at = time.perf_counter()
        await running
    ended = sorted((call for call in load.calls if call.head), key=lambda call: call.head or 0.0)
    lately: deque[bool] = deque(maxlen=WINDOW)
    reached_s = None
    for call in ended:
        assert call.head is not None
        lately.append(call.host == "a")
        if reached_s is None and call.head > at and sum(lately) >= REACHED * WINDOW:
            reached_s = call.head - at
    first = next((call.head - at for call in ended if call.host == "a" and call.head), None)
    assert reached_s is not None
    after = [call for call in ended if (call.head or 0.0) > at + reached_s]
    return {
        "first_call_s": first,
        "share_after_s": reached_s,
        "share": sum(call.host == "a" for call in after) / len(after) if after else float("nan"),
        "calls_after": len(after),
        "outcomes": Counter(call.outcome for call in load.calls),
    }


async def measure(runs: int) -> dict[str, Any]:
    found: dict[str, Any] = {"killed": [], "added": []}
    for _ in range(runs):
        for name, way in (("killed", killed), ("added", added)):
            with tempfile.TemporaryDirectory() as home:
                found[name].append(await way(Path(home)))
    return found | {"at": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine()}


def report(found: dict[str, Any], carried: str) -> str:
    killed, added = found["killed"], found["added"]
    streams: Counter[str] = sum((row["streams"] for row in killed), Counter())
    waiting: Counter[str] = sum((row["waiting_outcomes"] for row in killed), Counter())
    others: Counter[str] = sum((row["others"] for row in killed), Counter())
    outcomes: Counter[str] = sum((row["outcomes"] for row in added), Counter())
    parts = [
        "# Several hosts behind one modelsplit: what was measured",
        f"{found['at']}, by `bench/hosts.py`.",
        found["machine"],
        (
            f"{len(killed)} runs of each: {CLIENTS} clients, one call after the other, {CALLS} "
            "calls in all; two hosts of two calls at once, half a second each. A quarter of the "
            "calls are over when it happens."
        ),
        "## A host is killed under load",
        table(
            ("", "promised", "found"),
            [
                ("streams that it had begun", "cut, and told so", told(streams)),
                ("told within", "", f"{max(row['told_within_ms'] for row in killed):.0f} ms"),
                ("calls in line, or sent to it without an answer", "served", told(waiting)),
                (
                    "of these asked of the other host as attempt 2",
                    "",
                    sum(row["second_attempts"] for row in killed),
                ),
                ("all others until the end", "served", told(others)),
            ],
        ),
        "## A host is added under load",
        table(
            ("", "promised", "found"),
            [
                (
                    "its first call begins to be answered",
                    "",
                    f"{quantile([row['first_call_s'] for row in added], 0.5):.1f} s after it is up",
                ),
                (
                    f"it has two fifths of the last {WINDOW} calls",
                    "within a minute",
                    f"{max(row['share_after_s'] for row in added):.1f} s at most",
                ),
                (
                    "its share from then on",
                    "a half",
                    ", ".join(f"{100 * row['share']:.0f} %" for row in added),
                ),
                ("calls", "served", told(outcomes)),
            ],
        ),
    ]
    if carried:
        parts += [
            "## What a second host carries",
            "    modelsplit simulate --workload mission --hosts 2 --capacity",
            f"```text\n{carried.rstrip()}\n```",
        ]
    return "\n\n".join(parts) + "\n"


def told(outcomes: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in outcomes.most_common()) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="of each (default 3)")
    parser.add_argument("--carried", type=Path, help="what `simulate --capacity` printed, to show")
    parser.add_argument("--write", action="store_true", help=f"write bench/{RESULTS.name}")
    args = options(parser)
    found = uvloop.run(measure(args.runs))
    text = report(found, args.carried.read_text() if args.carried else "")
    if args.write:
        RESULTS.write_text(text)
    show(found, text, as_json=args.json)
    lost = any(
        set(row["streams"]) - {"told E_STREAM_BROKEN_LOCAL"} or set(row["others"]) - {"served"}
        for row in found["killed"]
    ) or any(row["share_after_s"] > 60 for row in found["added"])
    return int(lost)


if __name__ == "__main__":
    sys.exit(main())
