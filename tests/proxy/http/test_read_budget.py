"""The one budget for what is still arriving."""

from __future__ import annotations

from modelsplit_proxy.http.read_budget import HeldBytes, ReadBudget


def test_what_is_held_is_charged_and_given_back() -> None:
    budget = ReadBudget(100)
    first, second = HeldBytes(budget), HeldBytes(budget)
    assert first.set(60)
    assert second.set(40)
    assert budget.used == 100
    assert first.set(10)
    assert second.set(90)
    assert second.set(0)
    assert (budget.used, first.size, second.size) == (10, 10, 0)


def test_what_does_not_fit_changes_nothing() -> None:
    budget = ReadBudget(100)
    hold = HeldBytes(budget)
    assert hold.set(90)
    assert not hold.set(101)
    assert (budget.used, hold.size) == (90, 90)
    assert hold.set(100)


def test_less_than_before_always_fits() -> None:
    budget = ReadBudget(100)
    hold = HeldBytes(budget)
    hold.set(100)
    budget.limit = 10
    assert hold.set(50)
    assert not hold.set(51)
