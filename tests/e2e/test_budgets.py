"""Budgets from outside: what gets through, what does not, and what clients are told."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.approvals import ApprovalAction, Change
from modelsplit_policy.budgets import nano
from modelsplit_proxy.limits import budget_store
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import DEFAULT_MODELS, ModelSpec
from support.calls import BODIES, DIALECTS, ERROR_FIELDS, call
from support.clouds import FROM_ALL
from support.harness import running, warm
from support.process import ollama, serving
from support.stores import locked_out

if TYPE_CHECKING:
    from support.harness import Running
    from support.wire import Answer, Client

pytestmark = pytest.mark.flowing_time

ROUTE = "/api/generate"
MODEL = "gpt-oss:20b"
WARM = SimConfig(tokens=4, num_parallel=8, max_loaded=4)
WITH_OPUS = SimConfig(
    (*DEFAULT_MODELS, ModelSpec("claude-3-opus")), tokens=4, num_parallel=8, max_loaded=5
)


def budget(calls: int = 2, **said: Any) -> dict[str, Any]:
    row = {"name": "heavy-20b", "models": [MODEL], "calls": calls, "window": "1h", **said}
    return {"budgets": [row]}


def approve(state: Path, usd: float = 5.0) -> None:
    """As another process does, while the proxy runs."""
    change = Change(0, 0.0, 0.0, ApprovalAction.APPROVE, "kim", "a trial", nano(usd), 1e12)
    with closing(sqlite3.connect(state / FILE_NAME)) as db, db:
        budget_store.add_change(db, change)


async def spend(up: Running, times: int) -> None:
    async with up.client() as client:
        for _ in range(times):
            answer = await client.request("POST", ROUTE, call(ROUTE, MODEL))
            assert answer.status == 200


@pytest.mark.parametrize("route", BODIES)
async def test_every_answer_says_what_is_left(route: str) -> None:
    spec = ModelSpec(MODEL, capabilities=("completion", "embedding"))
    async with running(SimConfig((spec,), tokens=4), budget()) as up, up.client() as client:
        answer = await client.request("POST", route, call(route, MODEL))
        assert answer.status == 200
        assert answer["RateLimit-Policy"] == '"heavy-20b";q=2;w=3600'
        assert answer["RateLimit"] == '"heavy-20b";r=1;t=3600'


@pytest.mark.parametrize("route", DIALECTS)
async def test_without_room_nothing_is_sent_and_the_client_is_told_when(route: str) -> None:
    async with running(WARM, budget(0)) as up, up.client() as client:
        answer = await client.request("POST", route, call(route, MODEL))
        assert (answer.status, answer.phrase) == (429, "Budget Exhausted")
        assert answer["X-LLM-Error-Code"] == "E_BUDGET_EXHAUSTED"
        assert answer["x-should-retry"] == "false"
        assert answer.get("Retry-After") is None
        assert answer["RateLimit"] == '"heavy-20b";r=0'
        told = answer.json if route.startswith("/api/") else answer.json["error"]
        assert told.keys() >= ERROR_FIELDS
        assert (told["error_code"], told["reason"]) == ("E_BUDGET_EXHAUSTED", "calls")
        assert up.asked == []
        [record] = await up.calls.wait()
        assert (record.call.state, record.budget_refused) == ("rejected", "heavy-20b")


async def test_many_at_once_are_as_many_as_the_budget_says() -> None:
    async with running(WARM, budget(10)) as up:
        clients = [up.client() for _ in range(60)]
        answers = await asyncio.gather(
            *(client.request("POST", ROUTE, call(ROUTE, MODEL)) for client in clients)
        )
        for client in clients:
            await client.close()
        statuses = [answer.status for answer in answers]
        assert (statuses.count(200), statuses.count(429)) == (10, 50)
        assert len(up.asked) == 10


async def test_a_model_that_no_budget_counts_has_no_such_headers() -> None:
    async with running(WARM, budget()) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, call(ROUTE, "qwen3:4b"))
        assert answer.get("RateLimit") is None
        assert answer.get("RateLimit-Policy") is None


async def test_loading_and_unloading_are_not_counted() -> None:
    async with running(WARM, budget(0)) as up, up.client() as client:
        for extra in ({}, {"keep_alive": 0}):
            answer = await client.request("POST", ROUTE, {"model": MODEL, **extra})
            assert (answer.status, answer.get("RateLimit")) == (200, None)


async def test_a_fallback_without_budget_does_not_happen() -> None:
    """And the call ends with what its first attempt died of."""
    async with running(WARM, budget(1)) as up, up.client() as client:
        await spend(up, 1)
        up.sim.faults.add(kind=Kind.STATUS, status=500, body="died", model="gemma3:12b")
        answer = await client.request("POST", ROUTE, call(ROUTE, "heavy"))
        assert (answer.status, answer["X-LLM-Error-Code"]) == (500, "E_UPSTREAM_LOCAL")
        assert answer["X-LLM-Model"] == "gemma3:12b"
        assert answer["RateLimit"].startswith('"heavy-20b";r=0')
        assert [sent.model for sent in up.asked] == [MODEL, "gemma3:12b"]
        records = await up.calls.wait(2)
        assert records[1].budget_refused == "heavy-20b"
        assert len(records[1].attempts) == 1
        assert up.seats() == (0, 0)


async def test_a_fallback_is_charged_for_its_own_model() -> None:
    async with running(WARM, budget(2)) as up, up.client() as client:
        up.sim.faults.add(kind=Kind.STATUS, status=500, body="died", model="gemma3:12b")
        answer = await client.request("POST", ROUTE, call(ROUTE, "heavy"))
        assert (answer.status, answer["X-LLM-Model"]) == (200, MODEL)
        assert answer["RateLimit"] == '"heavy-20b";r=1;t=3600'


async def test_an_answer_that_does_not_fit_gives_its_seat_back_when_no_budget_follows() -> None:
    overlay = budget(0) | {"roles": {"HEAVY": {"validate": True}}}
    schema = {"type": "object", "required": ["steps"]}
    async with running(WARM, overlay) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, call(ROUTE, "heavy", format=schema))
        assert (answer.status, answer["X-LLM-Error-Code"]) == (502, "E_SCHEMA_INVALID")
        await up.calls.wait()
        assert up.seats() == (0, 0)


async def test_a_resident_fallback_without_budget_is_not_preferred() -> None:
    overlay = budget(1) | {"roles": {"HEAVY": {"prefer_resident_fallback": True}}}
    sim = SimConfig(tokens=4, num_parallel=8, max_loaded=1)
    async with running(sim, overlay) as up, up.client() as client:
        await warm(up, MODEL)
        first = await client.request("POST", ROUTE, call(ROUTE, "heavy"))
        second = await client.request("POST", ROUTE, call(ROUTE, "heavy"))
        assert [first["X-LLM-Model"], second["X-LLM-Model"]] == [MODEL, "gemma3:12b"]


async def test_a_call_that_reached_nobody_is_given_back() -> None:
    async with running(WARM, budget(1)) as up, up.client() as client:
        await up.sim.stop()
        answer = await client.request("POST", ROUTE, call(ROUTE, MODEL))
        assert answer.json["reason"] == "connect_refused"
        assert answer["RateLimit"].startswith('"heavy-20b";r=')
        await up.sim.start()
        again = await client.request("POST", ROUTE, call(ROUTE, MODEL))
        assert again.status == 200


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 429, 501, 503])
async def test_what_ollama_turned_away_is_given_back_also_on_disk(
    tmp_path: Path, status: int
) -> None:
    async with running(WARM, budget(1), state=tmp_path) as up, up.client() as client:
        up.sim.faults.add(kind=Kind.STATUS, status=status, path=ROUTE, times=1)
        answer = await client.request("POST", ROUTE, call(ROUTE, MODEL))
        assert (answer.status, answer["RateLimit"]) == (status, '"heavy-20b";r=1')
        [record] = await up.calls.wait()
        assert [standing.calls for standing in record.budgets.values()] == [0]
    async with running(WARM, budget(1), state=tmp_path) as up, up.client() as client:
        assert up.app.budget_keeper.standing()[0].calls == 0
        assert (await client.request("POST", ROUTE, call(ROUTE, MODEL))).status == 200


@pytest.mark.parametrize("status", [408, 409, 500, 502, 504])
async def test_what_may_have_been_computed_stays_counted(status: int) -> None:
    async with running(WARM, budget()) as up, up.client() as client:
        up.sim.faults.add(kind=Kind.STATUS, status=status, path=ROUTE)
        answer = await client.request("POST", ROUTE, call(ROUTE, MODEL))
        assert (answer.status, answer["RateLimit"]) == (status, '"heavy-20b";r=1;t=3600')


async def test_many_texts_of_which_one_was_too_long_stay_counted() -> None:
    """Ollama computes them at the same time, and answers 400 for the one."""
    async with running(WARM, budget()) as up, up.client() as client:
        up.sim.faults.add(kind=Kind.STATUS, status=400, path="/api/embed")
        answer = await client.request("POST", "/api/embed", {"model": MODEL, "input": ["a", "b"]})
        assert (answer.status, answer["RateLimit"]) == (400, '"heavy-20b";r=1;t=3600')


async def test_a_model_of_the_cloud_that_is_not_there_costs_neither_a_call_nor_money(
    tmp_path: Path,
) -> None:
    async with running(WARM, state=tmp_path) as up, up.client() as client:
        approve(tmp_path, usd=1.0)
        answer = await client.request("POST", ROUTE, call(ROUTE, "cloud"))
        assert (answer.status, answer["RateLimit"]) == (404, '"cloud";r=9')
        assert up.app.budget_keeper.approved()[1] == 1.0
        [record] = await up.calls.wait()
        assert record.cost_usd == 0.0


async def test_a_client_that_left_the_line_is_given_back() -> None:
    sim = SimConfig(token_rate=2, tokens=100)
    async with running(sim, budget(2)) as up, up.client() as busy, up.client() as waiting:
        await busy.ask("POST", ROUTE, call(ROUTE, MODEL))
        await up.sim.wait_for(lambda sim: sim.active == 1)
        await waiting.ask("POST", ROUTE, call(ROUTE, MODEL))
        await up.until(lambda: up.seats() == (1, 1))
        await waiting.close()
        await up.calls.wait()
        assert up.app.budget_keeper.standing()[0].calls == 1


async def test_a_shadow_budget_is_seen_by_operators_only() -> None:
    async with running(WARM, budget(1, shadow=True)) as up, up.client() as client:
        await spend(up, 2)
        answer = await client.request("POST", ROUTE, call(ROUTE, MODEL))
        assert (answer.status, answer.get("RateLimit")) == (200, None)
        async with up.admin() as admin:
            metrics = (await admin.request("GET", "/metrics")).body.decode()
            stats = (await admin.request("GET", "/stats")).json
        name = 'modelsplit_budget_refusals_total{budget="heavy-20b",shadow="true"}'
        assert f"{name} 2.0" in metrics
        assert stats["spending"]["budgets"][0]["calls"] == 3


async def counted(client: Client) -> Answer:
    """A call that was counted: a busy machine may be too late for one or another."""
    while True:
        answer = await client.request("POST", ROUTE, call(ROUTE, MODEL))
        if answer.status == 200 or answer.json["reason"] != "ledger_unavailable":
            return answer


async def test_while_the_file_is_locked_only_what_must_be_counted_is_refused(
    tmp_path: Path,
) -> None:
    async with running(WARM, budget(), state=tmp_path) as up, up.client() as client:
        with locked_out(up.app.store):
            counted = await client.request("POST", ROUTE, call(ROUTE, MODEL))
            free = await client.request("POST", ROUTE, call(ROUTE, "qwen3:4b"))
        assert (counted.status, counted.phrase) == (429, "Budget Ledger Unavailable")
        assert counted.json["reason"] == "ledger_unavailable"
        assert counted["x-should-retry"] == "false"
        assert free.status == 200
        after = await client.request("POST", ROUTE, call(ROUTE, MODEL))
        assert (after.status, after["RateLimit"]) == (200, '"heavy-20b";r=1;t=3600')
        assert len(up.asked) == 2


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
async def test_while_the_disk_is_full_only_what_must_be_counted_is_refused(tmp_path: Path) -> None:
    """No file of the process may grow, as on a full disk."""
    async with (
        ollama("--tokens", "2") as (upstream, _),
        serving(upstream, tmp_path, patient=False) as proxy,
    ):
        limits = resource.prlimit(proxy.child.pid, resource.RLIMIT_FSIZE)
        async with proxy.client() as client:
            before = await counted(client)
            resource.prlimit(proxy.child.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
            full = [await client.request("POST", ROUTE, call(ROUTE, MODEL)) for _ in range(3)]
            free = await client.request("POST", ROUTE, call(ROUTE, "qwen3:4b"))
            resource.prlimit(proxy.child.pid, resource.RLIMIT_FSIZE, limits)
            after = await counted(client)
        left = int(before["RateLimit"].split(";")[1].removeprefix("r="))
        assert [answer.json["reason"] for answer in full] == ["ledger_unavailable"] * 3
        assert free.status == 200
        assert (after.status, after["RateLimit"]) == (200, f'"heavy-20b";r={left - 1};t=3600')


async def test_counts_outlive_the_process(tmp_path: Path) -> None:
    for left in (1, 0):
        async with running(WARM, budget(2), state=tmp_path) as up, up.client() as client:
            answer = await client.request("POST", ROUTE, call(ROUTE, MODEL))
            assert answer["RateLimit"].startswith(f'"heavy-20b";r={left};t=')
    async with running(WARM, budget(2), state=tmp_path) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, call(ROUTE, MODEL))
        assert answer.status == 429


async def test_the_cloud_before_and_after_an_approval(tmp_path: Path) -> None:
    async with running(WITH_OPUS, state=tmp_path) as up, up.client() as client:
        before = await client.request("POST", ROUTE, call(ROUTE, "cloud"))
        assert (before.status, before.phrase) == (403, "Cloud Not Approved")
        assert before.json["reason"] == "no_approval"
        assert before.json["error"] == (
            "claude-3-opus runs in the cloud and no approval is recorded; "
            "approve with: modelsplit budget approve --usd 5 --days 7 --reason WHY "
            f"--admin 127.0.0.1:{up.admin_port}"
        )
        assert up.asked == []
        approve(tmp_path)
        after = await client.request("POST", ROUTE, call(ROUTE, "cloud"))
        assert (after.status, after["X-LLM-Provider"]) == (200, "CLOUD")
        assert after["X-LLM-Model"] == "claude-3-opus"
        assert after["RateLimit-Policy"] == '"cloud";q=9;w=86400'
        assert after["RateLimit"] == '"cloud";r=8;t=86400'
        assert [sent.model for sent in up.asked] == ["claude-3-opus"]


@pytest.mark.parametrize(
    ("model", "headers"),
    [
        ("claude-3-opus", {}),
        ("Claude-3-Opus:latest", {}),
        ("library/claude-3-opus", {"X-LLM-Role": "EXECUTOR"}),
        ("cloud", {"X-LLM-Role": "CHAT"}),
    ],
)
async def test_the_policys_model_of_the_cloud_is_the_cloud_by_whatever_name(
    tmp_path: Path, model: str, headers: dict[str, str]
) -> None:
    async with running(WITH_OPUS, FROM_ALL, state=tmp_path) as up, up.client() as client:
        for body in (call(ROUTE, model), b'{"model":"%b"}' % model.encode()):
            answer = await client.request("POST", ROUTE, body, headers)
            assert (answer.status, answer.json["reason"]) == (403, "no_approval")
            assert answer["X-LLM-Provider"] == "CLOUD"
        assert up.asked == []
        approve(tmp_path)
        answer = await client.request("POST", ROUTE, call(ROUTE, model), headers)
        # The stand-in does not know every spelling: what it has not, it has not computed.
        left = 9 if any(sent.status == 404 for sent in up.asked) else 8
        assert answer["RateLimit"].startswith(f'"cloud";r={left}')


async def test_a_cloud_model_that_nobody_serves_is_told_as_that(tmp_path: Path) -> None:
    async with running(state=tmp_path) as up, up.client() as client:
        approve(tmp_path)
        answer = await client.request("POST", ROUTE, call(ROUTE, "cloud"))
        assert (answer.status, answer["X-LLM-Provider"]) == (404, "CLOUD")
        assert answer.json["error"] == (
            "CLOUD's model claude-3-opus cannot be served: no cloud provider is configured and "
            "Ollama does not have it; name one of Ollama's cloud models in the policy"
        )


@pytest.mark.parametrize("headers", [{}, {"X-LLM-Role": "EXECUTOR"}])
async def test_a_model_of_ollamas_cloud_is_the_cloud_whoever_asks(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    name = "gpt-oss:120b-cloud"
    sim = SimConfig((*DEFAULT_MODELS, ModelSpec(name)), tokens=4, num_parallel=8, max_loaded=5)
    overlay = {**FROM_ALL, "models": {name: {"price": {"input": 0.0, "output": 0.0}}}}
    async with running(sim, overlay, state=tmp_path) as up, up.client() as client:
        before = await client.request("POST", ROUTE, call(ROUTE, name), headers)
        assert (before.status, before.json["reason"]) == (403, "no_approval")
        assert before["X-LLM-Provider"] == "CLOUD"
        approve(tmp_path)
        after = await client.request("POST", ROUTE, call(ROUTE, name), headers)
        assert (after.status, after["RateLimit"]) == (200, '"cloud";r=8;t=86400')
        assert [sent.model for sent in up.asked] == [name]


async def test_a_local_fallback_of_a_model_in_the_cloud_is_local(tmp_path: Path) -> None:
    name = "glm-4.6:cloud"
    overlay = {**FROM_ALL, "models": {name: {"price": {"input": 0.0, "output": 0.0}}}}
    headers = {"X-LLM-Role": "EXECUTOR"}
    async with running(WARM, overlay, state=tmp_path) as up, up.client() as client:
        approve(tmp_path)
        answer = await client.request("POST", ROUTE, call(ROUTE, name), headers)
        assert (answer.status, answer["X-LLM-Model"]) == (200, "gemma3:12b")
        assert answer["X-LLM-Provider"] == "LOCAL"


async def test_the_cloud_is_charged_what_it_used(tmp_path: Path) -> None:
    async with running(WITH_OPUS, state=tmp_path) as up, up.client() as client:
        approve(tmp_path, usd=1.0)
        for stream in (False, True):
            body = call("/api/chat", "cloud", stream=stream)
            assert (await client.request("POST", "/api/chat", body)).status == 200
        records = await up.calls.wait(2)
        spent = sum(record.cost_usd or 0.0 for record in records)
        assert 0 < spent < 0.01
        left = up.app.budget_keeper.approved()[1]
        assert left == pytest.approx(1.0 - spent, abs=1e-8)
