"""Jobs on the admin port: told, shown, refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.http import write_guard
from modelsplit_proxy.limits.client_keys import Key, Keyring, digest_of
from modelsplit_sim.config import SimConfig
from support.calls import call
from support.harness import running
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from modelsplit_proxy.records.job_store import EndedJob, Tool
    from support.harness import Running
    from support.wire import Answer

JSON = {"Content-Type": "application/json"}
ROUTE = "/api/generate"
GREP = {"name": "grep", "duration_ms": 80.5, "ok": True}


class Ends:
    """Waits for a job to end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def job_ended(self, job: EndedJob) -> None:
        del job
        self.ended.set()

    def tool_ran(self, tool: Tool) -> None: ...


@pytest.fixture
async def up() -> AsyncIterator[Running]:
    async with running(SimConfig(tokens=2)) as up:
        yield up


@pytest.fixture
async def admin(up: Running) -> AsyncIterator[Client]:
    async with up.admin() as client:
        yield client


async def told(admin: Client, path: str, body: Any = None, **headers: str) -> Answer:
    return await admin.request("POST", path, {} if body is None else body, JSON | headers)


async def asked(up: Running, job_id: str, model: str = "planner", **more: str) -> Answer:
    sent = {"X-LLM-Job-Id": job_id, **{k.replace("_", "-"): v for k, v in more.items()}}
    async with up.client() as client:
        return await client.request("POST", ROUTE, call(ROUTE, model), sent)


async def test_a_job_from_start_to_finish(up: Running, admin: Client) -> None:
    assert (await told(admin, "/jobs/j/start")).status == 200
    assert (await asked(up, "j")).status == 200
    assert (await asked(up, "j", "executor", X_LLM_Purpose="failure_analysis")).status == 200
    tool = await told(admin, "/jobs/j/tool", GREP)
    assert (tool.status, tool.json) == (200, {"job_id": "j", "name": "grep", "late": False})
    finish = await told(admin, "/jobs/j/finish", {"ok": False, "why": "no luck"})
    assert finish.status == 200
    assert finish.json.keys() == {"job_id", "ok", "why", "finished_at"}
    job = (await admin.request("GET", "/jobs/j")).json
    assert (job["state"], job["why"], job["calls"], job["tools"]) == ("failed", "no luck", 2, 1)
    assert job["executor_calls"] == 1
    assert [row["what"] for row in job["timeline"]] == ["call", "call", "tool"]
    assert job["timeline"][1]["purpose"] == "failure_analysis"
    assert sum(job["time"].values()) == pytest.approx(job["total_ms"])
    assert job["total_ms"] == job["job_e2e_latency_ms"]
    [listed] = (await admin.request("GET", "/jobs")).json
    assert listed.items() <= job.items()
    metrics = (await admin.request("GET", "/metrics")).body.decode()
    assert 'modelsplit_jobs_total{executor="yes",state="failed"} 1.0' in metrics
    assert "\njob_e2e_latency_ms_count 1.0" in metrics
    assert "\ntool_latency_ms_sum 80.5" in metrics


async def test_start_and_finish_may_be_told_again(up: Running, admin: Client) -> None:
    del up
    bodies = [(await told(admin, "/jobs/j/start")).body for _ in range(2)]
    assert bodies[0] == bodies[1]
    bodies = [(await told(admin, "/jobs/j/finish", {"ok": True})).body for _ in range(2)]
    bodies.append((await told(admin, "/jobs/j/finish", {"ok": True, "why": "other"})).body)
    assert len(set(bodies)) == 1
    assert (await told(admin, "/jobs/j/start")).status == 200
    other = await told(admin, "/jobs/j/finish", {"ok": False})
    assert (other.status, other.phrase) == (409, "Conflict")
    assert "as ok" in other.json["error"]


async def test_a_job_never_told_begins_with_its_first_call(up: Running, admin: Client) -> None:
    await asked(up, "j")
    job = (await admin.request("GET", "/jobs/j")).json
    assert (job["state"], job["start_told_at"], job["calls"]) == ("open", None, 1)
    [its_call] = (await admin.request("GET", "/requests?job=j")).json
    assert job["started_at"] == its_call["started_at"]


