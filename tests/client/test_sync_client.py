"""A job of the sync client: what it reports, and that it always ends."""

from __future__ import annotations

from typing import Any, assert_type, cast

import pydantic
import pytest

from modelsplit_client import Answer, AsyncClient, Client, Job
from modelsplit_client.jobs import Report
from modelsplit_client.sync_transport import Transport


class Noted:
    """Takes reports, or does not, and notes them by the last part of their path."""

    def __init__(self, *, reached: bool = True) -> None:
        self.reached = reached
        self.reports: list[tuple[str, Any]] = []

    def report(self, report: Report) -> bool:
        self.reports.append((report.path.rpartition("/")[2], dict(report.body)))
        return self.reached


def job(noted: Noted) -> Job:
    return Job(cast("Transport", noted), "j")


def test_it_starts_uses_tools_and_ends() -> None:
    noted = Noted()
    with job(noted) as work:
        with work.tool("grep"):
            pass
        with work.tool("make") as make:
            make.fail()
    assert [kind for kind, _ in noted.reports] == ["start", "tool", "tool", "finish"]
    tools = [body for kind, body in noted.reports if kind == "tool"]
    assert [(body["name"], body["ok"]) for body in tools] == [("grep", True), ("make", False)]
    assert all(body["duration_ms"] >= 0 for body in tools)
    assert noted.reports[-1] == ("finish", {"ok": True})


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_fails_the_tool_and_the_job_and_goes_on(error: type[BaseException]) -> None:
    noted = Noted()
    with pytest.raises(error), job(noted) as work, work.tool("grep"):
        raise error("the prompt was: secret")
    assert [(kind, body.get("ok")) for kind, body in noted.reports] == [
        ("start", None),
        ("tool", False),
        ("finish", False),
    ]
    assert noted.reports[-1][1]["why"] == error.__name__


def test_it_can_be_said_to_have_failed() -> None:
    noted = Noted()
    with job(noted) as work:
        work.fail("no step of the plan could be done")
    why = "no step of the plan could be done"
    assert noted.reports[-1] == ("finish", {"ok": False, "why": why})


def test_where_nobody_is_there_only_the_end_is_tried_again() -> None:
    noted = Noted(reached=False)
    with job(noted) as work, work.tool("grep"):
        pass
    assert [kind for kind, _ in noted.reports] == ["start", "finish"]


def test_a_job_has_an_id() -> None:
    with Client() as client:
        assert client.job("build-17").id == "build-17"
        assert len(client.job().id) == 32


class Plan(pydantic.BaseModel):
    goal: str


async def types(client: Client, other: AsyncClient) -> None:
    """Never run: what a type checker knows of an answer."""
    schema = {"type": "object"}
    assert_type(client.generate("x", "PLANNER", schema=Plan), Answer[Plan])
    assert_type(client.generate("x", "PLANNER", schema=schema), Answer[Any])
    assert_type(client.chat([], "PLANNER", 1, schema=Plan).parsed, Plan)
    assert_type(client.job().generate("x", "PLANNER", schema=Plan).parsed.goal, str)
    assert_type(await other.generate("x", "PLANNER", schema=Plan), Answer[Plan])
    assert_type((await other.job().chat([], "PLANNER", schema=Plan)).parsed, Plan)
