"""Budgets on disk: the charges, the changes that people made, the clock they are told by.

Everything here is a job for the store: a function of its connection, run inside one
transaction. The file has one keeper at a time, the process that opened it last; whoever was
keeper before can charge no more. The lock on the directory keeps a second process away already,
but not where it is not seen, as from another machine: there, too, nobody spends a budget twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from modelsplit_policy.approvals import ApprovalAction, Change
from modelsplit_policy.budget_clock import Anchor, ClockReading, resume
from modelsplit_policy.budgets import Charge, Reservation
from modelsplit_policy.vocabulary import Provider, Role

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

# Less than nothing, which an earlier modelsplit may have written, is nothing: no credit.
_CHARGES: Final = """
SELECT id, at, model, role, provider, max(nano_usd, 0) FROM budget_charges
WHERE at > ? ORDER BY at, id
"""
_CHANGES: Final = """
SELECT id, at, wall, action, by_whom, reason, nano_usd, until, target, uid
FROM budget_changes ORDER BY id
"""
_ADD_CHANGE: Final = """
INSERT INTO budget_changes (at, wall, action, by_whom, reason, nano_usd, until, target, uid)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, coalesce(nullif(?, ''), lower(hex(randomblob(8)))))
"""
_ADD_CHARGE: Final = """
INSERT INTO budget_charges
    (id, at, model, role, provider, nano_usd, approval, request_id, keeper)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_KEEP_NUMBER: Final = """
UPDATE shared_members SET last_charge = max(last_charge, ?) WHERE is_self
"""
# So many starts can fail to reach the Redis before one is taken for a copy.
_TOKENS_MAX: Final = 32


class NotKeeperError(Exception):
    """Another process has taken the file over."""


class RevokedError(Exception):
    """The approval that a call was to be charged to has just been revoked."""


@dataclass(frozen=True, slots=True)
class Book:
    """What the file holds. ``budget_time``: what it is by its clock."""

    budget_time: float
    last_id: int
    charges: tuple[Reservation, ...]
    spent: dict[int, int]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class ChargeRow:
    """One charge as it is written down."""

    keeper: str
    anchor: Anchor
    reservation: Reservation
    approval: int | None
    request_id: str


def take_over(
    db: sqlite3.Connection, keeper: str, now: ClockReading, since_s: float, lost_wall: float | None
) -> Book:
    """Become the keeper and read everything younger than ``since_s`` seconds.

    ``lost_wall``: when a damaged file was set aside for this one, by the wall clock; it
    becomes part of the history if it is not yet.
    """
    book = read(db, now, since_s)
    _set_clock(db, Anchor(now, book.budget_time), keeper)
    known = {change.wall for change in book.changes if change.action is ApprovalAction.LOST}
    if lost_wall is not None and lost_wall not in known:
        why = "a damaged state file was set aside"
        lost = Change(0, book.budget_time, lost_wall, ApprovalAction.LOST, "modelsplit", why)
        add_change(db, lost)
    return Book(book.budget_time, book.last_id, book.charges, book.spent, changes(db))


def read(db: sqlite3.Connection, now: ClockReading, since_s: float) -> Book:
    """The same for somebody who only looks."""
    budget_time = resume(anchor(db), now)
    rows = db.execute(_CHARGES, (budget_time - since_s,)).fetchall()
    charges = tuple(map(_reservation, rows))
    spent = db.execute(
        "SELECT approval, sum(max(nano_usd, 0)) FROM budget_charges "
        "WHERE approval NOT NULL GROUP BY 1"
    )
    return Book(budget_time, _last_id(db), charges, dict(spent.fetchall()), changes(db))


def anchor(db: sqlite3.Connection) -> Anchor | None:
    row = db.execute("SELECT boot, since_boot, wall, ledger FROM budget_clock").fetchone()
    return None if row is None else Anchor(ClockReading(*row[:3]), row[3])


