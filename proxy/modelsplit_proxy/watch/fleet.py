"""Several hosts: everything that is kept of each, and what is known of all of them together.

Each host has its own connections, probe, lists of models, presence and learned values. What asks
after "the upstream" as if there were one is answered here for all: it is there while one host is,
it has loaded what one of them has, it has installed what any of them has.
"""

from __future__ import annotations

import contextlib
import math
from asyncio import gather
from typing import TYPE_CHECKING

import orjson

from modelsplit_policy.hints import Absence
from modelsplit_policy.model_names import canonical
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.runtime.parts import parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from modelsplit_policy.host_rules import HostRules
    from modelsplit_policy.vocabulary import Host
    from modelsplit_proxy.http.upstream import UpstreamTarget
    from modelsplit_proxy.http.upstream_pool import UpstreamPool
    from modelsplit_proxy.limits.breakers import BreakerKeeper
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.watch.learned import LearnedKeeper
    from modelsplit_proxy.watch.loaded_models import LoadedModelsWatch
    from modelsplit_proxy.watch.model_list import ModelList
    from modelsplit_proxy.watch.presence import Presence
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe


@parts
class UpstreamHost:
    """One host. ``shown``: its name, as people are told; None: it is the only one, and has none."""

    name: Host
    shown: str | None
    target: UpstreamTarget
    pool: UpstreamPool
    probe: UpstreamProbe
    model_list: ModelList
    loaded_models: LoadedModelsWatch
    presence: Presence
    learned: LearnedKeeper
    rules: HostRules

    @property
    def tags(self) -> tuple[bytes, ...]:
        """The header line that says who answered."""
        return () if self.shown is None else (b"X-LLM-Host: %b\r\n" % self.shown.encode(),)

    def may_have(self, model: str) -> bool:
        """Whether it is away, and may have the model of that canonical name."""
        return self.probe.up is False and self.model_list.may_have(model)


class HostBars:
    """For how long a host is better not asked: nobody listens, it hangs, or a breaker is open."""

    def __init__(self, hosts: Iterable[UpstreamHost], breakers: BreakerKeeper) -> None:
        self._presence = {host.name: host.presence for host in hosts}
        self._breakers = breakers

    def bar(self, host: Host, model: str, now: float) -> float:
        """As ``placement`` asks it: seconds from ``now``; 0 or less: it may be asked."""
        if self._presence[host].is_gone:
            return math.inf
        return self._breakers.wait_s(Provider.LOCAL, model, now, host)


class FleetProbe:
    """Whether any host is there: the words of one probe, for all.

    ``is_drained``: whether a host, by name, takes no new calls.
    """

    def __init__(self, hosts: Sequence[UpstreamHost], is_drained: Callable[[Host], bool]) -> None:
        self._hosts = tuple((host.shown or host.name, host.probe) for host in hosts)
        self._names = tuple(host.name for host in hosts)
        self._is_drained = is_drained

    def __repr__(self) -> str:
        return f"<FleetProbe up={self.up} of {len(self._hosts)}>"

    @property
    def up(self) -> bool | None:
        states = {probe.up for _, probe in self._hosts}
        if True in states:
            return True
        return None if None in states else False

    @property
    def version(self) -> str | None:
        """That of each host that tells one; once, where they are the same."""
        told = dict.fromkeys(probe.version for _, probe in self._hosts if probe.version)
        return ", ".join(told) or None

    @property
    def error(self) -> str | None:
        """What is wrong with each, while none is there."""
        if self.up:
            return None
        told = (f"{name}: {probe.error}" for name, probe in self._hosts if probe.error)
        return "; ".join(told) or None

    @property
    def away(self) -> tuple[str, ...]:
        """Those that do not answer while another one does, each in words."""
        if not self.up:
            return ()
        return tuple(_away(name, probe) for name, probe in self._hosts if probe.up is False)

    @property
    def shut(self) -> tuple[str, ...]:
        """All of them in words, where none takes calls and some do not because they are drained."""
        drained = [self._is_drained(name) for name in self._names]
        told = tuple(
            f"{name} is drained" if is_drained else _away(name, probe)
            for (name, probe), is_drained in zip(self._hosts, drained, strict=True)
            if is_drained or probe.up is False
        )
        return told if any(drained) and len(told) == len(drained) else ()

    @property
    def mute_since(self) -> float | None:
        """Since when all of them have answered nothing."""
        since = [probe.mute_since for _, probe in self._hosts]
        return (
            max((moment for moment in since if moment is not None), default=None)
            if all(moment is not None for moment in since)
            else None
        )

    @property
    def absence(self) -> Absence:
        """How they are not there, where none is."""
        return Absence.GONE if self.mute_since is None else Absence.HANGS

    @property
    def away_since(self) -> float | None:
        """Since when none of them is there."""
        since = [probe.away_since for _, probe in self._hosts]
        known = [moment for moment in since if moment is not None]
        return max(known) if known and len(known) == len(since) else None

    @property
    def unanswered(self) -> tuple[tuple[str, float], ...]:
        """Those that leave an open question unanswered."""
        return tuple(
            (f"host {name}", asked_s)
            for name, probe in self._hosts
            for _, asked_s in probe.unanswered
        )

    async def look(self) -> None:
        await gather(*(probe.look() for _, probe in self._hosts))

    async def ask(self) -> None:
        await gather(*(probe.ask() for _, probe in self._hosts))


