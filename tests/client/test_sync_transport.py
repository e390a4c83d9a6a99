"""The sync client's way with connections: one for many calls, shared by threads, let go in time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from modelsplit_client import Client, StreamBrokenError
from modelsplit_sim.config import SimConfig
from support.harness import running
from support.scripted import response, scripted

SIM = SimConfig(tokens=5, max_loaded=8, num_parallel=8)
DONE = response(b'{"response":"Yes","done":true,"done_reason":"stop"}')


async def test_calls_share_a_connection() -> None:
    async with running(SIM) as up:
        with Client(up.url) as client:

            def work() -> None:
                for _ in range(3):
                    client.generate("What next?", "PLANNER")
                    assert client.stream("What next?", "PLANNER").read().text

            await asyncio.to_thread(work)
            await up.calls.wait(6)
            assert len(up.app._edge.connections) == 1


async def test_threads_share_a_client() -> None:
    async with running(SIM) as up:
        with Client(up.url) as client, ThreadPoolExecutor(4) as threads:
            loop = asyncio.get_running_loop()
            calls = [
                loop.run_in_executor(threads, client.generate, f"What next? {i}", "EXECUTOR")
                for i in range(4)
            ]
            answers = await asyncio.gather(*calls)
    assert len({answer.telemetry.request_id for answer in answers}) == 4


async def test_a_stream_is_let_go_by_the_with_that_it_is_in() -> None:
    async with running(SIM) as up:
        with Client(up.url) as client:
            up.sim.faults.add("stall", after=2)

            def work() -> None:
                with client.stream("What next?", "EXECUTOR") as stream:
                    next(iter(stream))

            await asyncio.to_thread(work)
            [record] = await up.calls.wait()
    assert record.outcome == "client_gone"


async def test_a_stream_says_who_answers_before_its_first_piece() -> None:
    async with running(SIM) as up:
        with Client(up.url) as client:

            def work() -> None:
                stream = client.stream("What next?", "EXECUTOR")
                assert stream.telemetry is None
                with stream:
                    assert stream.telemetry is not None
                    assert (stream.telemetry.model, stream.telemetry.total_ms) == ("qwen3:8b", None)
                    assert stream.telemetry.queue_wait_ms is not None
                    assert stream.read().telemetry is stream.telemetry

            await asyncio.to_thread(work)


async def test_a_stream_is_read_once() -> None:
    async with running(SIM) as up:
        with Client(up.url) as client:
            stream = client.stream("What next?", "EXECUTOR")
            whole = await asyncio.to_thread(stream.read)
            assert stream.read() is whole
            with pytest.raises(httpx.StreamConsumed):
                list(stream)


async def test_what_breaks_behind_the_end_marker_breaks_nothing() -> None:
    line = b'{"response":"Yes","done":true,"done_reason":"stop"}\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"
    async with scripted(head + line, hang_up=True) as server:
        with Client(server.url) as client:
            answer = await asyncio.to_thread(client.stream("What next?", "PLANNER").read)
    assert answer.text == "Yes"


async def test_somebody_elses_http_client_is_used_and_left_open() -> None:
    async with scripted(DONE) as server:
        with httpx.Client(headers={"X-Team": "blue"}, trust_env=False) as http:
            with Client(server.url, http_client=http) as client:
                await asyncio.to_thread(client.generate, "What next?", "PLANNER")
            assert not http.is_closed
    assert b"x-team: blue" in server.asked[0].lower()


async def test_an_http_proxy_of_the_environment_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with scripted(DONE) as server:
        with Client(server.url) as client:
            assert (await asyncio.to_thread(client.generate, "What next?", "PLANNER")).text == "Yes"


async def test_a_stream_that_says_nothing_is_broken() -> None:
    async with scripted(response(b"")) as server:
        with Client(server.url) as client, pytest.raises(StreamBrokenError):
            await asyncio.to_thread(client.stream("What next?", "PLANNER").read)
