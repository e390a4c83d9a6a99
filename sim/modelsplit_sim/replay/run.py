"""One run in virtual time, from its first call to its last."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from modelsplit_policy.model_names import canonical
from modelsplit_policy.roles import Roles, Route, RouteRequest
from modelsplit_policy.vocabulary import DEFAULT_HOST, Host, Provider
from modelsplit_sim.virtual_host import VirtualHost

from .clients import Clients
from .demand import NO_RETRIES, Demand, Retries, Shares
from .direct import Direct
from .proxy import VirtualProxy
from .timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.host_shape import HostShape
    from modelsplit_sim.virtual_host import Work

    from .attempt import CallRun
    from .line import Line

# Between the seeds of two hosts of one run.
_APART: Final = 1_000_003


@dataclass(frozen=True, slots=True)
class Contender:
    """What is tried: a policy, or none at all.

    ``direct`` None: a proxy with this policy. Else no proxy, and every call goes to that model;
    empty: to its role's primary. ``line``: makes what lets calls in instead of admission.
    """

    name: str
    policy: Policy
    direct: str | None = None
    line: Callable[[], Line] | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What every contender meets. ``until``: workers send no further call after that."""

    demands: Sequence[Demand]
    shares: Mapping[tuple[str, str], Shares] = field(default_factory=dict)
    retries: Retries = NO_RETRIES
    until: float = math.inf


@dataclass(slots=True)
class Played:
    """A run that is over. ``calls``: all that came, retries too. ``seconds``: how long it was.

    ``loads``: by model, on all hosts. ``busy_s``: how long a host computed, on average.
    ``is_direct``: without a proxy.
    """

    calls: list[CallRun]
    seconds: float
    loads: dict[str, int]
    busy_s: float
    shed_s: float = 0.0
    seat_s: float = 0.0
    is_direct: bool = False


class _Server(Protocol):
    def start(self) -> None: ...
    def arrive(self, call: CallRun) -> None: ...
    def leave(self, call: CallRun) -> None: ...
    def begun(self, work: Work) -> None: ...
    def done(self, work: Work) -> None: ...
    def crashed(self, work: Work) -> None: ...
    def passed(self) -> None: ...


class Run:
    """One run. The same seed gives the same run.

    The policy's ``hosts`` are as many hosts of this shape; one that names none has one.

    ``loaded``: the models that are loaded when it begins; None: those that are asked for most, as
    many as fit. ``told``: called with each call that has ended. ``proxy`` None: there is none.
    """

    def __init__(
        self,
        contender: Contender,
        shape: HostShape,
        traffic: Traffic,
        seed: int,
        *,
        loaded: Sequence[str] | None = None,
        told: Callable[[CallRun], None] | None = None,
    ) -> None:
        needed = models_needed(contender, traffic.demands)
        if loaded is None:
            loaded = _loaded_at_first(needed, shape)
        self._contender = contender
        self._told = told
        self._timeline = Timeline()
        names = tuple(map(Host, contender.policy.hosts)) or (DEFAULT_HOST,)
        if contender.direct is not None:
            names = names[:1]
        self._hosts = {
            name: VirtualHost(shape, seed + number * _APART, loaded)
            for number, name in enumerate(names)
        }
        self.host = self._hosts[names[0]]
        self._clients = Clients(
            traffic.demands, self._timeline, traffic.retries, seed, traffic.until
        )
        self.proxy: VirtualProxy | None = None
        self._server: _Server
        if contender.direct is None:
            self._server = self.proxy = self._proxy(traffic, needed)
        else:
            self._server = Direct(
                contender.policy, contender.direct, self.host, self._timeline, self._ended
            )
        self._clients.server = self._server

    def __repr__(self) -> str:
        return f"<Run of {self._contender.name} at {self.now:.3f}>"

    @property
    def now(self) -> float:
        """The moment that it has come to, in seconds since it began."""
        return self._timeline.now

    def play(self, progress: Callable[[float], None] | None = None) -> Played:
        """To its end. ``progress``: told the moment the run has come to, now and then."""
        timeline, hosts = self._timeline, (*self._hosts.values(),)
        self._server.start()
        self._clients.start()
        steps = 0
        while self._clients.left:
            due, happens = timeline.next_at, min(host.next_at() for host in hosts)
            if due == happens == math.inf:
                break
            self._advance(min(due, happens))
            if due < happens:
                timeline.happen()
            steps += 1
            if progress is not None and steps % 20_000 == 0:
                progress(timeline.now)
        return self._played()

    def _proxy(self, traffic: Traffic, installed: Mapping[str, int]) -> VirtualProxy:
        line = self._contender.line
        return VirtualProxy(
            self._contender.policy,
            self._hosts,
            self._timeline,
            traffic.shares,
            installed,
            self._ended,
            None if line is None else line(),
        )

    def _ended(self, call: CallRun) -> None:
        if self._told is not None:
            self._told(call)
        self._clients.ended(call)

    def _advance(self, to: float) -> None:
        self._timeline.now = to
        # All of them first: a call that ends on one may begin on another.
        done = [(host, host.advance(to)) for host in self._hosts.values()]
        for host, ended in done:
            for work in host.begun:
                self._server.begun(work)
            for work in host.crashed:
                self._server.crashed(work)
            for work in ended:
                self._server.done(work)
        self._server.passed()

    def _played(self) -> Played:
        seats = (
            attempt.ended - attempt.seated
            for call in self._clients.calls
            for attempt in call.attempts
            if attempt.seated is not None and attempt.ended is not None
        )
        hosts = self._hosts.values()
        loads: Counter[str] = Counter()
        for host in hosts:
            loads.update(host.loads)
        return Played(
            self._clients.calls,
            self.now,
            dict(loads),
            sum(host.busy_s for host in hosts) / len(hosts),
            0.0 if self.proxy is None else self.proxy.health.shed_s,
            sum(seats),
            self.proxy is None,
        )


