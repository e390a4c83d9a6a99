"""Writes a state file as an older version does: ``python tests/support/older_states.py COMMIT``.

That version serves a few calls in front of its own stand-in and ends. What it leaves is kept in
``tests/wheels/states``, by its schema, and is what upgrades are tested with. Before a step is
added to the migrations, run it for the commit that is there now.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import orjson

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "tests" / "wheels" / "states"
SERVE: Final = ("-m", "modelsplit_proxy", "serve", "--listen", "127.0.0.1:0", "--admin")
CALLS: Final[tuple[dict[str, Any], ...]] = (
    {"model": "planner", "prompt": "What next?", "options": {"num_predict": 4}},
    {"model": "executor", "prompt": "Do it.", "options": {"num_predict": 4}},
    {"model": "nobody:1b", "prompt": "x"},
)


async def state_of(folder: Path) -> Path:
    """The state file that the version in ``folder`` leaves behind there."""
    state = folder / "state"
    path = os.pathsep.join(str(folder / "tree" / name) for name in ("policy", "proxy", "sim"))
    environ = os.environ | {"PYTHONPATH": path}
    sim = await _started(("-m", "modelsplit_sim", "--port", "0"), environ, stdout=True)
    assert sim.stdout is not None
    upstream = orjson.loads(await sim.stdout.readline())["port"]
    words = (*SERVE, "127.0.0.1:0", "--state", str(state))
    proxy = await _started((*words, "--upstream", f"http://127.0.0.1:{upstream}"), environ)
    port = await _port(proxy)
    for number, body in enumerate(CALLS):
        await _call(port, body, f"older-{number}")
    proxy.send_signal(signal.SIGTERM)
    await proxy.communicate()
    sim.kill()
    await sim.communicate()
    return state / "modelsplit.sqlite3"


def unpack(commit: str, folder: Path) -> None:
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
        tree.extractall(folder, filter="data")


async def _started(
    words: tuple[str, ...], environ: dict[str, str], *, stdout: bool = False
) -> asyncio.subprocess.Process:
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        env=environ,
        stdout=pipe if stdout else nowhere,
        stderr=nowhere if stdout else pipe,
    )


async def _port(proxy: asyncio.subprocess.Process) -> int:
    assert proxy.stderr is not None
    while line := (await proxy.stderr.readline()).decode():
        if " listens on http://" in line:
            where = line.partition(" listens on http://")[2].split(maxsplit=1)[0]
            return int(where.strip('",').rpartition(":")[2])
    raise AssertionError("it does not listen")


async def _call(port: int, body: dict[str, Any], request_id: str) -> None:
    content = orjson.dumps(body | {"stream": False})
    head = (
        f"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"X-Request-Id: {request_id}\r\nX-LLM-Job-Id: older-job\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + content)
    await reader.read()
    writer.close()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for commit in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            unpack(commit, Path(folder) / "tree")
            path = asyncio.run(state_of(Path(folder)))
            with closing(sqlite3.connect(path)) as db:
                # One file and no log beside it.
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                [version] = db.execute("PRAGMA user_version").fetchone()
                calls = db.execute("SELECT count(*) FROM calls").fetchone()[0]
            target = FOLDER / f"schema-{version}.sqlite3.gz"
            target.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
            sys.stdout.write(f"{target.name}: {calls} calls, {target.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
