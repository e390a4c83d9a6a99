"""The admin routes: each one's shape, and who may read them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_proxy.cli import status
from modelsplit_proxy.records import reader
from modelsplit_proxy.storage.state_file import FILE_NAME, StoreError
from modelsplit_sim.config import SimConfig
from support.calls import BODIES
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.harness import Running

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


async def test_health_is_the_processs_and_readiness_the_services(up: Running) -> None:
    async with up.admin() as admin:
        health = await admin.request("GET", "/healthz")
        assert health.json["status"] == "ok"
        assert health.json["upstream"]["up"] is True
        assert health.json["upstream"]["version"] == up.sim.config.version
        assert (await admin.request("GET", "/readyz")).json["ready"] is True
        await up.sim.stop()
        await up.app.probe.ask()
        health = await admin.request("GET", "/healthz")
        assert (health.status, health.json["upstream"]["up"]) == (200, False)
        ready = await admin.request("GET", "/readyz")
        assert (ready.status, ready.json["ready"]) == (503, False)
        await up.sim.start()
        await up.app.probe.ask()
        assert (await admin.request("GET", "/readyz")).status == 200
        up.app.lifecycle.draining = True
        ready = await admin.request("GET", "/readyz")
        assert (ready.status, ready.json["draining"]) == (503, True)


async def test_the_policy_in_force(up: Running) -> None:
    async with up.admin() as admin:
        shown = (await admin.request("GET", "/policy")).json
        assert shown["policy"]["roles"]["PLANNER"]["primary"] == "qwen3:4b"
        assert shown["policy"]["global"]["max_concurrent"] == 6
        assert (shown["source"], len(shown["digest"])) == ("test", 64)


async def test_a_dry_run(up: Running) -> None:
    async with up.admin() as admin:
        shown = (await admin.request("GET", "/route?model=planner")).json
        assert (shown["llm_role"], shown["route_reason"]) == ("PLANNER", "alias")
        assert shown["candidates"] == [
            {"model": "qwen3:4b", "timeout_s": 15.0},
            {"model": "qwen3:8b", "timeout_s": 30.0},
        ]
        shown = (await admin.request("GET", "/route?model=x&role=executor")).json
        assert [c["model"] for c in shown["candidates"]] == ["x", "gemma3:12b"]
        assert shown["needs_approval"] is False
        # Nothing is approved, and nobody is asked whether it is.
        shown = (await admin.request("GET", "/route?model=cloud")).json
        assert (shown["llm_provider"], shown["needs_approval"]) == ("CLOUD", True)
        refused = await admin.request("GET", "/route?model=x&role=boss")
        assert (refused.status, refused.json["error_code"]) == (400, "E_BAD_REQUEST")
    assert up.asked == []


@pytest.mark.parametrize(
    ("query", "count"), [("", 3), ("?limit=2", 2), ("?limit=0", 0), ("?limit=999999999999", 3)]
)
async def test_the_latest_calls(up: Running, query: str, count: int) -> None:
    async with up.client() as client, up.admin() as admin:
        ids = ["a", "b", "c"]
        for request_id in ids:
            body = {"model": "planner", "prompt": "x", "stream": False}
            await client.request("POST", "/api/generate", body, {"X-Request-Id": request_id})
        found = (await admin.request("GET", f"/requests{query}")).json
        assert [record["request_id"] for record in found] == ids[::-1][:count]


@pytest.mark.parametrize("limit", ["x", "-1", "1.5", "%F0%9F%98%80"])
async def test_a_limit_that_is_no_number(up: Running, limit: str) -> None:
    async with up.admin() as admin:
        answer = await admin.request("GET", f"/requests?limit={limit}")
        assert answer.status == 400
        assert "is not a number" in answer.json["error"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("role=planner", ["c", "a"]),
        ("role=PLANNER&limit=1", ["c"]),
        ("model=qwen3:8b", ["b"]),
        ("failed=1", []),
        ("since=1h&job=j-1", ["b"]),
        ("until=1h", []),
    ],
)
async def test_calls_that_are_like_this(up: Running, query: str, found: list[str]) -> None:
    async with up.client() as client, up.admin() as admin:
        for request_id, model in (("a", "planner"), ("b", "executor"), ("c", "planner")):
            sent = {"X-Request-Id": request_id}
            if request_id == "b":
                sent["X-LLM-Job-Id"] = "j-1"
            body = {"model": model, "prompt": "x", "stream": False}
            await client.request("POST", "/api/generate", body, sent)
        calls = (await admin.request("GET", f"/requests?{query}")).json
        assert [call["request_id"] for call in calls] == found


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("role=boss", "the roles are PLANNER"),
        ("since=soon", "is neither a time ago"),
        ("rol=PLANNER", '"rol" is unknown here; use role, '),
    ],
)
async def test_words_that_cannot_be_read(up: Running, query: str, error: str) -> None:
    async with up.admin() as admin:
        answer = await admin.request("GET", f"/requests?{query}")
        assert answer.status == 400
        assert error in answer.json["error"]


async def test_one_call_in_words(up: Running) -> None:
    async with up.client() as client, up.admin() as admin:
        body = {"model": "planner", "prompt": "x", "stream": False}
        await client.request("POST", "/api/generate", body, {"X-Request-Id": "call-1"})
        wanted = await admin.request("GET", "/requests/call-1?format=text")
        assert wanted["Content-Type"] == "text/plain; charset=utf-8"
        assert wanted.body.startswith(b"request    call-1 from 127.0.0.1\n")
        assert b"got a seat at once; limits then: role 1/2, local 1/6, model 1/-" in wanted.body
        accepts = await admin.request("GET", "/requests/call-1", None, {"Accept": "text/plain"})
        assert accepts.body == wanted.body
        plain = await admin.request("GET", "/requests/call", None, {"Accept": "*/*"})
        assert plain.json["request_id"] == "call-1"
        refused = await admin.request("GET", "/requests/call-1?format=xml")
        assert (refused.status, "use text or json" in refused.json["error"]) == (400, True)


async def test_a_running_call_is_told_as_far_as_it_is() -> None:
    async with running(SimConfig(token_rate=2, num_parallel=2)) as up, up.admin() as admin:
        clients = [up.client() for _ in range(3)]
        for number, client in enumerate(clients):
            sent = {"X-Request-Id": f"call-{number}"}
            await client.ask("POST", "/api/generate", {"model": "planner", "prompt": "x"}, sent)
        await up.until(lambda: up.seats() == (2, 1))
        waits = (await admin.request("GET", "/requests/call-2")).json
        assert (waits["outcome"], waits["state"]) == ("running", "queued")
        [attempt] = waits["attempts"]
        assert attempt["crowd"]["hold"] == "role_cap"
        assert attempt["crowd"]["running"] == {"PLANNER": 2}
        text = (await admin.request("GET", "/requests/call-2?format=text")).body.decode()
        assert "still running (queued) after" in text
        for client in clients:
            await client.close()
        await up.until(lambda: up.seats() == (0, 0))
        gone = (await admin.request("GET", "/requests/call-2")).json
        assert (gone["outcome"], gone["no_fallback"]) == ("client_gone", "client_gone")
        assert [attempt["outcome"] for attempt in gone["attempts"]] == ["client_gone"]


async def test_a_list_as_lines_and_as_a_trace(up: Running) -> None:
    async with up.client() as client, up.admin() as admin:
        for request_id in ("a", "b"):
            body = {"model": "planner", "prompt": "x", "stream": False}
            await client.request("POST", "/api/generate", body, {"X-Request-Id": request_id})
        lines = await admin.request("GET", "/requests?format=text")
        assert [line.split()[-1] for line in lines.body.decode().splitlines()] == ["a", "b"]
        trace = await admin.request("GET", "/requests?format=trace&limit=1")
        assert trace["Content-Type"] == "application/x-ndjson"
        assert trace["Cache-Control"] == "no-store"
        calls = [orjson.loads(line) for line in trace.body.splitlines()]
        assert [call["request_id"] for call in calls] == ["a", "b"]
        refused = await admin.request("GET", "/requests?format=csv")
        assert (refused.status, "use text, trace or json" in refused.json["error"]) == (400, True)


async def test_a_trace_that_breaks_off_is_not_taken_for_the_whole(
    up: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reader, "_PAGE", 1)
    async with up.client() as client, up.admin() as admin:
        for request_id in ("a", "b"):
            body = {"model": "planner", "prompt": "x", "stream": False}
            await client.request("POST", "/api/generate", body, {"X-Request-Id": request_id})
        reads = iter(range(2))  # one page and its attempts
        read = up.app.store.read

        def read_twice(query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
            if next(reads, None) is None:
                raise StoreError("the disk is gone")
            return read(query, values)

        monkeypatch.setattr(up.app.store, "read", read_twice)
        answer = await admin.request("GET", "/requests?format=trace")
        assert (answer.status, answer.whole) == (200, False)
    assert "a trace broke off: the disk is gone" in caplog.text


async def test_an_id_that_several_calls_begin_with(up: Running) -> None:
    async with up.client() as client, up.admin() as admin:
        for request_id in ("call-1", "call-2"):
            body = {"model": "planner", "prompt": "x", "stream": False}
            await client.request("POST", "/api/generate", body, {"X-Request-Id": request_id})
        answer = await admin.request("GET", "/requests/call")
        assert answer.status == 400
        assert answer.json["error"] == 'several calls begin with "call": call-1, call-2 …'


async def test_a_state_file_that_cannot_be_read_is_a_503_that_says_so(up: Running) -> None:
    (up.app.store.path.parent / FILE_NAME).unlink()
    async with up.admin() as admin:
        for target in ("/requests", "/requests/x"):
            answer = await admin.request("GET", target)
            assert answer.status == 503
            assert "cannot be read: unable to open database file" in answer.json["error"]


async def test_a_call_nobody_made(up: Running) -> None:
    async with up.admin() as admin:
        answer = await admin.request("GET", "/requests/nobody")
        assert answer.status == 404
        assert '"nobody"' in answer.json["error"]
        assert (await admin.request("GET", "/nowhere")).status == 404


async def test_a_background_task_that_fails_is_started_again_and_told() -> None:
    async with running() as up, up.admin() as admin:
        up.app._tasks._watchers["health"].failed("KeyError: 'x'", asyncio.get_running_loop().time())
        stats = (await admin.request("GET", "/stats")).json
        watchers = {watcher["name"]: watcher for watcher in stats["watchers"]}
        assert {"probe", "residency", "learned", "retention", "budgets"} <= watchers.keys()
        assert watchers["health"] == {
            "name": "health",
            "running": False,
            "failures": 1,
            "error": "KeyError: 'x'",
            "well": False,
        }
        health = (await admin.request("GET", "/healthz")).json
        assert health["status"] == "degraded"
        assert "health, 1 times, last: KeyError: 'x'" in health["error"]
        shown = "\n".join(status.lines(stats))
        assert "task     health failed 1 times, waits to be started again: KeyError: 'x'" in shown
        assert shown.startswith("DEGRADED (background tasks failed: health")
