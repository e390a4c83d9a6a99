"""The installed service through three restarts under load, a loop that hangs, and five starts.

In a machine whose systemd runs modelsplit's units before an Ollama (or its stand-in):
``/opt/modelsplit/bin/python drive.py [CLIENTS]``. Exit 1: a connection was refused, an answer
cut, or the watchdog fired when nothing hung. A full line, which says 503, is neither.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SYSTEMCTL = "/usr/bin/systemctl"
PORT = 11435
RESTARTS = 3
STARTS = 5
BETWEEN_S = 4.0
NAMES = ("planner", "executor", "qwen3:4b")
HEAD = (
    b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n"
)


def shown(name: str) -> str:
    """One property of the service, as systemd has it."""
    command = [SYSTEMCTL, "show", "modelsplit", f"--property={name}", "--value"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


async def call(model: str, *, stream: bool) -> str:
    """What became of one call on a connection of its own."""
    body = {"model": model, "prompt": "What next?", "options": {"num_predict": 40}}
    content = json.dumps(body | {"stream": stream}).encode()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    except OSError:
        return "refused"
    try:
        writer.write(HEAD % (PORT, len(content)) + content)
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    except OSError:
        return "cut"
    finally:
        writer.close()
    status = head.partition(b" ")[2][:3]
    if status == b"503":
        return f"503 {json.loads(answer).get('reason')}"
    whole = status == b"200" and b'"done":true' in answer.replace(b" ", b"")
    return "answered" if whole else f"failed {status.decode()}"


async def client(number: int, outcomes: Counter[str], over: asyncio.Event) -> None:
    while not over.is_set():
        outcomes[await call(NAMES[number % len(NAMES)], stream=number % 2 == 0)] += 1


async def restarts(clients: int) -> Counter[str]:
    """The service is restarted again and again while clients call."""
    outcomes: Counter[str] = Counter()
    over = asyncio.Event()
    running = [asyncio.create_task(client(number, outcomes, over)) for number in range(clients)]
    await asyncio.sleep(BETWEEN_S)
    for _ in range(RESTARTS):
        begin = time.monotonic()
        process = await asyncio.create_subprocess_exec(SYSTEMCTL, "restart", "modelsplit")
        await process.wait()
        print(f"restarted in {time.monotonic() - begin:.2f} s: {shown('StatusText')}", flush=True)
        await asyncio.sleep(BETWEEN_S)
    over.set()
    await asyncio.gather(*running)
    return outcomes


def hang() -> float:
    """How long a process that hangs is left alone, in seconds."""
    before = shown("MainPID")
    begin = time.monotonic()
    os.kill(int(before), signal.SIGSTOP)
    while shown("MainPID") in {before, "0"} or shown("ActiveState") != "active":
        time.sleep(0.1)
    return time.monotonic() - begin


def start() -> float:
    """From ``systemctl start`` to ready, in seconds."""
    subprocess.run([SYSTEMCTL, "stop", "modelsplit.service"], check=True, capture_output=True)
    begin = time.monotonic()
    subprocess.run([SYSTEMCTL, "start", "modelsplit.service"], check=True)
    return time.monotonic() - begin


def main() -> int:
    clients = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    outcomes = asyncio.run(restarts(clients))
    print(f"{clients} clients, {RESTARTS} restarts: {dict(outcomes)}")
    fired = int(shown("NRestarts"))
    print(f"ended by systemd meanwhile: {fired} times")
    print(f"hung: a new process after {hang():.1f} s")
    print(f"start to ready: {', '.join(f'{start():.2f} s' for _ in range(STARTS))}")
    time.sleep(BETWEEN_S)
    lines = Path(f"/proc/{shown('MainPID')}/status").read_text().splitlines()
    print("; ".join(line for line in lines if line.startswith(("VmRSS", "Threads"))))
    print(f"status: {shown('StatusText')}")
    lost = [outcome for outcome in outcomes if not outcome.startswith(("answered", "503"))]
    return 1 if lost or fired else 0


if __name__ == "__main__":
    sys.exit(main())
