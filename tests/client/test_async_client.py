"""A job of the async client: what it reports, and that it always ends."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from modelsplit_client import AsyncClient, AsyncJob
from modelsplit_client.async_transport import AsyncTransport
from modelsplit_client.jobs import Report


class Noted:
    """Takes reports, or does not, and notes them by the last part of their path."""

    def __init__(self, *, reached: bool = True) -> None:
        self.reached = reached
        self.reports: list[tuple[str, Any]] = []

    async def report(self, report: Report) -> bool:
        self.reports.append((report.path.rpartition("/")[2], dict(report.body)))
        return self.reached

    async def report_surely(self, report: Report) -> None:
        await self.report(report)


def job(noted: Noted) -> AsyncJob:
    return AsyncJob(cast("AsyncTransport", noted), "j")


async def test_it_starts_uses_tools_and_ends() -> None:
    noted = Noted()
    async with job(noted) as work:
        async with work.tool("grep"):
            pass
        async with work.tool("make") as make:
            make.fail()
    assert [kind for kind, _ in noted.reports] == ["start", "tool", "tool", "finish"]
    tools = [body for kind, body in noted.reports if kind == "tool"]
    assert [(body["name"], body["ok"]) for body in tools] == [("grep", True), ("make", False)]
    assert all(body["duration_ms"] >= 0 for body in tools)
    assert noted.reports[-1] == ("finish", {"ok": True})


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_an_exception_fails_the_tool_and_the_job_and_goes_on(
    error: type[BaseException],
) -> None:
    noted = Noted()
    with pytest.raises(error):
        async with job(noted) as work, work.tool("grep"):
            raise error("the prompt was: secret")
    assert [(kind, body.get("ok")) for kind, body in noted.reports] == [
        ("start", None),
        ("tool", False),
        ("finish", False),
    ]
    assert noted.reports[-1][1]["why"] == error.__name__


async def test_a_job_that_is_cancelled_ends_as_failed() -> None:
    noted, begun = Noted(), asyncio.Event()

    async def work() -> None:
        async with job(noted):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert noted.reports[-1] == ("finish", {"ok": False, "why": "CancelledError"})


async def test_it_can_be_said_to_have_failed() -> None:
    noted = Noted()
    async with job(noted) as work:
        work.fail("no plan")
    assert noted.reports[-1] == ("finish", {"ok": False, "why": "no plan"})


async def test_where_nobody_is_there_only_the_end_is_tried_again() -> None:
    noted = Noted(reached=False)
    async with job(noted) as work, work.tool("grep"):
        pass
    assert [kind for kind, _ in noted.reports] == ["start", "finish"]


async def test_a_job_has_an_id() -> None:
    async with AsyncClient() as client:
        assert client.job("build-17").id == "build-17"
        assert len(client.job().id) == 32
