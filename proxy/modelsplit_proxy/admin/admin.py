"""What operators look at: health, metrics, statistics, records. Never a route of Ollama's.

Read-only, on its own listener, loopback by default, and only under Host names that are
ours: a web page must not be able to read it through DNS rebinding.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from modelsplit_policy.experiments import shares
from modelsplit_policy.failures import ErrorCode, Failure, said_back
from modelsplit_policy.queue_view import shown, shown_running
from modelsplit_policy.roles import Route, RouteRequest
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.http.downstream import Downstream, date_line
from modelsplit_proxy.metrics import budgets as budget_metrics
from modelsplit_proxy.metrics import storage as storage_metrics
from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.records import cost_history, explain, request_log, trace
from modelsplit_proxy.records.experiment_report import UnknownExperimentError, report
from modelsplit_proxy.records.query import (
    WORDS,
    QueryError,
    only,
    read_number,
    read_query,
    read_since,
)
from modelsplit_proxy.records.reader import AmbiguousError
from modelsplit_proxy.runtime import tasks
from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from aiohttp import web

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.breaker import BreakerView
    from modelsplit_policy.config.model import ArmPolicy, ExperimentPolicy, Policy
    from modelsplit_policy.roles import Roles
    from modelsplit_proxy.config.policy_file import LoadedPolicy
    from modelsplit_proxy.http.origin_guard import OriginGuard
    from modelsplit_proxy.http.request import Request
    from modelsplit_proxy.http.upstream import UpstreamTarget
    from modelsplit_proxy.limits.breakers import BreakerKeeper
    from modelsplit_proxy.limits.budgets import BudgetKeeper
    from modelsplit_proxy.metrics.calls import CallMetrics
    from modelsplit_proxy.metrics.costs import Costs
    from modelsplit_proxy.records.live import LiveCalls
    from modelsplit_proxy.records.recorder import Recorder
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.lifecycle import Lifecycle
    from modelsplit_proxy.runtime.loop_lag import LoopLag
    from modelsplit_proxy.runtime.tasks import Tasks
    from modelsplit_proxy.storage.writer import Store
    from modelsplit_proxy.watch.health import HealthMonitor
    from modelsplit_proxy.watch.loaded_models import LoadedModelsWatch
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe

    _Handler = Callable[["PageAsked"], Awaitable["Page | Pages"]]

logger = logging.getLogger("modelsplit")

_MAX_LATEST = 1000
_FRESH = (b"X-Content-Type-Options: nosniff\r\n", b"Cache-Control: no-store\r\n")
_ALLOW = b"Allow: GET, HEAD\r\n"
_NDJSON = "application/x-ndjson"
_PHRASES = MappingProxyType(
    {
        200: "OK",
        400: "Bad Request",
        403: "Forbidden",
        404: "Not Found",
        405: "Method Not Allowed",
        503: "Service Unavailable",
    }
)


@dataclass(frozen=True, slots=True)
class PageAsked:
    """What an admin route is asked. ``item``: what stands in the path for ``{id}``."""

    query: Mapping[str, str]
    accept: str = ""
    item: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One whole answer."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Pages:
    """An answer that is written as it is read; the first piece is here, None: there is none."""

    first: bytes | None
    rest: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class AdminParts:
    """What the admin routes show."""

    policy: Policy
    roles: Roles
    admission: Admission
    breakers: BreakerKeeper
    budget_keeper: BudgetKeeper
    metrics: CallMetrics
    live: LiveCalls
    clock: Clock
    lifecycle: Lifecycle
    target: UpstreamTarget
    guard: OriginGuard
    loaded: LoadedPolicy
    probe: UpstreamProbe
    loaded_models: LoadedModelsWatch
    monitor: HealthMonitor
    lag: LoopLag
    recorder: Recorder
    costs: Costs
    store: Store
    tasks: Tasks


class Admin:
    """Called by the edge for each request on the admin port."""

    def __init__(self, parts: AdminParts) -> None:
        self._parts = parts
        self.routes: Mapping[str, _Handler] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/stats": self._stats,
            "/queue": self._queue,
            "/policy": self._policy,
            "/route": self._route,
            "/cost": self._cost,
            "/experiments": self._experiments,
            "/requests": self._requests,
            "/requests/{id}": self._request,
        }

    async def __call__(self, request: Request) -> web.StreamResponse:
        down = Downstream(request)
        answer = await self._answer(request)
        close = self._parts.lifecycle.draining or not request.content.is_eof()
        if isinstance(answer, Page):
            _write(down, answer, close=close)
        else:
            await _stream(request, down, answer, close=close)
        return down.answered()

    async def _answer(self, request: Request) -> Page | Pages:
        sent = request.headers
        failure = self._parts.guard.check(sent.get("Host"), sent.get("Origin"))
        if failure is not None:
            return _failed(failure.message, failure.code, failure.status)
        path, item = request.path, ""
        if path.startswith("/requests/"):
            item = unquote(path.removeprefix("/requests/"))
            path = "/requests/{id}" if path.count("/") == 2 and item else path
        handler = self.routes.get(path)
        if handler is None:
            text = f'the admin port has no page "{said_back(request.path)}"'
            return _failed(text, ErrorCode.BAD_REQUEST, 404)
        if request.method not in {"GET", "HEAD"}:
            return _failed("the admin port only reads: use GET", ErrorCode.BAD_REQUEST, 405)
        try:
            return await handler(PageAsked(request.query, sent.get("Accept", ""), item))
        except (QueryError, AmbiguousError) as error:
            return _failed(str(error), ErrorCode.BAD_REQUEST, 400)
        except StoreError as error:
            return _failed(str(error), ErrorCode.INTERNAL, 503)

    async def _healthz(self, asked: PageAsked) -> Page:
        """200 while the process can answer; the upstream's health is told, not judged."""
        del asked
        health = self._parts.monitor.fields()
        parts = self._parts
        trouble = parts.budget_keeper.error or parts.store.error
        trouble = trouble or tasks.trouble(parts.tasks.watchers())
        return _json(
            {
                "status": "ok" if trouble is None else "degraded",
                "error": trouble,
                "health": health,
                "upstream": self._upstream(),
                "ledger": self._recorder(),
            }
        )

    async def _readyz(self, asked: PageAsked) -> Page:
        """503 while calls would fail: draining, or Ollama known to be away."""
        del asked
        draining = self._parts.lifecycle.draining
        ready = not draining and self._parts.probe.up is not False
        body = {"ready": ready, "draining": draining, "upstream": self._upstream()}
        return _json(body, status=200 if ready else 503)

    async def _metrics(self, asked: PageAsked) -> Page:
        del asked
        text = generate_latest(self._parts.metrics.registry)
        return Page(text, content_type=CONTENT_TYPE_LATEST)

    async def _stats(self, asked: PageAsked) -> Page:
        del asked
        parts = self._parts
        # An approval given a moment ago is shown.
        await parts.budget_keeper.look()
        return _json(
            {
                "upstream": self._upstream(),
                "policy": {"source": parts.loaded.source, "digest": parts.loaded.digest},
                "global": {
                    "running": parts.admission.running_local,
                    "seats": parts.admission.global_seats,
                    "lent": parts.admission.lent,
                    "inside": parts.admission.host().parallelism.inside,
                },
                "roles": {role: self._pool(role) for role in Role},
                "waiters": list(shown(parts.admission.waiters(parts.clock.now()))),
                "parallelism": self._parallelism(),
                "forecast": asdict(parts.admission.forecast),
                "health": parts.monitor.fields(),
                "breakers": [_breaker(view) for view in parts.breakers.snapshot()],
                "active_requests": parts.lifecycle.active,
                "event_loop_lag_p99_ms": round(parts.lag.quantile(0.99) * 1000, 3),
                "cost": parts.costs.fields(),
                "spending": budget_metrics.fields(parts.budget_keeper),
                "ledger": self._recorder(),
                "watchers": [watcher._asdict() for watcher in parts.tasks.watchers()],
            }
        )

    async def _queue(self, asked: PageAsked) -> Page:
        """Who waits, for what and how long still, and who runs."""
        del asked
        admission, now = self._parts.admission, self._parts.clock.now()
        waiting = [
            row | {"why": explain.hold_in_words(str(row["hold"]))}
            for row in shown(admission.waiters(now))
        ]
        running = list(shown_running(admission.runners(now)))
        return _json({"waiting": waiting, "running": running})

    async def _policy(self, asked: PageAsked) -> Page:
        del asked
        loaded = self._parts.loaded
        policy = loaded.policy.model_dump(mode="json", by_alias=True)
        return _json({"source": loaded.source, "digest": loaded.digest, "policy": policy})

    async def _route(self, asked: PageAsked) -> Page:
        """A dry run: what a call with this model and role would get."""
        query = asked.query
        ask = dry_run(query.get("model", ""), query.get("role", ""), query.get("key", ""))
        route = self._parts.roles.route(ask)
        if isinstance(route, Failure):
            return _json({"error": route.message, "error_code": route.code}, status=route.status)
        return _json(route_fields(route))

    async def _cost(self, asked: PageAsked) -> Page:
        """What calls have cost, within a day unless the query says since when."""
        parts = self._parts
        since = {"since": asked.query.get("since", "1d")}
        since_us = read_since(since, parts.clock.wall())
        read, table = parts.recorder.read, parts.costs.table
        return _json(await asyncio.to_thread(cost_history.spent, read, since_us, table))

    async def _experiments(self, asked: PageAsked) -> Page:
        """What experiments have shown so far, or the one that is named."""
        parts, query = self._parts, asked.query
        since_us = read_since(query, parts.clock.wall())
        policy, data = parts.policy, parts.recorder.experiments
        try:
            fields = await asyncio.to_thread(report, policy, data, query.get("name"), since_us)
        except UnknownExperimentError as error:
            return _failed(str(error), ErrorCode.BAD_REQUEST, 404)
        return _json(fields)

    async def _requests(self, asked: PageAsked) -> Page | Pages:
        """Finished calls as JSON or as lines, newest first; or all as a trace, oldest first."""
        only(asked.query, (*WORDS, "limit", "format"))
        query = read_query(asked.query, self._parts.clock.wall())
        if asked.query.get("format") == "trace":
            return await self._trace(self._parts.recorder.reader.in_order(query))
        limit = read_number("limit", asked.query.get("limit"), 100, _MAX_LATEST)
        calls = await asyncio.to_thread(self._parts.recorder.reader.latest, query, limit)
        if _wants_text(asked, "trace"):
            return _text(request_log.listing(calls))
        return _json(calls)

    async def _trace(self, pages: Iterator[list[dict[str, Any]]]) -> Pages:
        """Page by page: nothing grows with the number of calls."""
        lines = (trace.lines(page) for page in pages)
        return Pages(await asyncio.to_thread(next, lines, None), lines)

    async def _request(self, asked: PageAsked) -> Page:
        """One call, running or finished, as JSON or in words."""
        request_id = asked.item
        live = self._parts.live
        fields = live.find(request_id)
        if fields is None:
            fields = await asyncio.to_thread(self._parts.recorder.reader.find, request_id)
        if fields is None:
            fields = live.begins(request_id)
        if fields is None:
            text = f'no call has the request id "{request_id[:128]}"'
            return _failed(text, ErrorCode.BAD_REQUEST, 404)
        return _text(explain.text(fields)) if _wants_text(asked) else _json(fields)

    def _upstream(self) -> dict[str, Any]:
        probe = self._parts.probe
        return {
            "address": f"http://{self._parts.target.authority}",
            "up": probe.up,
            "version": probe.version,
            "error": probe.error,
        }

    def _recorder(self) -> dict[str, Any]:
        return storage_metrics.fields(self._parts.store, self._parts.recorder)

    def _parallelism(self) -> dict[str, Any]:
        """What is known of how many calls at once are useful."""
        learned = self._parts.admission.host().parallelism
        models = self._parts.loaded_models.models
        return {
            "host": learned.host,
            "contention": round(learned.contention, 3),
            "slots": learned.known_models(),
            "resident": None if models is None else sorted(models),
        }

    def _pool(self, role: Role) -> dict[str, Any]:
        admission = self._parts.admission
        limits = admission.limits(role)
        return {
            "running": admission.running(role),
            "seats": limits.seats,
            "reserved": limits.reserved,
            "waiting": admission.waiting(role),
            "max_queue": limits.max_queue,
        }


