"""The facts that the verdict on the service is made of, and the verdict: one, for everybody.

``modelsplit_policy.verdict`` judges. Whoever shows how the service does asks here: ``/healthz``,
``/stats``, the metric, what the service manager is told, and the log.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy import verdict
from modelsplit_policy.health import SEVERITY, Level
from modelsplit_policy.health_samples import not_closed
from modelsplit_policy.hints import ollamas_steps
from modelsplit_policy.model_names import canonical
from modelsplit_policy.verdict import SILENT_S, Facts, Recovered, RoleFacts, Silent, Verdict
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.config.settings import other_than_default
from modelsplit_proxy.metrics.recent import NOW_S
from modelsplit_proxy.runtime import tasks
from modelsplit_proxy.runtime.parts import parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.verdict import Cause
    from modelsplit_proxy.config.settings import Address
    from modelsplit_proxy.http.upstream import UpstreamTarget
    from modelsplit_proxy.limits.breakers import BreakerKeeper
    from modelsplit_proxy.limits.budgets import BudgetKeeper
    from modelsplit_proxy.metrics.recent import Recent, RoleRecently
    from modelsplit_proxy.records.live import LiveCalls
    from modelsplit_proxy.records.recorder import Recorder
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.lifecycle import Lifecycle
    from modelsplit_proxy.runtime.tasks import Tasks
    from modelsplit_proxy.storage.writer import Store
    from modelsplit_proxy.watch.fleet import FleetLoadedModels, FleetProbe
    from modelsplit_proxy.watch.health import HealthMonitor
    from modelsplit_proxy.watch.installed_models import InstalledModels
    from modelsplit_proxy.watch.loaded_models import LoadedModelsWatch
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe

logger = logging.getLogger("modelsplit")

_EVERY_S: Final = 1.0
_UNREAD: Final = "it has not been read yet, so that nothing can be counted"


@parts
class ServiceParts:
    """Where the facts come from. ``admin``: where this process is asked; None: nowhere yet."""

    policy: Policy
    admission: Admission
    breakers: BreakerKeeper
    budget_keeper: BudgetKeeper
    store: Store
    recorder: Recorder
    probe: UpstreamProbe | FleetProbe
    target: UpstreamTarget
    monitor: HealthMonitor
    installed: InstalledModels
    loaded_models: LoadedModelsWatch | FleetLoadedModels
    live: LiveCalls
    recent: Recent
    lifecycle: Lifecycle
    tasks: Tasks
    clock: Clock
    admin: Callable[[], Address | None]


class Service:
    """How the service does."""

    def __init__(self, parts: ServiceParts) -> None:
        self._parts = parts
        # What the level was when it was last looked at, and since when (wall time) it is so.
        self._seen: tuple[Level, float] | None = None
        # The level that the log told last, and the step of its cause.
        self._told = (Level.OK, "")
        # Since when Ollama is known not to answer, and when that was over for how long.
        self._away_since: float | None = None
        self._returned: tuple[float, float] | None = None
        # The worst that is wrong, and since when; and what was, until when, for how long.
        self._worst: tuple[Cause, float] | None = None
        self._recovered: tuple[Cause, float, float] | None = None

    async def watch(self) -> None:
        """Look for ever; a task of the process."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Judge, and tell the log where the level has changed. A drain has lines of its own."""
        if self._parts.lifecycle.draining:
            return
        (level, step), found = self._told, self.verdict()
        # What needs another step is another trouble; those that are no worse than degraded may
        # come and go.
        is_other = found.level is Level.CRITICAL and found.step != step
        if found.level is level and not is_other:
            return
        self._told = (found.level, found.step)
        if found.level is Level.OK:
            self._tell_recovered()
            return
        now = "now " if found.level is level else ""
        less = "" if SEVERITY[found.level] >= SEVERITY[level] else f", no longer {level}"
        logger.warning(
            "health is %s%s%s: %s; next: %s", now, found.level, less, found.cause, found.step
        )

    def _tell_recovered(self) -> None:
        if self._recovered is not None:
            cause, _, lasted_s = self._recovered
            logger.info("health is OK again, after %.0f s; it was: %s", lasted_s, cause.text)

    def verdict(self) -> Verdict:
        self._notice()
        found = verdict.judge(self._facts())
        if self._follow(found):
            found = verdict.judge(self._facts())
        if self._seen is None or self._seen[0] is not found.level:
            self._seen = (found.level, self._parts.clock.wall())
        return found

    def _notice(self) -> None:
        """Whether Ollama has gone, or is back; how calls fare is counted anew from then on."""
        parts, up = self._parts, self._parts.probe.up
        if up is False and self._away_since is None:
            self._away_since = parts.clock.now()
        elif up and self._away_since is not None:
            parts.recent.keep()
            now = parts.clock.now()
            self._returned, self._away_since = (now, now - self._away_since), None

    def _follow(self, found: Verdict) -> bool:
        """Keep what is wrong in mind until it is over; whether it is over now."""
        now, worst = self._parts.clock.now(), self._worst
        if found.causes:
            cause = found.causes[0]
            if worst is None:
                self._worst = (cause, now)
            elif SEVERITY[cause.level] > SEVERITY[worst[0].level]:
                self._worst = (cause, worst[1])
            return False
        if worst is None:
            return False
        self._recovered, self._worst = (worst[0], now, now - worst[1]), None
        return True

    def level(self) -> Level:
        return self.verdict().level

    def since(self) -> float | None:
        """The wall time since which the level is as it is; None: nobody has looked yet."""
        return None if self._seen is None else self._seen[1]

    def fields(self) -> dict[str, Any]:
        """The verdict as plain values, and whom the Health Guard turns away."""
        found = self.verdict()
        return {
            "level": found.level,
            "cause": found.cause,
            "causes": [
                {"level": cause.level, "text": cause.text, "next": cause.step}
                for cause in found.causes
            ],
            "notes": [{"text": note.text, "next": note.step} for note in found.notes],
            "next": found.step,
            "shedding": self._parts.monitor.guard.shedding,
        }

    def missing(self) -> dict[Role, tuple[str, ...]]:
        """The models that a role names and Ollama lacks; only of roles that miss some."""
        missing = ((role, self._missing(role)) for role in Role)
        return {role: models for role, models in missing if models}

    def _facts(self) -> Facts:
        parts = self._parts
        guard, store, shared = parts.monitor.guard, parts.store, parts.budget_keeper.shared
        asked_at = other_than_default(parts.admin())
        return Facts(
            upstream=f"http://{parts.target.authority}",
            upstream_up=parts.probe.up,
            upstream_error=parts.probe.error or "",
            upstream_hangs=parts.probe.mute_since is not None,
            steps=ollamas_steps(asked_at) if parts.policy.hosts else parts.target.steps,
            returned=self._has_returned(),
            recovered=self._has_recovered(),
            draining=parts.lifecycle.draining,
            active=parts.lifecycle.active,
            troubles=guard.troubles,
            held=guard.held,
            roles=tuple(self._roles()),
            silent=tuple(self._silent()),
            stopped=tuple(
                f"{view.key} ({view.why})"
                for view in not_closed(parts.breakers.snapshot())
                if view.key.model is not None or view.key.provider is Provider.CLOUD
            ),
            state_error=self._state_error(),
            shared_error="" if shared is None else shared.error or "",
            shared_step="" if shared is None else shared.ping,
            rivals=() if shared is None else shared.rivals,
            hosts_away=parts.probe.away,
            hosts_shut=parts.probe.shut,
            state_directory=str(parts.budget_keeper.state),
            lost=tuple(row.name for row in parts.budget_keeper.standing() if row.presumed),
            set_aside="" if store.set_aside is None else store.set_aside.name,
            records_lost=parts.recorder.dropped,
            tasks_error=tasks.trouble(parts.tasks.watchers()) or "",
            asked_at=asked_at,
            pulled_at=parts.installed.pulled_at,
        )

    def _has_returned(self) -> Recovered | None:
        if self._returned is None:
            return None
        at, lasted_s = self._returned
        return Recovered(self._parts.clock.now() - at, lasted_s)

    def _has_recovered(self) -> Recovered | None:
        if self._recovered is None:
            return None
        cause, at, lasted_s = self._recovered
        return Recovered(self._parts.clock.now() - at, lasted_s, cause.text)

    def _roles(self) -> Iterator[RoleFacts]:
        now_s = NOW_S
        if self._returned is not None:
            now_s = min(now_s, self._parts.clock.now() - self._returned[0])
        recently = self._parts.recent.roles(now_s)
        for role in Role:
            yield self._role(role, recently[role])

    def _role(self, role: Role, recently: RoleRecently) -> RoleFacts:
        admission = self._parts.admission
        return RoleFacts(
            role,
            calls=recently.calls,
            failed=recently.failed,
            failed_now=recently.failed_now,
            waiting=admission.waiting(role),
            max_queue=admission.limits(role).max_queue,
            models=self._models(role),
            missing=frozenset(self._missing(role)),
        )

    def _models(self, role: Role) -> tuple[str, ...]:
        """Those of our own that the policy names for it."""
        row = self._parts.policy.roles[role]
        if row.provider is not Provider.LOCAL:
            return ()
        return tuple(filter(None, (row.primary, row.fallback)))

    def _missing(self, role: Role) -> tuple[str, ...]:
        facts = self._parts.installed.facts
        known = ((model, facts.get(canonical(model))) for model in self._models(role))
        return tuple(model for model, fact in known if fact is not None and not fact.installed)

    def _silent(self) -> Iterator[Silent]:
        """Calls that may hang: not those whose model is still being loaded."""
        loaded = self._parts.loaded_models.loaded
        for call in self._parts.live.silent(SILENT_S):
            if call.silent_s is not None and loaded(canonical(call.model)) is not False:
                yield Silent(call.request_id, call.role or "-", call.model, call.silent_s)

    def _state_error(self) -> str:
        parts = self._parts
        error = parts.budget_keeper.error or parts.store.error
        if error is None and not parts.budget_keeper.is_open:
            error = _UNREAD
        return error or ""
