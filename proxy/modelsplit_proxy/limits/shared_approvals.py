"""Approvals of the cloud as proxies tell them to each other: a name and a text for each.

``approve:<uid>`` is an approval, ``revoke:<uid>`` says that the approval of that uid was taken
back. Their times are by the wall clock; each machine reckons them in its own budget time.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.approvals import ApprovalAction, Change
from modelsplit_policy.budgets import MOST_NANO
from modelsplit_policy.quantity import quantities

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PREFIX: Final = "approval:"
# An approval that has been over for so long is told no more.
FORGOTTEN_S: Final = 86_400.0
_TEXT_MAX: Final = 200


def name_of(uid: str) -> str:
    """What the approval is called among budgets."""
    return f"{PREFIX}{uid}"


def texts(changes: Sequence[Change], now: float, wall: float) -> list[str]:
    """Name and text in turn of every approval that is not over, and of its revocation.

    ``now``: budget time, in which the changes are; ``wall``: the same moment.
    """
    told = []
    approvals = {
        change.id: change
        for change in changes
        if change.action is ApprovalAction.APPROVE and change.until > now
    }
    for change in approvals.values():
        told += [f"approve:{change.uid}", _text(change, wall + change.until - now)]
    for change in changes:
        approval = None if change.target is None else approvals.get(change.target)
        if change.action is ApprovalAction.REVOKE and approval is not None:
            told += [f"revoke:{approval.uid}", _text(change, 0.0)]
    return told


def _text(change: Change, until: float) -> str:
    fields = {"wall": change.wall, "until": until, "nano_usd": change.nano_usd}
    return json.dumps(fields | {"by": change.by, "reason": change.reason})


def news(
    told: Iterable[tuple[str, str]], changes: Sequence[Change], now: float, wall: float
) -> tuple[list[Change], list[tuple[str, Change]]]:
    """Of what all have told, what is not among these changes of ours.

    Approvals that are not over, and revocations with the uid of what each revokes.
    """
    uids = {change.id: change.uid for change in changes}
    revoked = {uids.get(change.target) for change in changes if change.target is not None}
    approvals, revocations = _changes(told, now, wall)
    known = set(uids.values())
    approvals = [one for one in approvals if one.until > now and one.uid not in known]
    known |= {approval.uid for approval in approvals}
    return approvals, [row for row in revocations if row[0] in known - revoked]


def _changes(
    told: Iterable[tuple[str, str]], now: float, wall: float
) -> tuple[list[Change], list[tuple[str, Change]]]:
    """All of them; what makes no sense is left out."""
    approvals, revocations = [], []
    for name, text in told:
        action, _, uid = name.partition(":")
        fields = _fields(text)
        if fields is None or not uid:
            continue
        at = now - wall + fields["wall"]
        who = (str(fields["by"])[:_TEXT_MAX], str(fields["reason"])[:_TEXT_MAX])
        change = Change(0, at, fields["wall"], ApprovalAction.APPROVE, *who)
        if action == ApprovalAction.APPROVE:
            until, nano_usd = now - wall + fields["until"], fields["nano_usd"]
            approvals.append(replace(change, until=until, nano_usd=nano_usd, uid=uid))
        elif action == ApprovalAction.REVOKE:
            revocations.append((uid, replace(change, action=ApprovalAction.REVOKE)))
    return approvals, revocations


def _fields(text: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(text)
        wall, until, nano_usd = quantities([fields["wall"], fields["until"], fields["nano_usd"]])
        who = {"by": fields["by"], "reason": fields["reason"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if wall is None or until is None or type(nano_usd) is not int or nano_usd > MOST_NANO:
        return None
    return who | {"wall": wall, "until": until, "nano_usd": nano_usd}


def over(told: Iterable[tuple[str, str]], wall: float) -> list[str]:
    """The uids of approvals that have been over for long."""
    return [
        name.partition(":")[2]
        for name, text in told
        if name.startswith("approve:")
        and (fields := _fields(text)) is not None
        and fields["until"] + FORGOTTEN_S < wall
    ]
