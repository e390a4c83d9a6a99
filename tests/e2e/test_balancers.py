"""Load balancers before several modelsplits: the shipped files, and the real programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.config.settings import Address
from modelsplit_sim.config import SimConfig
from support.harness import in_front_of, running
from support.raw import in_two_pieces, raw_upstream
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from support.harness import Running

CONTRIB = Path(__file__).parents[2] / "contrib"
HERE = Address("127.0.0.1", 0)
QUICK = SimConfig(tokens=2, num_parallel=8, max_loaded=4)
# Who asks for this waits until he leaves.
ENDLESS = SimConfig(tokens=10_000_000, token_rate=20, num_parallel=8, max_loaded=4)
GENERATE = "/api/generate"


@dataclass
class Balancer:
    """A running load balancer. ``stats``: HAProxy's socket, where it has one."""

    port: int
    stats: Path

    def client(self) -> Client:
        return Client(self.port)

    async def ask(self, **headers: str) -> tuple[int, dict[str, Any]]:
        """One planner's call on a connection of its own: the status, and the answer."""
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client() as client:
            body = {"model": "planner", "prompt": "hi", "stream": False}
            answer = await client.request("POST", GENERATE, body, lines)
            return answer.status, answer.json

    async def servers(self) -> dict[str, dict[str, str]]:
        """What HAProxy says of each server."""
        reader, writer = await asyncio.open_unix_connection(self.stats)
        writer.write(b"show stat\n")
        head, *rows = (await reader.read()).decode().removeprefix("# ").strip().splitlines()
        writer.close()
        names = head.split(",")
        table = [dict(zip(names, row.split(","), strict=False)) for row in rows]
        return {row["svname"]: row for row in table if row["svname"].startswith("gpu")}

    async def until(self, holds: Callable[[dict[str, dict[str, str]]], bool]) -> None:
        """Ask HAProxy until ``holds`` of its servers."""
        while not holds(await self.servers()):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def haproxy(tmp: Path, ups: Sequence[Running]) -> AsyncIterator[Balancer]:
    """The shipped configuration, with other addresses; and with a socket to ask it."""
    rows = [
        f"server gpu{number} 127.0.0.1:{up.port} agent-port {_agent(up)}"
        for number, up in enumerate(ups, 1)
    ]
    stats = tmp / "haproxy.sock"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        text = (CONTRIB / "haproxy.cfg").read_text().replace("127.0.0.1:11430", _fd(listener))
        text = text.replace("global\n", f"global\n    stats socket {stats} level admin\n", 1)
        (tmp / "haproxy.cfg").write_text(_with_servers(text, "server ", rows))
        command = ("haproxy", "-db", "-q", "-f", str(tmp / "haproxy.cfg"))
        async with _child(command, listener):
            balancer = Balancer(listener.getsockname()[1], stats)
            while not stats.exists():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            await balancer.until(lambda servers: all(map(_is_up, servers.values())))
            yield balancer


@contextlib.asynccontextmanager
async def nginx(tmp: Path, ups: Sequence[Running]) -> AsyncIterator[Balancer]:
    """The shipped configuration, with other addresses and places for its files."""
    rows = [f"server 127.0.0.1:{up.port} max_fails=1 fail_timeout=2s;" for up in ups]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        text = (CONTRIB / "nginx.conf").read_text().replace(":11430", f":{port}")
        places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"    {place}_temp_path {tmp}/{place};\n" for place in places)
        text = text.replace("http {\n", f"http {{\n{folders}", 1)
        (tmp / "nginx.conf").write_text(_with_servers(text, "server 192", rows))
        # What was opened for it, as at its own upgrade.
        environ = {"NGINX": f"{listener.fileno()};"}
        settings = f"daemon off; pid {tmp}/pid; error_log {tmp}/error.log;"
        command = ("nginx", "-c", str(tmp / "nginx.conf"), "-e", f"{tmp}/error.log", "-g", settings)
        async with _child(command, listener, environ):
            yield Balancer(port, tmp / "none")


