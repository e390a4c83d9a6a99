"""Wiring: builds every part, starts and stops them in order. No logic of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import socket
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from modelsplit_policy import admission, breaker, egress, health, overload
from modelsplit_policy.breaker import Breakers
from modelsplit_policy.catalogue import Catalogue
from modelsplit_policy.experiment_warnings import warnings
from modelsplit_policy.failures import Reason
from modelsplit_policy.health import HealthGuard
from modelsplit_policy.host_rules import address
from modelsplit_policy.outage import Outage
from modelsplit_policy.roles import Roles
from modelsplit_policy.vocabulary import DEFAULT_HOST, Host, Role
from modelsplit_proxy.admin import headroom
from modelsplit_proxy.admin.admin import Admin
from modelsplit_proxy.admin.cloud_refusals import CloudRefusals
from modelsplit_proxy.admin.headroom import AgentServer
from modelsplit_proxy.admin.page import refused_admin_request
from modelsplit_proxy.admin.parts import (
    AdminParts,
    DashboardParts,
    HeadroomParts,
    HealthParts,
    HostParts,
    JobParts,
    PolicyParts,
    ReportParts,
    RequestParts,
    SloParts,
    StatsParts,
)
from modelsplit_proxy.admin.service import Service, ServiceParts
from modelsplit_proxy.calls.answer import AnswerParts
from modelsplit_proxy.calls.attempt import AttemptParts, LocalHost
from modelsplit_proxy.calls.attempt_plan import AttemptPlans
from modelsplit_proxy.calls.call import CallParts
from modelsplit_proxy.calls.deadlines import ELSEWHERE, Known
from modelsplit_proxy.calls.missing_model import MissingModel
from modelsplit_proxy.calls.reply import ReplyParts
from modelsplit_proxy.config import prices
from modelsplit_proxy.config.policy_file import SHIPPED
from modelsplit_proxy.config.settings import (
    Address,
    SettingError,
    other_than_default,
    other_than_usual,
    unused_upstream,
)
from modelsplit_proxy.handler import Handler, HandlerParts, refused_request
from modelsplit_proxy.http.origin_guard import OriginGuard
from modelsplit_proxy.http.read_budget import ReadBudget, ReadLimits
from modelsplit_proxy.http.server import Edge, EdgeServer
from modelsplit_proxy.http.trusted_proxies import TrustedProxies
from modelsplit_proxy.http.upstream import UpstreamTarget
from modelsplit_proxy.http.upstream_pool import UpstreamPool
from modelsplit_proxy.limits.admission_queue import AdmissionQueue
from modelsplit_proxy.limits.arrival_limit import ArrivalLimit
from modelsplit_proxy.limits.breakers import BreakerKeeper
from modelsplit_proxy.limits.budgets import BudgetKeeper
from modelsplit_proxy.limits.client_seats import ClientSeats
from modelsplit_proxy.limits.own_ollamas import OwnOllamas, marks_of
from modelsplit_proxy.metrics.buckets import LATENCY_S
from modelsplit_proxy.metrics.budgets import BudgetMetrics
from modelsplit_proxy.metrics.call_ended import CallEndedMetrics
from modelsplit_proxy.metrics.calls import CallMetrics
from modelsplit_proxy.metrics.costs import Costs
from modelsplit_proxy.metrics.document_names import DocumentNames
from modelsplit_proxy.metrics.experiments import ExperimentMetrics
from modelsplit_proxy.metrics.hosts import HostMetrics
from modelsplit_proxy.metrics.jobs import JobMetrics
from modelsplit_proxy.metrics.process import ProcessMetrics, measure_lag
from modelsplit_proxy.metrics.recent import Recent
from modelsplit_proxy.metrics.slo import SloMetrics
from modelsplit_proxy.metrics.storage import StoreMetrics
from modelsplit_proxy.metrics.windows import Windows
from modelsplit_proxy.passthrough.fleet_routes import FleetRouteParts, FleetRoutes
from modelsplit_proxy.passthrough.intercept import Intercept
from modelsplit_proxy.passthrough.last_good import LastGood
from modelsplit_proxy.passthrough.passthrough import PassthroughParts
from modelsplit_proxy.passthrough.rewritten import QuestionParts
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.routes import Routes
from modelsplit_proxy.records.call_ended import CallEnded
from modelsplit_proxy.records.job_keeper import JobKeeper
from modelsplit_proxy.records.live import LiveCalls
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_proxy.records.request_log import RequestLog
from modelsplit_proxy.records.slo_judge import SloJudge
from modelsplit_proxy.runtime import extras
from modelsplit_proxy.runtime.clock import (
    BudgetClock,
    Clock,
    SystemClock,
    boot_id,
    machine_clocks,
)
from modelsplit_proxy.runtime.lifecycle import Lifecycle
from modelsplit_proxy.runtime.loop_lag import LoopLag
from modelsplit_proxy.runtime.systemd import has_unit as has_unit_of
from modelsplit_proxy.runtime.tasks import Tasks
from modelsplit_proxy.storage.retention import Retention, RetentionLimits
from modelsplit_proxy.storage.state_lock import StateLock
from modelsplit_proxy.storage.writer import Store
from modelsplit_proxy.tracing.setup import traces
from modelsplit_proxy.watch.fleet import (
    Fleet,
    FleetLoadedModels,
    FleetProbe,
    HostBars,
    UpstreamHost,
)
from modelsplit_proxy.watch.fleet_model_list import FleetModelList
from modelsplit_proxy.watch.health import HealthMonitor, Watched
from modelsplit_proxy.watch.heartbeat import HeartbeatKeeper
from modelsplit_proxy.watch.installed_models import InstalledModels
from modelsplit_proxy.watch.learned import LearnedKeeper
from modelsplit_proxy.watch.loaded_models import LoadedModelsWatch
from modelsplit_proxy.watch.model_list import ModelList
from modelsplit_proxy.watch.presence import Presence
from modelsplit_proxy.watch.upstream_probe import UpstreamProbe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.verdict import Keyless
    from modelsplit_proxy.config.policy_file import LoadedPolicy
    from modelsplit_proxy.config.settings import Settings
    from modelsplit_proxy.limits.client_keys import Keyring
    from modelsplit_proxy.limits.shared_budgets import SharedBudgets
    from modelsplit_proxy.protocol.endpoint import Endpoint
    from modelsplit_proxy.providers.clouds import Clouds
    from modelsplit_proxy.records.request_log import Sink

logger = logging.getLogger("modelsplit")

_ADMIN_CONNECTIONS: Final = 256
_OLLAMA_PORT: Final = 11434
# An Ollama that is there answers in milliseconds; one that hangs must not delay our start.
_FIRST_LOOK_S: Final = 0.5
# How long a connection has for its first request once we end. One that is a moment old has it under
# way; a browser keeps others in reserve.
_HEAR_OUT_S: Final = 0.25
# How long calls turned away at the end of the drain have to send their answer.
_LAST_WORDS_S: Final = 0.5


class PortBusyError(Exception):
    """Addresses to listen on cannot be had. The text names them.

    ``taken``: those of them on which somebody else listens.
    """

    def __init__(self, text: str, taken: tuple[Address, ...] = ()) -> None:
        super().__init__(text)
        self.taken = taken


class App:
    """The whole process, minus its command line."""

    def __init__(
        self,
        settings: Settings,
        loaded: LoadedPolicy,
        *,
        sink: Sink,
        json_log: bool,
        keyring: Keyring | None = None,
        lock: StateLock | None = None,
        clock: Clock | None = None,
        endpoints: Iterable[Endpoint] = ENDPOINTS,
    ) -> None:
        """``lock``: the one on the state directory, where it has been taken already.

        ``clock`` None: the machine's.
        """
        self._settings = settings
        self._loaded = loaded
        self._tasks = Tasks()
        self.keyring = keyring
        self._routes = Routes(endpoints)
        self.policy = policy = loaded.policy
        self.roles = Roles(policy)
        self.clock = clock = clock or SystemClock()
        self.lag = LoopLag()
        self.lifecycle = Lifecycle()
        self._pricing = prices.read(policy, clock.wall())
        self.store = Store(settings.state, clock, lock=lock or StateLock(settings.state))
        self._recorder = Recorder(self.store)
        self.last_good = LastGood()
        self._limits()
        self._upstreams()
        self.live = LiveCalls(clock, self._is_loaded)
        self.jobs = self._job_keeper()
        self.monitor = self._monitor()
        self.log = RequestLog(sink, as_json=json_log)
        self.ended = CallEnded()
        self._traces = traces(settings, clock)
        self._keyless: tuple[Keyless, ...] = ()
        self._clouds = self._configured_clouds()
        self._measure()
        self._count()
        self._read_limits = _read_limits(settings)
        self._edge = Edge(
            EdgeServer(
                Handler(self._handler_parts()),
                limits=self._read_limits,
                error_page=refused_request,
                send_timeout_s=settings.client_send_timeout_s,
            )
        )
        self._doors()

    # 1. Parts of the process.

    def _upstreams(self) -> None:
        """Every host, and what is known of all of them together; of one alone it is its own."""
        places = [
            (Host(name), Address(*address(row.url))) for name, row in self.policy.hosts.items()
        ] or [(DEFAULT_HOST, self._settings.upstream)]
        lists = {name: self._model_list(name, at) for name, at in places}
        is_one = not self.policy.hosts
        self.model_list = (
            lists[DEFAULT_HOST][1]
            if is_one
            else FleetModelList({name: known for name, (_, known) in lists.items()})
        )
        # Of models that nobody here has chosen it is told when a call is concerned.
        own = self._loaded.source != SHIPPED
        pulled_at = other_than_usual(str(places[0][1]))
        self.installed = InstalledModels(
            self.model_list, self.policy, tells_gaps=own, pulled_at=pulled_at
        )
        self.hosts = tuple(self._host(name, at, *lists[name]) for name, at in places)
        first = self.hosts[0]
        self.target, self.pool, self.presence = first.target, first.pool, first.presence
        self.probe, self.loaded_models = first.probe, first.loaded_models
        # Of all together.
        self._probes: UpstreamProbe | FleetProbe = first.probe
        self._residency: LoadedModelsWatch | FleetLoadedModels = first.loaded_models
        self.fleet: Fleet | None = None
        if not is_one:
            self._make_fleet()

    def _is_loaded(self, model: str, shown: str | None) -> bool | None:
        """Whether the host that is shown so has loaded a model; None: nobody knows."""
        for host in self.hosts:
            if host.shown == shown:
                return host.loaded_models.loaded(model)
        return None

    def _make_fleet(self) -> None:
        self.fleet = Fleet(self.hosts)
        self._probes = FleetProbe(self.hosts, lambda name: self.admission.host(name).drained)
        self._residency = FleetLoadedModels(self.hosts)
        shown = ", ".join(host.target.authority for host in self.hosts)
        self.target = UpstreamTarget("", 0, shown)
        choice = self.admission.placement
        assert choice is not None
        choice.bar = HostBars(self.hosts, self.breakers).bar

    def _model_list(self, name: Host, at: Address) -> tuple[UpstreamPool, ModelList]:
        timeout_s = self._settings.connect_timeout_s
        pool = UpstreamPool(at.host, at.port, connect_timeout_s=timeout_s, host=name)
        on_found = self.admission_queue.at(name).has if self.policy.hosts else None
        return pool, ModelList(pool, str(at), self._tasks, on_found)

    def _host(
        self, name: Host, at: Address, pool: UpstreamPool, model_list: ModelList
    ) -> UpstreamHost:
        """Everything of one host, wired together."""
        # At another port nobody knows whether it is the unit's.
        has_unit = not other_than_usual(str(at)) and has_unit_of("ollama.service")
        target = UpstreamTarget(at.host, at.port, str(at), has_unit)
        has_others = len(self.policy.hosts) > 1
        probe = UpstreamProbe(pool, target, host=str(name) if has_others else None)
        line = self.admission_queue.at(name)
        wait_s = self.policy.global_.restart_wait_ms / 1000
        breakers = self.breakers.at(name)
        presence = Presence(Outage(wait_s), line, breakers, probe, self.installed, target)
        probe.tell(presence)
        loaded = LoadedModelsWatch(pool, str(at), model_list, line, self._tasks, name)
        pool.on_dropped(probe.hurry, self.installed.want, loaded.want)
        parallelism = self.admission.host(name).parallelism
        learned = LearnedKeeper(parallelism, loaded, probe, self.store, str(at), self.clock, name)
        shown = str(name) if self.policy.hosts else None
        return UpstreamHost(
            name,
            shown,
            target,
            pool,
            probe,
            model_list,
            loaded,
            presence,
            learned,
            self.admission.host(name).rules,
        )

    def _local_hosts(self, missing: MissingModel) -> list[LocalHost]:
        """Each host as a call uses it."""
        return [
            LocalHost(
                host.name,
                host.shown,
                host.pool,
                Known(host.loaded_models, host.probe),
                host.presence,
                AnswerParts(host.target, self.lifecycle, host.probe, missing),
            )
            for host in self.hosts
        ]

    def _doors(self) -> None:
        """Where it listens beside the proxy's own port; the addresses once it does."""
        self._admin: Edge | None = None
        self._headroom = HeadroomParts(self.admission, self._probes, self.lifecycle, self.clock)
        self._agent = AgentServer(lambda: headroom.measured(self._headroom))
        self.address: Address | None = None
        self.admin_address: Address | None = None
        self.agent_address: Address | None = None

    def _limits(self) -> None:
        """What may say no to a call."""
        policy, clock = self.policy, self.clock
        own_limits = None if self.keyring is None else self.keyring.limits(policy.clients)
        budget_clock = BudgetClock(machine_clocks(boot_id(self._settings.boot_id)))
        self.admission = admission.from_policy(policy)
        self.admission_queue = AdmissionQueue(self.admission, clock)
        self.breakers = BreakerKeeper(Breakers(breaker.rules_of(policy.breakers)), clock)
        self.shared = self._shared_budgets()
        self.budget_keeper = BudgetKeeper(
            policy, self._pricing.prices, self.store, budget_clock, self.shared
        )
        self.rate = ArrivalLimit(policy.clients, own_limits)
        self.client_seats = ClientSeats(policy.clients, own_limits)

    def _shared_budgets(self) -> SharedBudgets | None:
        """None: nobody else counts our budgets. SettingError where the extra is not installed."""
        settings = self._settings
        if not settings.shared:
            return None
        if find_spec("redis") is None:
            raise SettingError(f"--shared needs a client of Redis: {extras.adding('redis')}")
        # The package is an optional one, and large.
        from modelsplit_proxy.limits.shared_budgets import SharedBudgets  # noqa: PLC0415

        return SharedBudgets(
            settings.shared,
            settings.shared_prefix,
            self.store,
            self._tasks,
            self.clock,
            ollamas=self._own_ollamas,
        )

    async def _own_ollamas(self) -> OwnOllamas:
        """Whom we ask, for others who might ask the same."""
        settings = self._settings
        urls = [urlsplit(row.url) for row in self.policy.hosts.values()]
        upstreams = [(str(url.hostname), url.port or _OLLAMA_PORT) for url in urls]
        if not upstreams:
            upstreams = [(settings.upstream.host, settings.upstream.port)]
        found = await marks_of(
            upstreams, boot_id(settings.boot_id), urlsplit(settings.shared).hostname
        )
        where = self.address or settings.listen
        return OwnOllamas(f"{where} on {socket.gethostname()}", found)

    def _objectives(self) -> None:
        """What judges them, and what is kept for that alone."""
        clock, state_limit = self.clock, self._settings.max_records_bytes
        self._slo_judge = SloJudge(self.policy.slo, self._recorder, self.store, clock)
        self._heartbeat = HeartbeatKeeper(
            self.store, self.lag, clock, state_limit, secrets.token_hex(8)
        )

    def _monitor(self) -> HealthMonitor:
        rules = health.rules_of(self.policy.health)
        watched = Watched(
            self.policy,
            self.admission,
            self.breakers,
            self._probes,
            self.lag,
            self.live,
            self.clock,
        )
        return HealthMonitor(HealthGuard(rules), rules, watched)

    def _configured_clouds(self) -> Clouds | None:
        """None: no cloud is asked over its own API, and nothing is taken out of requests.

        SettingError, where a key may not be used.
        """
        if not self.policy.cloud.providers and not self.policy.cloud.redact:
            return None
        # Half a megabyte, and most processes ask no cloud.
        from modelsplit_proxy.config.cloud_keys import keyless, read_keys  # noqa: PLC0415
        from modelsplit_proxy.providers.clouds import CertificatesError, Clouds  # noqa: PLC0415

        policy, settings = self.policy.cloud, self._settings
        keys = read_keys(policy, settings.environ)
        self._keyless = keyless(policy, keys, settings.environ)
        try:
            return Clouds(policy, keys, self.clock, self._tasks, settings.connect_timeout_s)
        except CertificatesError as error:
            raise SettingError(str(error)) from None

    def _job_keeper(self) -> JobKeeper:
        expire_after_s = self.policy.jobs.expire_after_s
        return JobKeeper(
            self.store, self._recorder, self.live, self._tasks, self.clock, expire_after_s
        )

    def _measure(self) -> None:
        """What counts calls, and by which names."""
        clock = self.clock
        self._documents = DocumentNames(self.lag)
        self._windows = Windows(self._documents.series, clock)
        self.metrics = CallMetrics(self.policy, self._documents)
        self._recent = Recent(self.metrics.totals, self.metrics.answered, clock)
        self.service = Service(self._service_parts())
        self.metrics.registry.register(self._documents)
        self._costs = Costs(clock.wall(), self._pricing.table, self.metrics.model_label)

    def _count(self) -> None:
        """Who is told of finished calls, and who renders what was counted."""
        self._objectives()
        registry = self.metrics.registry
        measure_lag(self.lag, registry)
        registry.register(
            ProcessMetrics(
                self.admission,
                [host.pool for host in self.hosts],
                self.monitor,
                self.metrics.model_label,
                self.service.level,
            )
        )
        experiments = ExperimentMetrics(self.policy, registry, LATENCY_S)
        registry.register(self._costs)
        registry.register(StoreMetrics(self.store, self._recorder))
        registry.register(SloMetrics(self._slo_judge, self._tasks, self.clock))
        registry.register(BudgetMetrics(self.budget_keeper))
        registry.register(CallEndedMetrics(self.ended))
        self.jobs.listen(JobMetrics(self.jobs, registry, self._documents))
        for name, listener in (
            ("metrics", self.metrics.call_ended),
            ("costs", self._costs.call_ended),
            ("experiments", experiments.call_ended),
            ("records", self._recorder.call_ended),
            ("loaded_models", self._residency.call_ended),
            ("health", self.monitor.call_ended),
            ("log", self.log.call_ended),
        ):
            self.ended.listen(name, listener)
        if self.fleet is not None:
            hosts = HostMetrics(self.fleet, self.admission, self.breakers, self.metrics.model_label)
            registry.register(hosts)
            self.ended.listen("hosts", hosts.call_ended)
        if self._traces is not None:
            self.ended.listen("traces", self._traces.call_ended)
        self.ended.listen("jobs", self.jobs.call_ended, only_jobs=True)

    def _retention(self) -> Retention:
        settings = self._settings
        limits = RetentionLimits(settings.keep_records_s, settings.max_records_bytes)
        return Retention(self.store, self.clock, limits)

    # 2. What each room is given of them.

    def _passthrough_parts(self, host: UpstreamHost) -> PassthroughParts:
        return PassthroughParts(host.pool, host.target, self.lifecycle, self._tasks, host.tags)

    def _question_parts(self, host: UpstreamHost) -> QuestionParts:
        clock, lifecycle = self.clock, self.lifecycle
        return QuestionParts(
            *(host.pool, host.target, self.last_good, self.installed, clock, lifecycle, host.tags)
        )

    def _fleet_routes(self) -> FleetRoutes | None:
        if self.fleet is None:
            return None
        passthroughs = {host.name: self._passthrough_parts(host) for host in self.hosts}
        questions = {host.name: self._question_parts(host) for host in self.hosts}
        return FleetRoutes(
            FleetRouteParts(self.fleet, passthroughs, questions, self.lifecycle, self._tasks)
        )

    def _handler_parts(self) -> HandlerParts:
        settings, first = self._settings, self.hosts[0]
        return HandlerParts(
            guard=OriginGuard(
                settings.listen.host,
                settings.allow_hosts,
                settings.allow_origins,
                machine=socket.gethostname(),
            ),
            routes=self._routes,
            keyring=self.keyring,
            calls=self._call_parts(),
            intercept=Intercept(
                Catalogue(self.policy),
                self.policy.management,
                settings.max_body_bytes,
                self.installed.pulled_at,
            ),
            passthrough=self._passthrough_parts(first),
            questions=self._question_parts(first),
            last_good=self.last_good,
            installed=self.installed,
            metrics=self.metrics,
            lifecycle=self.lifecycle,
            trusted=TrustedProxies(settings.trust_proxies) if settings.trust_proxies else None,
            fleet_routes=self._fleet_routes(),
        )

    def _call_parts(self) -> CallParts:
        return CallParts(
            attempts=self._attempt_parts(),
            replies=ReplyParts(self.policy, self.budget_keeper, self.clock, self.lifecycle),
            policy=self.policy,
            roles=self.roles,
            installed=self.installed,
            client_seats=self.client_seats,
            rate=self.rate,
            max_body_bytes=self._settings.max_body_bytes,
            ended=self.ended,
            live=self.live,
            clock=self.clock,
            lifecycle=self.lifecycle,
            is_traced=self._traces is not None,
        )

    @cached_property
    def _missing_model(self) -> MissingModel:
        return MissingModel(self.policy, self.model_list.names, self.installed.pulled_at)

    def _attempt_parts(self) -> AttemptParts:
        stall_s = self._settings.stall_timeout_s
        missing = self._missing_model
        hosts = self._local_hosts(missing)
        return AttemptParts(
            host=hosts[0],
            hosts={} if self.fleet is None else {host.name: host for host in hosts},
            fleet=self.fleet,
            cloud_answers=AnswerParts(*(self.target, self.lifecycle, ELSEWHERE.probe), missing),
            policy=self.policy,
            plans=AttemptPlans(
                self.policy, self._pricing.prices, self.budget_keeper, stall_s, self._clouds
            ),
            admission_queue=self.admission_queue,
            known=Known(self._residency, self._probes),
            breakers=self.breakers,
            budget_keeper=self.budget_keeper,
            installed=self.installed,
            clock=self.clock,
        )

    def _admin_parts(self) -> AdminParts:
        settings = self._settings
        return AdminParts(
            guard=OriginGuard(settings.admin.host, settings.allow_hosts, ()),
            keyring=self.keyring,
            lifecycle=self.lifecycle,
            health=HealthParts(
                service=self.service,
                probe=self._probes,
                target=self.target,
                store=self.store,
                recorder=self._recorder,
                headroom=self._headroom,
                registry=self.metrics.registry,
            ),
            stats=self._stats_parts(),
            policy=PolicyParts(
                *(self._loaded, self.roles, self.installed, self._missing_model.named),
                self._cloud_refusals,
            ),
            reports=ReportParts(self.policy, self._recorder, self._costs, self.clock),
            requests=RequestParts(self._recorder, self.live, self.clock),
            jobs=JobParts(self.jobs, self._recorder, self.live, self.clock),
            hosts=HostParts(self.fleet, self.admission, self.admission_queue, self.breakers),
            slo=SloParts(self._slo_judge, self.clock, lambda: self.admin_address),
            dashboard=DashboardParts(self._stats_parts(), self.address or settings.listen),
        )

    def _service_parts(self) -> ServiceParts:
        return ServiceParts(
            policy=self.policy,
            admission=self.admission,
            breakers=self.breakers,
            budget_keeper=self.budget_keeper,
            store=self.store,
            recorder=self._recorder,
            probe=self._probes,
            target=self.target,
            monitor=self.monitor,
            installed=self.installed,
            live=self.live,
            recent=self._recent,
            lifecycle=self.lifecycle,
            tasks=self._tasks,
            clock=self.clock,
            admin=lambda: self.admin_address,
            keyless=self._keyless,
        )

    def _stats_parts(self) -> StatsParts:
        return StatsParts(
            loaded=self._loaded,
            admission=self.admission,
            breakers=self.breakers,
            budget_keeper=self.budget_keeper,
            windows=self._windows,
            probe=self._probes,
            target=self.target,
            loaded_models=self._residency,
            service=self.service,
            live=self.live,
            recent=self._recent,
            lag=self.lag,
            costs=self._costs,
            store=self.store,
            recorder=self._recorder,
            lifecycle=self.lifecycle,
            clock=self.clock,
            tasks=self._tasks,
            refusals=self._cloud_refusals,
            fleet=self.fleet,
        )

    @cached_property
    def _cloud_refusals(self) -> CloudRefusals:
        return CloudRefusals(
            *(self.policy, self.roles, self.budget_keeper, self._clouds, self.installed),
            self._missing_model.named,
        )

    # 3. From the start to the end.

    def _say_where(self, asked_at: str) -> None:
        """Where our commands ask, if not by themselves: failures name them."""
        self.budget_keeper.asked_at = asked_at
        if self.fleet is not None:
            self.fleet.asked_at = asked_at
        if self.admission.placement is not None:
            self.admission.placement.asked_at = asked_at

    async def start(self, inherited: list[socket.socket] | None = None) -> None:
        """Listen and serve. ``inherited``: sockets a service manager opened for us."""
        settings = self._settings
        own = [] if inherited else [settings.listen]
        bound = bind_all([*own, settings.admin, *_named(settings.agent)])
        sockets = inherited or bound[:1]
        admin_sock, *agent_socks = bound[len(own) :]
        self.address = address_of(sockets[0])
        self.admin_address = address_of(admin_sock)
        self._say_where(other_than_default(self.admin_address))
        self.lag.start(asyncio.get_running_loop())
        await self._start_admin(admin_sock)
        await self._read_budgets()
        for sock in sockets:
            await self._edge.listen(sock)
        await self._first_look()
        await self._recall()
        for sock in agent_socks:
            self.agent_address = address_of(sock)
            await self._agent.listen(sock)
        hosts = {name: row.url for name, row in self.policy.hosts.items()}
        unused = unused_upstream(settings.upstream, hosts)
        told = [unused] if unused else []
        told += (*self._pricing.warnings, *warnings(self.policy), *egress.warnings(self.policy))
        for warning in (*told, *(f"{row.cause}; next: {row.step}" for row in self._keyless)):
            logger.warning("%s", warning)
        self._tasks.keep(self.installed.watch, "installed")
        for host in self.hosts:
            of = f" of {host.shown}" if host.shown else ""
            self._tasks.keep(host.probe.watch, f"probe{of}")
            self._tasks.keep(host.loaded_models.watch, f"residency{of}")
            self._tasks.keep(host.learned.watch, f"learned{of}")
        self._tasks.keep(self.monitor.watch, "health")
        self._tasks.keep(self.service.watch, "verdict")
        self._tasks.keep(self._retention().watch, "retention")
        self._tasks.keep(self._heartbeat.watch, "heartbeat")
        self._tasks.keep(self.budget_keeper.watch, "budgets")
        if self.shared is not None:
            self._tasks.keep(self.shared.watch, "shared budgets")
        self._tasks.keep(self._windows.watch, "windows")
        self._tasks.keep(self.jobs.watch, "jobs")
        self._tasks.keep(self._recent.watch, "recent")

    async def _read_budgets(self) -> None:
        """Know what was counted before the first call comes; a locked file delays only that."""
        reading = self._tasks.start(self.budget_keeper.open(), "reading budgets")
        await asyncio.wait([reading], timeout=_FIRST_LOOK_S)

    async def _recall(self) -> None:
        """Know what was learned before; a locked file delays only that."""
        recalling = [self._tasks.start(host.learned.look(), "recalling") for host in self.hosts]
        await asyncio.wait(recalling, timeout=_FIRST_LOOK_S)

    async def _first_look(self) -> None:
        """Begin with what Ollama says of itself, if it says so at once; never wait for it."""
        looks = [
            self._tasks.start(self._probes.ask(), "first probe"),
            self._tasks.start(self._residency.ask(), "first residency"),
            self._tasks.start(self.installed.ask(), "first list"),
        ]
        if self.shared is not None:
            looks.append(self._tasks.start(self.shared.look_after(), "first count"))
        await asyncio.wait(looks, timeout=_FIRST_LOOK_S)

    async def stop(self, cut: asyncio.Event | None = None) -> None:
        """Take no new work, let answers end within the drain time (or until ``cut``), leave."""
        lifecycle = self.lifecycle
        await self._edge.hear_out(_HEAR_OUT_S)
        lifecycle.draining = True
        self._edge.stop_accepting(overload.draining())
        if lifecycle.active:
            logger.info("draining: %d requests are being answered", lifecycle.active)
        await self._drained(cut or asyncio.Event())
        await self._turn_away()
        await self._cut_short()
        await self._edge.close()
        await self._close_parts()

    async def _drained(self, cut: asyncio.Event) -> None:
        waits = [
            self._tasks.start(self.lifecycle.idle(), "drain"),
            self._tasks.start(_until(cut), "cut"),
        ]
        await asyncio.wait(
            waits, timeout=self._settings.drain_s, return_when=asyncio.FIRST_COMPLETED
        )

    async def _turn_away(self) -> None:
        """Tell those still in line, and let that leave before the connections are cut."""
        if not any(self.admission.waiting(role) for role in Role):
            return
        self.admission_queue.refuse_all(Reason.DRAINING)
        await self._last_words()

    async def _cut_short(self) -> None:
        """Interrupt what is still being answered, and let it say so to its client."""
        lifecycle = self.lifecycle
        lifecycle.cutting = True
        if lifecycle.active:
            self._edge.interrupt()
            await self._last_words()

    async def _last_words(self) -> None:
        idle = self._tasks.start(self.lifecycle.idle(), "last words")
        await asyncio.wait([idle], timeout=_LAST_WORDS_S)

    async def _close_parts(self) -> None:
        self._agent.close()
        if self._admin is not None:
            self._admin.stop_accepting(overload.draining())
            await self._admin.close()
        self._slo_judge.close()
        self.lag.stop()
        for host in self.hosts:
            host.presence.close()
        await self._tasks.close()
        for host in self.hosts:
            host.pool.close()
        if self._clouds is not None:
            await self._clouds.close()
        await self.log.close()
        if self._traces is not None:
            await self._traces.close()
        self.budget_keeper.close()
        if self.shared is not None:
            await self.shared.close()
        for host in self.hosts:
            host.learned.keep()
        self._heartbeat.drained()
        await asyncio.to_thread(self.store.close)

    async def _start_admin(self, sock: socket.socket) -> None:
        # Its own connections: a full house at the proxy port shuts no operator out.
        limits = replace(self._read_limits, max_connections=_ADMIN_CONNECTIONS)
        self._admin_handler = Admin(self._admin_parts())
        server = EdgeServer(
            self._admin_handler,
            limits=limits,
            error_page=refused_admin_request,
            send_timeout_s=self._settings.client_send_timeout_s,
        )
        self._admin = Edge(server)
        await self._admin.listen(sock)