def _breaker(view: BreakerView) -> dict[str, Any]:
    return {
        "breaker": str(view.key),
        "state": view.state,
        "failures": view.failures,
        "trial_in_s": round(view.trial_in_s, 3),
        "why": view.why,
    }


def dry_run(model: str, role: str, key: str) -> RouteRequest:
    """What a client would ask; ``key``: its job, client or request, whichever counts."""
    return RouteRequest(model=model, role=role, job=key, client=key, request=key)


def _wants_text(asked: PageAsked, *others: str) -> bool:
    """``?format=text``, or a client that would rather have text than anything else."""
    wanted = asked.query.get("format")
    if wanted is not None and wanted not in {"text", "json"}:
        known = ", ".join(("text", *others))
        raise QueryError(f'format "{said_back(wanted, 20)}" is unknown; use {known} or json')
    return wanted == "text" or (wanted is None and asked.accept.startswith("text/plain"))


def route_fields(route: Route) -> dict[str, Any]:
    """A route as plain values, for JSON."""
    fields: dict[str, Any] = {
        "llm_role": route.role,
        "llm_context": route.context,
        "llm_provider": route.provider,
        "requested_model": route.requested_model,
        "route_reason": route.reason,
        "needs_approval": route.provider is Provider.CLOUD,
        "candidates": [
            {"model": candidate.model, "timeout_s": candidate.timeout_s}
            for candidate in route.candidates
        ],
    }
    if route.experiment is not None:
        fields |= _experiment(route.experiment, route.arm)
    return fields


