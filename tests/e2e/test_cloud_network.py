"""The way to a cloud: proxies, redirections, connections that end."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import ssl
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trustme

from modelsplit_proxy.limits import egress_store
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.cloud import KEY, Cloud, Script
from support.clouds import approve, cloud_policy, with_a_cloud
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.flowing_time

NATIVE = "/api/chat"
OLLAMAS = "glm-4.6:cloud"
CALL = {"model": "cloud", "stream": False, "messages": [{"role": "user", "content": "hi"}]}


class Tunnels:
    """An HTTP proxy that makes tunnels, or refuses them with ``status``."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.asked: list[bytes] = []

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._tunnel, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        writer.write(b"HTTP/1.1 %d x\r\n\r\n" % self.status)
        if self.status == 200:
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    sink.close()


@contextlib.asynccontextmanager
async def behind_tls(folder: Path) -> AsyncIterator[tuple[Cloud, dict[str, object]]]:
    """A cloud over https at localhost, and the row of a provider that trusts it."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    async with Cloud(tls=tls) as cloud:
        yield cloud, {"ca_file": str(folder / "ca.pem")}


@pytest.mark.parametrize("asked_for", [False, True])
async def test_a_proxy_of_the_environment_is_used_where_the_policy_asks_for_it(
    tmp_path: Path, asked_for: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunnels = Tunnels()
    async with tunnels.serve() as proxy, behind_tls(tmp_path) as (cloud, trust):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        url = cloud.url.replace("127.0.0.1", "localhost")
        policy = cloud_policy(url, provider={**trust, "use_proxy": asked_for})
        environ = {"ANTHROPIC_API_KEY": KEY}
        async with running(overlay=policy, state=tmp_path / "s", environ=environ) as up:
            approve(tmp_path / "s")
            async with up.client() as client:
                answer = await client.request("POST", NATIVE, CALL)
        assert answer.status == 200
        assert len(tunnels.asked) == asked_for
        if asked_for:
            assert tunnels.asked[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % cloud.port)
            # What it carries is not for it to read.
            assert KEY.encode() not in tunnels.asked[0]


async def test_a_proxy_that_refuses_is_told_from_the_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunnels = Tunnels(407)
    async with tunnels.serve() as proxy, behind_tls(tmp_path) as (cloud, trust):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        url = cloud.url.replace("127.0.0.1", "localhost")
        policy = cloud_policy(url, provider={**trust, "use_proxy": True})
        environ = {"ANTHROPIC_API_KEY": KEY}
        async with running(overlay=policy, state=tmp_path / "s", environ=environ) as up:
            approve(tmp_path / "s")
            async with up.client() as client:
                answer = await client.request("POST", NATIVE, CALL)
        assert (answer.status, answer["X-LLM-Error-Code"]) == (502, "E_UNREACHABLE_CLOUD")
        assert "the proxy on the way refused" in answer.json["error"]
        assert cloud.calls == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirection_is_not_followed(tmp_path: Path, status: int) -> None:
    """The key would go with it."""
    async with (
        Cloud() as other,
        with_a_cloud(tmp_path) as (up, cloud),
        up.client() as client,
    ):
        location = (("location", f"{other.url}/v1/messages"),)
        cloud.scripts.append(Script(status=status, headers=location))
        answer = await client.request("POST", NATIVE, CALL)
        assert (answer.status, answer["X-LLM-Error-Code"]) == (502, "E_UPSTREAM_CLOUD")
        assert (len(cloud.calls), other.calls) == (1, [])


async def test_nothing_is_tried_twice(tmp_path: Path) -> None:
    """Not even where the connection ends without a byte of an answer."""
    connections = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        environ = {"ANTHROPIC_API_KEY": KEY}
        async with running(overlay=cloud_policy(url), state=tmp_path, environ=environ) as up:
            approve(tmp_path)
            async with up.client() as client:
                answer = await client.request("POST", NATIVE, CALL)
            assert (answer.status, answer.json["reason"]) == (502, "reset")
            # It may have been computed: nobody knows, so it stays charged.
            assert up.app.budget_keeper.standing()[1].calls == 1
        assert connections == 1


@pytest.mark.parametrize("model", ["cloud", OLLAMAS])
async def test_what_nobody_took_is_written_down_as_not_sent(tmp_path: Path, model: str) -> None:
    overlay = {"models": {OLLAMAS: {"price": {"input": 0.0, "output": 0.0}}}}
    async with with_a_cloud(tmp_path, overlay=overlay) as (up, cloud), up.client() as client:
        await cloud.stop()
        await up.sim.stop()
        body = CALL | {"model": model}
        answer = await client.request("POST", NATIVE, body, {"X-LLM-Role": "CLOUD"})
        assert answer.json["error_code"] == "E_UNREACHABLE_CLOUD"
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        [left] = egress_store.read(db)
    assert (left.status, left.usd) == (egress_store.NOT_SENT, 0.0)


async def test_a_connection_that_the_provider_closed_is_not_used_again(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud), up.client() as client:
        port = cloud.port
        assert (await client.request("POST", NATIVE, CALL)).status == 200
        await cloud.stop()
        await cloud.start(port)
        assert (await client.request("POST", NATIVE, CALL)).status == 200
        assert len({call.connection for call in cloud.calls}) == 2