@contextlib.asynccontextmanager
async def _child(
    command: Sequence[str], listener: socket.socket, environ: dict[str, str] | None = None
) -> AsyncIterator[None]:
    child = await asyncio.create_subprocess_exec(
        *command, pass_fds=[listener.fileno()], env={**os.environ, **(environ or {})}
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        await child.wait()


def _fd(listener: socket.socket) -> str:
    return f"fd@{listener.fileno()}"


def _agent(up: Running) -> int:
    assert up.app.agent_address is not None
    return up.app.agent_address.port


def _with_servers(text: str, begins: str, rows: Iterable[str]) -> str:
    """The configuration with these for the servers it names, at the place of the first."""
    pattern = re.compile(rf"^( +){begins}.*\n(?: +{begins}.*\n)*", re.MULTILINE)
    changed, count = pattern.subn(lambda at: "".join(f"{at[1]}{row}\n" for row in rows), text)
    assert count == 1
    return changed


def _is_up(server: dict[str, str]) -> bool:
    return server["status"].startswith("UP") and server["agent_status"].startswith("L7OK")


async def _both(**changes: Any) -> AsyncIterator[tuple[Running, Running]]:
    async with (
        running(QUICK, agent=HERE, **changes) as first,
        running(QUICK, agent=HERE, **changes) as second,
    ):
        yield first, second


two = contextlib.asynccontextmanager(_both)
BALANCERS = [
    pytest.param(haproxy, marks=pytest.mark.tools("haproxy")),
    pytest.param(nginx, marks=pytest.mark.tools("nginx")),
]
both_programs = pytest.mark.parametrize("balancer", BALANCERS)


@both_programs
async def test_a_piece_of_a_stream_goes_on_before_the_next_is_made(
    balancer: Any, tmp_path: Path
) -> None:
    read = asyncio.Event()
    async with (
        raw_upstream(in_two_pieces(read)) as upstream,
        in_front_of(upstream.port, agent=HERE) as up,
        balancer(tmp_path, [up]) as front,
        front.client() as client,
    ):
        body = {"model": "planner", "prompt": "hi", "stream": True}
        await client.ask("POST", GENERATE, body)
        answer = await client.head()
        pieces = client.pieces(answer)
        assert b'"a"' in await anext(pieces)
        read.set()
        assert b'"b"' in b"".join([piece async for piece in pieces])
        assert answer.status == 200


@both_programs
async def test_the_calls_of_a_job_meet_the_same_server(balancer: Any, tmp_path: Path) -> None:
    async with two() as ups, balancer(tmp_path, ups) as front:
        for number in range(4):
            for _ in range(5):
                assert (await front.ask(X_LLM_Job_Id=f"job-{number}"))[0] == 200
        served = [{record.job_id for record in up.calls.records} for up in ups]
        assert not served[0] & served[1]
        assert served[0] | served[1] == {f"job-{number}" for number in range(4)}
        assert sum(len(up.asked) for up in ups) == 20


@both_programs
async def test_a_server_that_has_ended_loses_no_call(balancer: Any, tmp_path: Path) -> None:
    async with two() as ups, balancer(tmp_path, ups) as front:
        while not all(up.asked for up in ups):
            await front.ask()
        await ups[0].app.stop()
        before = len(ups[1].asked)
        assert [(await front.ask())[0] for _ in range(8)] == [200] * 8
        assert len(ups[1].asked) == before + 8


@both_programs
async def test_whose_call_it_is_comes_through(balancer: Any, tmp_path: Path) -> None:
    trusted = (ip_network("127.0.0.1"),)
    async with two(trust_proxies=trusted) as ups, balancer(tmp_path, ups) as front:
        async with Client(front.port, "127.0.0.9") as client:
            body = {"model": "planner", "prompt": "hi", "stream": False}
            lies = {"X-Forwarded-For": "10.1.1.1"}
            assert (await client.request("POST", GENERATE, body, lies)).status == 200
        [record] = [record for up in ups for record in up.calls.records]
        assert record.client == "127.0.0.9"


@both_programs
async def test_a_circle_is_seen_through_it(balancer: Any, tmp_path: Path) -> None:
    async with two() as ups, balancer(tmp_path, ups) as front:
        status, body = await front.ask(Via="1.1 modelsplit")
        assert (status, body["error_code"]) == (508, "E_LOOP")


@pytest.mark.tools("haproxy")
async def test_weights_are_the_room_that_is_left(tmp_path: Path) -> None:
    async with (
        running(ENDLESS, agent=HERE) as busy,
        running(QUICK, agent=HERE) as idle,
        haproxy(tmp_path, [busy, idle]) as front,
        contextlib.AsyncExitStack() as stack,
    ):
        await front.until(lambda servers: servers["gpu1"]["weight"] == "100")
        for source in range(3):
            client = await stack.enter_async_context(busy.client(f"127.0.0.{source + 2}"))
            await client.ask("POST", GENERATE, {"model": "executor", "prompt": "hi"})
            await client.head()
        # Three of six seats.
        await front.until(lambda servers: servers["gpu1"]["weight"] == "50")
        assert (await front.servers())["gpu2"]["weight"] == "100"


@pytest.mark.tools("haproxy")
async def test_a_server_without_its_ollama_or_about_to_end_is_asked_nothing(
    tmp_path: Path,
) -> None:
    async with two() as ups, haproxy(tmp_path, ups) as front:
        await ups[0].sim.stop()
        await ups[0].app.probe.ask()
        await front.until(lambda servers: servers["gpu1"]["status"].startswith("DOWN"))
        assert [(await front.ask())[0] for _ in range(4)] == [200] * 4
        await ups[0].sim.start()
        await ups[0].app.probe.ask()
        await front.until(lambda servers: _is_up(servers["gpu1"]))
        ups[0].app.lifecycle.draining = True
        await front.until(lambda servers: servers["gpu1"]["status"].startswith("DRAIN"))
        assert [(await front.ask())[0] for _ in range(4)] == [200] * 4
        assert (len(ups[0].asked), len(ups[1].asked)) == (0, 8)
