"""What the stand-in does when its client, or itself, goes away."""

from __future__ import annotations

import asyncio
import socket

import pytest

from modelsplit_sim import CallState, Sim, SimConfig
from support.ports import stand_in

from .client import Client, ask, connect, post

pytestmark = pytest.mark.flowing_time

ENDLESS = {"num_predict": 1_000_000}
STREAM = {"model": "qwen3:4b", "prompt": "hi", "options": ENDLESS}


def config() -> SimConfig:
    return SimConfig(token_rate=500.0)


async def streaming(sim: Sim, path: str = "/api/generate", **fields: object) -> Client:
    """A client that has seen five pieces of an endless stream."""
    client = await Client.to(sim)
    client.send("POST", path, STREAM | fields)
    await client.head()
    for _ in range(5):
        await client.chunk()
    return client


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_leaving_mid_stream_frees_the_slot_within_milliseconds(how: str) -> None:
    async with Sim(config()) as sim:
        client = await streaming(sim)
        getattr(client, how)()
        await sim.wait_for(lambda s: s.active == 0)
        call = sim.calls[0]
        assert call.state is CallState.ABORTED
        assert call.left_at is not None
        assert sim.counts.left == 1
        assert (await post(sim, "/api/generate", model="qwen3:4b", prompt="x")).status == 200


async def test_a_half_close_mid_stream_gets_the_error_line_and_a_clean_end() -> None:
    async with Sim(config()) as sim:
        client = await streaming(sim)
        client.half_close()
        rest = await client.reader.read()
        assert rest.endswith(
            b'42\r\n{"error":"error reading llama-server response: context canceled"}\n'
            b"\r\n0\r\n\r\n"
        )
        client.close()


async def test_a_half_close_before_the_answer_gets_nothing() -> None:
    async with Sim(config()) as sim:
        client = await Client.to(sim)
        client.send("POST", "/api/generate", STREAM | {"stream": False})
        await sim.wait_for(lambda s: s.active == 1)
        client.half_close()
        assert await client.reader.read() == b""
        await sim.wait_for(lambda s: s.active == 0)
        client.close()


async def test_leaving_a_non_streamed_call_frees_the_slot() -> None:
    async with Sim(config()) as sim:
        client = await Client.to(sim)
        client.send("POST", "/api/generate", STREAM | {"stream": False})
        await sim.wait_for(lambda s: s.calls[:1] != [] and s.calls[0].tokens > 3)
        client.close()
        await sim.wait_for(lambda s: s.active == 0)


async def test_leaving_behind_a_slot_removes_the_waiter_at_once() -> None:
    async with Sim(config()) as sim:
        holder = await streaming(sim)
        waiter = await Client.to(sim)
        waiter.send("POST", "/api/generate", STREAM)
        await sim.wait_for(lambda s: s.waiting == 1)
        waiter.close()
        await sim.wait_for(lambda s: s.waiting == 0)
        assert sim.active == 1
        holder.close()


async def test_stopping_mid_stream_closes_without_a_final_chunk() -> None:
    sim = Sim(config())
    await sim.start()
    client = await streaming(sim)
    await sim.stop()
    rest = await client.reader.read()
    assert not rest.endswith(b"0\r\n\r\n")
    assert b"error" not in rest
    assert sim.connections_open == 0
    client.close()


async def test_stopping_does_not_wait_for_a_client_that_reads_nothing() -> None:
    sim = Sim()
    await sim.start()
    client = await Client.to(sim)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    body = STREAM | {"options": {"num_predict": 10**7}}
    client.send("POST", "/api/generate", body)
    await sim.wait_for(lambda s: bool(s.calls) and s.calls[0].tokens > 100)
    await sim.stop()
    assert sim.connections_open == 0
    client.close()


async def test_the_server_comes_back_on_its_port_with_nothing_loaded() -> None:
    async with stand_in(config()) as sim:
        assert (await post(sim, "/api/generate", model="qwen3:4b")).status == 200
        port = sim.port
        await sim.stop()
        with pytest.raises(ConnectionRefusedError):
            await Client.to(sim)
        await sim.start()
        assert sim.port == port
        assert (await ask(sim, "GET", "/api/ps")).json == {"models": []}


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with Sim(config()) as sim, connect(sim) as client:
        client.send("GET", "/api/version")
        client.send("GET", "/")
        assert (await client.answer()).json == {"version": "0.33.0-rc2"}
        assert (await client.answer()).body == b"Ollama is running"


async def test_a_slow_upload_is_not_answered_early() -> None:
    async with Sim(config()) as sim, connect(sim) as client:
        client.writer.write(
            b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n"
        )
        client.writer.write(b'{"model":')
        await sim.wait_for(lambda s: len(s.calls) == 1)
        client.writer.write(b'"qwen3:4b"}')
        assert (await client.answer()).status == 200
        await asyncio.sleep(0)
        assert sim.calls[0].body == b'{"model":"qwen3:4b"}'


async def test_whoever_leaves_in_the_moment_it_came_is_not_kept() -> None:
    """Connected, and gone before the stand-in has run a single step for it."""
    async with Sim(config()) as sim:
        assert sim.port is not None
        for _ in range(20):
            sock = socket.create_connection(("127.0.0.1", sim.port))
            sock.close()
        await sim.wait_for(lambda s: s.counts.connections_accepted == 20)
        await sim.wait_for(lambda s: s.connections_open == 0)
