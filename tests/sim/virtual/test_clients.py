"""Who sends the calls: in open loop, in closed loop, and again."""

from __future__ import annotations

from modelsplit_sim.replay.demand import Retries
from support.replays import fates, one_at_a_time, plan, replayed, rules


def test_a_worker_sends_its_next_call_when_the_last_one_has_ended() -> None:
    demands = [plan(0.0, 300), plan(0.0, after=0, think_s=2.0), plan(0.0, after=1, think_s=0.5)]
    played = replayed(rules(), demands)
    assert [call.arrived for call in played.calls] == [0.0, 5.0, 6.5]


def test_it_goes_on_after_a_call_that_failed() -> None:
    demands = [plan(0.0, 900), plan(0.1, max_wait := 100), plan(0.0, after=1)]
    assert max_wait == 100
    played = replayed(one_at_a_time(), demands)
    assert fates(played)[1] == "8.10 queue_timeout"
    assert played.calls[2].arrived == 8.1


def test_no_worker_sends_a_call_after_the_end() -> None:
    demands = [plan(0.0), *(plan(0.0, after=n, think_s=1.0) for n in range(100))]
    assert len(replayed(rules(), demands, until=20.0).calls) == 11


def test_a_library_tries_again_after_the_advice_and_gives_up_after_its_number() -> None:
    demands = [plan(0.0, 1400), plan(0.5), plan(1.0)]
    policy = one_at_a_time(max_queue=1)
    played = replayed(policy, demands, retries=Retries(2))
    third = [call for call in played.calls if call.number == 2]
    assert [call.retry for call in third] == [0, 1, 2]
    assert all(call.failure is not None and call.failure.retry_after_s for call in third[:2])
    gap_s = third[1].arrived - third[0].arrived
    assert third[0].failure is not None
    assert gap_s == third[0].failure.retry_after_s


def test_what_cannot_help_is_not_tried_again() -> None:
    budget = {"name": "none", "role": "PLANNER", "calls": 0, "window": "1m"}
    played = replayed(rules(budgets=[budget]), [plan(0.0)], retries=Retries(2))
    assert len(played.calls) == 1, "a budget without room advises against it"
