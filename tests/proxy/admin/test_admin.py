"""The admin routes: each one's shape, and who may read them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from modelsplit_sim.config import SimConfig
from support.calls import BODIES
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.harness import Running

pytestmark = pytest.mark.flowing_time

TARGETS = ("/healthz", "/readyz", "/metrics", "/stats", "/policy", "/route", "/requests")


@pytest.fixture
async def up() -> AsyncIterator[Running]:
    async with running(SimConfig(tokens=2)) as up:
        yield up


@pytest.mark.parametrize("target", TARGETS)
async def test_a_page_is_fresh_and_is_what_it_says(up: Running, target: str) -> None:
    async with up.admin() as admin:
        answer = await admin.request("GET", target)
        assert answer.status == 200
        assert answer["Cache-Control"] == "no-store"
        assert answer["X-Content-Type-Options"] == "nosniff"
        if target != "/metrics":
            assert answer["Content-Type"] == "application/json"
            assert answer.body.endswith(b"\n")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}], ids=["host", "origin"]
)
async def test_nobody_else_may_read(up: Running, target: str, headers: dict[str, str]) -> None:
    async with up.admin() as admin:
        answer = await admin.request("GET", target, None, headers)
        assert answer.status == 403
        assert "not allowed here" in answer.json["error"]
        for host in ("localhost", "127.0.0.1:9", "[::1]:80"):
            assert (await admin.request("GET", target, None, {"Host": host})).status == 200


@pytest.mark.parametrize(
    ("status", "wire"),
    [
        (400, b"\0\r\n\r\n"),
        (400, b"GET /healthz\r\n\r\n"),
        (400, b"GET /requests?since=never HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (403, b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        (404, b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (404, b"GET /requests/none HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (404, b"GET /requests/a/b HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (405, b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"),
        (405, b"TRACE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (414, b"GET /" + b"a" * 70_000),
        (417, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: x\r\n\r\n"),
        (431, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000),
        (505, b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n"),
    ],
)
async def test_every_refusal_is_json_and_says_nothing_of_what_runs_here(
    up: Running, status: int, wire: bytes
) -> None:
    async with up.admin() as admin:
        await admin.send(wire)
        answer = await admin.answer()
        assert answer.status == status
        assert answer.phrase
        assert answer["Content-Type"] == "application/json"
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Cache-Control"] == "no-store"
        assert answer.get("Server") is None
        assert answer.json["error"]
        assert answer.json["error_code"] in {"E_BAD_REQUEST", "E_FORBIDDEN"}
        assert (answer.get("Allow") == "GET, HEAD") is (status == 405)


async def test_a_page_whose_code_was_replaced_under_the_process_says_so(
    up: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade, and no restart yet: the module of the page is loaded by its first reader."""
    monkeypatch.setitem(sys.modules, "modelsplit_proxy.admin.stats", None)
    async with up.admin() as admin:
        answer = await admin.request("GET", "/stats")
        assert (answer.status, answer.json["error_code"]) == (503, "E_INTERNAL")
        assert "have changed since it was started" in answer.json["error"]
        assert (await admin.request("GET", "/healthz")).status == 200


async def test_a_bug_of_a_page_is_an_answer_and_its_traceback_is_in_our_log(
    up: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_self: object, _asked: object) -> object:
        raise RuntimeError("secret")

    monkeypatch.setattr("modelsplit_proxy.admin.policy.PolicyRoutes._policy", broken)
    async with up.admin() as admin:
        answer = await admin.request("GET", "/policy")
        assert (answer.status, answer.json["error_code"]) == (500, "E_INTERNAL")
        assert "secret" not in answer.json["error"]
        assert (await admin.request("GET", "/healthz")).status == 200
    assert "the admin port's GET /policy failed" in caplog.text


async def test_a_head_is_asked_as_a_get(up: Running) -> None:
    async with up.admin() as admin:
        answer = await admin.request("HEAD", "/healthz")
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer["Content-Length"]) > 0
        assert answer.get("Server") is None
        assert (await admin.request("GET", "/healthz")).status == 200


async def test_a_head_that_drips_is_cut_here_too() -> None:
    async with running(client_header_timeout_s=0.2) as up, up.admin() as admin:
        await admin.send(b"GET /healthz HTT")
        assert await admin.at_eof()


async def test_a_host_may_be_added() -> None:
    async with running(allow_hosts=("box.lan",)) as up, up.admin() as admin:
        assert (await admin.request("GET", "/healthz", None, {"Host": "box.lan"})).status == 200


async def test_no_route_of_ollamas(up: Running) -> None:
    async with up.admin() as admin:
        for target in ("/api/tags", "/api/version", "/v1/models"):
            assert (await admin.request("GET", target)).status == 404
        for target in BODIES:
            answer = await admin.request("POST", target, {"model": "planner"})
            assert answer.status in {404, 405}
    assert up.asked == []


async def test_the_proxy_port_has_no_admin_route(up: Running) -> None:
    async with up.client() as client:
        for target in TARGETS:
            answer = await client.request("GET", target)
            # Ollama's own answer to a path it does not know.
            assert (answer.status, answer.body) == (404, b"404 page not found")


async def test_the_admin_port_only_reads(up: Running) -> None:
    async with up.admin() as admin:
        for target in TARGETS:
            assert (await admin.request("POST", target, b"{}")).status == 405
