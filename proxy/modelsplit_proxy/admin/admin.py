"""What operators look at: health, metrics, statistics, records. Never a route of Ollama's.

On its own listener, loopback by default, and only under Host names that are ours: a web page
must not be able to read it through DNS rebinding. The routes are by subject, a module each;
this one finds the route and answers with what it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from modelsplit_policy.failures import ErrorCode, said_back
from modelsplit_proxy.admin import page
from modelsplit_proxy.admin.health import HealthParts, HealthRoutes
from modelsplit_proxy.admin.page import READ_ONLY, Page, PageAsked, Pages, failed
from modelsplit_proxy.admin.policy import PolicyParts, PolicyRoutes
from modelsplit_proxy.admin.reports import ReportParts, ReportRoutes
from modelsplit_proxy.admin.requests import RequestParts, RequestRoutes
from modelsplit_proxy.admin.stats import StatsParts, StatsRoutes
from modelsplit_proxy.http.downstream import Downstream
from modelsplit_proxy.records.query import QueryError
from modelsplit_proxy.records.reader import AmbiguousError
from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from modelsplit_proxy.admin.page import Handler
    from modelsplit_proxy.http.origin_guard import OriginGuard
    from modelsplit_proxy.http.request import Request
    from modelsplit_proxy.runtime.lifecycle import Lifecycle


@dataclass(frozen=True, slots=True)
class AdminParts:
    """Who may look, and what each subject's routes need."""

    guard: OriginGuard
    lifecycle: Lifecycle
    health: HealthParts
    stats: StatsParts
    policy: PolicyParts
    reports: ReportParts
    requests: RequestParts


class Admin:
    """Called by the edge for each request on the admin port."""

    def __init__(self, parts: AdminParts) -> None:
        self._parts = parts
        self.routes: Mapping[str, Handler] = {
            **HealthRoutes(parts.health).routes,
            **StatsRoutes(parts.stats).routes,
            **PolicyRoutes(parts.policy).routes,
            **ReportRoutes(parts.reports).routes,
            **RequestRoutes(parts.requests).routes,
        }

    async def __call__(self, request: Request) -> web.StreamResponse:
        down = Downstream(request)
        answer = await self._answer(request)
        close = self._parts.lifecycle.draining or not request.content.is_eof()
        if isinstance(answer, Page):
            page.write(down, answer, close=close)
        else:
            await page.stream(request, down, answer, close=close)
        return down.answered()

    async def _answer(self, request: Request) -> Page | Pages:
        sent = request.headers
        failure = self._parts.guard.check(sent.get("Host"), sent.get("Origin"))
        if failure is not None:
            return failed(failure.message, failure.code, failure.status)
        path, item = request.path, ""
        if path.startswith("/requests/"):
            item = unquote(path.removeprefix("/requests/"))
            path = "/requests/{id}" if path.count("/") == 2 and item else path
        handler = self.routes.get(path)
        if handler is None:
            text = f'the admin port has no page "{said_back(request.path)}"'
            return failed(text, ErrorCode.BAD_REQUEST, 404)
        if request.method not in {"GET", "HEAD"}:
            text = "the admin port only reads: use GET"
            return failed(text, ErrorCode.BAD_REQUEST, 405, READ_ONLY)
        try:
            return await handler(PageAsked(request.query, sent.get("Accept", ""), item))
        except (QueryError, AmbiguousError) as error:
            return failed(str(error), ErrorCode.BAD_REQUEST, 400)
        except StoreError as error:
            return failed(str(error), ErrorCode.INTERNAL, 503)
