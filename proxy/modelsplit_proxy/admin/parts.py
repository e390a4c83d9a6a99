"""What each subject of the admin port looks at. ``app`` fills it, before any of them is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_proxy.runtime.parts import parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.roles import Roles
    from modelsplit_proxy.admin.cloud_refusals import CloudRefusals
    from modelsplit_proxy.admin.service import Service
    from modelsplit_proxy.config.policy_file import LoadedPolicy
    from modelsplit_proxy.config.settings import Address
    from modelsplit_proxy.http.origin_guard import OriginGuard
    from modelsplit_proxy.http.upstream import UpstreamTarget
    from modelsplit_proxy.limits.admission_queue import AdmissionQueue
    from modelsplit_proxy.limits.breakers import BreakerKeeper
    from modelsplit_proxy.limits.budgets import BudgetKeeper
    from modelsplit_proxy.limits.client_keys import Keyring
    from modelsplit_proxy.metrics.costs import Costs
    from modelsplit_proxy.metrics.recent import Recent
    from modelsplit_proxy.metrics.windows import Windows
    from modelsplit_proxy.records.job_keeper import JobKeeper
    from modelsplit_proxy.records.live import LiveCalls
    from modelsplit_proxy.records.recorder import Recorder
    from modelsplit_proxy.records.slo_judge import SloJudge
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.lifecycle import Lifecycle
    from modelsplit_proxy.runtime.loop_lag import LoopLag
    from modelsplit_proxy.runtime.tasks import Tasks
    from modelsplit_proxy.storage.writer import Store
    from modelsplit_proxy.watch.fleet import Fleet, FleetLoadedModels, FleetProbe
    from modelsplit_proxy.watch.installed_models import InstalledModels
    from modelsplit_proxy.watch.loaded_models import LoadedModelsWatch
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe


@parts
class HeadroomParts:
    """``/readyz``, and HAProxy's agent-check."""

    admission: Admission
    probe: UpstreamProbe | FleetProbe
    lifecycle: Lifecycle
    clock: Clock


@parts
class HealthParts:
    """``/healthz``, ``/readyz``, ``/metrics``."""

    service: Service
    probe: UpstreamProbe | FleetProbe
    target: UpstreamTarget
    store: Store
    recorder: Recorder
    headroom: HeadroomParts
    registry: CollectorRegistry


@parts
class HostParts:
    """``/hosts``, ``/hosts/{id}/drain``, ``/hosts/{id}/undrain``. ``fleet`` None: one upstream."""

    fleet: Fleet | None
    admission: Admission
    queue: AdmissionQueue
    breakers: BreakerKeeper


@parts
class StatsParts:
    """``/stats``, ``/queue``."""

    loaded: LoadedPolicy
    admission: Admission
    breakers: BreakerKeeper
    budget_keeper: BudgetKeeper
    probe: UpstreamProbe | FleetProbe
    target: UpstreamTarget
    loaded_models: LoadedModelsWatch | FleetLoadedModels
    service: Service
    live: LiveCalls
    recent: Recent
    lag: LoopLag
    windows: Windows
    costs: Costs
    store: Store
    recorder: Recorder
    lifecycle: Lifecycle
    clock: Clock
    tasks: Tasks
    refusals: CloudRefusals
    fleet: Fleet | None = None


@parts
class PolicyParts:
    """``/policy``, ``/route``. ``roles``: those of ``loaded``.

    ``not_found``: what a client is told that named a model which is not installed. ``refusals``:
    what a call of the cloud is told.
    """

    loaded: LoadedPolicy
    roles: Roles
    installed: InstalledModels
    not_found: Callable[[str], Failure]
    refusals: CloudRefusals


@parts
class ReportParts:
    """``/cost``, ``/experiments``."""

    policy: Policy
    recorder: Recorder
    costs: Costs
    clock: Clock


@parts
class RequestParts:
    """``/requests``, ``/requests/{id}``."""

    recorder: Recorder
    live: LiveCalls
    clock: Clock


@parts
class JobParts:
    """``/jobs`` and what is below."""

    keeper: JobKeeper
    recorder: Recorder
    live: LiveCalls
    clock: Clock


@parts
class SloParts:
    """``/slo``. ``admin``: where this process is asked; None: nowhere yet."""

    judge: SloJudge
    clock: Clock
    admin: Callable[[], Address | None]


@parts
class DashboardParts:
    """The page. ``listen``: where calls are taken."""

    stats: StatsParts
    listen: Address


@parts
class AdminParts:
    """Who may look and write, and what each subject's routes need.

    ``keyring`` None: nobody but this machine may write.
    """

    guard: OriginGuard
    keyring: Keyring | None
    lifecycle: Lifecycle
    health: HealthParts
    stats: StatsParts
    policy: PolicyParts
    reports: ReportParts
    requests: RequestParts
    jobs: JobParts
    hosts: HostParts
    slo: SloParts
    dashboard: DashboardParts
