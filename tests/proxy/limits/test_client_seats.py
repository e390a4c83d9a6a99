"""How many calls one client may have here at once."""

from __future__ import annotations

import pytest

from modelsplit_policy.config.model import ClientsPolicy
from modelsplit_proxy.limits.client_seats import ClientSeats


def seats_of(limit: int | None) -> ClientSeats:
    return ClientSeats(ClientsPolicy(max_concurrent=limit))


def test_without_a_limit_everybody_comes_in() -> None:
    seats = seats_of(None)
    assert all(seats.enter("a") for _ in range(1000))


def test_a_client_has_as_many_as_the_limit_and_others_are_not_asked_to_pay() -> None:
    seats = seats_of(2)
    assert [seats.enter("a") for _ in range(3)] == [True, True, False]
    assert seats.enter("b")
    seats.leave("a")
    assert [seats.enter("a") for _ in range(2)] == [True, False]
    assert repr(seats) == "<ClientSeats {'a': 2, 'b': 1} of 2>"


def test_a_client_may_have_a_limit_of_its_own() -> None:
    own = {"a": ClientsPolicy(max_concurrent=2), "b": ClientsPolicy()}
    seats = ClientSeats(ClientsPolicy(max_concurrent=1), own)
    assert [seats.enter("a") for _ in range(3)] == [True, True, False]
    assert [seats.enter("b") for _ in range(3)] == [True, True, True]
    assert [seats.enter("c") for _ in range(2)] == [True, False]
    assert [seats.limit(client) for client in "abc"] == [2, None, 1]


def test_being_refused_takes_no_place() -> None:
    seats = seats_of(1)
    assert [seats.enter("a") for _ in range(9)] == [True, *[False] * 8]
    seats.leave("a")
    assert seats.enter("a")


@pytest.mark.parametrize("limit", [None, 3])
def test_clients_that_have_left_are_not_remembered(limit: int | None) -> None:
    seats = seats_of(limit)
    for number in range(100):
        assert seats.enter(f"client {number}")
        seats.leave(f"client {number}")
    assert repr(seats) == f"<ClientSeats {{}} of {limit}>"
