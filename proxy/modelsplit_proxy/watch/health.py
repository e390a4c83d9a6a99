"""The Health Guard at work: reads the signals once a second, applies what it decides.

``modelsplit_policy.health`` decides; this module gathers what was measured, tells admission
whom to turn away, and the log why.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.admission import Shedding
from modelsplit_policy.breaker import State
from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.health import Level, Line, Signals
from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    from modelsplit_policy.admission import Admission
    from modelsplit_policy.breaker import BreakerView
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.health import HealthGuard, HealthRules
    from modelsplit_proxy.limits.breakers import Fuses
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.loop_lag import LoopLag
    from modelsplit_proxy.watch.upstream_probe import Probe

logger = logging.getLogger("modelsplit")

_EVERY_S: Final = 1.0
_TIMEOUTS: Final = frozenset({ErrorCode.TIMEOUT_LOCAL, ErrorCode.TIMEOUT_CLOUD})


@dataclass(frozen=True, slots=True)
class Watched:
    """Where the signals come from."""

    policy: Policy
    admission: Admission
    fuses: Fuses
    probe: Probe
    lag: LoopLag
    clock: Clock


class Monitor:
    """Runs the Health Guard."""

    def __init__(self, guard: HealthGuard, rules: HealthRules, watched: Watched) -> None:
        self.guard = guard
        self._rules = rules
        self._watched = watched
        self._timeouts: deque[float] = deque(maxlen=1000)

    def __repr__(self) -> str:
        return f"<Monitor {self.guard!r}>"

    def call_ended(self, record: CallRecord) -> None:
        """Count the attempts of a finished call that ran out of the time we gave them."""
        failures = [attempt.failure for attempt in record.attempts]
        for failure in (*failures, record.failure if record.streamed else None):
            if failure is None or failure.code not in _TIMEOUTS:
                continue
            if failure.reason is not Reason.ROLE_TIMEOUT or not record.deadline_was_clients:
                self._timeouts.append(self._watched.clock.now())

    async def watch(self) -> None:
        """Look for ever; a task of the process."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Read the signals once and apply what they mean."""
        step = self.guard.update(self._signals(), self._watched.clock.now())
        if step is None:
            return
        self._watched.admission.shedding = Shedding(
            enter=frozenset(role for role in Role if not self.guard.may_enter(role)),
            wait=frozenset(role for role in Role if not self.guard.may_queue(role)),
            health="" if step.new is Level.OK else f"{step.new}: {step.cause}",
        )
        logger.warning(
            "health %s -> %s (shedding as %s): %s", step.old, step.new, step.shedding, step.cause
        )

    def fields(self) -> dict[str, Any]:
        """The verdict as plain values, for JSON."""
        return {
            "level": self.guard.level,
            "cause": self.guard.cause,
            "shedding": self.guard.shedding,
        }

    def open_breakers(self) -> list[BreakerView]:
        """The breakers that do not simply let calls through."""
        views = self._watched.fuses.snapshot()
        return [view for view in views if view.state is not State.CLOSED]

    def _signals(self) -> Signals:
        watched = self._watched
        breakers = self.open_breakers()
        return Signals(
            lag_p99_s=watched.lag.quantile(0.99),
            upstream_up=watched.probe.up,
            provider_open=any(view.key.model is None for view in breakers),
            models_open=sum(view.key.model is not None for view in breakers),
            lines=tuple(self._line(role) for role in Role if role is not Role.CLOUD),
            timeouts=self._recent_timeouts(),
        )

    def _line(self, role: Role) -> Line:
        watched = self._watched
        row = watched.policy.roles[role]
        return Line(
            role=role,
            waiting=watched.admission.waiting(role),
            max_queue=row.max_queue,
            oldest_wait_s=watched.admission.oldest_wait_s(role, watched.clock.now()),
            max_wait_s=row.max_wait_ms / 1000,
        )

    def _recent_timeouts(self) -> int:
        since = self._watched.clock.now() - self._rules.timeouts_window_s
        while self._timeouts and self._timeouts[0] < since:
            self._timeouts.popleft()
        return len(self._timeouts)
