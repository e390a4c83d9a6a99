"""What commands ask of a running proxy, and what they say if there is none."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from modelsplit_proxy.cli import admin_client
from modelsplit_proxy.cli.main import run
from modelsplit_proxy.config.settings import Address
from support.harness import running
from support.ports import kept_port


async def test_an_object_comes_with_its_status() -> None:
    async with running() as up:
        admin = Address("127.0.0.1", up.admin_port)
        status, told = await asyncio.to_thread(admin_client.get, admin, "/route?model=planner")
        refused, error = await asyncio.to_thread(admin_client.get, admin, "/route?role=BOSS")
    assert (status, told["llm_role"]) == (200, "PLANNER")
    assert (refused, error["error_code"]) == (400, "E_BAD_REQUEST")


def test_where_nothing_listens_it_says_what_to_start() -> None:
    with kept_port() as port:
        what = f"127.0.0.1:{port}: .*modelsplit serve"
        with pytest.raises(admin_client.NotRunningError, match=what):
            admin_client.get(Address("127.0.0.1", port), "/stats")


def test_one_that_listens_and_says_nothing_is_told_from_one_that_is_not_there() -> None:
    """As a process that is stopped: the kernel takes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        admin = Address(*listener.getsockname())
        with pytest.raises(admin_client.NotRunningError) as told:
            admin_client.get(admin, "/stats", timeout_s=0.01)
    assert str(told.value) == (
        f"whoever listens at http://{admin} does not answer: it hangs, or is stopped; "
        "try systemctl restart modelsplit"
    )


async def test_a_stranger_on_the_port_is_not_taken_for_ours() -> None:
    async with running() as up:
        stranger = Address("127.0.0.1", up.sim.port)
        with pytest.raises(
            admin_client.NotRunningError, match=r"/x answered 404, .* the admin port"
        ):
            await asyncio.to_thread(admin_client.get, stranger, "/x?y=1")


ANOTHER_VERSION = {
    "/stats": {"roles": {}, "health": {"level": "OK"}},
    "/jobs": [{"job_id": "a"}],
    "/jobs/a": {"job_id": "a"},
    "/requests": [{"request_id": "b"}],
    "/requests/b": {"request_id": "b"},
    "/slo": {"verdict": "pass", "gates": [{"gate": 1}]},
}


class _Another(BaseHTTPRequestHandler):
    """A proxy of another version: its objects have other fields."""

    def do_GET(self) -> None:
        raw = json.dumps(ANOTHER_VERSION[self.path.partition("?")[0]]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def another() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Another) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.mark.parametrize(
    "command",
    [["status"], ["jobs"], ["jobs", "a"], ["requests"], ["requests", "b"], ["slo"]],
    ids=" ".join,
)
def test_a_proxy_of_another_version_is_told_so(
    another: str, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert run([*command, "--admin", another], {}) == 3
    out, err = capsys.readouterr()
    assert (out, "is of another version than this command" in err) == ("", True)
    assert run([*command, "--admin", another, "--json"], {}) == 0
    assert json.loads(capsys.readouterr().out) is not None
