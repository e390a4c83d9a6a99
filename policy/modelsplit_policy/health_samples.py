"""From what is seen over time to the Health Guard's inputs, and from its verdict to the door.

``health`` judges; what it judges comes from here: which failures are timeouts of ours and
how many there were lately, which breakers do not let calls through, how the lines stand.
Times are seconds of one monotonic clock of the caller's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from modelsplit_policy.admission import Shedding
from modelsplit_policy.breaker import State
from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.health import Level, QueueState, Signals
from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.breaker import BreakerView
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.health import HealthGuard

_TIMEOUTS: Final = frozenset({ErrorCode.TIMEOUT_LOCAL, ErrorCode.TIMEOUT_CLOUD})
# Far more than make the guard's highest level.
_REMEMBERED: Final = 1000


class Timeouts:
    """The attempts that ran out of the time we gave them in the last ``window_s``."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._at: deque[float] = deque(maxlen=_REMEMBERED)

    def __repr__(self) -> str:
        return f"<Timeouts {len(self._at)} in {self._window_s:g} s>"

    def note(self, failure: Failure, now: float, *, deadline_was_clients: bool) -> None:
        """An attempt ended with ``failure``; counted if it is a timeout of ours.

        One at a deadline that its client had shortened is not.
        """
        was_clients = deadline_was_clients and failure.reason is Reason.ROLE_TIMEOUT
        if failure.code in _TIMEOUTS and not was_clients:
            self._at.append(now)

    def count(self, now: float) -> int:
        """How many there are."""
        since = now - self._window_s
        while self._at and self._at[0] < since:
            self._at.popleft()
        return len(self._at)


def not_closed(views: Iterable[BreakerView]) -> list[BreakerView]:
    """The breakers that do not simply let calls through."""
    return [view for view in views if view.state is not State.CLOSED]


def signals(
    admission: Admission,
    policy: Policy,
    breakers: Iterable[BreakerView],
    now: float,
    *,
    timeouts: int,
    upstream_up: bool | None,
    lag_p99_s: float,
    silence_s: float = 0.0,
) -> Signals:
    """What the guard judges by, at ``now``; ``breakers``: all that have something to tell."""
    stopped = not_closed(breakers)
    return Signals(
        lag_p99_s=lag_p99_s,
        upstream_up=upstream_up,
        provider_open=any(view.key.model is None for view in stopped),
        models_open=sum(view.key.model is not None for view in stopped),
        lines=tuple(_line(admission, policy, role, now) for role in Role if role is not Role.CLOUD),
        timeouts=timeouts,
        silence_s=silence_s,
    )


def shedding(guard: HealthGuard) -> Shedding:
    """Whom admission turns away at the levels where the guard stands."""
    return Shedding(
        enter=frozenset(role for role in Role if not guard.may_enter(role)),
        wait=frozenset(role for role in Role if not guard.may_queue(role)),
        health="" if guard.level is Level.OK else f"{guard.level}: {guard.cause}",
    )


def _line(admission: Admission, policy: Policy, role: Role, now: float) -> QueueState:
    row = policy.roles[role]
    return QueueState(
        role=role,
        waiting=admission.waiting(role),
        max_queue=row.max_queue,
        oldest_wait_s=admission.oldest_wait_s(role, now),
        max_wait_s=row.max_wait_ms / 1000,
    )