def _experiment(test: ExperimentPolicy, arm: ArmPolicy | None) -> dict[str, Any]:
    share = shares(test)
    return {
        "experiment": test.name,
        "variant": None if arm is None else arm.name,
        "sticky": test.sticky,
        "arms": [
            {"name": arm.name, "model": arm.model, "share": round(share[arm.name], 6)}
            for arm in test.arms
        ],
    }


def _json(value: Any, *, status: int = 200) -> Page:
    body = tellable.dumps(value, orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n"
    return Page(body, status)


def _text(text: str) -> Page:
    return Page(text.encode(), content_type="text/plain; charset=utf-8")


def _failed(text: str, code: ErrorCode, status: int) -> Page:
    return _json({"error": text, "error_code": code}, status=status)


def refused_admin_request(down: Downstream, failure: Failure, path: str) -> None:
    """Answer what the edge refuses on the admin port."""
    del path
    _write(down, _failed(failure.message, failure.code, failure.status), close=True)


def _head(down: Downstream, page: Page, *, length: int | None, close: bool) -> None:
    lines = [f"Content-Type: {page.content_type}\r\n".encode(), date_line(), *_FRESH]
    if page.status == 405:
        lines.append(_ALLOW)
    phrase = _PHRASES.get(page.status, "Refused")
    down.head(page.status, phrase, lines, length=length, close=close)


def _write(down: Downstream, page: Page, *, close: bool) -> None:
    _head(down, page, length=len(page.body), close=close)
    down.write(page.body)
    down.end()


async def _stream(request: Request, down: Downstream, pages: Pages, *, close: bool) -> None:
    _head(down, Page(b"", content_type=_NDJSON), length=None, close=close)
    piece = pages.first
    try:
        while piece is not None:
            down.write(piece)
            await request.connection.taken()
            piece = await asyncio.to_thread(next, pages.rest, None)
    except StoreError as error:
        # Cut, so that nobody takes it for the whole of it.
        logger.warning("a trace broke off: %s", error)
        down.abort()
    else:
        down.end()
