"""The async client's way with connections, with cancellation, and with reports that must arrive."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from modelsplit_client import AsyncClient
from modelsplit_client.async_transport import AsyncTransport
from modelsplit_client.jobs import Report
from modelsplit_client.settings import settings
from modelsplit_sim.config import SimConfig
from support.harness import running
from support.scripted import Scripted, response, scripted

SIM = SimConfig(tokens=5, max_loaded=8, num_parallel=8)
DONE = response(b'{"response":"Yes","done":true,"done_reason":"stop"}')
REFUSED = response(
    b'{"error":"overloaded","error_code":"E_OVERLOAD_THROTTLED","reason":"queue_full"}',
    "Retry-After: 2",
    status="503 Queue Full",
)


async def test_calls_at_once_are_calls_at_once() -> None:
    async with running(SIM) as up, AsyncClient(up.url) as client:
        answers = await asyncio.gather(
            *(client.generate(f"What next? {i}", "EXECUTOR") for i in range(4))
        )
    assert len({answer.telemetry.request_id for answer in answers}) == 4


async def test_a_call_that_is_cancelled_is_gone_at_modelsplit_too() -> None:
    async with running(SIM) as up, AsyncClient(up.url) as client:
        up.sim.faults.add("hang")
        call = asyncio.ensure_future(client.generate("What next?", "EXECUTOR"))
        await up.until(lambda: up.seats() == (1, 0))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        [record] = await up.calls.wait()
    assert record.outcome == "client_gone"


async def test_a_stream_is_let_go_by_the_with_that_it_is_in() -> None:
    async with running(SIM) as up, AsyncClient(up.url) as client:
        up.sim.faults.add("stall", after=2)
        async with client.stream("What next?", "EXECUTOR") as stream:
            await anext(aiter(stream))
        [record] = await up.calls.wait()
        assert record.outcome == "client_gone"


async def test_a_stream_says_who_answers_before_its_first_piece() -> None:
    async with running(SIM) as up, AsyncClient(up.url) as client:
        stream = client.stream("What next?", "EXECUTOR")
        assert stream.telemetry is None
        async with stream:
            assert stream.telemetry is not None
            assert (stream.telemetry.model, stream.telemetry.total_ms) == ("qwen3:8b", None)
            assert (await stream.read()).telemetry is stream.telemetry


async def test_a_stream_is_read_once() -> None:
    async with running(SIM) as up, AsyncClient(up.url) as client:
        stream = client.stream("What next?", "EXECUTOR")
        whole = await stream.read()
        assert await stream.read() is whole
        with pytest.raises(httpx.StreamConsumed):
            await anext(aiter(stream))


async def test_what_breaks_behind_the_end_marker_breaks_nothing() -> None:
    line = b'{"response":"Yes","done":true,"done_reason":"stop"}\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"
    async with scripted(head + line, hang_up=True) as server, AsyncClient(server.url) as client:
        assert (await client.stream("What next?", "PLANNER").read()).text == "Yes"


async def test_somebody_elses_http_client_is_used_and_left_open() -> None:
    async with scripted(DONE) as server, httpx.AsyncClient(trust_env=False) as http:
        async with AsyncClient(server.url, http_client=http) as client:
            await client.generate("What next?", "PLANNER")
        assert not http.is_closed


@pytest.mark.flowing_time
async def test_the_time_of_retry_after_passes_before_the_next_try() -> None:
    loop = asyncio.get_running_loop()
    async with scripted(REFUSED, DONE) as server, AsyncClient(server.url) as client:
        began = loop.time()
        answer = await client.generate("What next?", "PLANNER", wait_if_busy=5.0)
        assert loop.time() - began >= 2.0
    assert (answer.text, len(server.asked)) == ("Yes", 2)


class Slow(Scripted):
    """Answers nothing before it is let go; ``reached``: something was asked."""

    def __init__(self) -> None:
        super().__init__([response(b"{}")])
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached.set()
        await self.go.wait()
        await super().serve(reader, writer)


async def test_a_report_that_must_arrive_outlives_who_waits_for_it() -> None:
    slow = Slow()
    server = await asyncio.start_server(slow.serve, "127.0.0.1", 0)
    admin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transport = AsyncTransport(settings("x", admin, None, "ollama", None, 0.0), None)
    waiting = asyncio.ensure_future(transport.report_surely(Report("/jobs/j/finish", {"ok": True})))
    await slow.reached.wait()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    slow.go.set()
    await transport.close()
    assert slow.asked[0].startswith(b"POST /jobs/j/finish ")
    server.close()
