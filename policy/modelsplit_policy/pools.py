"""One role's seats and its line, and how long its calls take.

Roles' caps and lines are the fleet's; what a machine decides is in ``hosts``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelsplit_policy.queue import RoleQueue
from modelsplit_policy.rhythm import Rhythm

# How fast the mean service time follows what is seen; about the last eight calls count.
SMOOTHING: Final = 0.2
# Finished calls of a role and model that a forecast needs.
FORECAST_NEEDS: Final = 16
# Roles and models whose service times are remembered.
MODELS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """One role's limits. ``seats`` None: only the global cap (or, for cloud, none) holds.

    ``protected``: others keep out of its calls' way. ``starts_late``: its calls are rather
    started at the end of their wait than refused.
    """

    seats: int | None
    max_queue: int
    counts_globally: bool = True
    reserved: int = 0
    lends: bool = False
    ageing_s: float = 0.0
    protected: bool = False
    starts_late: bool = False


class Service:
    """How long calls of one role and model keep their seats, on average of the last ones."""

    __slots__ = ("count", "mean_s")

    def __init__(self) -> None:
        self.count = 0
        self.mean_s = 0.0


class Pool:
    """One role's seats and its line. ``kept``: reserved seats that nobody else may use now."""

    __slots__ = ("kept", "limits", "line", "rhythm", "running", "service_s", "services")

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.running = 0
        self.kept = 0 if limits.lends else limits.reserved
        self.line = RoleQueue()
        self.service_s = 1.0
        self.services: dict[str, Service] = {}
        self.rhythm = Rhythm()

    def moved(self, change: int) -> int:
        """So many more calls run; by how many seats that changes what is kept."""
        before = self.kept
        self.running += change
        if not self.limits.lends:
            self.kept = max(0, self.limits.reserved - self.running)
        return self.kept - before

    def claims(self) -> bool:
        """True if this role runs fewer calls than it has reserved."""
        return self.running < self.limits.reserved

    def served(self, model: str, held_s: float) -> None:
        self.service_s += SMOOTHING * (held_s - self.service_s)
        service = self.services.get(model)
        if service is None:
            if len(self.services) >= MODELS_MAX:
                del self.services[next(iter(self.services))]
            service = self.services[model] = Service()
        service.count += 1
        service.mean_s += max(SMOOTHING, 1 / service.count) * (held_s - service.mean_s)

    def length_s(self, model: str) -> float:
        """How long a call of ``model`` is expected to keep its seat."""
        service = self.services.get(model)
        return self.service_s if service is None else service.mean_s

    def known_length_s(self, model: str) -> float | None:
        """The same, or None if no call of ``model`` has ended yet."""
        service = self.services.get(model)
        return None if service is None else service.mean_s

    def foresees(self, model: str) -> bool:
        service = self.services.get(model)
        return service is not None and service.count >= FORECAST_NEEDS
