"""Routes that are loaded when somebody asks for them first, and known before."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.admin import late_routes
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import Callable

# What answers nothing but an operator, a report, or a client with keys or a schema.
LATE = """
import sys, modelsplit_proxy.__main__
print(*(name for name in sys.modules if name.startswith("modelsplit_")))
"""
NOT_LOADED = {
    *("admin.dashboard", "admin.dashboard_data", "admin.jobs", "admin.policy", "admin.reports"),
    *("admin.requests", "admin.slo", "admin.stats", "admin.status_text", "config.key_file"),
    *("protocol.job_report", "protocol.schema_cost", "records.explain", "records.history"),
    *("records.experiment_report", "records.job_story", "records.job_text", "records.query"),
    *("records.slo_data", "records.slo_reading", "records.slo_report"),
}


@pytest.mark.parametrize(
    ("make", "paths"),
    [
        *late_routes.SUBJECTS,
        (late_routes.jobs, late_routes.JOB_PATHS),
        (lambda parts: late_routes.dashboard(parts, {}), late_routes.DASHBOARD_PATHS),
    ],
)
async def test_the_paths_of_a_subject_are_its_own(
    make: Callable[[Any], late_routes.Opened], paths: tuple[str, ...]
) -> None:
    async with running() as up:
        opened = make(up.app._admin_parts())
    assert tuple(opened.routes) == paths


async def test_the_reports_are_those_of_jobs() -> None:
    async with running() as up:
        jobs = late_routes.jobs(up.app._admin_parts())
    assert tuple(jobs.reports) == late_routes.REPORT_PATHS


async def test_who_asks_for_something_else_first_gets_it_all_the_same() -> None:
    async with running() as up, up.admin() as admin:
        for _ in range(2):
            assert (await admin.request("GET", "/jobs/none")).status == 404
            assert (await admin.request("GET", "/stats?format=text")).status == 200


def test_a_process_that_serves_has_none_of_them_before_somebody_asks() -> None:
    out = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("modelsplit_proxy.") for name in out.stdout.split()}
    assert loaded & NOT_LOADED == set()
    judging = {name for name in loaded if name.startswith("modelsplit_policy.slo.")}
    assert judging == {"modelsplit_policy.slo.heartbeat", "modelsplit_policy.slo.names"}
    assert not loaded & {"modelsplit_policy.comparison", "modelsplit_policy.intervals"}