def _away(name: str, probe: UpstreamProbe) -> str:
    """What is wrong with a host, in words. One that hangs is to be restarted; one away is not."""
    what = {
        Absence.GONE: "does not answer",
        Absence.HANGS: "takes calls and answers none",
        Absence.OTHER: "does not answer as Ollama does",
    }
    return f"{name} {what[probe.absence]} ({probe.error})"


class FleetLoadedModels:
    """What any host has loaded. ``answer``: their answers in one, each row with its ``host``."""

    def __init__(self, hosts: Sequence[UpstreamHost]) -> None:
        self._watches = {host.name: host.loaded_models for host in hosts}
        self._shown = {host.name: host.shown for host in hosts}

    def __repr__(self) -> str:
        return f"<FleetLoadedModels {list(self._watches.values())!r}>"

    @property
    def models(self) -> frozenset[str] | None:
        known = [watch.models for watch in self._watches.values() if watch.models is not None]
        return frozenset().union(*known) if known else None

    @property
    def answer(self) -> bytes:
        rows = [
            row | {"host": self._shown[name]}
            for name, watch in self._watches.items()
            # What a host said before it went away is not so any more.
            if watch.models is not None
            for row in _rows(watch.answer)
        ]
        return orjson.dumps({"models": rows})

    def loaded(self, model: str) -> bool | None:
        """True: on one host at least; False: on none; None: on none that is known."""
        known = {watch.loaded(model) for watch in self._watches.values()}
        if True in known:
            return True
        return None if None in known else False

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        with contextlib.ExitStack() as hurried:
            for watch in self._watches.values():
                hurried.enter_context(watch.hurried())
            yield

    async def ask(self, wait_s: float | None = None) -> None:
        await gather(*(watch.ask(wait_s) for watch in self._watches.values()))

    def call_ended(self, record: CallRecord) -> None:
        """A call has ended: the host that it went to may have loaded something."""
        name = record.attempts[-1].host if record.attempts else None
        for host, shown in self._shown.items():
            if shown == name:
                self._watches[host].call_ended(record)


def _rows(answer: bytes) -> list[dict[str, object]]:
    try:
        rows = orjson.loads(answer)["models"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


class Fleet:
    """The hosts, in the policy's order, and which of them to ask what no call asks.

    ``asked_at``: where our commands ask, if not by themselves.
    """

    def __init__(self, hosts: Sequence[UpstreamHost]) -> None:
        self.asked_at = ""
        self.hosts = tuple(hosts)
        self.by_name: Mapping[str, UpstreamHost] = {host.name: host for host in hosts}

    def __repr__(self) -> str:
        return f"<Fleet {', '.join(self.by_name)}>"

    def anyone(self) -> UpstreamHost:
        """The first host that is there, or that may be; the first of all where none is."""
        for up in (True, None):
            for host in self.hosts:
                if host.probe.up is up:
                    return host
        return self.hosts[0]

    def with_installed(self, model: str) -> UpstreamHost | None:
        """The first host that is there and has the model, else that is away and may have it.

        None: neither is known of any.
        """
        name = canonical(model)
        for host in self.hosts:
            if host.probe.up is not False and host.model_list.has(name):
                return host
        return next((host for host in self.hosts if host.may_have(name)), None)

    def with_loaded(self, model: str, allowed: Iterable[Host]) -> UpstreamHost | None:
        """The first of the allowed that has the model loaded; None: none is known to."""
        for name in allowed:
            host = self.by_name[name]
            if host.loaded_models.loaded(model):
                return host
        return None
