"""What the page costs: nobody, one and twenty watch it, over a state file of very many calls.

    .venv/bin/python bench/dashboard.py                      # 100 000 calls; a minute and a half
    .venv/bin/python bench/dashboard.py --records 1000000    # five minutes more

A real process serves; its records have ten thousand models that are called like markup. Told
are the first answers; the CPU of the process while so many watch; how late its event loop was at
worst meanwhile; and, where chromium and node are there, when a browser had painted first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import machine, options, show, table
from ledger import fill
from modelsplit_proxy.storage.state_file import FILE_NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAMES = 10_000
VIEWERS = (0, 1, 20)
SPANS = ("15m", "7d")
PICTURE = Path(__file__).parents[1] / "tests" / "browser" / "picture.mjs"


def name_badly(folder: Path, records: int) -> None:
    """Give so many calls a model of their own, whose name is markup."""
    every = max(1, records // NAMES)
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME)) as db, db:
        db.execute(
            "UPDATE calls SET model = '<img src=x onerror=alert(' || id || ')>' WHERE id % ? = 0",
            (every,),
        )


@contextlib.asynccontextmanager
async def served(state: Path) -> AsyncIterator[tuple[int, int]]:
    """A stand-in and the proxy in front of it: the proxy's process id and its admin port."""
    sim = await _started("modelsplit_sim")
    assert sim.stdout is not None
    port = json.loads(await sim.stdout.readline())["port"]
    proxy = await _started(
        *("modelsplit_proxy", "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        *("--upstream", f"http://127.0.0.1:{port}", "--state", str(state), "--log-format", "text"),
    )
    assert proxy.stderr is not None
    try:
        while b"admin http://" not in (line := await proxy.stderr.readline()):
            if not line:
                raise SystemExit("modelsplit did not start")
        yield proxy.pid, int(line.rpartition(b":")[2].split()[0])
    finally:
        for child in (proxy, sim):
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _started(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=120) as answer:
        body: bytes = answer.read()
    return body


async def timed(port: int, path: str) -> float:
    """Milliseconds to the whole of an answer."""
    begun = time.perf_counter()
    await asyncio.to_thread(get, port, path)
    return (time.perf_counter() - begun) * 1000


async def watch(port: int) -> None:
    """As the page does: snapshots as they come, calls and the past now and then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /dashboard/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_again(port, "/dashboard/history?span=15m", 5.0))
            tasks.create_task(_again(port, "/dashboard/calls?", 3.0))
            while await reader.read(65536):
                pass
    finally:
        writer.close()


async def _again(port: int, path: str, every_s: float) -> None:
    while True:
        await asyncio.to_thread(get, port, path)
        await asyncio.sleep(every_s)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def lag(port: int) -> dict[float, float]:
    """Ticks of the event loop by how late they were, cumulative."""
    text = (await asyncio.to_thread(get, port, "/metrics")).decode()
    begin = 'modelsplit_event_loop_lag_seconds_bucket{le="'
    lines = (line for line in text.splitlines() if line.startswith(begin))
    parts = (line.removeprefix(begin).partition('"} ') for line in lines)
    return {float(edge): float(count) for edge, _, count in parts}


def worst_ms(before: dict[float, float], after: dict[float, float]) -> float:
    """The edge that no tick in between was later than."""
    total = after[float("inf")] - before[float("inf")]
    return 1000 * min(edge for edge in after if after[edge] - before[edge] >= total)


async def viewed(pid: int, port: int, viewers: int, seconds: float) -> list[Any]:
    tasks = [asyncio.create_task(watch(port)) for _ in range(viewers)]
    await asyncio.sleep(3)  # until the first looks are over
    before, spent = await lag(port), cpu_s(pid)
    await asyncio.sleep(seconds)
    share = (cpu_s(pid) - spent) / seconds
    late = worst_ms(before, await lag(port))
    snapshot = await timed(port, "/dashboard/snapshot")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [viewers, f"{100 * share:.2f}", f"{late:g}", f"{snapshot:.1f}"]


def painted(port: int, folder: Path) -> str:
    """Milliseconds until a browser had painted something, and until it had drawn it all."""
    chromium, node = shutil.which("chromium"), shutil.which("node")
    packages = sorted(Path("~/.cache/modelsplit").expanduser().glob("browser-*/node_modules"))
    if chromium is None or node is None or not packages:
        return "not measured: it needs chromium, node, and one run of tests/browser"
    url = f"http://127.0.0.1:{port}/"
    done = subprocess.run(
        [node, PICTURE, packages[-1], chromium, url, folder / "page.png", "quiet"],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    return f"{found['first']:.0f} ms to the first paint, {found['drawn']:.0f} ms to every panel"


async def measured(state: Path, args: argparse.Namespace) -> dict[str, Any]:
    async with served(state) as (pid, port):
        before = await lag(port)
        paths = ["/", "/dashboard/snapshot", "/dashboard/calls?"]
        paths += [f"/dashboard/history?span={span}" for span in SPANS]
        first = [[path, f"{await timed(port, path):.1f}"] for path in paths]
        late = worst_ms(before, await lag(port))
        rows = [await viewed(pid, port, viewers, args.seconds) for viewers in VIEWERS]
        paint = await asyncio.to_thread(painted, port, state)
    return {"first": first, "late_ms": late, "viewers": rows, "paint": paint}


def text_of(found: dict[str, Any], records: int) -> str:
    first = table(["first answer", "ms"], found["first"])
    head = ["viewers", "CPU, % of a core", "loop late at worst, ms (bucket)", "snapshot, ms"]
    rows = table(head, found["viewers"])
    return (
        f"{machine()}\n\n{records} calls in the state file, {NAMES} models called like markup\n\n"
        f"{first}\n\nThe loop was meanwhile at most {found['late_ms']:g} ms late (bucket).\n\n"
        f"{rows}"
        f"\n\nIn a browser: {found['paint']}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each number of viewers")
    args = options(parser)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        fill(Path(folder), args.records)
        name_badly(Path(folder), args.records)
        found = asyncio.run(measured(Path(folder), args))
    show(found, text_of(found, args.records), as_json=args.json)


if __name__ == "__main__":
    main()
