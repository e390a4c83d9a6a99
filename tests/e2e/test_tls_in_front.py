"""A web server that does TLS in front: the shipped files, and the real programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.harness import in_front_of
from support.ports import kept_port
from support.raw import in_two_pieces, raw_upstream
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from support.harness import Running

CONTRIB = Path(__file__).parents[2] / "contrib"
NAME = "gpu.example"
# Another address of this machine, so that a client is told from the server that stands in front.
CLIENT = "127.0.0.2"


class TlsClient(Client):
    """A client that trusts one certificate."""

    def __init__(self, port: int, certificate: Path) -> None:
        super().__init__(port, CLIENT)
        self._tls_port = port
        self._context = ssl.create_default_context(cafile=str(certificate))

    async def open(self) -> None:
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(
                "127.0.0.1",
                self._tls_port,
                ssl=self._context,
                server_hostname=NAME,
                local_addr=(CLIENT, 0),
            )


def issue(folder: Path) -> tuple[Path, Path]:
    """A certificate for the name, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def caddys(folder: Path, port: int, upstream: int, pem: tuple[Path, Path]) -> Sequence[str]:
    """The shipped file with other addresses, and what starts Caddy with it."""
    text = (
        (CONTRIB / "caddy.Caddyfile")
        .read_text()
        .replace("127.0.0.1:11435", f"127.0.0.1:{upstream}")
    )
    site = f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {pem[0]} {pem[1]}"
    text = text.replace(f"{NAME} {{", site)
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"
    (folder / "Caddyfile").write_text(options + text)
    return ("caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile"))


def nginxs(folder: Path, port: int, upstream: int, pem: tuple[Path, Path]) -> Sequence[str]:
    """The shipped file with other addresses, and what starts nginx with it."""
    text = (
        (CONTRIB / "nginx-tls.conf").read_text().replace("127.0.0.1:11435", f"127.0.0.1:{upstream}")
    )
    text = text.replace("listen 443", f"listen 127.0.0.1:{port}")
    for name, path in zip(("fullchain", "privkey"), pem, strict=True):
        text = text.replace(f"/etc/letsencrypt/live/{NAME}/{name}.pem", str(path))
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{place}_temp_path {folder}/{place};\n" for place in places)
    whole = f"events {{}}\nhttp {{\naccess_log off;\n{folders}{text}}}\n"
    (folder / "nginx.conf").write_text(whole)
    settings = f"daemon off; pid {folder}/pid; error_log {folder}/error.log;"
    log = f"{folder}/error.log"
    return ("nginx", "-c", str(folder / "nginx.conf"), "-e", log, "-g", settings)


@contextlib.asynccontextmanager
async def front(make: Any, folder: Path, up: Running) -> AsyncIterator[TlsClient]:
    """A connection through the web server."""
    pem = issue(folder)
    with kept_port() as port:
        command = make(folder, port, up.port, pem)
        environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        child = await asyncio.create_subprocess_exec(
            *command, env=environ, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            client = TlsClient(port, pem[0])
            await _connected(client, child)
            async with client:
                yield client
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            await child.wait()


async def _connected(client: Client, child: asyncio.subprocess.Process) -> None:
    """Knock until it listens; it tells nobody when."""
    while child.returncode is None:
        with contextlib.suppress(ConnectionRefusedError):
            await client.open()
            return
        await asyncio.sleep(0)
    raise AssertionError(f"it has ended with {child.returncode}")


BOTH = [
    pytest.param(caddys, marks=pytest.mark.tools("caddy"), id="caddy"),
    pytest.param(nginxs, marks=pytest.mark.tools("nginx"), id="nginx"),
]


@pytest.mark.tools("openssl")
@pytest.mark.parametrize("make", BOTH)
async def test_a_stream_passes_piece_by_piece_with_its_headers_and_its_client(
    make: Any, tmp_path: Path
) -> None:
    read = asyncio.Event()
    async with (
        raw_upstream(in_two_pieces(read)) as upstream,
        in_front_of(
            upstream.port, allow_hosts=(NAME,), trust_proxies=(ip_network("127.0.0.1"),)
        ) as up,
        front(make, tmp_path, up) as client,
    ):
        sent = {"Host": NAME, "X-LLM-Role": "PLANNER", "Authorization": "Bearer key-of-a-client"}
        # What the client claims itself is not believed.
        sent |= {"X-Forwarded-For": "192.0.2.7"}
        body = {"model": "qwen3:4b", "prompt": "hi", "stream": True}
        await client.ask("POST", "/api/generate", body, sent)
        answer = await client.head()
        pieces = client.pieces(answer)
        assert b'"a"' in await anext(pieces)
        read.set()
        assert b'"b"' in b"".join([piece async for piece in pieces])
        [record] = await up.calls.wait()
    assert (answer.status, answer["X-LLM-Role"], answer["X-LLM-Model"]) == (
        *(200, "PLANNER", "qwen3:4b"),
    )
    assert record.client == CLIENT
    assert b"authorization: bearer key-of-a-client" in upstream.heads[0].lower()
