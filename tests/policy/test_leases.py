"""Leases: what is spent of them, once, and for how long they hold."""

from __future__ import annotations

from modelsplit_policy.budgets import NO_AMOUNT, Amount, Claim
from modelsplit_policy.leases import Lease, Leases

CALLS = Claim("calls", 3600, 10, None, 0)
MONEY = Claim("money", 3600, None, 100, 30)
BOTH = Claim("both", 3600, 10, 100, 30)


def leased(name: str = "calls", calls: int = 2, nano_usd: int = 0) -> Leases:
    leases = Leases()
    leases.renew(name, Lease(1, Amount(calls, nano_usd), 100.0), leases.times_lost)
    return leases


def test_each_call_is_spent_once() -> None:
    leases = leased()
    assert [leases.spend(number, [CALLS], 0.0) for number in range(3)] == [True, True, False]
    assert leases.left("calls", 0.0) == NO_AMOUNT


def test_money_is_spent_as_reserved_and_settled() -> None:
    leases = leased("money", 0, 70)
    assert [leases.spend(1, [MONEY], 0.0), leases.spend(2, [MONEY], 0.0)] == [True, True]
    assert not leases.cover([MONEY], 0.0)
    leases.settle(1, 5)
    assert leases.left("money", 0.0) == Amount(0, 35)
    leases.settle(2, None)
    assert leases.left("money", 0.0) == Amount(0, 65)


def test_of_several_budgets_all_have_room_or_none_is_spent() -> None:
    leases = leased("both", 1, 100)
    leases.renew("calls", Lease(1, Amount(0, 0), 100.0), leases.times_lost)
    assert not leases.spend(1, [BOTH, CALLS], 0.0)
    assert leases.left("both", 0.0) == Amount(1, 100)
    assert leases.spend(1, [BOTH], 0.0)
    assert leases.left("both", 0.0) == Amount(0, 70)
    assert not leases.cover([CALLS, MONEY], 0.0)


def test_a_lease_ends() -> None:
    leases = leased()
    assert leases.left("calls", 99.9) == Amount(2, 0)
    assert not leases.spend(1, [CALLS], 100.0)


def test_a_later_revision_replaces_an_earlier_one_whatever_comes_first() -> None:
    leases = leased()
    leases.renew("calls", Lease(3, Amount(1), 100.0), 0)
    leases.renew("calls", Lease(2, Amount(2), 100.0), 0)
    assert leases.left("calls", 0.0) == Amount(1)


def test_a_lease_that_was_on_its_way_when_the_others_were_lost_comes_too_late() -> None:
    leases = leased()
    asked = leases.times_lost
    leases.lose()
    assert leases.spend(1, [CALLS], 0.0)
    leases.renew("calls", Lease(2, Amount(2), 100.0), asked)
    assert leases.left("calls", 0.0) == Amount(1)


def test_what_is_leased_anew_after_all_was_told_is_whole() -> None:
    leases = leased()
    leases.lose()
    assert leases.spend(1, [CALLS], 0.0)
    leases.told()
    # The same lease as before: nobody has written it anew.
    leases.renew("calls", Lease(1, Amount(2), 100.0), leases.times_lost)
    leases.settle(1, None)
    assert leases.left("calls", 0.0) == Amount(2)


def test_what_was_never_spent_is_not_given_back() -> None:
    leases = leased()
    leases.settle(7, None)
    assert leases.left("calls", 0.0) == Amount(2)
    assert repr(leases) == "<Leases of ['calls']>"
