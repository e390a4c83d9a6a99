"""One role's line: FIFO for one client, fair between several."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.queue import RoleQueue
from modelsplit_policy.tickets import Ticket
from modelsplit_policy.vocabulary import Role


def ticket(client: str = "a", model: str = "m", *, front: bool = False, at: float = 0.0) -> Ticket:
    return Ticket(Role.EXECUTOR, model, at, client=client, front=front)


def serve_all(line: RoleQueue) -> list[Ticket]:
    served = []
    while line:
        _, tag, _, first = line.heads()[0]
        line.serve(first, tag)
        served.append(first)
    return served


def test_one_client_is_served_in_order_of_arrival() -> None:
    line = RoleQueue()
    tickets = [ticket() for _ in range(5)]
    for one in tickets:
        line.join(one)
    assert serve_all(line) == tickets


def test_a_burst_of_a_hundred_does_not_stand_in_front_of_anothers_one_call() -> None:
    line = RoleQueue()
    for _ in range(100):
        line.join(ticket("burst"))
    lone = ticket("lone")
    line.join(lone)
    assert serve_all(line).index(lone) == 1


def test_two_bursts_take_turns() -> None:
    line = RoleQueue()
    for _ in range(3):
        line.join(ticket("a"))
    for _ in range(3):
        line.join(ticket("b"))
    assert [one.client for one in serve_all(line)] == ["a", "b", "a", "b", "a", "b"]


def test_a_client_that_left_the_line_starts_afresh() -> None:
    line = RoleQueue()
    burst = [ticket("a") for _ in range(50)]
    for one in burst:
        line.join(one)
    for one in burst:
        line.remove(one)
    line.join(ticket("b"))
    again = ticket("a")
    line.join(again)
    assert [one.client for one in serve_all(line)] == ["b", "a"]


def test_a_call_at_the_front_goes_before_everyone() -> None:
    line = RoleQueue()
    line.join(ticket("a"))
    line.join(ticket("b"))
    first = ticket("a", front=True)
    line.join(first)
    assert serve_all(line)[0] is first


def test_each_model_has_its_own_head_and_the_best_head_is_first() -> None:
    line = RoleQueue()
    wants_x, wants_y, also_x = ticket(model="x"), ticket(model="y"), ticket(model="x")
    for one in (wants_x, wants_y, also_x):
        line.join(one)
    assert [entry[3] for entry in line.heads()] == [wants_x, wants_y]
    line.remove(wants_x)
    assert [entry[3] for entry in line.heads()] == [wants_y, also_x]
    assert line.waits_for("x")
    line.remove(also_x)
    assert not line.waits_for("x")


def test_the_oldest_is_who_has_stood_there_longest() -> None:
    line = RoleQueue()
    first, second = ticket("burst"), ticket("lone")
    line.join(first)
    line.join(second)
    assert line.oldest() is first
    line.remove(first)
    assert line.oldest() is second


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.booleans())))
def test_nobody_is_lost_or_served_twice_and_nothing_is_remembered_of_an_empty_line(
    joins: list[tuple[str, str, bool]],
) -> None:
    line = RoleQueue()
    expected = set()
    for client, model, stays in joins:
        one = ticket(client, model)
        line.join(one)
        if stays:
            expected.add(one)
        else:
            line.remove(one)
    assert len(line) == len(expected)
    served = serve_all(line)
    assert len(served) == len(set(served))
    assert set(served) == expected
    line.heads()
    assert not line._last_tag
    assert not line._of_client
    assert not line._of_model
    assert not line._lanes


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=60))
def test_while_two_clients_wait_neither_gets_more_than_one_call_ahead(order: list[str]) -> None:
    line = RoleQueue()
    for client in order:
        line.join(ticket(client))
    left = {client: order.count(client) for client in set(order)}
    got = dict.fromkeys(left, 0)
    for one in serve_all(line):
        got[one.client] += 1
        left[one.client] -= 1
        waiting = [got[client] for client, count in left.items() if count]
        assert not waiting or max(waiting) - min(waiting) <= 1


def test_calls_that_give_up_behind_a_waiter_leave_nothing_behind() -> None:
    line = RoleQueue()
    first = ticket("patient")
    line.join(first)
    for _ in range(200):
        burst = [ticket("hasty") for _ in range(20)]
        for one in burst:
            line.join(one)
        for one in burst:
            line.remove(one)
    assert sum(len(lane) for lane in line._lanes.values()) <= 70
    line.remove(first)
    assert not line._lanes


def test_a_client_owes_nothing_for_calls_that_gave_up() -> None:
    line = RoleQueue()
    line.join(ticket("hasty"))
    given_up = [ticket("hasty") for _ in range(50)]
    for one in given_up:
        line.join(one)
    for one in given_up:
        line.remove(one)
    again = ticket("hasty")
    line.join(again)
    for _ in range(8):
        line.join(ticket("other"))
    assert serve_all(line).index(again) <= 3


def test_the_order_is_the_one_in_which_calls_are_served() -> None:
    line = RoleQueue()
    for client, model, front in ("amf", "amn", "bmn", "ann", "bnf", "cnn"):
        line.join(ticket(client, model, front=front == "f"))
    order = line.order()
    assert [line.place(one) for one in order] == [1, 2, 3, 4, 5, 6]
    line.remove(order[2])
    left = [one for one in order if one is not order[2]]
    assert line.order() == left
    assert [line.place(one) for one in left] == [1, 2, 3, 4, 5]
    assert line.place(order[2]) == 6, "behind all"
    assert serve_all(line) == left
