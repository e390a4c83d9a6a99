"""The facts that the verdict on the service is made of, and the verdict: one, for everybody.

``modelsplit_policy.verdict`` judges. Whoever shows how the service does asks here: ``/healthz``,
``/stats``, the metric, what the service manager is told, and the log.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelsplit_policy import verdict
from modelsplit_policy.health import SEVERITY, Level
from modelsplit_policy.health_samples import not_closed, turned_away
from modelsplit_policy.hints import ollamas_steps
from modelsplit_policy.model_names import canonical
from modelsplit_policy.verdict import (
    SILENT_S,
    Cause,
    Facts,
    Recovered,
    RoleFacts,
    Silent,
    Unbegun,
    Verdict,
)
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.config.settings import other_than_default
from modelsplit_proxy.metrics.copies import Copies
from modelsplit_proxy.metrics.recent import LENGTH_S, NOW_S
from modelsplit_proxy.records.live import LOADING
from modelsplit_proxy.runtime import tasks
from modelsplit_proxy.runtime.parts import parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.verdict import Keyless
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
    from modelsplit_proxy.watch.fleet import FleetProbe
    from modelsplit_proxy.watch.health import HealthMonitor
    from modelsplit_proxy.watch.installed_models import InstalledModels
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe

logger = logging.getLogger("modelsplit")

_EVERY_S: Final = 1.0
# An outage begins as long before it is known as the probe asks seldom and waits, and a little.
_UNKNOWN_S: Final = 30.0
_UNREAD: Final = "it has not been read yet, so that nothing can be counted"


@parts
class ServiceParts:
    """Where the facts come from. ``admin``: where this process is asked; None: nowhere yet.

    ``keyless``: the clouds of the policy that have no key.
    """

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
    live: LiveCalls
    recent: Recent
    lifecycle: Lifecycle
    tasks: Tasks
    clock: Clock
    admin: Callable[[], Address | None]
    keyless: tuple[Keyless, ...] = ()


class _Wrong(NamedTuple):
    """What is wrong, and since when.

    ``before``: how many calls had failed by then; None: others than Ollama's being away tell
    theirs. ``lasted_s``: for how long it was, None: it is not over; ``failed``: how many calls
    failed meanwhile.
    """

    cause: Cause
    since: float
    before: int | None = None
    lasted_s: float | None = None
    failed: int = 0

    def over(self, now: float, failed: int) -> _Wrong:
        """The same, over now at the latest. ``failed``: how many calls have failed by now."""
        if self.lasted_s is not None:
            return self
        count = 0 if self.before is None else failed - self.before
        return self._replace(lasted_s=now - self.since, failed=count)


class Service:
    """How the service does."""

    def __init__(self, parts: ServiceParts) -> None:
        self._parts = parts
        # What the level was when it was last looked at, and since when (wall time) it is so.
        self._seen: tuple[Level, float] | None = None
        # The level that the log told last, and the step of its cause.
        self._told = (Level.OK, "")
        # Since when Ollama does not answer, and how many calls had failed by then; and when that
        # was over, for how long, and how many failed meanwhile.
        self._away: tuple[float, int] | None = None
        self._returned: tuple[float, float, int] | None = None
        # How many calls had failed when, as far back as an outage may begin before it is known.
        self._failed: Copies[int] = Copies(_UNKNOWN_S)
        # The worst that is wrong, or was while something still is; and what was, and since when
        # all is well.
        self._worst: _Wrong | None = None
        self._recovered: tuple[_Wrong, float] | None = None

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
            wrong, _ = self._recovered
            logger.info(
                "health is OK again, after %.0f s; it was: %s", wrong.lasted_s, wrong.cause.text
            )

    def verdict(self) -> Verdict:
        # What the Health Guard saw a second ago may be over, as who asks whether Ollama is there
        # knows.
        self._parts.monitor.look()
        self._notice()
        found = verdict.judge(self._facts())
        if self._follow(found):
            found = verdict.judge(self._facts())
        if self._seen is None or self._seen[0] is not found.level:
            self._seen = (found.level, self._parts.clock.wall())
        return found

    def _notice(self) -> None:
        """Whether Ollama has gone, or is back; how calls fare is counted anew from then on."""
        parts, up, failed = self._parts, self._parts.probe.up, self._parts.recent.failed()
        if up and self._away is not None:
            parts.recent.keep()
        now = parts.clock.now()
        if up is False and self._away is None:
            away_s = self._away_s()
            before = self._failed.before(now, away_s) if self._failed else failed
            self._away = (now - away_s, before)
        elif up and self._away is not None:
            since, before = self._away
            self._returned, self._away = (now, now - since, failed - before), None
            self._failed = Copies(_UNKNOWN_S)
        self._failed.keep(now, failed)

    def _away_s(self) -> float:
        """For how long Ollama has not answered, where it is known not to."""
        since = self._parts.probe.away_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    def _follow(self, found: Verdict) -> bool:
        """Keep what is wrong in mind until it is over; whether it is over now."""
        now, worst = self._parts.clock.now(), self._worst
        if found.causes:
            self._worst = self._worse(found.causes, now)
            return False
        if worst is None:
            return False
        self._recovered, self._worst = (worst.over(now, self._parts.recent.failed()), now), None
        return True

    def _worse(self, causes: tuple[Cause, ...], now: float) -> _Wrong:
        """What is worst of all that was wrong since all was well."""
        worst, cause = self._worst, causes[0]
        if worst is not None and SEVERITY[cause.level] <= SEVERITY[worst.cause.level]:
            if not any(cause.step == worst.cause.step for cause in causes):
                # The others last longer.
                return worst.over(now, self._parts.recent.failed())
            if worst.lasted_s is None:
                return worst
        return _Wrong(cause, now) if self._away is None else _Wrong(cause, *self._away)

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
            absence=parts.probe.absence,
            steps=ollamas_steps(asked_at) if parts.policy.hosts else parts.target.steps,
            unanswered=parts.probe.unanswered,
            unbegun=self._unbegun(),
            away_s=0.0 if self._away is None else parts.clock.now() - self._away[0],
            away_failed=0 if self._away is None else parts.recent.failed() - self._away[1],
            returned=self._has_returned(),
            recovered=self._has_recovered(),
            shed=self._shed(),
            draining=parts.lifecycle.draining,
            active=parts.lifecycle.active,
            troubles=guard.troubles,
            held=guard.held,
            roles=tuple(self._roles()),
            silent=tuple(self._silent()),
            all_stopped=next(
                (
                    view.why
                    for view in not_closed(parts.breakers.snapshot())
                    if view.key.model is None and view.key.provider is Provider.LOCAL
                ),
                "",
            ),
            stopped=tuple(
                f"{view.key} ({view.why})"
                for view in not_closed(parts.breakers.snapshot())
                if view.key.model is not None or view.key.provider is Provider.CLOUD
            ),
            state_error=self._state_error(),
            shared_error="" if shared is None else shared.error or "",
            shared_step="" if shared is None else shared.step,
            rivals=() if shared is None else shared.rivals,
            copies=() if shared is None else shared.copies,
            hosts_away=parts.probe.away,
            hosts_shut=parts.probe.shut,
            state_directory=str(parts.budget_keeper.state),
            lost=tuple(row.name for row in parts.budget_keeper.standing() if row.presumed),
            set_aside="" if store.set_aside is None else store.set_aside.name,
            records_lost=parts.recorder.dropped,
            tasks_error=tasks.trouble(parts.tasks.watchers()) or "",
            keyless=parts.keyless,
            is_approved=parts.budget_keeper.approved()[1] > 0,
            asked_at=asked_at,
            pulled_at=parts.installed.pulled_at,
        )

    def _has_returned(self) -> Recovered | None:
        if self._returned is None:
            return None
        at, lasted_s, failed = self._returned
        return Recovered(self._parts.clock.now() - at, lasted_s, failed=failed)

    def _has_recovered(self) -> Recovered | None:
        if self._recovered is None:
            return None
        wrong, at = self._recovered
        if wrong.cause.text.endswith(_UNREAD):
            return None  # as at every start
        ago_s = self._parts.clock.now() - at
        return Recovered(ago_s, wrong.lasted_s or 0.0, wrong.cause.text, wrong.failed)

    def _shed(self) -> str:
        guard = self._parts.monitor.guard
        if guard.shedding is Level.OK:
            return ""
        return f"{turned_away(guard.shedding)}: {guard.shedding_cause}"

    def _unbegun(self) -> Unbegun | None:
        calls = self._parts.live.silent(0.0)
        return Unbegun(len(calls), self._parts.live.longest_silence_s()) if calls else None

    def _roles(self) -> Iterator[RoleFacts]:
        """Those of the last five minutes, or since Ollama is back where it has them."""
        recently = whole = self._parts.recent.roles(NOW_S, LENGTH_S)
        if self._returned is not None:
            ago_s = self._parts.clock.now() - self._returned[0]
            recently = self._parts.recent.roles(min(NOW_S, ago_s), min(LENGTH_S, ago_s))
        for role in Role:
            past = self._is_past_ollama(role)
            yield self._role(role, (whole if past else recently)[role], past_ollama=past)

    def _is_past_ollama(self, role: Role) -> bool:
        policy = self._parts.policy
        return bool(policy.cloud.providers) and policy.roles[role].provider is Provider.CLOUD

    def _role(self, role: Role, recently: RoleRecently, *, past_ollama: bool) -> RoleFacts:
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
            unreached=self._unreached(role),
            past_ollama=past_ollama,
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

    def _unreached(self, role: Role) -> dict[str, tuple[str, ...]]:
        """Of its models that no host has which answers, the hosts that may have them."""
        unreached = self._parts.installed.unreached
        hosts = ((model, unreached.get(canonical(model))) for model in self._models(role))
        return {model: names for model, names in hosts if names}

    def _silent(self) -> Iterator[Silent]:
        """Calls that may hang: not those whose model is still being loaded."""
        for call in self._parts.live.silent(SILENT_S):
            if call.silent_s is not None and call.state != LOADING:
                yield Silent(call.request_id, call.role or "-", call.model, call.silent_s)

    def _state_error(self) -> str:
        parts = self._parts
        error = parts.budget_keeper.error or parts.store.error
        if error is None and not parts.budget_keeper.is_open:
            error = _UNREAD
        return error or ""
