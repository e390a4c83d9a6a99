"""What holds for one host, and how calls are spread over several."""

from __future__ import annotations

import pytest

from modelsplit_policy.admission import Admission
from modelsplit_policy.breaker import BreakerRules, Breakers, Outcome, Scope
from modelsplit_policy.failures import Failure
from modelsplit_policy.hosts import HostSeats
from modelsplit_policy.parallelism import Parallelism
from modelsplit_policy.pools import PoolLimits
from modelsplit_policy.tickets import Hold, Place, Ticket
from modelsplit_policy.vocabulary import DEFAULT_HOST, Host, Provider, Role

NEAR, FAR = Host("near"), Host("far")


def seats(host: Host = DEFAULT_HOST, n: int = 2, **models: int) -> HostSeats:
    return HostSeats(n, models, Parallelism(cap=n, host=n, models=dict.fromkeys("mn", n)), host)


def fleet(*hosts: HostSeats) -> Admission:
    limits = PoolLimits(seats=None, max_queue=9)
    return Admission(dict.fromkeys(Role, limits), hosts, forecasts=False)


def ask(admission: Admission, model: str = "m", role: Role = Role.CHAT) -> Ticket:
    ticket = Ticket(role, model, 0.0)
    admission.ask(ticket, 0.0)
    return ticket


def test_a_host_holds_back_by_its_seats_and_by_a_models_cap() -> None:
    host = seats(m=1)
    assert host.hold("m") is None
    flight = host.take("m", 0.0)
    assert (host.hold("m"), host.hold("n")) == (Hold.MODEL_CAP, None)
    host.take("n", 0.0)
    assert host.hold("n") is Hold.GLOBAL_CAP
    host.give_back(flight, 1.0, 1.0, None)
    assert (host.running, host.by_model) == (1, {"n": 1})


def test_what_a_model_took_when_it_was_loaded_counts_and_until_then_its_file() -> None:
    host = seats()
    host.note_installed({"m": 4, "n": 5, "k": 0})
    assert (host.sizes, host.installed) == ({"m": 4, "n": 5}, frozenset("mnk"))
    host.note_taken({"m": 7, "k": 2})
    assert host.sizes == {"m": 7, "n": 5, "k": 2}
    # Not loaded any more, it will take as much again.
    host.note_taken({})
    host.note_installed({"m": 4, "n": 5, "k": 0})
    assert host.sizes == {"m": 7, "n": 5, "k": 2}
    # Of another file, it is another model; and one that is gone takes nothing.
    host.note_installed({"m": 6, "n": 5})
    assert host.sizes == {"m": 6, "n": 5}


def test_what_is_loaded_is_known_or_not() -> None:
    host = seats()
    unknown = host.take("m", 0.0)
    host.loaded = {"m": True, "n": False}
    flights = [unknown, host.take("m", 0.0), host.take("n", 0.0)]
    told = [(flight.warm, flight.loading) for flight in flights]
    assert told == [(False, False), (True, False), (False, True)]


def test_a_seated_ticket_says_on_which_host_and_one_in_line_says_none() -> None:
    admission = fleet(seats(n=1))
    assert ask(admission).host == DEFAULT_HOST
    waiting = ask(admission)
    assert (waiting.place, waiting.host) == (Place.WAITING, None)


def test_calls_go_where_the_model_is_loaded_then_where_fewest_run() -> None:
    admission = fleet(seats(NEAR), seats(FAR))
    admission.note_loaded({"n": True}, FAR)
    assert [ask(admission, "n").host, ask(admission, "m").host] == [FAR, NEAR]
    assert [ask(admission, "m").host, ask(admission, "m").host] == [NEAR, FAR]
    assert ask(admission).place is Place.WAITING


def test_a_seat_goes_back_to_its_host() -> None:
    admission = fleet(seats(NEAR, 1), seats(FAR, 1))
    first, second = ask(admission), ask(admission)
    third = ask(admission)
    admission.leave(second, 1.0)
    assert admission.fill(1.0) == [third]
    assert (first.host, third.host) == (NEAR, FAR)
    assert (admission.host(NEAR).running, admission.host(FAR).running) == (1, 1)


def test_reserved_seats_are_kept_among_all_hosts() -> None:
    pools = dict.fromkeys(Role, PoolLimits(seats=None, max_queue=9))
    pools[Role.PLANNER] = PoolLimits(seats=None, max_queue=9, reserved=1)
    admission = Admission(pools, [seats(NEAR, 1), seats(FAR, 1)], forecasts=False)
    assert ask(admission).place is Place.SEATED
    held = ask(admission)
    assert admission.why(held) is Hold.RESERVED
    assert ask(admission, role=Role.PLANNER).host == FAR


def test_behind_calls_that_hang_with_ollama_one_waits_for_ollama() -> None:
    admission = fleet(seats(n=1))
    ask(admission, "n")
    held = ask(admission, "n")
    usual = admission.why(held)
    assert usual is not Hold.MUTE
    admission.mute(is_mute=True)
    assert admission.why(held) is Hold.MUTE
    admission.away(is_away=True)
    assert admission.why(held) is Hold.AWAY
    admission.away(is_away=False)
    admission.mute(is_mute=False)
    assert admission.why(held) is usual


def test_while_one_of_its_hosts_answers_a_call_waits_for_others() -> None:
    admission = fleet(seats(NEAR, 1), seats(FAR, 1))
    ask(admission)
    ask(admission)
    held = ask(admission)
    admission.mute(NEAR, is_mute=True)
    assert admission.why(held) is not Hold.MUTE
    admission.mute(FAR, is_mute=True)
    assert admission.why(held) is Hold.MUTE


def test_there_is_no_host_of_another_name() -> None:
    with pytest.raises(KeyError):
        fleet(seats()).host(NEAR)


def test_one_hosts_breaker_says_nothing_of_another() -> None:
    breakers = Breakers(BreakerRules(failures=1))
    allowed = breakers.admit(Provider.LOCAL, "m", 0.0, NEAR)
    assert not isinstance(allowed, Failure)
    breakers.ended(allowed, Outcome.FAILURE, Scope.PROVIDER, 0.0, "gone")
    refused = breakers.check(Provider.LOCAL, "m", 0.1, NEAR)
    assert refused is not None
    assert refused.message.startswith("calls to LOCAL at near are stopped for now: ")
    assert breakers.check(Provider.LOCAL, "m", 0.1, FAR) is None
