"""Jobs as their clients tell them, over real sockets: by many at once, badly, and through kills."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_sim.config import SimConfig
from support.calls import call
from support.harness import running
from support.process import ollama, serving
from support.stores import execute, locked_out

if TYPE_CHECKING:
    from pathlib import Path

    from support.harness import Running
    from support.process import Process
    from support.wire import Answer, Client

ROUTE = "/api/generate"
JSON = {"Content-Type": "application/json"}
QUICK = SimConfig(tokens=2, num_parallel=8, max_loaded=4)
GREP = {"name": "grep", "duration_ms": 80.5, "ok": True}


async def tell(client: Client, path: str, body: dict[str, Any] | None = None) -> Answer:
    return await client.request("POST", path, orjson.dumps(body or {}), JSON)


async def told(up: Running, path: str, body: dict[str, Any] | None = None) -> Answer:
    """On a connection of its own."""
    async with up.admin() as client:
        return await tell(client, path, body)


async def show(client: Client, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = (await client.request("GET", f"/jobs/{job_id}")).json
    return job


# -- many at once ---------------------------------------------------------------------------------


async def test_whoever_tells_the_same_at_once_is_answered_the_same() -> None:
    async with running(QUICK) as up, up.admin() as admin:
        starts = await asyncio.gather(*(told(up, "/jobs/j/start") for _ in range(20)))
        assert {(answer.status, answer.body) for answer in starts} == {(200, starts[0].body)}
        ends = await asyncio.gather(
            *(told(up, "/jobs/j/finish", {"ok": number % 2 == 0}) for number in range(20))
        )
        winners = [answer for answer in ends if answer.status == 200]
        assert len(winners) == 10, "one verdict wins, and is answered the same to all who say it"
        assert len({answer.body for answer in winners}) == 1
        assert {answer.status for answer in ends} == {200, 409}
        metrics = (await admin.request("GET", "/metrics")).body.decode()
        assert "\njob_e2e_latency_ms_count 1.0" in metrics


async def test_jobs_of_many_clients_add_up() -> None:
    chance = random.Random(11)
    async with running(QUICK, {"roles": {"PLANNER": {"max_queue": 1000}}}) as up:

        async def one(number: int) -> int:
            """A job of a few calls and tools in any order; how many of them."""
            events = [("call", "/"), *[("tool", "/")] * chance.randrange(3)]
            events += [("call", "/")] * chance.randrange(2)
            chance.shuffle(events)
            async with up.admin() as admin, up.client() as client:
                await tell(admin, f"/jobs/j{number}/start")
                for what, _ in events:
                    if what == "tool":
                        assert (await tell(admin, f"/jobs/j{number}/tool", GREP)).status == 200
                    else:
                        sent = {"X-LLM-Job-Id": f"j{number}"}
                        await client.request("POST", ROUTE, call(ROUTE, "planner"), sent)
                ok = {"ok": number % 3 != 0}
                assert (await tell(admin, f"/jobs/j{number}/finish", ok)).status == 200
            return len(events)

        counts = await asyncio.gather(*map(one, range(30)))
        async with up.admin() as admin:
            jobs = {job["job_id"]: job for job in (await admin.request("GET", "/jobs")).json}
            for number, count in enumerate(counts):
                job = jobs[f"j{number}"]
                assert (job["calls"] + job["tools"], job["late"]) == (count, 0)
                assert job["state"] == ("ok" if number % 3 else "failed")
                whole = await show(admin, f"j{number}")
                assert sum(whole["time"].values()) == pytest.approx(whole["total_ms"])
            text = (await admin.request("GET", "/metrics")).body.decode()
        assert 'modelsplit_jobs_total{executor="no",state="failed"} 10.0' in text
        assert 'modelsplit_jobs_total{executor="no",state="ok"} 20.0' in text


async def test_the_ten_thousand_and_first_open_job_is_refused_and_no_call_is() -> None:
    async with running(QUICK) as up, up.client() as client, up.admin() as admin:
        await tell(admin, "/jobs/mine/start")
        columns = ", ".join(
            f"0 AS {name}"
            for name in ("calls", "failures", "planner", "executor", "heavy", "cloud", "chat")
        )
        execute(
            up.app.store.path.parent,
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) "
            "INSERT INTO jobs (job_id, first_us, last_us, calls, failures, planner, executor, "
            "heavy, cloud, chat, prompt_tokens, output_tokens, cost_usd, cost_unknown) "
            f"SELECT 'j' || i, first_us, last_us, {columns}, 0, 0, 0, 0 FROM n, "
            "(SELECT first_us, last_us FROM jobs WHERE job_id = 'mine')",
        )
        for path, body in (
            ("/jobs/more/start", {}),
            ("/jobs/more/tool", GREP),
            ("/jobs/more/finish", {"ok": True}),
        ):
            refused = await tell(admin, path, body)
            assert (refused.status, refused.phrase) == (429, "Too Many Requests")
            assert refused.json["error_code"] == "E_RATE_LIMITED"
            assert "10000 jobs are open" in refused.json["error"]
        assert (await tell(admin, "/jobs/mine/tool", GREP)).status == 200
        sent = {"X-LLM-Job-Id": "by-a-call"}
        answer = await client.request("POST", ROUTE, call(ROUTE, "planner"), sent)
        assert answer.status == 200
        assert (await show(admin, "by-a-call"))["calls"] == 1
        for job_id in ("mine", "by-a-call"):
            assert (await tell(admin, f"/jobs/{job_id}/finish", {"ok": True})).status == 200
        assert (await tell(admin, "/jobs/more/start")).status == 200


# -- badly ----------------------------------------------------------------------------------------

HEAD = b"POST /jobs/j/%b HTTP/1.1\r\nHost: localhost\r\n"


EMPTY = b"Content-Length: 0\r\n\r\n"
TWO = b"Content-Length: 2\r\n\r\n{}"
TYPE = b"Content-Type: application/json\r\n"
CHUNKED = TYPE + b"Transfer-Encoding: chunked\r\n\r\n"
START = HEAD % b"start"


def to(path: bytes, host: bytes = b"localhost") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: %b\r\n" % (path, host) + EMPTY


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (START + EMPTY, 200),
        (START + b"\r\n", 200),
        (START + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", 200),
        (to(b"/jobs/j/start?x=1"), 200),
        (HEAD % b"finish" + TYPE + b"Content-Length: 9000000\r\n\r\n", 400),
        (HEAD % b"tool" + CHUNKED + b"1001\r\n%b\r\n0\r\n\r\n" % (b" " * 4097), 400),
        (START + TYPE + b"Content-Encoding: gzip\r\n" + TWO, 400),
        (START + b"Content-Length: 1\r\n" + TWO, 400),
        (to(b"/jobs/%ff%fe/start"), 400),
        (to(b"/jobs/j%00/start"), 400),
        (to(b"/jobs/%2e%2e%2fj/start"), 400),
        (START + b"Origin: http://evil.example\r\n" + EMPTY, 403),
        (START + b"Origin: http://localhost:3000\r\n" + EMPTY, 403),
        (START + b"Sec-Fetch-Site: cross-site\r\n" + EMPTY, 403),
        (to(b"/jobs/j/start", b"evil.example"), 403),
        (to(b"/jobs/j/start/"), 404),
        (to(b"/jobs/j/START"), 404),
        (to(b"/jobs/j"), 405),
        (b"GET /jobs/j/start HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"OPTIONS /jobs/j/start HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (START + TWO, 415),
        (START + b"Content-Type: text/plain\r\n" + TWO, 415),
        (START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ],
)
async def test_each_of_these_is_answered_in_json_and_begins_a_job_only_with_200(
    wire: bytes, status: int
) -> None:
    async with running(QUICK) as up, up.admin() as admin:
        await admin.send(wire)
        answer = await admin.answer()
        assert answer.status == status
        assert answer["Content-Type"] == "application/json"
        assert answer.get("Access-Control-Allow-Origin") is None
        assert ("error" in answer.json) == (status != 200)
        async with up.admin() as other:
            jobs = (await other.request("GET", "/jobs")).json
        assert [job["job_id"] for job in jobs] == (["j"] if status == 200 else [])


async def test_a_body_that_never_comes_begins_nothing() -> None:
    async with running(QUICK, client_body_timeout_s=0.2) as up, up.admin() as admin:
        typed = b"Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{"
        await admin.send(HEAD % b"finish" + typed)
        answer = await admin.answer()
        assert (answer.status, answer.phrase) == (408, "Request Timeout")
        async with up.admin() as other:
            assert (await other.request("GET", "/jobs")).json == []


async def test_a_disk_that_is_locked_is_a_503_and_no_promise() -> None:
    async with running(QUICK) as up, up.admin() as admin:
        await tell(admin, "/jobs/j/start")
        with locked_out(up.app.store):
            refused = await tell(admin, "/jobs/j/finish", {"ok": True})
            assert (refused.status, refused.json["error_code"]) == (503, "E_INTERNAL")
        assert (await show(admin, "j"))["state"] == "open"
        assert (await tell(admin, "/jobs/j/finish", {"ok": True})).status == 200
        assert (await show(admin, "j"))["state"] == "ok"


# -- through kills and restarts -------------------------------------------------------------------


async def test_what_was_told_is_there_after_a_kill(tmp_path: Path) -> None:
    async with ollama("--tokens", "2") as (upstream, _):
        async with serving(upstream, tmp_path) as proxy:
            async with proxy.admin() as admin, proxy.client() as client:
                await tell(admin, "/jobs/open/start")
                started = (await tell(admin, "/jobs/done/start")).json
                sent = {"X-LLM-Job-Id": "done"}
                await client.request("POST", ROUTE, call(ROUTE, "executor"), sent)
                await tell(admin, "/jobs/done/tool", GREP)
                finished = (await tell(admin, "/jobs/done/finish", {"ok": True})).json
                await tell(admin, "/jobs/open/tool", GREP)
                proxy.signal(signal.SIGKILL)
            assert await proxy.ended() == -signal.SIGKILL
        async with serving(upstream, tmp_path) as proxy, proxy.admin() as admin:
            assert (await tell(admin, "/jobs/done/start")).json == started
            assert (await tell(admin, "/jobs/done/finish", {"ok": True})).json == finished
            assert (await tell(admin, "/jobs/done/finish", {"ok": False})).status == 409
            done, open_job = await show(admin, "done"), await show(admin, "open")
            assert (done["state"], done["calls"], done["tools"]) == ("ok", 1, 1)
            assert (open_job["state"], open_job["tools"]) == ("open", 1)
            assert (await tell(admin, "/jobs/open/finish", {"ok": False})).status == 200
            assert (await show(admin, "open"))["state"] == "failed"


async def test_no_report_that_was_answered_is_lost_to_a_kill_under_load(tmp_path: Path) -> None:
    """Clients tell jobs as fast as they are answered; the process is killed at some moment."""
    chance = random.Random(5)
    started: set[str] = set()
    finished: set[str] = set()

    async def telling(proxy: Process, name: str) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, AssertionError):
            async with proxy.admin() as admin:
                for number in itertools.count():
                    job_id = f"{name}-{number}"
                    if (await tell(admin, f"/jobs/{job_id}/start")).status == 200:
                        started.add(job_id)
                    if (await tell(admin, f"/jobs/{job_id}/finish", {"ok": True})).status == 200:
                        finished.add(job_id)

    async with ollama() as (upstream, _):
        for life in range(3):
            async with serving(upstream, tmp_path) as proxy:
                clients = [asyncio.create_task(telling(proxy, f"{life}-{n}")) for n in range(8)]
                enough = len(started) + chance.randrange(20, 60)
                while len(started) < enough:  # noqa: ASYNC110 - nobody sets an event
                    await asyncio.sleep(0)
                proxy.signal(signal.SIGKILL)
                await proxy.ended()
                await asyncio.gather(*clients)
            rows = execute(tmp_path, "SELECT job_id, started_us, state FROM jobs")
            assert started <= {job_id for job_id, started_us, _ in rows if started_us is not None}
            assert finished <= {job_id for job_id, _, state in rows if state == "ok"}
    assert len(finished) > 50


async def test_a_job_killed_between_finish_and_its_last_call_ends_at_the_next_start(
    tmp_path: Path,
) -> None:
    async with ollama("--token-rate", "1") as (upstream, _):
        async with serving(upstream, tmp_path) as proxy:
            async with proxy.admin() as admin, proxy.client() as client:
                sent = {"X-LLM-Job-Id": "j"}
                await client.ask("POST", ROUTE, {"model": "planner", "prompt": "x"}, sent)
                await client.head()
                finished = (await tell(admin, "/jobs/j/finish", {"ok": True})).json
                assert (await show(admin, "j"))["state"] == "open"
                proxy.signal(signal.SIGKILL)
            await proxy.ended()
        async with serving(upstream, tmp_path) as proxy, proxy.admin() as admin:
            while (job := await show(admin, "j"))["state"] == "open":  # noqa: ASYNC110
                await asyncio.sleep(0)  # it is closed as soon as it is looked for
            assert (job["state"], job["ended_at"]) == ("ok", finished["finished_at"])


async def test_a_job_that_nobody_finished_expires_also_where_nobody_ran_meanwhile(
    tmp_path: Path,
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"extends": "default", "jobs": {"expire_after": "1s"}}', encoding="utf-8")
    options = ("--policy", str(policy))
    async with ollama() as (upstream, _):
        async with serving(upstream, tmp_path, *options) as proxy, proxy.admin() as admin:
            await tell(admin, "/jobs/j/start")
            proxy.signal(signal.SIGTERM)
            assert await proxy.ended() == 0
        execute(tmp_path, "UPDATE jobs SET first_us = first_us - 9e6, last_us = last_us - 9e6")
        async with serving(upstream, tmp_path, *options) as proxy, proxy.admin() as admin:
            while (job := await show(admin, "j"))["state"] == "open":  # noqa: ASYNC110
                await asyncio.sleep(0)  # it is expired as soon as it is looked for
            assert (job["state"], job["job_e2e_latency_ms"]) == ("expired", None)
            assert job["ended_at"] == job["last_event_at"]
            late = await tell(admin, "/jobs/j/finish", {"ok": True})
            assert (late.status, "as expired" in late.json["error"]) == (409, True)
            tool = await tell(admin, "/jobs/j/tool", GREP)
            assert (tool.status, tool.json["late"]) == (200, True)
            metrics = (await admin.request("GET", "/metrics")).body.decode()
            assert 'modelsplit_jobs_total{executor="no",state="expired"} 1.0' in metrics
            assert "\njob_e2e_latency_ms_count 0.0" in metrics
