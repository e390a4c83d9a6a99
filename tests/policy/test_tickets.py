"""How things stood when a call asked for a seat, as it is told afterwards."""

from __future__ import annotations

import pytest

from modelsplit_policy.admission import Admission, Shedding
from modelsplit_policy.hosts import HostSeats
from modelsplit_policy.parallelism import Parallelism
from modelsplit_policy.pools import PoolLimits
from modelsplit_policy.tickets import Crowd, Hold, Seats, Ticket
from modelsplit_policy.vocabulary import Role

PLANNER, EXECUTOR, HEAVY, CLOUD, CHAT = Role


def make() -> Admission:
    pools = {role: PoolLimits(seats=2, max_queue=9) for role in Role}
    pools[CHAT] = PoolLimits(seats=None, max_queue=9)
    parallelism = Parallelism(cap=6, host=5, models=dict.fromkeys("mno", 6))
    return Admission(pools, [HostSeats(6, {"n": 1}, parallelism)], forecasts=False)


def ask(admission: Admission, role: Role, model: str) -> Ticket:
    ticket = Ticket(role, model, 0.0)
    admission.ask(ticket, 0.0)
    admission.fill(0.0)
    return ticket


def test_limits_count_the_call_itself_once_it_is_seated() -> None:
    admission = make()
    ask(admission, EXECUTOR, "m")
    ticket = ask(admission, PLANNER, "n")
    assert admission.standing(ticket) == Seats(
        role=1, role_cap=2, local=2, local_cap=6, model=1, model_cap=1, useful=5, health=""
    )


def test_a_limit_that_is_not_there_is_none() -> None:
    admission = make()
    stood = admission.standing(ask(admission, CHAT, "o"))
    assert (stood.role_cap, stood.model_cap) == (None, None)


def test_what_the_health_guard_says_is_kept() -> None:
    admission = make()
    admission.shedding = Shedding(health="DEGRADED: the loop is late")
    assert admission.standing(ask(admission, PLANNER, "m")).health == "DEGRADED: the loop is late"


def test_a_call_without_a_seat_knows_who_was_there() -> None:
    admission = make()
    for model in ("m", "n"):
        ask(admission, PLANNER, model)
    ask(admission, EXECUTOR, "m")
    ask(admission, EXECUTOR, "n")
    ask(admission, PLANNER, "o")
    ticket = ask(admission, PLANNER, "m")
    assert admission.crowd(ticket) == Crowd(
        hold=Hold.ROLE_CAP,
        running={PLANNER: 2, EXECUTOR: 1},
        models={"m": 2, "n": 1},
        waiting={PLANNER: 2, EXECUTOR: 1},
        line={"o": 1, "m": 1},
    )


def test_what_was_seen_does_not_change_afterwards() -> None:
    admission = make()
    first = ask(admission, HEAVY, "n")
    ticket = ask(admission, HEAVY, "n")
    crowd = admission.crowd(ticket)
    admission.leave(first, 1.0)
    assert (crowd.hold, crowd.models, crowd.line) == (Hold.MODEL_CAP, {"n": 1}, {"n": 1})


@pytest.mark.parametrize(("wait_s", "last_s"), [(8.0, 7.5), (4.0, 3.75)])
def test_a_call_is_overdue_after_its_hold_or_shortly_before_its_wait_ends(
    wait_s: float, last_s: float
) -> None:
    patient = Ticket(PLANNER, "m", 0.0, max_wait_s=wait_s)
    assert patient.due_in_s == patient.last_in_s == last_s
    held = Ticket(PLANNER, "m", 0.0, max_wait_s=wait_s, max_hold_s=1.0)
    assert (held.due_in_s, held.last_in_s) == (1.0, last_s)
