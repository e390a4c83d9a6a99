"""Who sends the calls: when each comes, until when its client waits, and when it tries again.

Open loop: a call comes at its moment, whatever became of the others. Closed loop: a worker
sends its next call a while after its last one has ended. A replay in open loop alone damns a
slow policy with a crowd that would not have come, and flatters one that fails fast.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final, Protocol

from .attempt import CallRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelsplit_policy.failures import Failure

    from .demand import Demand, Retries
    from .timeline import Timeline

# The pauses of the OpenAI and Anthropic libraries, and the statuses after which they try again.
_PAUSE_S: Final = 0.5
_PAUSE_MAX_S: Final = 8.0
_JITTER: Final = 0.25
_AGAIN: Final = frozenset({408, 409, 429})


class Server(Protocol):
    """Who takes the calls."""

    def arrive(self, call: CallRun) -> None: ...
    def leave(self, call: CallRun) -> None: ...


class Clients:
    """All clients of a run. ``calls``: every call that came, retries too, in order.

    ``until``: no worker sends another call after that moment. ``left``: demands that have not
    come to their end yet.
    """

    server: Server

    def __init__(
        self,
        demands: Sequence[Demand],
        timeline: Timeline,
        retries: Retries,
        seed: int,
        until: float = math.inf,
    ) -> None:
        self._demands = demands
        self._timeline = timeline
        self._retries = retries
        self._until = until
        self._chance = random.Random(f"retries {seed}")
        self.calls: list[CallRun] = []
        self.left = 0
        self._followers: dict[int, list[int]] = {}
        for number, demand in enumerate(demands):
            if demand.after is not None:
                self._followers.setdefault(demand.after, []).append(number)

    def start(self) -> None:
        for number, demand in enumerate(self._demands):
            if demand.after is None:
                self._expect(number, demand.at)

    def ended(self, call: CallRun) -> None:
        """A call has come to its end, whatever that is."""
        again_s = self._again_s(call)
        if again_s is not None:
            self._timeline.at(self._timeline.now + again_s, self._retry, call)
            return
        self.left -= 1
        for number in self._followers.get(call.number, ()):
            at = self._timeline.now + self._demands[number].think_s
            if at <= self._until:
                self._expect(number, at)

    def _expect(self, number: int, at: float) -> None:
        self.left += 1
        self._timeline.at(at, self._send, number)

    def _send(self, number: int) -> None:
        self._arrives(CallRun(self._demands[number], number, 0, self._timeline.now))

    def _retry(self, call: CallRun) -> None:
        self._arrives(CallRun(call.demand, call.number, call.retry + 1, self._timeline.now))

    def _arrives(self, call: CallRun) -> None:
        self.calls.append(call)
        self._timeline.at(call.arrived + call.demand.patience_s, self.server.leave, call)
        self.server.arrive(call)

    def _again_s(self, call: CallRun) -> float | None:
        """How long its library waits before it tries again; None: it does not."""
        failure = call.failure
        if failure is None or call.retry >= self._retries.most or not _tries_again(failure):
            return None
        advice = failure.retry_after_s
        if advice is not None and 0 < advice <= self._retries.longest_s:
            return float(advice)
        pause_s: float = min(_PAUSE_MAX_S, _PAUSE_S * 2**call.retry)
        return pause_s * (1 - _JITTER * self._chance.random())


def _tries_again(failure: Failure) -> bool:
    if failure.should_retry is not None:
        return failure.should_retry
    return failure.status in _AGAIN or failure.status >= 500