def changes(db: sqlite3.Connection) -> tuple[Change, ...]:
    """The history, oldest first."""
    rows = db.execute(_CHANGES).fetchall()
    return tuple(map(_change, rows))


def news(db: sqlite3.Connection, keeper: str) -> tuple[bool, tuple[Change, ...]]:
    """Whether this keeper still is the one, and the history."""
    return _is_kept_by(db, keeper), changes(db)


def add_change(db: sqlite3.Connection, change: Change) -> int:
    """Add to the history; the number it got (its own ``id`` is not looked at).

    One without a ``uid`` is given one.
    """
    values = (
        *(change.at, change.wall, change.action, change.by, change.reason),
        *(change.nano_usd, change.until, change.target, change.uid),
    )
    added = db.execute(_ADD_CHANGE, values)
    assert added.lastrowid is not None
    return added.lastrowid


def learn(
    db: sqlite3.Connection, approvals: Iterable[Change], revocations: Iterable[tuple[str, Change]]
) -> None:
    """Add what other machines know, each change once.

    ``revocations``: with the uid of what is revoked; one of an approval that is not known is left
    out.
    """
    for approval in approvals:
        if _numbered(db, approval.uid) is None:
            add_change(db, approval)
    for uid, revocation in revocations:
        target = _numbered(db, uid)
        if target is not None and not _revoked(db, target):
            add_change(db, replace(revocation, target=target))


def _numbered(db: sqlite3.Connection, uid: str) -> int | None:
    row = db.execute("SELECT id FROM budget_changes WHERE uid = ?", (uid,)).fetchone()
    return None if row is None else row[0]


def reserve(db: sqlite3.Connection, line: ChargeRow) -> None:
    """Write a charge down; NotKeeperError or RevokedError if it must not be."""
    _keep(db, line.keeper)
    if line.approval is not None and _revoked(db, line.approval):
        raise RevokedError
    _set_clock(db, line.anchor, line.keeper)
    reservation, charge = line.reservation, line.reservation.charge
    values = (
        *(reservation.id, reservation.at, charge.model, charge.role, charge.provider),
        *(charge.nano_usd, line.approval, line.request_id, line.keeper),
    )
    db.execute(_ADD_CHARGE, values)
    # It stays when the charge is given back or forgotten.
    db.execute(_KEEP_NUMBER, (reservation.id,))


def settle(db: sqlite3.Connection, keeper: str, number: int, nano_usd: int) -> None:
    """A charge of this keeper has cost so much. It may have another keeper by now."""
    query = "UPDATE budget_charges SET settled = 1, nano_usd = ? WHERE id = ? AND keeper = ?"
    db.execute(query, (nano_usd, number, keeper))


def give_back(db: sqlite3.Connection, keeper: str, number: int) -> None:
    """A charge of this keeper is none; it may never have been written."""
    db.execute("DELETE FROM budget_charges WHERE id = ? AND keeper = ?", (number, keeper))


def set_clock(db: sqlite3.Connection, now: Anchor, keeper: str) -> None:
    """Write down what the clocks read; NotKeeperError."""
    _keep(db, keeper)
    _set_clock(db, now, keeper)


def forget(db: sqlite3.Connection, before: float) -> None:
    """Delete charges older than that; what was charged to an approval stays with it."""
    db.execute("DELETE FROM budget_charges WHERE at < ? AND approval IS NULL", (before,))


def _keep(db: sqlite3.Connection, keeper: str) -> None:
    if not _is_kept_by(db, keeper):
        raise NotKeeperError


def _is_kept_by(db: sqlite3.Connection, keeper: str) -> bool:
    return bool(db.execute("SELECT keeper FROM budget_clock").fetchone() == (keeper,))


def _revoked(db: sqlite3.Connection, approval: int) -> bool:
    query = "SELECT 1 FROM budget_changes WHERE action = ? AND target = ?"
    return db.execute(query, (ApprovalAction.REVOKE, approval)).fetchone() is not None


