"""The whole process's wiring: it starts in order, and ends without leaving anything behind."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy import app as app_module
from modelsplit_proxy.app import App, PortBusyError, address_of, bind
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.storage.state_lock import StateBusyError
from modelsplit_sim.config import SimConfig
from support.calls import call
from support.harness import policy, running, settings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"


def app(state: Path, **changes: object) -> App:
    return App(settings(9, state, **changes), policy(), sink=len, json_log=True)


async def test_it_starts_without_an_upstream(tmp_path: Path) -> None:
    lonely = app(tmp_path)
    await lonely.start()
    assert lonely.address is not None
    assert lonely.admin_address is not None
    assert lonely.address.port != lonely.admin_address.port
    assert lonely.probe.up is False
    await lonely.stop()


@pytest.mark.parametrize("which", ["listen", "admin"])
async def test_a_busy_port_is_named(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        blocked = app(tmp_path, **{which: address})
        with pytest.raises(PortBusyError, match=f"cannot listen on {address}: another program"):
            await blocked.start()
        await blocked.stop()


async def test_a_state_has_one_process_at_a_time(tmp_path: Path) -> None:
    first = app(tmp_path)
    with pytest.raises(StateBusyError, match="already serves from"):
        app(tmp_path)
    await first.stop()
    await app(tmp_path).stop()


def test_an_address_of_another_machine() -> None:
    with pytest.raises(PortBusyError, match=r"cannot listen on 192\.0\.2\.1:0"):
        bind(Address("192.0.2.1", 0))


def test_a_socket_knows_its_address() -> None:
    with bind(Address("127.0.0.1", 0)) as sock:
        assert address_of(sock) == Address("127.0.0.1", sock.getsockname()[1])


async def test_it_uses_a_socket_it_is_given(tmp_path: Path) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    port = given.getsockname()[1]
    activated = app(tmp_path)
    await activated.start([given])
    assert activated.address == Address("127.0.0.1", port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 502 ")
    writer.close()
    await writer.wait_closed()
    await activated.stop()


async def test_a_drain_ends_with_the_last_answer() -> None:
    sim = SimConfig(tokens=20, token_rate=200)
    async with running(sim, drain_s=60.0) as up, up.client() as client:
        await client.ask("POST", ROUTE, call(ROUTE, "planner", stream=True))
        answer = await client.head()
        stopping = asyncio.create_task(up.app.stop())
        body = b"".join([piece async for piece in client.pieces(answer)])
        assert b'"done":true' in body
        assert answer.whole
        await stopping


async def test_who_connected_a_moment_before_the_end_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app_module, "_HEAR_OUT_S", 600.0)
    async with running() as up:
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        await up.until(lambda: [one.silent for one in up.app._edge.connections] == [True])
        stopping = asyncio.create_task(up.app.stop())
        await asyncio.sleep(0)
        writer.write(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        # It has asked, so there is no reason to wait any more.
        await stopping
        assert (await reader.read()).endswith(b"}")
        writer.close()


async def test_who_says_nothing_does_not_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "_HEAR_OUT_S", 0.05)
    async with running() as up:
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        await up.until(lambda: len(up.app._edge.connections) == 1)
        await up.app.stop()
        assert await reader.read() == b""
        writer.close()


async def test_while_draining_new_calls_are_turned_away() -> None:
    sim = SimConfig(tokens=10**6, token_rate=200)
    async with running(sim, drain_s=60.0) as up, up.client() as one, up.client() as two:
        assert (await two.request("GET", "/api/version")).status == 200
        await one.ask("POST", ROUTE, call(ROUTE, "planner", stream=True))
        await one.head()
        up.app.lifecycle.draining = True
        answer = await two.request("POST", ROUTE, call(ROUTE, "planner"))
        assert (answer.status, answer.phrase) == (503, "Draining")
        assert answer.json["reason"] == "draining"
        assert answer["Connection"] == "close"
        assert 1 <= int(answer["Retry-After"]) <= 30
        one.reset()
        await up.sim.wait_for(lambda sim: sim.active == 0)


async def test_a_cut_ends_the_drain_and_is_seen() -> None:
    sim = SimConfig(tokens=10**6, token_rate=200)
    async with running(sim, drain_s=60.0) as up, up.client() as client:
        await client.ask("POST", ROUTE, call(ROUTE, "planner", stream=True))
        answer = await client.head()
        cut = asyncio.Event()
        cut.set()
        await up.app.stop(cut)
        rest = b"".join([piece async for piece in client.pieces(answer)])
        assert b'"reason":"draining"' in rest.splitlines()[-1]
        await up.sim.wait_for(lambda sim: sim.active == 0)


async def test_those_in_line_when_the_drain_is_over_are_told() -> None:
    sim = SimConfig(tokens=10**6, token_rate=200)
    async with running(sim, drain_s=0.05) as up, up.client() as one, up.client() as two:
        await one.ask("POST", ROUTE, call(ROUTE, "heavy", stream=True))
        await one.head()
        await two.ask("POST", ROUTE, call(ROUTE, "heavy"))
        await up.until(lambda: up.seats() == (1, 1))
        stopping = asyncio.create_task(up.app.stop())
        answer = await two.answer()
        assert (answer.status, answer.phrase) == (503, "Draining")
        await stopping
        assert len(up.asked) == 1


async def test_stopping_twice_is_harmless() -> None:
    async with running() as up:
        await up.app.stop()
