"""How much of requests may be held in memory until they are sent on, and of answers until taken.

One budget of each for all connections of the process. What a connection holds is charged to it
before more is read, so that no number of strangers can make the process grow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.quantity import in_digits

# Longest silence of a client inside a body that it has begun: half of nginx's
# client_body_timeout.
BODY_TIMEOUT_S: Final = 30.0
# What is held of answers: of those that are looked at whole before the client sees any of them,
# and that a client does not take. Beyond it they are passed on unseen, as fast as they are taken.
ANSWER_BYTES: Final = 64 * 1024 * 1024


class ReadBudget:
    """``limit`` and ``used`` are bytes."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class HeldBytes:
    """What one holder has of a budget; 0 at first. ``size`` is bytes."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: ReadBudget) -> None:
        self._budget = budget
        self.size = 0

    def set(self, size: int) -> bool:
        """HeldBytes ``size`` bytes from now on. False, and nothing changes, if there is no room.

        Less than before always fits.
        """
        more = size - self.size
        if more > 0 and self._budget.used + more > self._budget.limit:
            return False
        self._budget.used += more
        self.size = size
        return True


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much, how long and from how many a server reads. Seconds."""

    budget: ReadBudget
    head_timeout_s: float
    body_timeout_s: float = BODY_TIMEOUT_S
    max_connections: int = 2048
    answers: ReadBudget = field(default_factory=lambda: ReadBudget(ANSWER_BYTES))


def no_room(budget: ReadBudget) -> Failure:
    """So much is arriving already that this request cannot be held."""
    return Failure(
        ErrorCode.OVERLOAD_THROTTLED,
        Reason.REQUEST_MEMORY,
        f"requests that are still arriving hold {in_digits(budget.limit / 2**20)} MiB already "
        "(--request-memory); retry in 2 s",
        "Too Much Arriving",
        retry_after_s=2,
    )
