"""Approvals: who may spend what, until when, and what is said when nobody may."""

from __future__ import annotations

from typing import Any

from modelsplit_policy.approvals import ApprovalAction, Approvals, Change, Denied
from modelsplit_policy.budgets import nano
from modelsplit_policy.failures import Reason

DAY = 86_400.0


def approve(number: int, usd: float = 5.0, days: float = 7.0, at: float = 0.0) -> Change:
    return change(ApprovalAction.APPROVE, number, at=at, nano_usd=nano(usd), until=at + days * DAY)


def change(action: ApprovalAction, number: int, **said: Any) -> Change:
    values: dict[str, Any] = {"at": 0.0, "wall": 0.0, "by": "kim", "reason": "a trial", **said}
    return Change(number, action=action, **values)


def approvals(*changes: Change) -> Approvals:
    made = Approvals()
    made.replace(changes)
    return made


def denied(made: Approvals, now: float = 1.0, usd: float = 1.0) -> Denied:
    verdict = made.choose(now, nano(usd))
    assert isinstance(verdict, Denied), verdict
    return verdict


def chosen(made: Approvals, now: float = 1.0, usd: float = 1.0) -> int:
    verdict = made.choose(now, nano(usd))
    assert isinstance(verdict, Change), verdict
    return verdict.id


def test_nobody_has_approved_anything() -> None:
    assert denied(approvals()) == Denied(Reason.NO_APPROVAL)


def test_an_approval_holds_until_its_time_is_over() -> None:
    made = approvals(approve(1, days=7))
    assert chosen(made, 7 * DAY - 1) == 1
    assert denied(made, 7 * DAY).reason is Reason.APPROVAL_EXPIRED


def test_a_revoked_approval_does_not_hold() -> None:
    made = approvals(approve(1), change(ApprovalAction.REVOKE, 2, target=1))
    refusal = denied(made)
    assert refusal.reason is Reason.APPROVAL_REVOKED
    assert refusal.approval is not None
    assert refusal.approval.by == "kim"


def test_money_is_spent_to_the_last_and_no_further() -> None:
    made = approvals(approve(1, usd=2.0))
    made.charge(1, nano(1.0))
    assert chosen(made) == 1
    made.charge(1, nano(1.0))
    refusal = denied(made)
    assert (refusal.reason, refusal.left) == (Reason.APPROVAL_SPENT, 0)


def test_settling_for_less_gives_money_back() -> None:
    made = approvals(approve(1, usd=2.0))
    made.charge(1, nano(2.0))
    made.charge(1, nano(0.5) - nano(2.0))
    assert made.left(made.changes[0]) == nano(1.5)
    assert denied(made, usd=1.75).left == nano(1.5)


def test_the_one_that_ends_soonest_is_spent_first() -> None:
    made = approvals(approve(1, days=30), approve(2, usd=1.0, days=1))
    assert chosen(made) == 2
    made.charge(2, nano(0.5))
    assert chosen(made) == 1
    assert chosen(made, usd=0.5) == 2


def test_a_free_call_still_needs_an_approval() -> None:
    assert denied(approvals(), usd=0.0).reason is Reason.NO_APPROVAL
    assert chosen(approvals(approve(1, usd=0.0)), usd=0.0) == 1


def test_what_earlier_processes_spent_is_spent() -> None:
    made = approvals(approve(1, usd=2.0))
    made.restore({1: nano(1.5)})
    assert denied(made).left == nano(0.5)


def test_lost_counts_stay_lost_until_somebody_says_otherwise() -> None:
    assert approvals(approve(1)).lost_at() is None
    lost = change(ApprovalAction.LOST, 1, at=100.0)
    assert approvals(lost, approve(2)).lost_at() == 100.0
    assert approvals(lost, change(ApprovalAction.RESET, 2, at=150.0)).lost_at() is None
    again = change(ApprovalAction.LOST, 3, at=200.0)
    assert approvals(lost, change(ApprovalAction.RESET, 2, at=150.0), again).lost_at() == 200.0
