"""Routes whose module is loaded by the first request to one of them.

Most processes are never asked for most of them. What answers watchdogs, load balancers and
Prometheus is not among them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from modelsplit_proxy.runtime.late import Late

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.admin.dashboard import DashboardRoutes
    from modelsplit_proxy.admin.hosts import HostRoutes
    from modelsplit_proxy.admin.jobs import JobRoutes
    from modelsplit_proxy.admin.page import Handler, Live, Page, PageAsked, Pages
    from modelsplit_proxy.admin.parts import AdminParts

    class Opened(Protocol):
        """The routes of a subject."""

        routes: Mapping[str, Handler]


def _stats(parts: AdminParts) -> Opened:
    from modelsplit_proxy.admin.stats import StatsRoutes  # noqa: PLC0415

    return StatsRoutes(parts.stats)


def _policy(parts: AdminParts) -> Opened:
    from modelsplit_proxy.admin.policy import PolicyRoutes  # noqa: PLC0415

    return PolicyRoutes(parts.policy)


def _reports(parts: AdminParts) -> Opened:
    from modelsplit_proxy.admin.reports import ReportRoutes  # noqa: PLC0415

    return ReportRoutes(parts.reports)


def _requests(parts: AdminParts) -> Opened:
    from modelsplit_proxy.admin.requests import RequestRoutes  # noqa: PLC0415

    return RequestRoutes(parts.requests)


def _slo(parts: AdminParts) -> Opened:
    from modelsplit_proxy.admin.slo import SloRoutes  # noqa: PLC0415

    return SloRoutes(parts.slo)


def jobs(parts: AdminParts) -> JobRoutes:
    from modelsplit_proxy.admin.jobs import JobRoutes  # noqa: PLC0415

    return JobRoutes(parts.jobs)


def hosts(parts: AdminParts) -> HostRoutes:
    from modelsplit_proxy.admin.hosts import HostRoutes  # noqa: PLC0415

    return HostRoutes(parts.hosts)


def dashboard(parts: AdminParts, others: Mapping[str, Handler]) -> DashboardRoutes:
    """``others``: the other routes of the admin port."""
    from modelsplit_proxy.admin.dashboard import DashboardRoutes  # noqa: PLC0415

    return DashboardRoutes(parts.dashboard, others)


# Each subject's own ``routes``, told before it is loaded; a test compares them.
JOB_PATHS: Final = ("/jobs", "/jobs/{id}")
REPORT_PATHS: Final = ("/jobs/{id}/start", "/jobs/{id}/tool", "/jobs/{id}/finish")
HOST_PATHS: Final = ("/hosts",)
DRAIN_PATHS: Final = ("/hosts/{id}/drain", "/hosts/{id}/undrain")
DASHBOARD_PATHS: Final = ("/dashboard/{id}",)


SUBJECTS: Final = (
    (_stats, ("/stats", "/queue")),
    (_policy, ("/policy", "/route")),
    (_reports, ("/cost", "/experiments")),
    (_requests, ("/requests", "/requests/{id}")),
    (_slo, ("/slo",)),
)
"""Of all but jobs, hosts and the page, which ``Admin`` asks for more."""


def of_subjects(parts: AdminParts) -> dict[str, Handler]:
    """A handler for each path of ``SUBJECTS``."""
    routes: dict[str, Handler] = {}
    for make, paths in SUBJECTS:
        routes |= asked_of(Late(partial(make, parts)), paths)
    return routes


def asked_of(subject: Late[Any], paths: tuple[str, ...]) -> dict[str, Handler]:
    """``subject``: what has ``routes``, of which these are the paths."""
    return {path: partial(_answer, subject, path) for path in paths}


async def _answer(subject: Late[Opened], path: str, asked: PageAsked) -> Page | Pages | Live:
    opened = await subject.get()
    return await opened.routes[path](asked)
