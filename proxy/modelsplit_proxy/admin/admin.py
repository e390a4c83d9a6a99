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

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from modelsplit_policy.admission import shown
from modelsplit_policy.experiments import shares
from modelsplit_policy.failures import Failure, said_back
from modelsplit_policy.roles import Ask, Route
from modelsplit_policy.vocabulary import Provider, Role
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
    from collections.abc import Awaitable, Callable, Iterator

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.breaker import BreakerView
    from modelsplit_policy.config.model import ArmPolicy, ExperimentPolicy, Policy
    from modelsplit_policy.roles import Roles
    from modelsplit_proxy.config.policy_file import LoadedPolicy
    from modelsplit_proxy.http.origin_guard import Guard
    from modelsplit_proxy.http.upstream import UpstreamTarget
    from modelsplit_proxy.limits.breakers import BreakerKeeper
    from modelsplit_proxy.limits.budgets import BudgetKeeper
    from modelsplit_proxy.metrics.calls import Metrics
    from modelsplit_proxy.metrics.costs import Costs
    from modelsplit_proxy.records.live import LiveCalls
    from modelsplit_proxy.records.recorder import Ledger
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.lifecycle import Lifecycle
    from modelsplit_proxy.runtime.loop_lag import LoopLag
    from modelsplit_proxy.runtime.tasks import Tasks
    from modelsplit_proxy.storage.writer import Store
    from modelsplit_proxy.watch.health import Monitor
    from modelsplit_proxy.watch.loaded_models import Residency
    from modelsplit_proxy.watch.upstream_probe import Probe

    _Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger("modelsplit")

_MAX_LATEST = 1000
_FRESH = MappingProxyType({"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"})


@dataclass(frozen=True, slots=True)
class AdminParts:
    """What the admin routes show."""

    policy: Policy
    roles: Roles
    admission: Admission
    breakers: BreakerKeeper
    budget_keeper: BudgetKeeper
    metrics: Metrics
    live: LiveCalls
    clock: Clock
    lifecycle: Lifecycle
    target: UpstreamTarget
    guard: Guard
    loaded: LoadedPolicy
    probe: Probe
    residency: Residency
    monitor: Monitor
    lag: LoopLag
    ledger: Ledger
    costs: Costs
    store: Store
    tasks: Tasks


