"""The policy in force, and what it would do with a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelsplit_policy import egress
from modelsplit_policy.experiments import shares
from modelsplit_policy.failures import Failure
from modelsplit_policy.model_names import canonical, runs_in_cloud
from modelsplit_policy.roles import Route, RouteRequest
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.admin.page import json_page
from modelsplit_proxy.protocol.upstream_failures import none_installed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.config.model import ArmPolicy, ExperimentPolicy
    from modelsplit_proxy.admin.page import Handler, Page, PageAsked
    from modelsplit_proxy.admin.parts import PolicyParts
    from modelsplit_proxy.config.policy_file import LoadedPolicy


class PolicyRoutes:
    """``/policy``, ``/route``."""

    def __init__(self, parts: PolicyParts) -> None:
        self._parts = parts
        self.routes: Mapping[str, Handler] = {"/policy": self._policy, "/route": self._route}

    async def _policy(self, asked: PageAsked) -> Page:
        del asked
        loaded = self._parts.loaded
        policy = loaded.policy.model_dump(mode="json", by_alias=True)
        return json_page({"source": loaded.source, "digest": loaded.digest, "policy": policy})

    async def _route(self, asked: PageAsked) -> Page:
        """A dry run: what a call with this model and role would get."""
        query = asked.query
        ask = dry_run(query.get("model", ""), query.get("role", ""), query.get("key", ""))
        route = self._parts.roles.route(ask)
        if isinstance(route, Failure):
            body = {"error": route.message, "error_code": route.code}
            return json_page(body, status=route.status)
        names = await self._parts.installed.names()
        await self._parts.refusals.look()
        fields = route_fields(route, self._parts.loaded, names)
        for candidate in fields["candidates"]:
            if candidate["installed"] is False and self._parts.installed.silent_about(
                candidate["model"]
            ):
                candidate["installed"] = None
        fields["not_found"] = self._not_found(route, fields["candidates"])
        refused = self._parts.refusals.of(route, names)
        return json_page(fields | {"refused": None if refused is None else refusal_fields(refused)})

    def _not_found(self, route: Route, candidates: list[dict[str, Any]]) -> str | None:
        """What the call would be told for want of every model; None: one of them may be there."""
        if any(candidate["installed"] is not False for candidate in candidates):
            return None
        if route.candidates[0].model == route.requested_model:
            return self._parts.not_found(route.requested_model).message
        models = dict.fromkeys(candidate.model for candidate in route.candidates)
        return none_installed(route.role, models, self._parts.installed.pulled_at)


def refusal_fields(refused: Failure) -> dict[str, Any]:
    """What a call is told that is refused, as plain values."""
    return {
        "status": refused.status,
        "error_code": refused.code,
        "reason": refused.reason,
        "error": refused.message,
    }


def dry_run(model: str, role: str, key: str) -> RouteRequest:
    """What a client would ask; ``key``: its job, client or request, whichever counts."""
    return RouteRequest(model=model, role=role, job=key, client=key, request=key)


def route_fields(
    route: Route, loaded: LoadedPolicy, installed: frozenset[str] | None = None
) -> dict[str, Any]:
    """A route by the policy ``loaded``, as plain values, for JSON.

    ``installed``: canonical names of all that Ollama has; None: unknown.
    """
    row = loaded.policy.roles[route.role]
    fields: dict[str, Any] = {
        "llm_role": route.role,
        "llm_context": route.context,
        "llm_provider": route.provider,
        "requested_model": route.requested_model,
        "route_reason": route.reason,
        "needs_approval": route.provider is Provider.CLOUD,
        "candidates": [
            {
                "model": candidate.model,
                "timeout_s": candidate.timeout_s,
                "installed": _is_installed(candidate.model, route.provider, installed),
            }
            for candidate in route.candidates
        ],
        "max_concurrent": row.max_concurrent,
        "max_wait_ms": row.max_wait_ms,
        "policy": {"source": loaded.source, "digest": loaded.digest},
    }
    if route.provider is Provider.CLOUD:
        model = route.candidates[0].model
        refused = egress.refusal_of_role(loaded.policy, route.role, model)
        fields["egress_denied"] = None if refused is None else refused.message
    if route.experiment is not None:
        fields |= _experiment(route.experiment, route.arm)
    return fields


def _is_installed(model: str, provider: Provider, installed: frozenset[str] | None) -> bool | None:
    """Whether Ollama has it; None where that is not known, or it runs elsewhere."""
    if installed is None or provider is Provider.CLOUD or runs_in_cloud(model):
        return None
    return canonical(model) in installed


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
