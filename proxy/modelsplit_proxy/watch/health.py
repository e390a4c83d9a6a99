"""The Health Guard at work: reads the signals once a second, applies what it decides.

``modelsplit_policy.health`` decides, by ``health_samples``; this module reads clocks and what
was measured, tells admission whom to turn away, and the log whom and why.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from modelsplit_policy.blame import Circumstances
from modelsplit_policy.health import Level
from modelsplit_policy.health_samples import (
    Timeouts,
    not_closed,
    shedding,
    signals,
    turned_away,
)
from modelsplit_proxy.runtime.parts import parts

if TYPE_CHECKING:
    from modelsplit_policy.admission import Admission
    from modelsplit_policy.breaker import BreakerView
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.health import HealthGuard, HealthRules, Signals
    from modelsplit_proxy.limits.breakers import BreakerKeeper
    from modelsplit_proxy.records.live import LiveCalls
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.loop_lag import LoopLag
    from modelsplit_proxy.watch.fleet import FleetProbe
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe

logger = logging.getLogger("modelsplit")

_EVERY_S: Final = 1.0


@parts
class Watched:
    """Where the signals come from."""

    policy: Policy
    admission: Admission
    breakers: BreakerKeeper
    probe: UpstreamProbe | FleetProbe
    lag: LoopLag
    live: LiveCalls
    clock: Clock


class HealthMonitor:
    """Runs the Health Guard."""

    def __init__(self, guard: HealthGuard, rules: HealthRules, watched: Watched) -> None:
        self.guard = guard
        self.timeouts = Timeouts(rules.timeouts_window_s)
        self._watched = watched
        self._shed = Level.OK

    def __repr__(self) -> str:
        return f"<HealthMonitor {self.guard!r}>"

    def call_ended(self, record: CallRecord) -> None:
        """Note how the attempts of a finished call failed."""
        failures = [attempt.failure for attempt in record.attempts if attempt.failure is not None]
        if failures or record.failure is not None:
            self.timeouts.call_ended(
                failures,
                record.failure,
                self._watched.clock.now(),
                Circumstances(record.deadline_was_clients, record.holds_back),
                record.pair,
            )

    async def watch(self) -> None:
        """Look for ever; a task of the process."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Read the signals once and apply what they mean."""
        now = self._watched.clock.now()
        step = self.guard.update(self._signals(now), now)
        if step is None:
            return
        self._watched.admission.shedding = shedding(self.guard)
        if step.shedding is not self._shed:
            self._shed = step.shedding
            self._tell(step.shedding)

    def _tell(self, level: Level) -> None:
        """Say whom it turns away now; how the service does is the verdict's to say."""
        if level is Level.OK:
            logger.info("no longer overloaded: %s again", turned_away(level))
        else:
            cause = self.guard.shedding_cause
            logger.warning("overloaded, %s: %s", turned_away(level), cause)

    def open_breakers(self) -> list[BreakerView]:
        """The breakers that do not simply let calls through."""
        return not_closed(self._watched.breakers.snapshot())

    def _signals(self, now: float) -> Signals:
        watched = self._watched
        return signals(
            watched.admission,
            watched.policy,
            watched.breakers.snapshot(),
            now,
            timeouts=self.timeouts.count(now),
            upstream_up=watched.probe.up,
            lag=(watched.lag.quantile(0.99), watched.lag.samples),
            silence_s=watched.live.longest_silence_s(),
        )
