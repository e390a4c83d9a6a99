"""The front door: every request comes in here and leaves with an answer.

In order: is it a call to a model or anything else, is it a loop, may this request speak to us
at all, and whose key it brings. The broad ``except`` here is the one per request: whatever
goes wrong below, the client is told in its own dialect, or its connection breaks visibly.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from modelsplit_policy import overload
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_proxy.calls.call import CallParts, InferenceCall, internal_failure
from modelsplit_proxy.http import cors, headers, request_head
from modelsplit_proxy.http.downstream import Downstream, date_line
from modelsplit_proxy.limits import client_keys
from modelsplit_proxy.limits.client_keys import ANYBODY
from modelsplit_proxy.passthrough.fleet_routes import FleetRoutes, Passing
from modelsplit_proxy.passthrough.intercept import Making, Question
from modelsplit_proxy.passthrough.passthrough import Passthrough, PassthroughParts
from modelsplit_proxy.passthrough.rewritten import Questioning, QuestionParts
from modelsplit_proxy.protocol import error_body, routes
from modelsplit_proxy.protocol.request_headers import new_id, request_id
from modelsplit_proxy.protocol.routes import Kind
from modelsplit_proxy.runtime.parts import parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from modelsplit_proxy.http.origin_guard import OriginGuard
    from modelsplit_proxy.http.request import Request
    from modelsplit_proxy.http.trusted_proxies import TrustedProxies
    from modelsplit_proxy.limits.client_keys import Caller, Keyring
    from modelsplit_proxy.metrics.calls import CallMetrics
    from modelsplit_proxy.passthrough.intercept import Intercept
    from modelsplit_proxy.passthrough.last_good import LastGood
    from modelsplit_proxy.protocol.routes import PathRoute, Routes
    from modelsplit_proxy.runtime.lifecycle import Lifecycle
    from modelsplit_proxy.watch.installed_models import InstalledModels

logger = logging.getLogger("modelsplit")


@parts
class HandlerParts:
    """What outlives a request. ``keyring`` None: nobody needs a key.

    ``trusted`` None: who connects is the client. ``fleet_routes`` None: there is one host.
    """

    guard: OriginGuard
    routes: Routes
    keyring: Keyring | None
    calls: CallParts
    intercept: Intercept
    passthrough: PassthroughParts
    questions: QuestionParts
    last_good: LastGood
    installed: InstalledModels
    metrics: CallMetrics
    lifecycle: Lifecycle
    trusted: TrustedProxies | None = None
    fleet_routes: FleetRoutes | None = None


class Handler:
    """Called by the edge for each request."""

    def __init__(self, parts: HandlerParts) -> None:
        self._parts = parts

    async def __call__(self, request: Request) -> web.StreamResponse:
        down = Downstream(request)
        known_as = request_id(request.headers)
        self._parts.lifecycle.begin()
        try:
            await self._serve(request, down, known_as)
        except asyncio.CancelledError:
            if not self._parts.lifecycle.cutting:
                raise  # the client has left
            self._cut_short(request, down, known_as)
        except Exception:
            path = request.raw_path[:200]
            logger.exception("request %s %s %s failed", known_as, request.method, path)
            self._after_our_bug(request, down, known_as)
        finally:
            self._parts.lifecycle.end()
        return down.answered()

    async def _serve(self, request: Request, down: Downstream, known_as: str) -> None:
        if self._parts.trusted is not None:
            request.remote = self._parts.trusted.client(request.remote, request.raw_headers)
        target = request.target
        route = self._parts.routes.classify(request.method, target)
        refused = self._check(request)
        if refused is None and request.method == "OPTIONS" and request.origin is not None:
            self._preflight(request, request.origin, down)
            return
        caller = refused or self._caller(request, target)
        if route.endpoint is not None:
            call = InferenceCall(
                self._parts.calls,
                request,
                down,
                route.endpoint,
                target=target,
                request_id=known_as,
                caller=ANYBODY if isinstance(caller, Failure) else caller,
            )
            await call.serve(caller if isinstance(caller, Failure) else None)
            return
        try:
            failure: Failure | None
            if isinstance(caller, Failure):
                failure = caller
            elif request.method == "OPTIONS" and request.headers.get("Max-Forwards") is not None:
                failure = await self._options(route, request, target, down, caller)
            else:
                failure = await self._pass(route, request, target, down, caller)
            if failure is not None:
                self._answer(request, down, failure, known_as)
        finally:
            # A pull that broke off may have changed something; what was refused has not.
            if route.kind is Kind.MANAGEMENT and down.status < 400:
                self._parts.last_good.forget()
                self._parts.installed.want()
            if down.status:
                self._parts.metrics.passed(route.kind, down.status)

    async def _pass(
        self,
        route: PathRoute,
        request: Request,
        target: str,
        down: Downstream,
        caller: Caller,
    ) -> Failure | None:
        parts = self._parts
        if parts.lifecycle.draining:
            return overload.draining()
        denied = caller.denied_management(manages=route.kind is Kind.MANAGEMENT)
        if denied is not None:
            return denied
        plan = await parts.intercept.plan(route, target, request, down)
        if isinstance(plan, Failure):
            return plan
        passing = Passing(route, request, target, down, caller.consumed)
        if isinstance(plan, Making):
            with parts.installed.making(plan.name):
                return await self._carry_out(passing, plan.body)
        return await self._carry_out(passing, plan)

    async def _carry_out(self, passing: Passing, plan: Question | bytes) -> Failure | None:
        parts = self._parts
        if parts.fleet_routes is not None:
            return await parts.fleet_routes.serve(passing, plan)
        _, request, target, down, consumed = passing
        if isinstance(plan, Question):
            return await Questioning(
                parts.questions, request, down, plan, consumed=consumed
            ).serve()
        return await Passthrough(
            parts.passthrough, request, target, down, consumed=consumed, taken=plan
        ).serve()

    def _preflight(self, request: Request, origin: str, down: Downstream) -> None:
        """Answer a browser that asks what it may ask: before any key, as it can send none."""
        cors.answer_preflight(down, origin, request.raw_headers, close=self._closes(request))
        self._parts.metrics.passed(Kind.OTHER, down.status)

    async def _options(
        self, route: PathRoute, request: Request, target: str, down: Downstream, caller: Caller
    ) -> Failure | None:
        """Let an OPTIONS go one hop further, if it may (RFC 9110 §7.6.2)."""
        hops = headers.hops_left(request.headers["Max-Forwards"])
        if hops is None:
            return request_head.bad_http("Max-Forwards is not a number")
        if hops > 0:
            request.raw_headers = headers.one_hop_less(request.raw_headers, hops)
            return await self._pass(route, request, target, down, caller)
        lines = [date_line(), error_body.ALLOW_LINE, headers.VIA_LINE]
        down.head(204, "No Content", lines, length=None, close=self._closes(request))
        down.end()
        return None

    def _closes(self, request: Request) -> bool:
        return self._parts.lifecycle.draining or not request.content.is_eof()

    def _caller(self, request: Request, target: str) -> Caller | Failure:
        keyring = self._parts.keyring
        if keyring is None:
            return ANYBODY
        sent = request.headers
        caller = keyring.caller(sent)
        if isinstance(caller, Failure) and client_keys.open_to_all(request.method, target):
            return ANYBODY
        return caller

    def _check(self, request: Request) -> Failure | None:
        if request.method == "CONNECT":
            return Failure(
                ErrorCode.FORBIDDEN,
                Reason.METHOD_DENIED,
                "CONNECT is not served here: this is a proxy for Ollama, not a tunnel",
                "Method Denied",
            )
        sent = request.headers
        if "Via" in sent and headers.loops(request.raw_headers):
            return Failure(
                ErrorCode.LOOP,
                Reason.VIA,
                "this request has already passed through modelsplit: its upstream points back "
                "at it; check --upstream",
                "Loop Detected",
            )
        return self._parts.guard.check(sent.get("Host"), request.origin)

    def _answer(self, request: Request, down: Downstream, failure: Failure, known_as: str) -> None:
        """An error outside any call: no role, no model, no attempt."""
        lines = cors.lines(request.origin, failure)
        body = error_body.body(
            routes.dialect_of(request.raw_path), failure, error_body.Scene(known_as)
        )
        write_failure(down, failure, body, known_as, lines, close=self._closes(request))

    def _cut_short(self, request: Request, down: Downstream, known_as: str) -> None:
        """The process ends before this request: what has not begun is told so."""
        if not down.started:
            self._answer(request, down, overload.cut_short(), known_as)
        elif not down.ended:
            down.abort()

    def _after_our_bug(self, request: Request, down: Downstream, known_as: str) -> None:
        if down.ended:
            return  # the client has its whole answer: what failed came after it
        if down.started:
            down.abort()
        else:
            self._answer(request, down, internal_failure(), known_as)
            self._parts.metrics.passed(Kind.OTHER, down.status)


def write_failure(
    down: Downstream,
    failure: Failure,
    body: bytes,
    known_as: str,
    more: Sequence[bytes] = (),
    *,
    close: bool,
) -> None:
    """Answer outside any call: ``body`` and the header lines that go with it."""
    lines = [
        b"Content-Type: application/json\r\n",
        date_line(),
        f"X-Request-Id: {known_as}\r\nrequest-id: {known_as}\r\n".encode(),
        b"X-LLM-Error-Code: %b\r\n" % failure.code.encode(),
        headers.VIA_LINE,
        *error_body.lines(failure),
        *more,
    ]
    down.head(failure.status, failure.phrase, lines, length=len(body), close=close)
    down.write(body)
    down.end()


def refused_request(down: Downstream, failure: Failure, path: str) -> None:
    """Answer what the edge refuses; ``path``: its target, as far as it is known."""
    known_as = new_id()
    body = error_body.body(routes.dialect_of(path), failure, error_body.Scene(known_as))
    write_failure(down, failure, body, known_as, close=True)
