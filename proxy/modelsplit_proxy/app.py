"""Wiring: builds every part, starts and stops them in order. No logic of its own."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import TYPE_CHECKING, Final

from aiohttp import web

from modelsplit_policy import admission
from modelsplit_policy.breaker import BreakerRules, Breakers
from modelsplit_policy.catalogue import Catalogue
from modelsplit_policy.experiment_warnings import warnings
from modelsplit_policy.failures import Reason
from modelsplit_policy.health import HealthGuard, HealthRules
from modelsplit_policy.roles import Roles
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.admin.admin import Admin, AdminParts
from modelsplit_proxy.calls.attempt_plan import AttemptPlans
from modelsplit_proxy.config import prices
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.handler import Handler, unparsed_request
from modelsplit_proxy.http.fetch import fetch
from modelsplit_proxy.http.origin_guard import Guard
from modelsplit_proxy.http.server import Edge, EdgeServer
from modelsplit_proxy.http.upstream import UpstreamError, UpstreamTarget
from modelsplit_proxy.http.upstream_pool import Pool
from modelsplit_proxy.limits.admission_queue import Gate
from modelsplit_proxy.limits.arrival_limit import ArrivalLimit
from modelsplit_proxy.limits.breakers import Fuses
from modelsplit_proxy.limits.budgets import BudgetKeeper
from modelsplit_proxy.limits.client_seats import ClientSeats
from modelsplit_proxy.metrics.budgets import BudgetMetrics
from modelsplit_proxy.metrics.calls import LATENCY_S, Metrics
from modelsplit_proxy.metrics.costs import Costs
from modelsplit_proxy.metrics.experiments import ExperimentMetrics
from modelsplit_proxy.metrics.storage import StoreMetrics
from modelsplit_proxy.passthrough.intercept import Intercept
from modelsplit_proxy.passthrough.last_good import LastGood
from modelsplit_proxy.records.live import LiveCalls
from modelsplit_proxy.records.recorder import Ledger
from modelsplit_proxy.records.request_log import RequestLog
from modelsplit_proxy.runtime.clock import LedgerTime, SystemClock, boot_id, machine_clocks
from modelsplit_proxy.runtime.lifecycle import Lifecycle
from modelsplit_proxy.runtime.loop_lag import LoopLag
from modelsplit_proxy.runtime.tasks import Tasks
from modelsplit_proxy.services import Services
from modelsplit_proxy.storage.retention import Limits, Retention
from modelsplit_proxy.storage.writer import Store
from modelsplit_proxy.watch import installed_models
from modelsplit_proxy.watch.health import Monitor, Watched
from modelsplit_proxy.watch.loaded_models import Residency
from modelsplit_proxy.watch.upstream_probe import Probe

if TYPE_CHECKING:
    from modelsplit_policy.config.model import Policy
    from modelsplit_proxy.config.policy_file import LoadedPolicy
    from modelsplit_proxy.config.settings import Settings
    from modelsplit_proxy.limits.client_keys import Keyring
    from modelsplit_proxy.records.request_log import Sink

logger = logging.getLogger("modelsplit")

# How long to wait for the list of installed models, and how large it may be.
_COMPARE_S: Final = 10.0
_TAGS_MAX_BYTES: Final = 4 * 1024 * 1024
# An Ollama that is there answers in milliseconds; one that hangs must not delay our start.
_FIRST_LOOK_S: Final = 0.5
# How long calls turned away at the end of the drain have to send their answer.
_LAST_WORDS_S: Final = 0.5


class PortBusyError(Exception):
    """An address to listen on cannot be had. The text names it."""


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
    ) -> None:
        self._settings = settings
        self._loaded = loaded
        self._keyring = keyring
        policy = loaded.policy
        self.admission = admission.from_policy(policy)
        self.lag = LoopLag()
        self._tasks = Tasks()
        self._pricing = prices.read(policy, SystemClock().wall())
        self.store = Store(settings.state, SystemClock())
        self._ledger = Ledger(self.store)
        self.services = self._services(policy, RequestLog(sink, as_json=json_log))
        pool, target = self.services.pool, self.services.target
        self.probe = Probe(pool, target)
        self.residency = self.services.residency
        self.monitor = self._monitor(policy)
        self.services.metrics.watch(self.admission, pool, self.lag, self.monitor)
        self._costs = self._count_costs()
        trials = ExperimentMetrics(policy, self.services.metrics.registry, LATENCY_S)
        self.services.log.listen(trials.call_ended)
        self.services.metrics.registry.register(StoreMetrics(self.store, self._ledger))
        self.services.metrics.registry.register(BudgetMetrics(self.services.budget_keeper))
        for listener in (self._ledger.note, self.residency.call_ended, self.monitor.call_ended):
            self.services.log.listen(listener)
        self._edge = Edge(
            EdgeServer(
                Handler(self.services),
                head_timeout_s=settings.client_header_timeout_s,
                error_page=unparsed_request,
            )
        )
        self._admin: web.AppRunner | None = None
        self.address: Address | None = None
        self.admin_address: Address | None = None

    def _monitor(self, policy: Policy) -> Monitor:
        services = self.services
        rules = HealthRules()
        watched = Watched(
            policy, self.admission, services.fuses, self.probe, self.lag, services.clock
        )
        return Monitor(HealthGuard(rules), rules, watched)

    def _count_costs(self) -> Costs:
        services = self.services
        costs = Costs(services.clock.wall(), self._pricing.table, services.metrics.model_label)
        services.metrics.registry.register(costs)
        services.log.listen(costs.call_ended)
        return costs

    def _retention(self) -> Retention:
        settings = self._settings
        limits = Limits(settings.keep_records_s, settings.max_records_bytes)
        return Retention(self.store, self.services.clock, limits)

    def _services(self, policy: Policy, log: RequestLog) -> Services:
        settings, clock = self._settings, SystemClock()
        upstream = settings.upstream
        own_limits = None if self._keyring is None else self._keyring.limits(policy.clients)
        gate = Gate(self.admission, clock)
        pool = Pool(upstream.host, upstream.port, connect_timeout_s=settings.connect_timeout_s)
        ledger_time = LedgerTime(machine_clocks(boot_id(settings.boot_id)))
        budget_keeper = BudgetKeeper(policy, self._pricing.prices, self.store, ledger_time)
        return Services(
            policy=policy,
            roles=Roles(policy),
            gate=gate,
            pool=pool,
            residency=Residency(pool, str(upstream), gate),
            guard=Guard(
                settings.listen.host,
                settings.allow_hosts,
                settings.allow_origins,
                machine=socket.gethostname(),
            ),
            intercept=Intercept(Catalogue(policy), policy.management, settings.max_body_bytes),
            last_good=LastGood(),
            rate=ArrivalLimit(policy.clients, own_limits),
            client_seats=ClientSeats(policy.clients, own_limits),
            fuses=Fuses(Breakers(BreakerRules()), clock),
            budget_keeper=budget_keeper,
            attempt_plans=AttemptPlans(
                policy, self._pricing.prices, budget_keeper, settings.stall_timeout_s
            ),
            metrics=Metrics(policy),
            log=log,
            live=LiveCalls(clock),
            clock=clock,
            tasks=self._tasks,
            target=UpstreamTarget(upstream.host, upstream.port, str(upstream)),
            lifecycle=Lifecycle(),
            stall_s=settings.stall_timeout_s,
            max_body_bytes=settings.max_body_bytes,
            keyring=self._keyring,
        )

    async def start(self, inherited: list[socket.socket] | None = None) -> None:
        """Listen and serve. ``inherited``: sockets a service manager opened for us."""
        settings = self._settings
        sockets = inherited or [bind(settings.listen)]
        try:
            admin_sock = bind(settings.admin)
        except PortBusyError:
            for sock in sockets:
                sock.close()
            raise
        self.address = address_of(sockets[0])
        self.admin_address = address_of(admin_sock)
        self.lag.start(asyncio.get_running_loop())
        await self._start_admin(admin_sock)
        await self._read_budgets()
        for sock in sockets:
            await self._edge.listen(sock)
        await self._first_look()
        for warning in (*self._pricing.warnings, *warnings(self.services.policy)):
            logger.warning("%s", warning)
        self._tasks.run(self._compare_with_installed(), "installed")
        self._tasks.run(self.probe.watch(), "probe")
        self._tasks.run(self.residency.watch(), "residency")
        self._tasks.run(self.monitor.watch(), "health")
        self._tasks.run(self._retention().watch(), "retention")
        self._tasks.run(self.services.budget_keeper.watch(), "budgets")

    async def _read_budgets(self) -> None:
        """Know what was counted before the first call comes; a locked file delays only that."""
        reading = self._tasks.start(self.services.budget_keeper.open(), "reading budgets")
        await asyncio.wait([reading], timeout=_FIRST_LOOK_S)

    async def _compare_with_installed(self) -> None:
        """Say once what the policy names and Ollama lacks; nothing depends on the answer."""
        services = self.services
        try:
            async with asyncio.timeout(_COMPARE_S):
                _, body = await fetch(
                    services.pool, services.target.authority, "/api/tags", _TAGS_MAX_BYTES
                )
        except (TimeoutError, UpstreamError):
            return
        found = installed_models.names(body)
        if found is None:
            return  # not a list of models: nothing is known to be missing
        for warning in installed_models.warnings(services.policy, found):
            logger.warning("%s", warning)

    async def _first_look(self) -> None:
        """Begin with what Ollama says of itself, if it says so at once; never wait for it."""
        looks = [
            self._tasks.start(self.probe.ask(), "first probe"),
            self._tasks.start(self.residency.ask(), "first residency"),
        ]
        await asyncio.wait(looks, timeout=_FIRST_LOOK_S)

    async def stop(self, cut: asyncio.Event | None = None) -> None:
        """Take no new work, let answers end within the drain time (or until ``cut``), leave."""
        lifecycle = self.services.lifecycle
        lifecycle.draining = True
        self._edge.stop_accepting()
        if lifecycle.active:
            logger.info("draining: %d requests are being answered", lifecycle.active)
        await self._drained(cut or asyncio.Event())
        await self._turn_away()
        await self._cut_short()
        await self._edge.close()
        await self._close_parts()

    async def _drained(self, cut: asyncio.Event) -> None:
        waits = [
            self._tasks.start(self.services.lifecycle.idle(), "drain"),
            self._tasks.start(_until(cut), "cut"),
        ]
        await asyncio.wait(
            waits, timeout=self._settings.drain_s, return_when=asyncio.FIRST_COMPLETED
        )

    async def _turn_away(self) -> None:
        """Tell those still in line, and let that leave before the connections are cut."""
        if not any(self.admission.waiting(role) for role in Role):
            return
        self.services.gate.refuse_all(Reason.DRAINING)
        await self._last_words()

    async def _cut_short(self) -> None:
        """Interrupt what is still being answered, and let it say so to its client."""
        lifecycle = self.services.lifecycle
        lifecycle.cutting = True
        if lifecycle.active:
            self._edge.interrupt()
            await self._last_words()

    async def _last_words(self) -> None:
        told = self._tasks.start(self.services.lifecycle.idle(), "last words")
        await asyncio.wait([told], timeout=_LAST_WORDS_S)

    async def _close_parts(self) -> None:
        if self._admin is not None:
            await self._admin.cleanup()
        self.lag.stop()
        await self._tasks.close()
        self.services.pool.close()
        await self.services.log.close()
        self.services.budget_keeper.close()
        await asyncio.to_thread(self.store.close)

    async def _start_admin(self, sock: socket.socket) -> None:
        settings = self._settings
        guard = Guard(settings.admin.host, settings.allow_hosts, ())
        parts = AdminParts(
            services=self.services,
            admission=self.admission,
            guard=guard,
            loaded=self._loaded,
            probe=self.probe,
            residency=self.residency,
            monitor=self.monitor,
            lag=self.lag,
            ledger=self._ledger,
            costs=self._costs,
            store=self.store,
        )
        self._admin = web.AppRunner(
            Admin(parts).application(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=1.0,
        )
        await self._admin.setup()
        await web.SockSite(self._admin, sock).start()


def bind(address: Address) -> socket.socket:
    """A listening socket's socket; PortBusyError if the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address.host, address.port))
    except OSError as error:
        sock.close()
        taken = error.errno == errno.EADDRINUSE
        why = "another program listens there" if taken else str(error.strerror or error)
        raise PortBusyError(f"cannot listen on {address}: {why}") from None
    return sock


def address_of(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    return Address(host, port)


async def _until(event: asyncio.Event) -> None:
    await event.wait()
