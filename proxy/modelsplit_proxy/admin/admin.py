"""What operators look at: health, metrics, statistics, records. Never a route of Ollama's.

On its own listener, loopback by default, and only under Host names that are ours: a web page
must not be able to read it through DNS rebinding. Only reports of jobs are written, and not by
anybody (``write_guard``). The routes are by subject, a module each; this one finds the route and
answers with what it says.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from modelsplit_policy.failures import ErrorCode, Failure, Reason, said_back
from modelsplit_proxy.admin import late_routes, page
from modelsplit_proxy.admin.health import HealthRoutes
from modelsplit_proxy.admin.index import IndexRoutes
from modelsplit_proxy.admin.page import READ_ONLY, Live, Page, PageAsked, Pages, failed
from modelsplit_proxy.http import write_guard
from modelsplit_proxy.http.body import BodyError, read_whole
from modelsplit_proxy.http.downstream import Downstream
from modelsplit_proxy.records.query_error import QueryError
from modelsplit_proxy.records.reader import AmbiguousError
from modelsplit_proxy.runtime.late import Late, ReplacedError
from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from modelsplit_proxy.admin.page import Handler
    from modelsplit_proxy.admin.parts import AdminParts
    from modelsplit_proxy.http.request import Request

logger = logging.getLogger("modelsplit")

_OUR_BUG: Final = "this page failed by a fault of our own; the log on stderr has the details"
_WRITE_ONLY: Final = (b"Allow: POST\r\n",)
_NO_JSON: Final = "Content-Type: reports are JSON; send application/json"


class Admin:
    """Called by the edge for each request on the admin port."""

    def __init__(self, parts: AdminParts) -> None:
        self._parts = parts
        self._jobs = Late(partial(late_routes.jobs, parts))
        self._hosts = Late(partial(late_routes.hosts, parts))
        routes: dict[str, Handler] = {
            **HealthRoutes(parts.health).routes,
            **late_routes.of_subjects(parts),
            **late_routes.asked_of(self._jobs, late_routes.JOB_PATHS),
            **late_routes.asked_of(self._hosts, late_routes.HOST_PATHS),
        }
        self.dashboard = Late(partial(late_routes.dashboard, parts, dict(routes)))
        routes |= late_routes.asked_of(self.dashboard, late_routes.DASHBOARD_PATHS)
        index = IndexRoutes(sorted(routes), self._index_page, parts.slo.admin)
        self.routes: Mapping[str, Handler] = {**index.routes, **routes}
        self.writes = frozenset((*late_routes.REPORT_PATHS, *late_routes.DRAIN_PATHS))

    async def _index_page(self, asked: PageAsked) -> Page:
        dashboard = await self.dashboard.get()
        return await dashboard.index(asked)

    async def __call__(self, request: Request) -> web.StreamResponse:
        down = Downstream(request)
        answer = await self._answer(request, down)
        close = self._parts.lifecycle.draining or not request.content.is_eof()
        if isinstance(answer, Page):
            page.write(down, answer, close=close)
        elif isinstance(answer, Live):
            await page.live(down, answer)
        else:
            await page.stream(request, down, answer, close=close)
        return down.answered()

    async def _answer(self, request: Request, down: Downstream) -> Page | Pages | Live:
        sent = request.headers
        failure = self._parts.guard.check(sent.get("Host"), sent.get("Origin"))
        if failure is not None:
            return _refused(failure)
        route, item = _route(request.path)
        try:
            if route in self.writes:
                return await self._write(request, down, route, item)
            return await self._read(request, route, item)
        except (QueryError, AmbiguousError) as error:
            return failed(str(error), ErrorCode.BAD_REQUEST, 400)
        except (StoreError, ReplacedError) as error:
            return failed(str(error), ErrorCode.INTERNAL, 503)
        except Exception:
            logger.exception("the admin port's %s %s failed", request.method, route[:200])
            return failed(_OUR_BUG, ErrorCode.INTERNAL, 500)

    async def _read(self, request: Request, route: str, item: str) -> Page | Pages | Live:
        handler = self.routes.get(route)
        if handler is None:
            text = f'the admin port has no page "{said_back(request.path)}"'
            return failed(text, ErrorCode.BAD_REQUEST, 404)
        if request.method not in {"GET", "HEAD"}:
            text = "the admin port only reads there: use GET"
            return failed(text, ErrorCode.BAD_REQUEST, 405, READ_ONLY)
        return await handler(PageAsked(request.query, request.headers.get("Accept", ""), item))

    async def _write(self, request: Request, down: Downstream, route: str, item: str) -> Page:
        """A report of a job, or a host's drain, from somebody who may write."""
        if request.method != "POST":
            text = "reports are posted there: use POST"
            return failed(text, ErrorCode.BAD_REQUEST, 405, _WRITE_ONLY)
        failure = write_guard.cross_site(request.headers) or self._stranger(request)
        if failure is not None:
            return _refused(failure)
        if not write_guard.is_json(request.headers):
            return failed(_NO_JSON, ErrorCode.BAD_REQUEST, 415)
        try:
            raw = await read_whole(request, down, write_guard.BODY_MAX)
        except BodyError as error:
            return _refused_body(error.failure)
        if raw and "Content-Type" not in request.headers:
            return failed(_NO_JSON, ErrorCode.BAD_REQUEST, 415)
        return await self._take(route, item, raw)

    async def _take(self, route: str, item: str, raw: bytes) -> Page:
        """What has been let in."""
        if route in late_routes.DRAIN_PATHS:
            hosts = await self._hosts.get()
            return hosts.write(route, item)
        jobs = await self._jobs.get()
        return await jobs.report(route, item, raw)

    def _stranger(self, request: Request) -> Failure | None:
        """What to answer a peer that is not this machine and has no key; None: it may write."""
        if write_guard.is_this_machine(request.remote):
            return None
        keyring = self._parts.keyring
        if keyring is None:
            return Failure(
                ErrorCode.FORBIDDEN,
                Reason.METHOD_DENIED,
                "only this machine may report here; to let others, start modelsplit with --keys",
                "Key Needed",
            )
        caller = keyring.caller(request.headers)
        return caller if isinstance(caller, Failure) else None


def _route(path: str) -> tuple[str, str]:
    """A path as a key of the routes, and what stands in it for ``{id}``."""
    head, *rest = path.removeprefix("/").split("/")
    if not rest or not rest[0]:
        return path, ""
    return "/".join(("", head, "{id}", *rest[1:])), unquote(rest[0])


def _refused_body(failure: Failure) -> Page:
    if failure.code is not ErrorCode.REQUEST_TOO_LARGE:
        return _refused(failure)
    return failed(
        f"body: it is larger than {write_guard.BODY_MAX} bytes", ErrorCode.BAD_REQUEST, 400
    )


def _refused(failure: Failure) -> Page:
    lines = page.CHALLENGE if failure.status == 401 else ()
    return failed(failure.message, failure.code, failure.status, lines)
