"""What the page costs: nobody, one and twenty watch it, over a state file of very many calls.

    .venv/bin/python bench/dashboard.py                      # 100 000 calls; four minutes
    .venv/bin/python bench/dashboard.py --records 1000000 --write

A real process serves, first with nobody in line, then with 256 in each line of the local roles.
The newest ten thousand of its records have a model each that is called like markup. Told are the
first answers; the CPU of the process while so many watch, and the longest pause of its event loop
meanwhile, as somebody finds it who asks for a page of two words a hundred times a second; what
the process holds in memory; and, where chromium and node are there, when a browser had painted
first, and how long it was busy at a stretch.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kit import ROOT, machine, options, quantile, show, table, write_policy
from ledger import DAYS, fill
from modelsplit_proxy.storage.state_file import FILE_NAME
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

RESULTS = Path(__file__).with_name("RESULTS-dashboard.md")
PICTURE = ROOT / "tests" / "browser" / "picture.mjs"
NAMES = 10_000
VIEWERS = (0, 1, 20)
LINE = 256
# Of each role that has a line: what is asked for.
ASKED = {"PLANNER": "planner", "EXECUTOR": "executor", "HEAVY": "heavy", "CHAT": "llama3.2:3b"}
MODELS = ("qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b", ASKED["CHAT"])
# More than there are seats for, and so never fewer in line than it holds.
SURPLUS = 7
PATIENT = {
    "max_queue": LINE,
    "max_wait_ms": 600_000,
    "allow_long_wait": True,
    "timeout_ms": None,
    "total_timeout_ms": None,
}
PAINT = (
    "with",
    "first paint, ms",
    "of a page of text, ms",
    "everything drawn, ms",
    "longest task of the page, ms",
)
# What the page asks for, and how often: ``static/app.js`` and ``calls.js``.
ASKS = (
    ("/dashboard/history?span=15m", 5.0),
    ("/dashboard/calls?", 3.0),
    ("/dashboard/jobs", 10.0),
    ("/dashboard/slo", 60.0),
    ("/dashboard/experiments", 60.0),
)
PATHS = (
    "/",
    "/dashboard/snapshot",
    "/dashboard/calls?",
    "/dashboard/calls?failed=1&role=HEAVY",
    *(f"/dashboard/history?span={span}" for span in ("15m", "5h", "24h", "7d")),
    "/dashboard/jobs",
    "/dashboard/experiments",
    "/dashboard/slo",
)
ACCEPT = {"Accept": "text/html, application/json"}
# A process of its own, so that nothing of ours is taken for a pause of the one it asks. With each
# answer it notes how long it wanted a core meanwhile itself and had none, and the thread of the
# other that wanted one for longest: what is left is not the machine's doing.
PING = """
import glob, json, socket, sys, threading, time
port, pid, done, took = int(sys.argv[1]), int(sys.argv[2]), threading.Event(), []
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
def waited(pattern):
    out = {}
    for path in glob.glob(pattern):
        try:
            out[path] = int(open(path).read().split()[1]) / 1e9
        except (OSError, IndexError):
            pass
    return out
def longer(before, after):
    return max((after[path] - before.get(path, 0.0) for path in after), default=0.0)
theirs, ours = f"/proc/{pid}/task/*/schedstat", "/proc/self/task/*/schedstat"
with socket.create_connection(("127.0.0.1", port)) as link:
    print("asks", flush=True)
    while not done.wait(0.01):
        before, mine, answer = waited(theirs), waited(ours), b""
        begun = time.perf_counter()
        link.sendall(b"HEAD /healthz HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
        while not answer.endswith(b"\\r\\n\\r\\n"):
            answer += link.recv(65536)
        lasted = time.perf_counter() - begun
        machines = longer(before, waited(theirs)) + longer(mine, waited(ours))
        took.append((lasted, max(0.0, lasted - machines)))
print(json.dumps(took))
"""


class Served(NamedTuple):
    pid: int
    port: int
    admin: int


class Pauses(NamedTuple):
    """Of each answer, milliseconds: what it took, and that less what was the machine's doing."""

    took: list[float]
    own: list[float]


def name_badly(folder: Path) -> None:
    """Give each of the newest calls a model of its own, whose name is markup.

    And have their jobs ended long ago: to end a hundred thousand is not what is measured.
    """
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME)) as db, db:
        db.execute("UPDATE jobs SET state = 'expired', ended_us = last_us WHERE state = 'open'")
        db.execute(
            "UPDATE calls SET model = '<img src=x onerror=alert(' || id || ')>' "
            "WHERE id > (SELECT max(id) FROM calls) - ?",
            (NAMES,),
        )


