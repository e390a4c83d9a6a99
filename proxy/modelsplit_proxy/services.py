"""What one request's handling is given: everything that outlives the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.roles import Roles
    from modelsplit_proxy.calls.attempt_plan import AttemptPlans
    from modelsplit_proxy.http.origin_guard import Guard
    from modelsplit_proxy.http.upstream import UpstreamTarget
    from modelsplit_proxy.http.upstream_pool import Pool
    from modelsplit_proxy.limits.admission_queue import Gate
    from modelsplit_proxy.limits.arrival_limit import ArrivalLimit
    from modelsplit_proxy.limits.breakers import Fuses
    from modelsplit_proxy.limits.budgets import BudgetKeeper
    from modelsplit_proxy.limits.client_keys import Keyring
    from modelsplit_proxy.limits.client_seats import ClientSeats
    from modelsplit_proxy.metrics.calls import Metrics
    from modelsplit_proxy.passthrough.intercept import Intercept
    from modelsplit_proxy.passthrough.last_good import LastGood
    from modelsplit_proxy.records.live import LiveCalls
    from modelsplit_proxy.records.request_log import RequestLog
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.lifecycle import Lifecycle
    from modelsplit_proxy.runtime.tasks import Tasks
    from modelsplit_proxy.watch.loaded_models import Residency


@dataclass(frozen=True, slots=True)
class Services:
    """The parts a request meets, wired once by ``app``. ``keyring`` None: nobody needs a key."""

    policy: Policy
    roles: Roles
    gate: Gate
    pool: Pool
    residency: Residency
    guard: Guard
    intercept: Intercept
    attempt_plans: AttemptPlans
    last_good: LastGood
    rate: ArrivalLimit
    client_seats: ClientSeats
    fuses: Fuses
    budget_keeper: BudgetKeeper
    metrics: Metrics
    log: RequestLog
    live: LiveCalls
    clock: Clock
    tasks: Tasks
    target: UpstreamTarget
    lifecycle: Lifecycle
    stall_s: float
    max_body_bytes: int
    keyring: Keyring | None = None
