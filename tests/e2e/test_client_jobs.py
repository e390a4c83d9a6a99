"""A job as our own clients tell it, and as modelsplit then shows it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelsplit_client import AsyncClient, Client, Job, OverloadThrottledError, Purpose
from modelsplit_sim.config import SimConfig
from support.clients import KINDS, closing
from support.harness import Running, running

SIM = SimConfig(tokens=5, max_loaded=8, num_parallel=8)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Client | AsyncClient]:
    found: type[Client | AsyncClient] = request.param
    return found


def client_of(kind: type[Client | AsyncClient], up: Running) -> Client | AsyncClient:
    return kind(up.url, admin_url=f"http://127.0.0.1:{up.admin_port}")


async def told(up: Running, job_id: str) -> dict[str, Any]:
    """What modelsplit knows of the job."""
    async with up.admin() as admin:
        answer = await admin.request("GET", f"/jobs/{job_id}")
    assert answer.status == 200
    found: dict[str, Any] = answer.json
    return found


async def work(client: Client | AsyncClient, error: Exception | None = None) -> None:
    """A plan, a tool that works, one that fails and is asked about, and the end."""
    if isinstance(client, Client):
        await asyncio.to_thread(_work, client, error)
        return
    async with client.job("build-17") as job:
        await job.generate("What next?", "PLANNER")
        async with job.tool("grep"):
            pass
        async with job.tool("make") as make:
            make.fail()
        stream = job.stream("Why?", "EXECUTOR", purpose=Purpose.FAILURE_ANALYSIS)
        assert (await stream.read()).text
        if error is not None:
            raise error


def _work(client: Client, error: Exception | None) -> None:
    with client.job("build-17") as job:
        job.generate("What next?", "PLANNER")
        with job.tool("grep"):
            pass
        with job.tool("make") as make:
            make.fail()
        stream = job.stream("Why?", "EXECUTOR", purpose=Purpose.FAILURE_ANALYSIS)
        assert stream.read().text
        if error is not None:
            raise error


async def test_a_job_is_told_from_its_start_to_its_end(
    kind: type[Client | AsyncClient], caplog: pytest.LogCaptureFixture
) -> None:
    async with running(SIM) as up, closing(client_of(kind, up)) as client:
        await work(client)
        job = await told(up, "build-17")
    assert (job["state"], job["why"]) == ("ok", None)
    assert job["start_told_at"] is not None
    calls = [item for item in job["timeline"] if item["what"] == "call"]
    assert [(call["llm_role"], call["purpose"]) for call in calls] == [
        ("PLANNER", None),
        ("EXECUTOR", "failure_analysis"),
    ]
    # A purpose leads to no other model.
    assert [call["llm_model"] for call in calls] == ["qwen3:4b", "qwen3:8b"]
    tools = [item for item in job["timeline"] if item["what"] == "tool"]
    assert [(tool["name"], tool["ok"]) for tool in tools] == [("grep", True), ("make", False)]
    assert job["executor_calls"] == 1
    assert [record for record in caplog.records if record.name == "modelsplit_client"] == []


async def test_an_exception_ends_it_as_failed_and_its_words_stay_here(
    kind: type[Client | AsyncClient],
) -> None:
    async with running(SIM) as up, closing(client_of(kind, up)) as client:
        with pytest.raises(ValueError, match="secret"):
            await work(client, ValueError("the prompt was: secret"))
        job = await told(up, "build-17")
    assert (job["state"], job["why"]) == ("failed", "ValueError")


async def test_a_call_that_fails_its_job_is_named_by_its_code() -> None:
    full = {"roles": {"HEAVY": {"max_concurrent": 1, "max_queue": 0}}}
    async with running(SIM, full) as up, up.client() as busy:
        up.sim.faults.add("hang", model="gemma3:12b", path="/api/generate")
        await busy.ask("POST", "/api/generate", {"model": "heavy", "prompt": "hold"})
        await up.until(lambda: up.seats() == (1, 0))
        async with AsyncClient(up.url, admin_url=f"http://127.0.0.1:{up.admin_port}") as client:
            with pytest.raises(OverloadThrottledError):
                async with client.job("build-17") as job:
                    await job.generate("What next?", "HEAVY")
        found = await told(up, "build-17")
    assert found["why"] == "OverloadThrottledError: E_OVERLOAD_THROTTLED queue_full"


async def test_a_job_that_is_cancelled_is_told_to_have_ended() -> None:
    async with running(SIM) as up:
        up.sim.faults.add("hang")
        async with AsyncClient(up.url, admin_url=f"http://127.0.0.1:{up.admin_port}") as client:

            async def begin() -> None:
                async with client.job("build-17") as job:
                    await job.generate("What next?", "EXECUTOR")

            task = asyncio.ensure_future(begin())
            await up.until(lambda: up.seats() == (1, 0))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await up.calls.wait()
        job = await told(up, "build-17")
    assert (job["state"], job["why"]) == ("failed", "CancelledError")


async def test_what_modelsplit_cannot_take_is_said_and_fails_nothing(
    kind: type[Client | AsyncClient], caplog: pytest.LogCaptureFixture
) -> None:
    """A name that is none, and half a character in a reason."""
    async with running(SIM) as up, closing(client_of(kind, up)) as client:
        if isinstance(client, Client):
            await asyncio.to_thread(_odd, client.job("build-17"))
        else:
            async with client.job("build-17") as job, job.tool("rm -rf /"):
                job.fail("half a character: \ud83d")
        found = await told(up, "build-17")
    assert (found["tools"], found["state"], found["why"]) == (0, "failed", "half a character: ?")
    said = [record.getMessage() for record in caplog.records if record.name == "modelsplit_client"]
    assert len(said) == 1
    assert 'refused a job report (400): name "rm -rf /": use 1 to 64 letters' in said[0]


def _odd(job: Job) -> None:
    with job, job.tool("rm -rf /"):
        job.fail("half a character: \ud83d")