@contextlib.asynccontextmanager
async def served(state: Path, policy: Path) -> AsyncIterator[Served]:
    """A stand-in whose answers have no end, and the proxy in front of it."""
    slow = ("--tokens", "1000000000", "--token-rate", "1", "--log-size", "16")
    models = (word for name in MODELS for word in ("--model", name))
    sim = await _started("modelsplit_sim", *models, *slow)
    assert sim.stdout is not None
    upstream = json.loads(await sim.stdout.readline())["port"]
    proxy = await _started(
        *("modelsplit_proxy", "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        *("--upstream", f"http://127.0.0.1:{upstream}", "--policy", str(policy)),
        *("--state", str(state), "--keep-records", "3650d", "--log-format", "text"),
    )
    assert proxy.stderr is not None
    talk = ""
    try:
        while (admin := re.search(r"admin http://127\.0\.0\.1:(\d+)", talk)) is None:
            line = await proxy.stderr.readline()
            if not line:
                raise SystemExit(f"modelsplit did not start:\n{talk}")
            talk += line.decode()
        listens = re.search(r"listens on http://127\.0\.0\.1:(\d+)", talk)
        assert listens is not None
        drains = [asyncio.create_task(_drain(end)) for end in (proxy.stderr, proxy.stdout)]
        yield Served(proxy.pid, int(listens[1]), int(admin[1]))
        await _ended(drains)
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


async def _drain(end: asyncio.StreamReader | None) -> None:
    assert end is not None
    while await end.read(65536):
        pass


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# --- Who watches, who waits ------------------------------------------------------------------


async def watch(admin: int) -> None:
    """As the page does: one connection for what is so now, one for what is asked for."""
    async with Client(admin) as events, Client(admin) as asks, asyncio.TaskGroup() as tasks:
        await events.ask("GET", "/dashboard/events")
        tasks.create_task(_drain(events.reader))
        turn = asyncio.Lock()
        for path, every_s in ASKS:
            tasks.create_task(_again(asks, turn, path, every_s))


async def _again(client: Client, turn: asyncio.Lock, path: str, every_s: float) -> None:
    while True:
        async with turn:
            await client.request("GET", path)
        await asyncio.sleep(every_s)


async def fill_lines(served_at: Served, stack: contextlib.AsyncExitStack) -> None:
    """Have every line of a local role full. Who finds it full already is turned away."""
    for model in ASKED.values():
        for _ in range(LINE + SURPLUS):
            client = await stack.enter_async_context(Client(served_at.port))
            await client.ask("POST", "/api/generate", {"model": model, "prompt": "x"})
    async with Client(served_at.admin) as admin:
        while True:
            roles = (await admin.request("GET", "/dashboard/snapshot")).json["roles"]
            waiting = [roles[role]["waiting"] for role in ASKED]
            if waiting == [LINE] * len(ASKED):
                return


# --- What it costs ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def asked_again(at: Served) -> AsyncIterator[Pauses]:
    """How long each of very many small answers took; filled at the end."""
    pauses = Pauses([], [])
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PING, str(at.admin), str(at.pid)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    await child.stdout.readline()
    yield pauses
    out, _ = await child.communicate(b"")
    for took, own in json.loads(out):
        pauses.took.append(1000 * took)
        pauses.own.append(1000 * own)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waited_s(pid: int) -> float:
    """How long its main thread wanted a core and had none: other processes' doing."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def first_answers(at: Served) -> list[list[str]]:
    """What each answer took that nobody had asked for yet, and the loop's longest pause in it."""
    out = []
    async with Client(at.admin) as client:
        for path in PATHS:
            async with asked_again(at) as pauses:
                begun = time.perf_counter()
                answer = await client.request("GET", path, None, ACCEPT)
                spent = time.perf_counter() - begun
            assert answer.status == 200, answer.body
            size = f"{len(answer.body) / 1000:.1f}"
            longest = (f"{max(values, default=0):.1f}" for values in pauses)
            out.append([f"`{path}`", f"{1000 * spent:.1f}", size, *longest])
    return out


async def viewed(at: Served, viewers: int, seconds: float) -> list[Any]:
    tasks = [asyncio.create_task(watch(at.admin)) for _ in range(viewers)]
    await asyncio.sleep(5 if viewers else 0)  # until the first looks are over
    begun, spent, waited = time.perf_counter(), cpu_s(at.pid), waited_s(at.pid)
    await asyncio.sleep(seconds)
    lasted = time.perf_counter() - begun
    spent, waited = cpu_s(at.pid) - spent, waited_s(at.pid) - waited
    # By itself: asking a hundred times a second costs more than twenty who watch.
    async with asked_again(at) as pauses:
        await asyncio.sleep(seconds)
    await _ended(tasks)
    shares = (f"{100 * value / lasted:.2f}" for value in (spent, waited))
    late = (f"{quantile(pauses.took, share):.1f}" for share in (0.5, 0.99))
    longest = (f"{max(values):.1f}" for values in pauses)
    return [viewers, *shares, *late, *longest]


def painted(admin: int, folder: Path, *, quiet: bool) -> list[str]:
    """When a browser had painted something and when everything, and its longest task; ms."""
    chromium, node = shutil.which("chromium"), shutil.which("node")
    packages = sorted(Path("~/.cache/modelsplit").expanduser().glob("browser-*/node_modules"))
    if chromium is None or node is None or not packages:
        return ["not measured: it needs chromium, node, and one run of tests/browser", *[""] * 3]
    url = f"http://127.0.0.1:{admin}/"
    words = ["quiet"] if quiet else []
    done = subprocess.run(
        [node, PICTURE, packages[-1], chromium, url, folder / "page.png", *words],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    return [f"{found[name]:.0f}" for name in ("first", "floor", "drawn", "busy")]


async def measured(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    policy = write_policy(folder / "policy.json", {"roles": dict.fromkeys(ASKED, PATIENT)})
    found: dict[str, Any] = {"resident": [], "viewers": {}, "paint": []}
    async with served(folder, policy) as at, contextlib.AsyncExitStack() as stack:
        found["resident"].append(["fresh", f"{resident_mib(at.pid):.1f}"])
        found["first"] = await first_answers(at)
        found["resident"].append(["after each answer once", f"{resident_mib(at.pid):.1f}"])
        for lines in ("nobody in line", f"{LINE} in each line"):
            quiet = lines == "nobody in line"
            if not quiet:
                await fill_lines(at, stack)
            rows = [await viewed(at, viewers, args.seconds) for viewers in VIEWERS]
            found["viewers"][lines] = rows
            for _ in range(args.looks):
                paint = await asyncio.to_thread(painted, at.admin, folder, quiet=quiet)
                found["paint"].append([lines, *paint])
            name = f"{lines}, twenty had watched"
            found["resident"].append([name, f"{resident_mib(at.pid):.1f}"])
    return found


def text_of(found: dict[str, Any], begun: str, records: int) -> str:
    longest = ("longest pause, ms", "of it our own")
    first = table(["answer", "ms", "kB", *longest], found["first"])
    head = ["who watch", "CPU, % of a core", "wanted a core, %", "P50", "P99", *longest]
    viewers = "".join(
        f"## With {lines}\n\n{table(head, rows)}\n\n" for lines, rows in found["viewers"].items()
    )
    return (
        f"# The page: what was measured\n\n{begun}\n\n"
        f"{records:,} calls in the state file over {DAYS} days; each of the newest {NAMES:,} has a "
        "model of its own, called like markup.\n\n"
        "A pause is how long `/healthz` took, asked a hundred times a second by another process: "
        "what the event loop was busy with, what the machine gave to others, and the answer "
        "itself. *Of it our own* is the longest of them less what both processes waited for a "
        "core meanwhile, as the kernel counts it. *Wanted a core* is that of the event loop's "
        "thread, in percent of the time.\n\n"
        f"## First answers\n\n{first}\n\n{viewers}"
        f"## In a browser\n\n{table(PAINT, found['paint'])}\n\n"
        f"## Resident, MiB\n\n{table(['when', 'MiB'], found['resident'])}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each figure of viewers")
    parser.add_argument("--looks", type=int, default=3, help="by a browser, with each line")
    parser.add_argument("--keep", type=Path, help="keep the state file there, or use it")
    parser.add_argument("--write", action="store_true", help=f"into bench/{RESULTS.name}")
    args = options(parser)
    begun = f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}, by `bench/dashboard.py`.\n\n{machine()}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        if not (folder / FILE_NAME).exists():
            fill(folder, args.records)
            name_badly(folder)
        found = asyncio.run(measured(folder, args))
    text = text_of(found, begun, args.records)
    if args.write:
        RESULTS.write_text(text)
    show(found, text, as_json=args.json)


if __name__ == "__main__":
    main()