async def test_a_tool_or_a_finish_creates_its_job(up: Running, admin: Client) -> None:
    del up
    assert (await told(admin, "/jobs/t/tool", GREP)).status == 200
    assert (await told(admin, "/jobs/f/finish", {"ok": True})).status == 200
    states = {job["job_id"]: job["state"] for job in (await admin.request("GET", "/jobs")).json}
    assert states == {"t": "open", "f": "ok"}


async def test_a_job_ends_with_the_last_call_that_runs_and_later_ones_are_late() -> None:
    async with running(SimConfig(token_rate=2, num_parallel=4)) as up, up.admin() as admin:
        clients = [up.client() for _ in range(2)]
        sent = {"X-LLM-Job-Id": "j"}
        await clients[0].ask("POST", ROUTE, {"model": "planner", "prompt": "x"}, sent)
        await up.until(lambda: up.seats() == (1, 0))
        running_job = (await admin.request("GET", "/jobs/j")).json
        assert (running_job["running"], running_job["calls"]) == (1, 0)
        [listed] = (await admin.request("GET", "/jobs?state=open")).json
        assert (listed["job_id"], listed["running"]) == ("j", 1)
        assert (await admin.request("GET", "/jobs?state=ok")).json == []
        assert (await told(admin, "/jobs/j/finish", {"ok": True})).status == 200
        job = (await admin.request("GET", "/jobs/j")).json
        assert (job["state"], job["ended_at"]) == ("open", None)
        await clients[1].ask("POST", ROUTE, {"model": "planner", "prompt": "x"}, sent)
        await up.until(lambda: up.seats() == (2, 0))
        ends = Ends()
        up.app.jobs.listen(ends)
        await clients[0].close()
        await ends.ended.wait()
        job = (await admin.request("GET", "/jobs/j")).json
        assert (job["state"], job["late"], job["running"]) == ("ok", 0, 1)
        # Within one millisecond, it may be.
        assert job["ended_at"] >= job["finished_at"]
        await clients[1].close()
        await up.calls.wait(2)
        job = (await admin.request("GET", "/jobs/j")).json
        assert (job["late"], [row["late"] for row in job["timeline"]]) == (1, [False, True])


