"""The rows behind budgets: one keeper at a time, a history that is only added to."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from modelsplit_policy.approvals import ApprovalAction, Change
from modelsplit_policy.budget_clock import Anchor, ClockReading
from modelsplit_policy.budgets import Charge, Reservation
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.limits import budget_store
from modelsplit_proxy.limits.budget_store import ChargeRow, NotKeeperError, RevokedError
from support.stores import opened

HOUR = 3600.0
NOW = ClockReading("boot-1", 100.0, 50_000.0)
CHARGE = Charge("claude-3-opus", Role.CLOUD, Provider.CLOUD, 7)
APPROVAL = Change(
    *(1, 50_000.0, 50_000.0, ApprovalAction.APPROVE, "kim", "a trial", 100, 60_000.0), uid="a1"
)


@pytest.fixture(name="db")
def _db(tmp_path: Path) -> sqlite3.Connection:
    with opened(tmp_path) as store:
        path = store.path
    return sqlite3.connect(path)


def line(number: int, at: float, keeper: str = "k", approval: int | None = None) -> ChargeRow:
    reading = ClockReading("boot-1", at - 49_900.0, at)
    return ChargeRow(
        keeper, Anchor(reading, at), Reservation(number, at, CHARGE), approval, "req-1"
    )


def take_over(db: sqlite3.Connection, keeper: str = "k", **said: float | None) -> budget_store.Book:
    lost = said.get("lost")
    return budget_store.take_over(db, keeper, NOW, HOUR, lost)


def test_a_new_file_begins_at_the_walls_time(db: sqlite3.Connection) -> None:
    with closing(db):
        assert take_over(db) == budget_store.Book(50_000.0, 0, (), {}, ())
        assert budget_store.anchor(db) == Anchor(NOW, 50_000.0)


def test_what_was_written_is_read_back(db: sqlite3.Connection) -> None:
    with closing(db):
        take_over(db)
        budget_store.add_change(db, APPROVAL)
        budget_store.reserve(db, line(1, 50_010.0, approval=1))
        budget_store.reserve(db, line(2, 50_020.0, approval=1))
        budget_store.settle(db, "k", 1, 3)
        later = ClockReading("boot-1", 130.0, 1.0)
        book = budget_store.read(db, later, HOUR)
        assert book.budget_time == 50_030.0
        assert [(r.id, r.at, r.charge.nano_usd) for r in book.charges] == [
            (1, 50_010.0, 3),
            (2, 50_020.0, 7),
        ]
        assert book.charges[1].charge == CHARGE
        assert (book.last_id, book.spent, book.changes) == (2, {1: 10}, (APPROVAL,))


def test_only_what_a_window_can_still_hold_is_read(db: sqlite3.Connection) -> None:
    with closing(db):
        take_over(db)
        budget_store.reserve(db, line(1, 50_000.0))
        budget_store.reserve(db, line(2, 50_001.0, approval=9))
        book = budget_store.read(db, ClockReading("boot-1", 100.0 + HOUR, 0.0), HOUR)
        assert [one.id for one in book.charges] == [2]
        assert (book.last_id, book.spent) == (2, {9: 7})


def test_what_is_old_is_forgotten_but_for_what_was_approved(db: sqlite3.Connection) -> None:
    with closing(db):
        take_over(db)
        for number, approval in ((1, None), (2, 9)):
            budget_store.reserve(db, line(number, 50_000.0 + number, approval=approval))
        budget_store.forget(db, 50_100.0)
        assert db.execute("SELECT id FROM budget_charges").fetchall() == [(2,)]


def test_whoever_was_keeper_before_charges_no_more(db: sqlite3.Connection) -> None:
    with closing(db):
        take_over(db, "old")
        budget_store.reserve(db, line(1, 50_010.0, "old"))
        take_over(db, "new")
        with pytest.raises(NotKeeperError):
            budget_store.reserve(db, line(2, 50_020.0, "old"))
        with pytest.raises(NotKeeperError):
            budget_store.set_clock(db, Anchor(NOW, 9.0), "old")
        budget_store.reserve(db, line(2, 50_020.0, "new"))
        budget_store.give_back(db, "old", 2)
        budget_store.settle(db, "old", 2, 0)
        budget_store.settle(db, "old", 1, 0)
        rows = db.execute("SELECT id, nano_usd FROM budget_charges").fetchall()
        assert rows == [(1, 0), (2, 7)]


def test_a_revoked_approval_is_charged_nothing(db: sqlite3.Connection) -> None:
    with closing(db):
        take_over(db)
        number = budget_store.add_change(db, APPROVAL)
        revocation = Change(0, 1.0, 1.0, ApprovalAction.REVOKE, "kim", "enough", target=number)
        budget_store.add_change(db, revocation)
        with pytest.raises(RevokedError):
            budget_store.reserve(db, line(1, 50_010.0, approval=number))


@pytest.mark.parametrize(
    "statement", ["DELETE FROM budget_changes", "UPDATE budget_changes SET nano_usd = 10000"]
)
def test_the_history_is_only_added_to(db: sqlite3.Connection, statement: str) -> None:
    with closing(db):
        budget_store.add_change(db, APPROVAL)
        with pytest.raises(sqlite3.IntegrityError, match="only added to"):
            db.execute(statement)


def test_a_loss_becomes_history_once(db: sqlite3.Connection) -> None:
    with closing(db):
        (lost,) = take_over(db, lost=49_999.0).changes
        assert (lost.action, lost.at, lost.wall) == (ApprovalAction.LOST, 50_000.0, 49_999.0)
        assert take_over(db, lost=49_999.0).changes == (lost,)
        assert len(take_over(db, lost=51_000.0).changes) == 2


def test_the_number_of_a_charge_that_was_given_back_is_given_to_no_other(
    db: sqlite3.Connection,
) -> None:
    with closing(db):
        take_over(db)
        budget_store.reserve(db, line(1, 50_010.0))
        first = budget_store.members(db, "n", "t", 1.0)
        assert first == budget_store.Membership("n", ("t",), 1, {})
        for number in (2, 3):
            budget_store.reserve(db, line(number, 50_010.0 + number))
        budget_store.give_back(db, "k", 3)
        assert take_over(db).last_id == 3
        again = budget_store.members(db, "other", "u", 2.0)
        assert again == budget_store.Membership("n", ("t", "u"), 3, {})


def test_who_takes_another_name_knows_the_old_one_as_anothers(db: sqlite3.Connection) -> None:
    with closing(db):
        take_over(db)
        budget_store.members(db, "n", "t", 1.0)
        budget_store.reserve(db, line(4, 50_010.0))
        budget_store.rename(db, "m", "u", 2.0)
        known = budget_store.members(db, "other", "v", 3.0)
        assert known == budget_store.Membership("m", ("u", "v"), 4, {"n": 2.0})


def test_only_the_last_starts_are_known(db: sqlite3.Connection) -> None:
    with closing(db):
        starts = [budget_store.members(db, "n", f"t{number}", 1.0) for number in range(40)]
        assert starts[-1].tokens == tuple(f"t{number}" for number in range(8, 40))