def _set_clock(db: sqlite3.Connection, now: Anchor, keeper: str) -> None:
    reading = now.reading
    db.execute(
        "INSERT OR REPLACE INTO budget_clock (only, boot, since_boot, wall, ledger, keeper) "
        "VALUES (1, ?, ?, ?, ?, ?)",
        (reading.boot, reading.since_boot, reading.wall, now.budget_time, keeper),
    )


def _reservation(row: tuple[int, float, str, str, str, int]) -> Reservation:
    number, at, model, role, provider, nano_usd = row
    return Reservation(number, at, Charge(model, Role(role), Provider(provider), nano_usd))


def _change(row: tuple[int, float, float, str, str, str, int, float, int | None, str]) -> Change:
    number, at, wall, action, by, reason, nano_usd, until, target, uid = row
    return Change(
        number, at, wall, ApprovalAction(action), by, reason, nano_usd, until, target, uid
    )


@dataclass(frozen=True, slots=True)
class Membership:
    """This state file among those who share budgets.

    ``tokens``: of its starts, this one's last; ``last_charge``: the greatest number that a charge
    of it ever had; ``others``: when each was last heard of, by the wall clock.
    """

    name: str
    tokens: tuple[str, ...]
    last_charge: int
    others: dict[str, float]


def members(db: sqlite3.Connection, name: str, token: str, wall: float) -> Membership:
    """What the file says, with this start's token added to it.

    ``name``: the one that it is given where it has none yet.
    """
    db.execute(
        "INSERT INTO shared_members (member, is_self, seen_at) SELECT ?, 1, ? "
        "WHERE NOT EXISTS (SELECT 1 FROM shared_members WHERE is_self)",
        (name, wall),
    )
    query = "SELECT member, tokens FROM shared_members WHERE is_self"
    own, before = db.execute(query).fetchone()
    tokens = (*before.split(), token)[-_TOKENS_MAX:]
    last = _last_id(db)
    query = "UPDATE shared_members SET tokens = ?, last_charge = ? WHERE is_self"
    db.execute(query, (" ".join(tokens), last))
    others = db.execute("SELECT member, seen_at FROM shared_members WHERE NOT is_self")
    return Membership(own, tokens, last, dict(others.fetchall()))


def rename(db: sqlite3.Connection, name: str, token: str, wall: float) -> None:
    """Have another name from now on; who has the old one is one of the others."""
    last = _last_id(db)
    db.execute(
        "UPDATE shared_members SET is_self = 0, seen_at = ?, tokens = '' WHERE is_self", (wall,)
    )
    db.execute(
        "INSERT INTO shared_members (member, is_self, seen_at, tokens, last_charge) "
        "VALUES (?, 1, ?, ?, ?)",
        (name, wall, token, last),
    )


def _last_id(db: sqlite3.Connection) -> int:
    """The greatest number that a charge ever had, as far as the file knows."""
    (last,) = db.execute(
        "SELECT max(coalesce((SELECT max(id) FROM budget_charges), 0), "
        "coalesce((SELECT max(last_charge) FROM shared_members), 0))"
    ).fetchone()
    return int(last)


def shares(db: sqlite3.Connection) -> bool:
    """Whether this state file has a name among those who share budgets."""
    return db.execute("SELECT 1 FROM shared_members WHERE is_self").fetchone() is not None


def keep_members(db: sqlite3.Connection, seen: dict[str, float], since: float) -> None:
    """The others were heard of then; who was not since ``since`` is forgotten."""
    db.executemany(
        "INSERT INTO shared_members (member, is_self, seen_at) VALUES (?, 0, ?) "
        "ON CONFLICT (member) DO UPDATE SET seen_at = excluded.seen_at WHERE NOT is_self",
        seen.items(),
    )
    db.execute("DELETE FROM shared_members WHERE NOT is_self AND seen_at < ?", (since,))
