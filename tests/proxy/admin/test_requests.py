"""What became of calls, on the admin port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_proxy.records import reader
from modelsplit_proxy.storage.state_file import FILE_NAME, StoreError
from modelsplit_sim.config import SimConfig
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.harness import Running


@pytest.fixture
async def up() -> AsyncIterator[Running]:
    async with running(SimConfig(tokens=2)) as up:
        yield up


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
