"""The circuit breakers at work: asked before a call is sent, told how it ended.

``modelsplit_policy.breaker`` decides; this module gives it the time and tells the log what
changed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from modelsplit_policy.blame import USUAL
from modelsplit_policy.breaker import Allowed
from modelsplit_policy.breaker_news import BreakerNews
from modelsplit_policy.failures import said_back
from modelsplit_policy.vocabulary import DEFAULT_HOST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.blame import Circumstances
    from modelsplit_policy.breaker import Breakers, BreakerTransition, BreakerView, Pair
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.vocabulary import Host, Provider
    from modelsplit_proxy.runtime.clock import Clock

logger = logging.getLogger("modelsplit")

# A provider and a model's name of usual length.
_KEY_MAX: Final = 60


class HostBreakers:
    """What one host tells the breakers."""

    def __init__(self, keeper: BreakerKeeper, host: Host) -> None:
        self._keeper = keeper
        self._host = host

    def __repr__(self) -> str:
        return f"<HostBreakers of {self._host}>"

    def answered(self, provider: Provider, *, returned: bool) -> None:
        """As ``BreakerKeeper.answered``, of this host."""
        self._keeper.answered(provider, returned=returned, host=self._host)


class BreakerKeeper:
    """Breakers with a clock and a log."""

    def __init__(self, breakers: Breakers, clock: Clock) -> None:
        self._breakers = breakers
        self._clock = clock
        self._news = BreakerNews()

    def __repr__(self) -> str:
        return f"<BreakerKeeper {self._breakers!r}>"

    def check(
        self, provider: Provider, model: str, pair: Pair = None, host: Host = DEFAULT_HOST
    ) -> Failure | None:
        """Whether a call would be refused now; asked before it joins a line.

        ``pair``: asked for who asks what, where that matters. ``host``: who is asked.
        """
        return self._breakers.check(provider, model, self._clock.now(), host, pair)

    def check_all(
        self, provider: Provider, model: str, hosts: Iterable[Host], pair: Pair = None
    ) -> Failure | None:
        """The same for a call that may go to any of the hosts: what the first one says, or None."""
        now, refused = self._clock.now(), None
        for host in hosts:
            failure = self._breakers.check(provider, model, now, host, pair)
            if failure is None:
                return None
            refused = refused or failure
        return refused

    def at(self, host: Host) -> HostBreakers:
        """What one host tells the breakers."""
        return HostBreakers(self, host)

    def wait_s(self, provider: Provider, model: str, now: float, host: Host) -> float:
        """For how long calls to a host are refused; 0 or less: they are not."""
        return self._breakers.wait_s(provider, model, now, host)

    def admit(
        self, provider: Provider, model: str, pair: Pair = None, host: Host = DEFAULT_HOST
    ) -> Allowed | Failure:
        """Let a call through; ``ended`` is then owed, whatever happens."""
        verdict = self._breakers.admit(provider, model, self._clock.now(), host, pair)
        if isinstance(verdict, Allowed) and verdict.transitions:
            self._tell(verdict.transitions)
        return verdict

    def reached(self, admitted: Allowed) -> None:
        """The upstream has begun to answer."""
        steps = self._breakers.reached(admitted, self._clock.now())
        if steps:
            self._tell(steps)

    def ended(
        self,
        admitted: Allowed,
        failure: Failure | None,
        *,
        completed: bool,
        circumstances: Circumstances = USUAL,
        pair: Pair = None,
    ) -> None:
        """How the call ended; without a failure and not ``completed``, its client left."""
        steps = self._breakers.call_ended(
            admitted,
            failure,
            self._clock.now(),
            completed=completed,
            circumstances=circumstances,
            pair=pair,
        )
        if steps:
            self._tell(steps)

    def answered(self, provider: Provider, *, returned: bool, host: Host = DEFAULT_HOST) -> None:
        """Asked something else, the provider is there; ``returned``: it had been away."""
        steps = self._breakers.answered(provider, host, returned=returned)
        if steps:
            self._tell(steps)

    def snapshot(self) -> tuple[BreakerView, ...]:
        return self._breakers.snapshot(self._clock.now())

    def _tell(self, transitions: tuple[BreakerTransition, ...]) -> None:
        for step in transitions:
            text = self._news.of(step, self._clock.now())
            if text is not None:
                # A model's name comes from a client.
                logger.warning("breaker %s: %s", said_back(str(step.key), _KEY_MAX), text)
