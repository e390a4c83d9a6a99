"""What proxies that count budgets together tell each other of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelsplit_policy.budgets import Claim, Counted


class AwayError(Exception):
    """Nothing can be counted there now. The text says why."""


@dataclass(frozen=True, slots=True)
class Sums:
    """One budget over all proxies. Seconds; a wait of 0: there is room, None: never.

    ``frees_in_s``: None: nothing is counted.
    """

    calls: int
    nano_usd: int
    frees_in_s: float | None
    calls_wait_s: float | None
    money_wait_s: float | None

    @property
    def has_room(self) -> bool:
        return self.calls_wait_s == 0 and self.money_wait_s == 0


class OwnCounts(Protocol):
    """What one proxy counts of its own calls. Times in seconds, by its own clock."""

    @property
    def is_open(self) -> bool:
        """Whether what earlier processes counted has been read."""

    @property
    def longest_s(self) -> int:
        """The longest window."""

    def now(self) -> float: ...

    def counted(self) -> Mapping[str, Sequence[Counted]]:
        """By the names of the budgets that refuse calls."""

    def all_claims(self) -> Sequence[Claim]:
        """A question about each of them."""