def play(
    contender: Contender,
    shape: HostShape,
    traffic: Traffic,
    seed: int,
    progress: Callable[[float], None] | None = None,
    *,
    loaded: Sequence[str] | None = None,
) -> Played:
    """One run, played to its end."""
    return Run(contender, shape, traffic, seed, loaded=loaded).play(progress)


def models_needed(contender: Contender, demands: Sequence[Demand]) -> dict[str, int]:
    """By canonical name: every model that the host may be asked for, and by how many calls first.

    Fallbacks and the arms of experiments are among them, with no call of their own.
    """
    roles = Roles(contender.policy)
    needed: dict[str, int] = {}
    for demand in demands:
        route = roles.route(
            RouteRequest(demand.model, demand.role, job=demand.job, client=demand.client)
        )
        if not isinstance(route, Route):
            continue
        if contender.direct:
            _count(needed, contender.direct, 1)
            continue
        if route.provider is Provider.CLOUD:
            continue
        first, *others = route.candidates
        _count(needed, first.model, 1)
        if contender.direct is None:
            arms = route.experiment.arms if route.experiment is not None else ()
            for model in (*(other.model for other in others), *(arm.model for arm in arms)):
                _count(needed, model, 0)
    return needed


def missing_figures(contender: Contender, shape: HostShape, demands: Sequence[Demand]) -> list[str]:
    """Models that may be asked for and of which the host has no figures of their own.

    None where the host has the same figures for every model.
    """
    if not shape.models:
        return []
    return sorted(set(models_needed(contender, demands)) - set(shape.models))


def _count(needed: dict[str, int], model: str, calls: int) -> None:
    name = canonical(model)
    needed[name] = needed.get(name, 0) + calls


def _loaded_at_first(needed: Mapping[str, int], shape: HostShape) -> list[str]:
    """What is loaded when the run begins: the models asked for most, as many as fit."""
    loaded: list[str] = []
    loaded_gb = 0.0
    for model in sorted(needed, key=lambda name: (-needed[name], name)):
        gb = shape.of(model).gb
        if needed[model] and shape.has_room(gb, len(loaded), loaded_gb):
            loaded.append(model)
            loaded_gb += gb
    return loaded
