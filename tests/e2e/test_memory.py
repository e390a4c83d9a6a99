"""What the process takes of the machine's memory, beside what its unit lets it have."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from modelsplit_proxy.http.client_connection import FREE_BYTES
from modelsplit_proxy.http.read_budget import ANSWER_BYTES, ReadBudget, ReadLimits
from support.process import ollama, serving
from support.units import read

LARGE = 62_000_000
PIECE = b"x" * 32768
HEAD = b"POST %b HTTP/1.1\r\nHost: localhost\r\n"
BODIES = {
    "of a call": (
        HEAD % b"/api/chat" + b"Content-Length: %d\r\n\r\n" % LARGE,
        PIECE,
    ),
    "of a pull": (
        HEAD % b"/api/pull" + b"Transfer-Encoding: chunked\r\n\r\n",
        b"%x\r\n%b\r\n" % (len(PIECE), PIECE),
    ),
}
MOST = 80_000_000  # of one connection


async def pour(port: int, head: bytes, piece: bytes) -> None:
    """Send a large body, or as much of it as is taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    with contextlib.suppress(ConnectionError):
        for _ in range(MOST // len(PIECE)):
            writer.write(piece)
            await writer.drain()
        await reader.read(1)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize(("head", "piece"), BODIES.values(), ids=BODIES)
async def test_large_bodies_of_strangers_stay_within_what_the_unit_may_have(
    head: bytes, piece: bytes, tmp_path: Path
) -> None:
    unit = read("modelsplit.service")
    environment = dict(line.split("=", 1) for line in unit["Service.Environment"])
    how = {name: value for name, value in environment.items() if name.startswith("MALLOC_")}
    limits = ReadLimits(ReadBudget(0), 0.0)
    besides = ANSWER_BYTES + limits.max_connections * FREE_BYTES
    async with ollama() as (upstream, _), serving(upstream, tmp_path, env=how) as process:
        for _ in range(2):  # what the first has left behind counts as well
            await asyncio.gather(*(pour(process.port, head, piece) for _ in range(60)))
        peak = peak_bytes(process.child.pid)
    [most] = unit["Service.MemoryMax"]
    assert peak + besides < int(most.removesuffix("M")) * 2**20