def _read_limits(settings: Settings) -> ReadLimits:
    """The bounds on requests; their memory has room for the largest body at least."""
    memory = max(settings.request_memory_bytes, settings.max_body_bytes)
    return ReadLimits(
        ReadBudget(memory),
        head_timeout_s=settings.client_header_timeout_s,
        body_timeout_s=settings.client_body_timeout_s,
        max_connections=settings.max_connections,
    )


def bind(address: Address) -> socket.socket:
    """A listening socket's socket; PortBusyError if the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address.host, address.port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortBusyError(_taken(address), (address,)) from None
        text = f"cannot listen on {address}: {error.strerror or error}"
        raise PortBusyError(text) from None
    return sock


def bind_all(addresses: Iterable[Address]) -> list[socket.socket]:
    """A socket for each; or none, and PortBusyError with every one that cannot be had."""
    sockets, errors = [], []
    with contextlib.ExitStack() as opened:
        for address in addresses:
            try:
                sockets.append(opened.enter_context(bind(address)))
            except PortBusyError as error:
                errors.append(error)
        if not errors:
            opened.pop_all()
            return sockets
    taken = tuple(address for error in errors for address in error.taken)
    texts = [str(error) for error in errors if not error.taken]
    raise PortBusyError("; ".join([*texts, *([_taken(*taken)] if taken else [])]), taken)


def _taken(*addresses: Address) -> str:
    return f"cannot listen on {' and '.join(map(str, addresses))}: another program listens there"


def _named(address: Address | None) -> tuple[Address, ...]:
    return () if address is None else (address,)


def address_of(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    return Address(host, port)


async def _until(event: asyncio.Event) -> None:
    await event.wait()
