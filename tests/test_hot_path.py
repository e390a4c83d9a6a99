"""What one call and one piece of a stream cost, counted: a guard against careless changes.

Times differ from machine to machine; the number of function calls does not. These are the
Python functions and the native ones that run on the event loop's thread, through the real
process code and real sockets, for one small call that is answered whole, and for one piece
of a stream. The ceilings are a little above today's counts.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from modelsplit_proxy.http.upstream import UpstreamConnection
from modelsplit_proxy.records.record import CallRecord
from support.clouds import cloud_policy
from support.counting import Asker, Calls, Upstream
from support.harness import Overlay, Running, in_front_of

# Calls of (Python, native) functions.
CALL = (308, 202)
PIECE = (5, 3)
# Objects alive after two hundred pieces, more than before: what is kept does not grow.
KEPT = 100
# Bytes of a long prompt.
LONG = 2 * 2**20

ADVICE = """
{what} takes {python} Python and {native} native function calls on the event loop; the ceiling
is {ceiling}. Something was added to the hot path. What can be done once per call is not done
per piece, and what can be done once per start is not done per call (docs/performance.md). If
it is worth its price, raise the ceiling in tests/test_hot_path.py, here and in
docs/performance.md, and say in the commit what it buys. Most called, over all that was counted:
{most}"""

OPEN: Overlay = {"roles": {"CHAT": {"max_queue": 1000}}}
WARM_UP, CALLS, PIECES, RUNS = 30, 100, 200, 3


def check(what: str, calls: Calls, counted: tuple[int, int], ceiling: tuple[int, int]) -> None:
    most = Counter(calls.python).most_common(40)
    lines = "\n".join(f"  {name} {count}" for name, count in most)
    python, native = counted
    said = ADVICE.format(what=what, python=python, native=native, ceiling=ceiling, most=lines)
    assert python <= ceiling[0] and native <= ceiling[1], said  # noqa: PT018 - one advice


class PerCall:
    """The count at the same moment of each call, which is when it is recorded."""

    def __init__(self, up: Running) -> None:
        self.calls = Calls()
        self._seen: list[tuple[int, int]] = []
        up.app.ended.listen("test", self._note)

    def _note(self, record: CallRecord) -> None:
        del record
        self._seen.append(self.calls.totals)

    def counts(self) -> tuple[int, int]:
        return least_step(self._seen)


def least_step(totals: list[tuple[int, int]]) -> tuple[int, int]:
    """What at least comes between one and the next.

    On a busy machine most have more between them: what happens once a second, a request or an
    answer that comes in two reads, an answer to a probe of the proxy's own.
    """
    steps = list(pairwise(totals))
    python = min(after[0] - before[0] for before, after in steps)
    return python, min(after[1] - before[1] for before, after in steps)


async def counted_calls(overlay: Overlay = OPEN) -> tuple[Calls, tuple[int, int]]:
    """The least of a few runs.

    While the proxy waits for an answer to a question of its own, each call takes more, and that
    may be all of a run's.
    """
    runs = [await _counted_calls(overlay) for _ in range(RUNS)]
    least = (min(python for _, (python, _) in runs), min(native for _, (_, native) in runs))
    return runs[-1][0], least


async def _counted_calls(overlay: Overlay) -> tuple[Calls, tuple[int, int]]:
    with Upstream() as upstream:
        async with in_front_of(upstream.port, overlay) as up:
            with Asker(up.port) as client:
                await asyncio.to_thread(client.ask, WARM_UP)
                per_call = PerCall(up)
                with per_call.calls.counting():
                    await asyncio.to_thread(client.ask, CALLS)
    return per_call.calls, per_call.counts()


async def counted_pieces() -> tuple[Calls, tuple[int, int]]:
    calls = Calls(within=UpstreamConnection.data_received.__code__)
    with Upstream() as upstream:
        async with in_front_of(upstream.port, OPEN) as up:
            with Asker(up.port) as client:
                client.begin(WARM_UP + PIECES)
                await asyncio.to_thread(client.take, upstream.more, WARM_UP)
                with calls.counting():
                    await asyncio.to_thread(client.take, upstream.more, PIECES)
                await asyncio.to_thread(client.end, upstream.more)
    return calls, least_step(calls.rounds)


async def test_a_call_takes_no_more_function_calls_than_this() -> None:
    calls, counted = await counted_calls()
    check("One call answered whole", calls, counted, CALL)


async def test_a_cloud_that_is_configured_costs_a_call_of_ollama_nothing() -> None:
    redact = [{"name": "digits", "pattern": "[0-9]+"}]
    cloud = cloud_policy("http://127.0.0.1:9", redact=redact)
    calls, counted = await counted_calls({**OPEN, **cloud})
    check("One call answered whole, beside a cloud", calls, counted, CALL)


async def test_a_piece_of_a_stream_takes_no_more_function_calls_than_this() -> None:
    calls, counted = await counted_pieces()
    check("One piece of a stream", calls, counted, PIECE)


async def test_nothing_is_kept_of_a_piece_that_has_passed() -> None:
    """What is kept of pieces is kept each time; what else goes on in the process is not."""
    kept: list[int] = []
    with Upstream() as upstream:
        async with in_front_of(upstream.port, OPEN) as up:
            with Asker(up.port) as client:
                client.begin(1100)
                await asyncio.to_thread(client.take, upstream.more, 100)
                for _ in range(5):
                    before = sys.getallocatedblocks()
                    await asyncio.to_thread(client.take, upstream.more, 200)
                    kept.append(sys.getallocatedblocks() - before)
                await asyncio.to_thread(client.end, upstream.more)
    assert min(kept) < KEPT, f"{kept} objects are kept of two hundred pieces each"


async def test_a_long_request_does_not_live_as_long_as_its_streamed_answer() -> None:
    with Upstream() as upstream:
        async with in_front_of(upstream.port, OPEN) as up:
            with Asker(up.port) as client:
                await asyncio.to_thread(client.ask, WARM_UP)
                tracemalloc.start()
                try:
                    await asyncio.to_thread(client.begin, 3, LONG)
                    await asyncio.to_thread(client.take, upstream.more, 2)
                    kept, peak = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
                await asyncio.to_thread(client.take, upstream.more, 1)
                await asyncio.to_thread(client.end, upstream.more)
    assert peak > LONG
    assert kept < LONG / 2, f"{kept} bytes are kept of a request of {LONG}"


@pytest.mark.parametrize("ceiling", [CALL, PIECE])
def test_the_ceilings_are_those_of_the_documentation(ceiling: tuple[int, int]) -> None:
    page = Path(__file__).parents[1] / "docs" / "performance.md"
    guard = page.read_text(encoding="utf-8").partition("## The guard")[2].partition("\n## ")[0]
    told = re.findall(r"\| (\d+) \| (\d+) \|$", guard, re.MULTILINE)
    assert (str(ceiling[0]), str(ceiling[1])) in told
