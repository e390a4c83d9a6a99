"""Money that somebody has allowed to be spent on CLOUD, by whom, how much and until when.

Changes are only ever added: an approval, and later perhaps its revocation. What is in force
follows from all of them. Each CLOUD call is charged to one approval, the one that ends
soonest of those with room for it, so that none lapses while another is spent.

Time is budget time (``budget_clock``), in seconds; money is whole billionths of a US dollar.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from modelsplit_policy.failures import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class ApprovalAction(StrEnum):
    """What a change to the budgets was.

    ``LOST``: a damaged state file was set aside, and what it had counted with it.
    ``RESET``: an operator says that nothing of what was lost need be taken as used.
    """

    APPROVE = "approve"
    REVOKE = "revoke"
    LOST = "lost"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the history. ``wall``: for people; ``at`` and ``until`` are budget time.

    ``target``: the approval that is revoked. ``uid``: by which other machines know the change;
    empty: it has none yet.
    """

    id: int
    at: float
    wall: float
    action: ApprovalAction
    by: str
    reason: str
    nano_usd: int = 0
    until: float = 0.0
    target: int | None = None
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Denied:
    """Why no approval covers a charge: the reason, and what is left of the best of them."""

    reason: Reason
    approval: Change | None = None
    left: int = 0


@dataclass(slots=True)
class Approvals:
    """The history, and what has been charged to each approval.

    ``spent``: here; ``spent_by_all``: on all machines that charge it, as far as that is known.
    """

    changes: tuple[Change, ...] = ()
    spent: dict[int, int] = field(default_factory=dict)
    spent_by_all: dict[int, int] = field(default_factory=dict)

    def replace(self, changes: Iterable[Change]) -> None:
        """The history as it stands now, oldest first."""
        self.changes = tuple(changes)

    def restore(self, spent: Mapping[int, int]) -> None:
        """What earlier processes charged to each approval."""
        self.spent = dict(spent)

    def charge(self, approval: int, nano_usd: int) -> None:
        """Charge an approval; less than nothing gives back."""
        self.spent[approval] = self.spent.get(approval, 0) + nano_usd

    def left(self, approval: Change) -> int:
        return max(0, approval.nano_usd - self._spent(approval))

    def in_force(self, now: float) -> list[Change]:
        """Neither revoked nor over; those that end soonest first."""
        valid = [change for change in self._not_revoked() if change.until > now]
        return sorted(valid, key=lambda change: change.until)

    def choose(self, now: float, nano_usd: int, full: Collection[int] = ()) -> Change | Denied:
        """The approval that a call of at most so much is to be charged to; charges nothing.

        ``full``: those that others have said to have no room for it.
        """
        valid = self.in_force(now)
        for approval in valid:
            if approval.id not in full and self._spent(approval) + nano_usd <= approval.nano_usd:
                return approval
        if valid:
            best = max(valid, key=self.left)
            return Denied(Reason.APPROVAL_SPENT, best, self.left(best))
        last = [change for change in self.changes if change.action is ApprovalAction.APPROVE][-1:]
        if not last:
            return Denied(Reason.NO_APPROVAL)
        over = last[0] in self._not_revoked()
        return Denied(Reason.APPROVAL_EXPIRED if over else Reason.APPROVAL_REVOKED, last[0])

    def lost_at(self) -> float | None:
        """When counts were last lost, unless an operator has said since that it is no matter."""
        lost_at = None
        for change in self.changes:
            if change.action is ApprovalAction.LOST:
                lost_at = change.at
            elif change.action is ApprovalAction.RESET:
                lost_at = None
        return lost_at

    def _spent(self, approval: Change) -> int:
        return max(self.spent.get(approval.id, 0), self.spent_by_all.get(approval.id, 0))

    def _not_revoked(self) -> list[Change]:
        revoked = {
            change.target for change in self.changes if change.action is ApprovalAction.REVOKE
        }
        return [
            change
            for change in self.changes
            if change.action is ApprovalAction.APPROVE and change.id not in revoked
        ]