async def test_a_list_is_narrowed_and_a_job_is_told_in_words(up: Running, admin: Client) -> None:
    del up
    for job_id, ok in (("a", True), ("b", False)):
        await told(admin, f"/jobs/{job_id}/finish", {"ok": ok})
    assert [job["job_id"] for job in (await admin.request("GET", "/jobs")).json] == ["b", "a"]
    for query, ids in (
        *(("state=FAILED", ["b"]), ("limit=1", ["b"]), ("since=1h", ["b", "a"])),
        *(("until=1h", []), ("state=expired", [])),
    ):
        found = (await admin.request("GET", f"/jobs?{query}")).json
        assert [job["job_id"] for job in found] == ids
    for query in ("state=done", "since=soon", "stat=ok", "limit=x", "format=xml"):
        assert (await admin.request("GET", f"/jobs?{query}")).status == 400
    text = await admin.request("GET", "/jobs?format=text")
    [head, *lines] = text.body.decode().splitlines()
    assert head.startswith("LAST EVENT ")
    assert [line.split()[-1] for line in lines] == ["a", "b"]
    text = await admin.request("GET", "/jobs/a", None, {"Accept": "text/plain"})
    assert text.body.decode().startswith("job        a\nstate      ok after ")
    nobody = await admin.request("GET", "/jobs/nobody")
    assert (nobody.status, '"nobody"' in nobody.json["error"]) == (404, True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/jobs/j/start", 405),
        ("PUT", "/jobs/j/finish", 405),
        ("OPTIONS", "/jobs/j/start", 405),
        ("POST", "/jobs", 405),
        ("POST", "/jobs/j", 405),
        ("DELETE", "/jobs/j", 405),
        ("POST", "/jobs/j/stop", 404),
        ("POST", "/jobs//start", 404),
        ("POST", "/jobs/a/b/start", 404),
        ("POST", "/jobs/a%20b/start", 400),
        ("POST", f"/jobs/{'x' * 129}/start", 400),
        ("POST", "/jobs/a%2Fb/start", 400),
    ],
)
async def test_what_is_no_report(admin: Client, method: str, path: str, status: int) -> None:
    answer = await admin.request(method, path, b"{}", JSON)
    assert answer.status == status
    assert answer.json["error"]
    if status == 405:
        assert answer["Allow"] == ("POST" if path.endswith(("start", "finish")) else "GET, HEAD")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"name": "a b", "duration_ms": 1, "ok": True}, 'name "a b"'),
        ({"name": "a", "duration_ms": -1, "ok": True}, "duration_ms -1"),
        ({"name": "a", "duration_ms": 86_400_000, "ok": True}, "duration_ms 86400000"),
        (b'{"name":"a","duration_ms":NaN,"ok":true}', "body: it is not JSON"),
        (b"[]", "body: it is not an object"),
        (b" " * 4097, "body: it is larger than 4096 bytes"),
    ],
)
async def test_a_report_that_cannot_be_taken_names_the_field(
    admin: Client, body: Any, error: str
) -> None:
    answer = await told(admin, "/jobs/j/tool", body)
    assert (answer.status, answer.json["error_code"]) == (400, "E_BAD_REQUEST")
    assert answer.json["error"].startswith(error)
    async with Client(admin._port) as other:
        assert (await other.request("GET", "/jobs")).json == []


# -- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
async def test_no_web_page_of_another_origin_writes(
    admin: Client, headers: dict[str, str], status: int
) -> None:
    answer = await admin.request("POST", "/jobs/j/start", b"{}", JSON | headers)
    assert answer.status == status
    assert len((await admin.request("GET", "/jobs")).json) == (status == 200)


async def test_curl_needs_no_content_type_where_it_sends_nothing(admin: Client) -> None:
    assert (await admin.request("POST", "/jobs/j/start", b"")).status == 200
    assert (await admin.request("POST", "/jobs/j/finish", b'{"ok":true}')).status == 415


async def test_our_own_page_may_write(up: Running, admin: Client) -> None:
    own = {"Origin": f"http://127.0.0.1:{up.admin_port}", "Sec-Fetch-Site": "same-origin"}
    assert (await admin.request("POST", "/jobs/j/start", b"{}", JSON | own)).status == 200


KEY = Key("laptop", digest_of("ms-secret"), frozenset(Role))


@pytest.mark.parametrize(
    ("keyring", "headers", "status"),
    [
        (None, {}, 403),
        (None, {"Authorization": "Bearer ms-secret"}, 403),
        (Keyring([KEY]), {}, 401),
        (Keyring([KEY]), {"x-api-key": "wrong"}, 401),
        (Keyring([KEY]), {"Authorization": "Bearer ms-secret"}, 200),
        (Keyring([KEY]), {"x-api-key": "ms-secret"}, 200),
    ],
)
async def test_who_is_not_this_machine_needs_a_key(
    monkeypatch: pytest.MonkeyPatch, keyring: Keyring | None, headers: dict[str, str], status: int
) -> None:
    """A loopback address stands for a stranger's."""
    monkeypatch.setattr(write_guard, "is_this_machine", lambda remote: remote == "127.0.0.1")
    async with running(keyring=keyring) as up:
        async with Client(up.admin_port, "127.0.0.9") as stranger:
            answer = await stranger.request("POST", "/jobs/j/start", b"{}", JSON | headers)
            assert answer.status == status
            assert (answer.get("WWW-Authenticate") == "Bearer") is (status == 401)
            assert (await stranger.request("GET", "/jobs")).status == 200
        async with up.admin() as ours:
            assert (await ours.request("POST", "/jobs/j/start", b"{}", JSON)).status == 200