class Admin:
    """The admin routes as an aiohttp application."""

    def __init__(self, parts: AdminParts) -> None:
        self._parts = parts

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded()])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/stats", self._stats)
        app.router.add_get("/policy", self._policy)
        app.router.add_get("/route", self._route)
        app.router.add_get("/cost", self._cost)
        app.router.add_get("/experiments", self._experiments)
        app.router.add_get("/requests", self._requests)
        app.router.add_get("/requests/{id}", self._request)
        return app

    def _guarded(self) -> Any:
        @web.middleware
        async def guarded(request: web.Request, handler: _Handler) -> web.StreamResponse:
            sent = request.headers
            failure = self._parts.guard.check(sent.get("Host"), sent.get("Origin"))
            if failure is not None:
                return _json({"error": failure.message}, status=failure.status)
            try:
                response = await handler(request)
            except (QueryError, AmbiguousError) as error:
                response = _json({"error": str(error)}, status=400)
            except StoreError as error:
                response = _json({"error": str(error)}, status=503)
            response.headers.update(_FRESH)
            return response

        return guarded

    async def _healthz(self, request: web.Request) -> web.Response:
        """200 while the process can answer; the upstream's health is told, not judged."""
        del request
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
                "ledger": self._ledger(),
            }
        )

    async def _readyz(self, request: web.Request) -> web.Response:
        """503 while calls would fail: draining, or Ollama known to be away."""
        del request
        draining = self._parts.lifecycle.draining
        ready = not draining and self._parts.probe.up is not False
        body = {"ready": ready, "draining": draining, "upstream": self._upstream()}
        return _json(body, status=200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        text = generate_latest(self._parts.metrics.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _stats(self, request: web.Request) -> web.Response:
        del request
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
                "ledger": self._ledger(),
                "watchers": [watcher._asdict() for watcher in parts.tasks.watchers()],
            }
        )

    async def _policy(self, request: web.Request) -> web.Response:
        del request
        loaded = self._parts.loaded
        policy = loaded.policy.model_dump(mode="json", by_alias=True)
        return _json({"source": loaded.source, "digest": loaded.digest, "policy": policy})

    async def _route(self, request: web.Request) -> web.Response:
        """A dry run: what a call with this model and role would get."""
        query = request.query
        ask = dry_run(query.get("model", ""), query.get("role", ""), query.get("key", ""))
        route = self._parts.roles.route(ask)
        if isinstance(route, Failure):
            return _json({"error": route.message, "error_code": route.code}, status=route.status)
        return _json(route_fields(route))

    async def _cost(self, request: web.Request) -> web.Response:
        """What calls have cost, within a day unless the query says since when."""
        parts = self._parts
        asked = {"since": request.query.get("since", "1d")}
        since_us = read_since(asked, parts.clock.wall())
        read, table = parts.ledger.read, parts.costs.table
        return _json(await asyncio.to_thread(cost_history.spent, read, since_us, table))

    async def _experiments(self, request: web.Request) -> web.Response:
        """What experiments have shown so far, or the one that is named."""
        parts, query = self._parts, request.query
        since_us = read_since(query, parts.clock.wall())
        policy, data = parts.policy, parts.ledger.trials
        try:
            told = await asyncio.to_thread(report, policy, data, query.get("name"), since_us)
        except UnknownExperimentError as error:
            return _json({"error": str(error)}, status=404)
        return _json(told)

    async def _requests(self, request: web.Request) -> web.StreamResponse:
        """Finished calls as JSON or as lines, newest first; or all as a trace, oldest first."""
        only(request.query, (*WORDS, "limit", "format"))
        query = read_query(request.query, self._parts.clock.wall())
        if request.query.get("format") == "trace":
            return await self._trace(request, self._parts.ledger.archive.in_order(query))
        limit = read_number("limit", request.query.get("limit"), 100, _MAX_LATEST)
        found = await asyncio.to_thread(self._parts.ledger.archive.latest, query, limit)
        if _wants_text(request, "trace"):
            return web.Response(text=request_log.listing(found))
        return _json(found)

    async def _trace(
        self, request: web.Request, pages: Iterator[list[dict[str, Any]]]
    ) -> web.StreamResponse:
        """Page by page: nothing grows with the number of calls."""
        page = await asyncio.to_thread(next, pages, None)
        response = web.StreamResponse(headers=_FRESH)
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        try:
            while page is not None:
                await response.write(trace.lines(page))
                page = await asyncio.to_thread(next, pages, None)
        except StoreError as error:
            # Cut, so that nobody takes it for the whole of it.
            logger.warning("a trace broke off: %s", error)
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _request(self, request: web.Request) -> web.Response:
        """One call, running or finished, as JSON or in words."""
        request_id = request.match_info["id"]
        live = self._parts.live
        found = live.find(request_id)
        if found is None:
            found = await asyncio.to_thread(self._parts.ledger.archive.find, request_id)
        if found is None:
            found = live.begins(request_id)
        if found is None:
            text = f'no call has the request id "{request_id[:128]}"'
            return _json({"error": text}, status=404)
        return web.Response(text=explain.text(found)) if _wants_text(request) else _json(found)

    def _upstream(self) -> dict[str, Any]:
        probe = self._parts.probe
        return {
            "address": f"http://{self._parts.target.authority}",
            "up": probe.up,
            "version": probe.version,
            "error": probe.error,
        }

    def _ledger(self) -> dict[str, Any]:
        return storage_metrics.fields(self._parts.store, self._parts.ledger)

    def _parallelism(self) -> dict[str, Any]:
        """What is known of how many calls at once are useful."""
        learned = self._parts.admission.host().parallelism
        models = self._parts.residency.models
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


def dry_run(model: str, role: str, key: str) -> Ask:
    """What a client would ask; ``key``: its job, client or request, whichever counts."""
    return Ask(model=model, role=role, job=key, client=key, request=key)


def _wants_text(request: web.Request, *others: str) -> bool:
    """``?format=text``, or a client that would rather have text than anything else."""
    said = request.query.get("format")
    if said is not None and said not in {"text", "json"}:
        known = ", ".join(("text", *others))
        raise QueryError(f'format "{said_back(said, 20)}" is unknown; use {known} or json')
    return said == "text" or (
        said is None and request.headers.get("Accept", "").startswith("text/plain")
    )


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


def _json(value: Any, *, status: int = 200) -> web.Response:
    body = tellable.dumps(value, orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")
