"""From what is seen over time to the Health Guard's inputs, and from its verdict to the door.

``health`` judges; what it judges comes from here: which failures are timeouts of ours and
how many there were lately, which breakers do not let calls through, how the lines stand.
Times are seconds of one monotonic clock of the caller's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from modelsplit_policy.admission import Shedding
from modelsplit_policy.blame import USUAL, Blame, blame
from modelsplit_policy.breaker import BreakerState
from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.health import SHEDDING, Access, Level, QueueState, Signals
from modelsplit_policy.vocabulary import Provider, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.blame import Circumstances
    from modelsplit_policy.breaker import BreakerView
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.health import HealthGuard
    from modelsplit_policy.hosts import HostSeats
    from modelsplit_policy.vocabulary import Host

# A call of a cloud's holds no seat here: to turn others away would relieve nothing.
_TIMEOUTS: Final = frozenset({ErrorCode.TIMEOUT_LOCAL})
_SIGNS: Final = frozenset({Blame.BROKEN, Blame.RUNNER})
# Far more than make the guard's highest level.
_REMEMBERED: Final = 1000


class Timeouts:
    """The attempts that ran out of the time we gave them in the last ``window_s``.

    The same client's same body counts once: a loop that asks again and again for what cannot be
    had in time is no sign that others are served too slowly.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        # When, and who asked what, with the number of the attempt.
        self._at: deque[tuple[float, object]] = deque(maxlen=_REMEMBERED)

    def __repr__(self) -> str:
        return f"<Timeouts {len(self._at)} in {self._window_s:g} s>"

    def call_ended(
        self,
        attempts: Sequence[Failure],
        told: Failure | None,
        now: float,
        circumstances: Circumstances = USUAL,
        pair: int | None = None,
    ) -> None:
        """A call has ended: how its attempts failed, and what its client was told.

        What was told is mostly how an attempt failed, and then the same object: that is one
        failure. ``pair``: who asked what; None: nobody knows.
        """
        failures = list(attempts)
        if told is not None and not any(failure is told for failure in failures):
            failures.append(told)
        for number, failure in enumerate(failures):
            if _is_late(failure, circumstances):
                self._at.append((now, object() if pair is None else (pair, number)))

    def count(self, now: float) -> int:
        """How many there are."""
        since = now - self._window_s
        while self._at and self._at[0][0] < since:
            self._at.popleft()
        return len({whose for _, whose in self._at})


def _is_late(failure: Failure, circumstances: Circumstances) -> bool:
    """Whether it is a timeout of ours, of an upstream that was there."""
    if failure.code not in _TIMEOUTS:
        return False
    return failure.reason is Reason.TOTAL_TIMEOUT or blame(failure, circumstances) in _SIGNS


def not_closed(views: Iterable[BreakerView]) -> list[BreakerView]:
    """The breakers that do not simply let calls through."""
    return [view for view in views if view.state is not BreakerState.CLOSED]


def everywhere(stopped: Iterable[BreakerView], hosts: Iterable[HostSeats]) -> list[BreakerView]:
    """Of breakers that are not closed those that leave no host to go to, one for each name.

    A model's: on all hosts that it may run on; a cloud has none of ours.
    """
    at: dict[tuple[Provider, str | None], dict[Host, BreakerView]] = {}
    for view in stopped:
        at.setdefault((view.key.provider, view.key.model), {})[view.key.host] = view
    return [
        next(iter(views.values()))
        for (provider, model), views in at.items()
        if provider is not Provider.LOCAL
        or all(host.host in views for host in _may_have(model, hosts))
    ]


def _may_have(model: str | None, hosts: Iterable[HostSeats]) -> list[HostSeats]:
    """The hosts that a model may run on, as far as that is known; None: all."""
    if model is None:
        return [*hosts]
    takes = [host for host in hosts if host.rules.takes_model(model)]
    return [host for host in takes if host.has(model) is not False] or takes


def signals(
    admission: Admission,
    policy: Policy,
    breakers: Iterable[BreakerView],
    now: float,
    *,
    timeouts: int,
    upstream_up: bool | None,
    lag: tuple[float, int],
    silence_s: float = 0.0,
) -> Signals:
    """What the guard judges by, at ``now``; ``breakers``: all that have something to tell.

    ``lag``: the event loop's P99 in seconds, and of how many samples. Clouds that fail, however
    many, count as one model: those who ask Ollama are served all the same. Of several hosts what
    is stopped on all of them counts: calls go to the others.
    """
    stopped = everywhere(not_closed(breakers), admission.hosts)
    here = [view.key.model for view in stopped if view.key.provider is Provider.LOCAL]
    return Signals(
        lag_p99_s=lag[0],
        lag_samples=lag[1],
        upstream_up=upstream_up,
        provider_open=None in here,
        models_open=sum(model is not None for model in here) + (len(here) < len(stopped)),
        lines=tuple(_line(admission, policy, role, now) for role in Role if role is not Role.CLOUD),
        timeouts=timeouts,
        silence_s=silence_s,
    )


def shedding(guard: HealthGuard) -> Shedding:
    """Whom admission turns away at the levels where the guard stands."""
    return Shedding(
        enter=frozenset(role for role in Role if not guard.may_enter(role)),
        wait=frozenset(role for role in Role if not guard.may_queue(role)),
        # Of a call that met Ollama, or did not, its own lines say whether it was there.
        health="" if guard.is_away or guard.level is Level.OK else f"{guard.level}: {guard.cause}",
        cause=guard.shedding_cause,
    )


def turned_away(level: Level) -> str:
    """Whom the guard turns away at a level, for people to read."""
    none = ", ".join(role for role in Role if SHEDDING[level, role] is Access.NONE)
    seat = ", ".join(role for role in Role if SHEDDING[level, role] is Access.SEAT)
    parts = (
        none and f"{none} calls are refused",
        seat and f"{seat} calls are refused where no seat is free",
    )
    return "; ".join(filter(None, parts)) or "calls of all roles are let in"


def _line(admission: Admission, policy: Policy, role: Role, now: float) -> QueueState:
    row = policy.roles[role]
    return QueueState(
        role=role,
        waiting=admission.waiting(role),
        max_queue=row.max_queue,
        oldest_wait_s=admission.oldest_wait_s(role, now),
        max_wait_s=row.max_wait_ms / 1000,
    )
