"""Calls wait while Ollama restarts: the line is held until it is back, or for too long away.

``modelsplit_policy.outage`` decides. Whoever fails to connect says so (``lost``), whoever gets
an answer does (``answered``); this module holds the line, has the probe ask often meanwhile, and
tells the breakers when the provider is there again. What is back, or has become another version,
is asked anew what it has installed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.http.upstream import Fault
from modelsplit_proxy.protocol.upstream_failures import failure_of_error

if TYPE_CHECKING:
    from modelsplit_policy.outage import Outage
    from modelsplit_proxy.http.upstream import UpstreamError, UpstreamTarget
    from modelsplit_proxy.limits.admission_queue import AdmissionQueue, HostLine
    from modelsplit_proxy.limits.breakers import BreakerKeeper, HostBreakers
    from modelsplit_proxy.watch.installed_models import InstalledModels
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe

# Nothing was sent, and nobody is there to send it to.
_NOBODY = frozenset({Fault.REFUSED, Fault.DNS, Fault.CONNECT_TIMEOUT})
# Too late to say whether somebody is there.
_CUT = frozenset({Fault.RESET, Fault.TRUNCATED})


class Presence:
    """Whether the provider behind ``target`` is there, for everyone who has to know."""

    def __init__(
        self,
        outage: Outage,
        admission_queue: AdmissionQueue | HostLine,
        breakers: BreakerKeeper | HostBreakers,
        probe: UpstreamProbe,
        installed: InstalledModels,
        target: UpstreamTarget,
    ) -> None:
        self._outage = outage
        self._queue = admission_queue
        self._breakers = breakers
        self._probe = probe
        self._installed = installed
        # The version that it told last.
        self._version: str | None = None
        self._upstream, self._steps = f"http://{target.authority}", target.steps
        self._end: asyncio.TimerHandle | None = None
        self._hangs = False

    def __repr__(self) -> str:
        return f"<Presence {self._outage!r}>"

    @property
    def is_gone(self) -> bool:
        """Nobody answers there, and calls do not wait for that to change."""
        if self._hangs:
            return True
        away = self._outage.since is not None
        return away and not self._outage.waits(asyncio.get_running_loop().time())

    def call_failed(self, error: UpstreamError) -> bool:
        """A call could not connect; whether it waits. Whoever asks whether Ollama is up knows."""
        self._probe.call_failed(error)
        return self.failed(error)

    def failed(self, error: UpstreamError) -> bool:
        """A question or a call has failed; whether calls that were not sent wait now."""
        if error.fault not in _NOBODY:
            if error.fault not in _CUT:
                self.answered()
            return False
        if error.fault is not Fault.CONNECT_TIMEOUT:
            self._hangs_no_longer()
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._outage.lost(now) and (left_s := self._outage.left_s(now)) > 0:
            self._queue.hold(
                failure_of_error(
                    error, upstream=self._upstream, steps=self._steps, provider=Provider.LOCAL
                )
            )
            self._end = loop.call_later(left_s, self._too_long)
        return self._outage.waits(now)

    def mute(self) -> None:
        """It has left a question unanswered for as long as anybody waits for one."""
        self._hangs = True
        self._queue.hangs(self._upstream)

    def answered(self) -> None:
        """It has answered something."""
        self._hangs_no_longer()
        was_away = self._outage.since is not None
        returned = self._outage.back()
        if self._end is not None:
            self._end.cancel()
            self._end = None
        self._breakers.answered(Provider.LOCAL, returned=returned)
        if was_away:
            self._queue.go_on()
        if self._is_another() or returned or not self._installed.is_answered:
            self._installed.want()

    def close(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _is_another(self) -> bool:
        """Whether it has told another version than before; whatever it is now may have others."""
        version, before = self._probe.version, self._version
        if version is None or version == before:
            return False
        self._version = version
        return before is not None

    def _hangs_no_longer(self) -> None:
        if self._hangs:
            self._hangs = False
            self._queue.hangs("")

    def _too_long(self) -> None:
        self._end = None
        self._queue.give_up()
