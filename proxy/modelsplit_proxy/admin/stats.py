"""Everything as it stands now: roles, lines, limits, health, cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from modelsplit_policy.queue_view import shown, shown_running
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.admin import host_rows, status_text
from modelsplit_proxy.admin.health import upstream_fields
from modelsplit_proxy.admin.page import json_page, text_page, wants_text
from modelsplit_proxy.metrics import budgets as budget_metrics
from modelsplit_proxy.metrics import storage as storage_metrics
from modelsplit_proxy.records import explain
from modelsplit_proxy.records.record import NAME_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.breaker import BreakerView
    from modelsplit_proxy.admin.page import Handler, Page, PageAsked
    from modelsplit_proxy.admin.parts import StatsParts
    from modelsplit_proxy.records.live import LiveCall


class StatsRoutes:
    """``/stats``, ``/queue``."""

    def __init__(self, parts: StatsParts) -> None:
        self._parts = parts
        self.routes: Mapping[str, Handler] = {"/stats": self._stats, "/queue": self._queue}

    async def _stats(self, asked: PageAsked) -> Page:
        """As JSON, or as ``modelsplit status`` shows it."""
        as_text = wants_text(asked)
        # An approval given a moment ago is shown, and told to others; so is an Ollama that hangs
        # since then.
        await self._parts.budget_keeper.look_everywhere()
        await self._parts.probe.look()
        fields = stats_fields(self._parts)
        if not as_text:
            return json_page(fields)
        # What words are made of are plain values.
        lines = status_text.lines(orjson.loads(json_page(fields).body))
        return text_page("".join(f"{line}\n" for line in lines))

    async def _queue(self, asked: PageAsked) -> Page:
        """Who waits, for what and how long still, and who runs."""
        del asked
        admission, now = self._parts.admission, self._parts.clock.now()
        waiting = [
            row | {"why": explain.hold_in_words(str(row["hold"]))}
            for row in shown(admission.waiters(now))
        ]
        running = list(shown_running(admission.runners(now)))
        return json_page({"waiting": waiting, "running": running})


def stats_fields(parts: StatsParts) -> dict[str, Any]:
    """Everything as it stands now, as values for JSON."""
    hosts = {} if parts.fleet is None else {"hosts": host_rows.whole_rows(parts)}
    return (
        standing_fields(parts)
        | hosts
        | {
            "waiters": list(shown(parts.admission.waiters(parts.clock.now()))),
            "running": [_running(call) for call in parts.live.calls()],
        }
    )


def standing_fields(parts: StatsParts) -> dict[str, Any]:
    """The same without the lists of those who wait and run, which may be long."""
    hosts = None if parts.fleet is None else host_rows.rows(parts)
    return {
        "upstream": upstream_fields(parts.probe, parts.target),
        "policy": {"source": parts.loaded.source, "digest": parts.loaded.digest},
        "global": {
            "running": parts.admission.running_local,
            "seats": parts.admission.global_seats,
            "lent": parts.admission.lent,
            "inside": sum(host.parallelism.inside for host in parts.admission.hosts),
        },
        "roles": {role: _pool(parts, role) for role in Role},
        "parallelism": _parallelism(parts),
        "forecast": asdict(parts.admission.forecast),
        "health": parts.service.fields(),
        "draining": parts.lifecycle.draining,
        "missing_models": parts.service.missing(),
        "recent": _recent(parts),
        "breakers": [_breaker(view) for view in parts.breakers.snapshot()],
        "active_requests": parts.lifecycle.active,
        "latencies": parts.windows.fields(),
        "event_loop_lag_p99_ms": round(parts.lag.quantile(0.99) * 1000, 3),
        "cost": parts.costs.fields(),
        "spending": _spending(parts),
        "ledger": storage_metrics.fields(parts.store, parts.recorder),
        "watchers": [watcher._asdict() for watcher in parts.tasks.watchers()],
        **({} if hosts is None else {"hosts": hosts}),
    }


def _spending(parts: StatsParts) -> dict[str, Any]:
    refused = parts.refusals.of_role()
    why = None if refused is None else refused.message
    return budget_metrics.fields(parts.budget_keeper) | {"cloud_refused": why}


def _recent(parts: StatsParts) -> dict[str, Any]:
    recent = parts.recent
    roles = {role: row.fields() for role, row in recent.roles().items()}
    return {
        "window_s": round(recent.window_s, 3),
        "roles": roles,
        "unrouted": dict(recent.unrouted()),
    }


def _parallelism(parts: StatsParts) -> dict[str, Any]:
    """What is known of how many calls at once are useful."""
    learned = [host.parallelism for host in parts.admission.hosts]
    slots: dict[str, int] = {}
    for host in learned:
        for model, known in host.known_models().items():
            slots[model] = max(known, slots.get(model, 0))
    models = parts.loaded_models.models
    return {
        "host": sum(host.host for host in learned),
        "basis": learned[0].basis,
        "contention": round(max(host.contention for host in learned), 3),
        "slots": slots,
        "resident": None if models is None else sorted(models),
    }


def _pool(parts: StatsParts, role: Role) -> dict[str, Any]:
    admission = parts.admission
    limits = admission.limits(role)
    return {
        "running": admission.running(role),
        "seats": limits.seats,
        "reserved": limits.reserved,
        "waiting": admission.waiting(role),
        "max_queue": limits.max_queue,
    }


def _running(call: LiveCall) -> dict[str, Any]:
    return {
        "request_id": call.request_id,
        "llm_role": call.role,
        "model": call.model[:NAME_MAX],
        "state": call.state,
        "age_ms": round(call.age_s * 1000, 1),
        "silent_ms": None if call.silent_s is None else round(call.silent_s * 1000, 1),
        "client": call.client,
        "output_tokens": call.tokens,
        "tokens_per_s": None if call.tokens_per_s is None else round(call.tokens_per_s, 1),
    }


def _breaker(view: BreakerView) -> dict[str, Any]:
    return {
        "breaker": str(view.key),
        "state": view.state,
        "failures": view.failures,
        "trial_in_s": round(view.trial_in_s, 3),
        "why": view.why,
    }
