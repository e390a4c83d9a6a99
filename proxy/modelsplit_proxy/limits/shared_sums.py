"""What proxies that count budgets together tell each other of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelsplit_policy.approvals import Change
    from modelsplit_policy.budgets import Claim, Counted

# A server that is well answers within a millisecond.
TIMEOUT_S: Final = 0.2
# The least that a later question of the same call is given: one that is well answers in less.
_LEAST_S: Final = 0.03


class AwayError(Exception):
    """Nothing can be counted there now. The text says why."""


@dataclass(slots=True)
class Patience:
    """How long one attempt still waits for the others, all its questions together.

    Nothing is asked once it is over; so all of them take ``left_s`` and twice ``_LEAST_S`` at most,
    however many there are: what one question is given is kept back for another.
    """

    left_s: float = TIMEOUT_S

    @property
    def is_over(self) -> bool:
        return self.left_s <= -_LEAST_S

    @property
    def next_s(self) -> float:
        """What the next question is given."""
        return max(_LEAST_S, self.left_s)

    def spend(self, seconds: float) -> None:
        """One question took so long. What is beyond its time was this process being late."""
        self.left_s -= min(seconds, self.next_s)


@dataclass(frozen=True, slots=True)
class Sums:
    """One budget over all proxies. Seconds; a wait of 0: there is room, None: never.

    ``frees_in_s``: None: nothing is counted. ``is_revoked``: it is an approval that somebody took
    back.
    """

    calls: int
    nano_usd: int
    frees_in_s: float | None
    calls_wait_s: float | None
    money_wait_s: float | None
    is_revoked: bool = False

    @property
    def has_room(self) -> bool:
        return self.calls_wait_s == 0 and self.money_wait_s == 0 and not self.is_revoked


class OwnCounts(Protocol):
    """What one proxy counts of its own calls. Times in seconds, by its own clock."""

    @property
    def is_open(self) -> bool:
        """Whether what earlier processes counted has been read."""

    @property
    def longest_s(self) -> int:
        """The longest window of a budget."""

    def now(self) -> float: ...

    def counted(self) -> Mapping[str, Sequence[Counted]]:
        """By the names of the budgets that refuse calls, and of approvals in force."""

    def all_claims(self) -> Sequence[Claim]:
        """A question about each of them."""

    async def changes(self) -> Sequence[Change]:
        """The history of approvals as the state file has it now; their times by our clock."""

    async def learn(
        self, approvals: Sequence[Change], revocations: Sequence[tuple[str, Change]]
    ) -> None:
        """Add to it what others know; of a revocation the uid of what it revokes. StoreError."""
