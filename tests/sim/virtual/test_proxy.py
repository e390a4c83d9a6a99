"""Calls through the virtual proxy: what the policy decides, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_sim.host_shape import ModelShape
from modelsplit_sim.replay.demand import Demand, Kind, Retries, Shares
from support.replays import PLAIN, fates, one_at_a_time, plan, replayed, rules

UNFIT = {("PLANNER", "qwen3:4b"): Shares(unfit=0.5)}


def test_a_call_takes_its_tokens_time() -> None:
    assert fates(replayed(rules(), [plan(1.0)])) == ["2.00 ok"]


def test_calls_beyond_the_seats_wait_and_are_turned_away_when_their_wait_is_over() -> None:
    played = replayed(one_at_a_time(), [plan(0.0, 1000), plan(0.5), plan(3.0)])
    assert fates(played) == ["10.00 ok", "8.50 queue_timeout", "11.00 ok"]
    assert played.calls[2].waited_s == pytest.approx(7.0)


def test_a_full_line_turns_away_at_once() -> None:
    policy = one_at_a_time(max_queue=1)
    played = replayed(policy, [plan(0.0, 300), plan(0.5), plan(0.6)])
    assert fates(played)[2] == "0.60 queue_full"


def test_a_model_that_is_too_slow_is_followed_by_the_fallback() -> None:
    host = replace(
        PLAIN,
        models={
            "qwen3:4b": ModelShape(100.0, 2000.0),
            "qwen3:8b": ModelShape(10.0, 2000.0),
        },
        max_loaded=2,
    )
    played = replayed(rules(), [plan(0.0, 1000)], host)
    [call] = played.calls
    assert fates(played) == ["27.00 ok"], "15 s of the first, 2 s of loading, 10 s of the second"
    assert [attempt.model for attempt in call.attempts] == ["qwen3:4b", "qwen3:8b"]
    assert call.attempts[0].failure is not None
    assert call.attempts[0].failure.reason is Reason.ROLE_TIMEOUT
    assert call.fallback_used
    assert played.loads == {"qwen3:8b": 1}


def test_the_roles_clock_stands_still_while_its_model_is_loaded() -> None:
    host = replace(PLAIN, load_ms=20_000.0, keep_alive_s=60.0)
    played = replayed(rules(), [plan(0.0), plan(100.0, 500)], host)
    assert fates(played) == ["1.00 ok", "125.00 ok"]
    assert len(played.calls[1].attempts) == 1, "20 s of loading and 5 s of the role's 15"


def test_a_client_may_want_to_wait_for_less_than_its_role_may() -> None:
    demands = [plan(0.0, 1000), plan(0.5, max_wait_s=1.5), plan(0.6, max_wait_s=0.0)]
    played = replayed(one_at_a_time(), [*demands, plan(3.0, max_wait_s=99.0)])
    assert fates(played) == ["10.00 ok", "2.00 queue_timeout", "0.60 queue_timeout", "11.00 ok"]


def test_a_client_may_give_each_attempt_less_time_than_its_role_has() -> None:
    played = replayed(rules(), [plan(0.0, 1000, timeout_s=3.0, no_fallback=True)])
    assert fates(played) == ["3.00 role_timeout"]
    played = replayed(rules(), [plan(0.0, 200, timeout_s=99.0)])
    assert fates(played) == ["2.00 ok"]


def test_a_bound_that_is_the_clients_is_nothing_against_the_model() -> None:
    late = [plan(5.0 * n, 1000, timeout_s=3.0, no_fallback=True) for n in range(8)]
    assert fates(replayed(rules(), late)) == [f"{5 * n + 3:.2f} role_timeout" for n in range(8)]


def test_a_call_may_begin_with_the_fallback() -> None:
    [call] = replayed(rules(), [plan(0.0, retry_level=1)]).calls
    assert [attempt.model for attempt in call.attempts] == ["qwen3:8b"]
    assert call.fallback_used


def test_only_what_has_to_fit_a_schema_can_fail_to() -> None:
    demands = [
        plan(5.0 * n, unfit=(0.1, 0.9), schema=schema) for n, schema in enumerate((None, False))
    ]
    unknown, plain = replayed(rules(), demands, shares=UNFIT).calls
    assert (unknown.checked, len(unknown.attempts)) == (True, 2)
    assert (plain.checked, len(plain.attempts)) == (False, 1)
    [asked] = replayed(rules(), [plan(0.0, schema=True)]).calls
    assert asked.checked
    [unheld] = replayed(rules({"validate": False}), [plan(0.0, schema=True)], shares=UNFIT).calls
    assert not unheld.checked


def test_an_answer_that_was_cut_is_asked_of_nobody_else() -> None:
    shares = {("PLANNER", "qwen3:4b"): Shares(unfit=0.2, cut=0.3)}
    unfit, cut, fits = replayed(
        rules(),
        [plan(5.0 * n, unfit=(chance, 0.9)) for n, chance in enumerate((0.1, 0.4, 0.6))],
        shares=shares,
    ).calls
    assert [attempt.model for attempt in unfit.attempts] == ["qwen3:4b", "qwen3:8b"]
    assert cut.failure is not None
    assert (cut.failure.reason, cut.failure.should_retry, len(cut.attempts)) == ("cut", False, 1)
    assert fits.ok


def test_an_upstream_fails_as_it_was_recorded() -> None:
    kinds = (
        Kind(ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED, 0.5),
        Kind(ErrorCode.UPSTREAM_LOCAL, Reason.RUNNER_FAILED, 1.0),
    )
    shares = {("PLANNER", "qwen3:4b"): Shares(failing=0.5, kinds=kinds)}
    demands = [
        plan(5.0 * n, failing=(chance, 1.0), no_fallback=True)
        for n, chance in enumerate((0.1, 0.3, 0.6))
    ]
    played = replayed(rules(), demands, shares=shares)
    assert fates(played) == ["0.00 connect_refused", "6.00 runner_failed", "11.00 ok"]


def test_an_answer_that_does_not_fit_is_asked_for_again_at_once() -> None:
    played = replayed(rules(), [plan(0.0, unfit=(0.1, 0.9))], shares=UNFIT)
    [call] = played.calls
    assert [attempt.model for attempt in call.attempts] == ["qwen3:4b", "qwen3:8b"]
    assert call.attempts[0].failure is not None
    assert call.attempts[0].failure.code is ErrorCode.SCHEMA_INVALID
    assert call.ok


def test_what_fits_neither_time_is_told_as_such() -> None:
    shares = UNFIT | {("PLANNER", "qwen3:8b"): Shares(unfit=0.5)}
    played = replayed(rules(), [plan(0.0, unfit=(0.1, 0.1))], shares=shares)
    assert [call.failure and call.failure.code for call in played.calls] == [
        ErrorCode.SCHEMA_INVALID
    ]
    passes = rules({"on_schema_failure": "pass"})
    [call] = replayed(passes, [plan(0.0, unfit=(0.1, 0.1))], shares=shares).calls
    assert (call.ok, call.unfit) == (True, True)


def test_no_seat_is_kept_for_a_call_that_asked_twice() -> None:
    policy = one_at_a_time()
    shares = UNFIT | {("PLANNER", "qwen3:8b"): Shares(unfit=0.5)}
    demands = [plan(0.0, unfit=(0.1, 0.1)), plan(0.1)]
    assert fates(replayed(policy, demands, shares=shares))[1].endswith("ok")


def test_failures_in_a_row_open_a_breaker_that_lets_a_trial_through() -> None:
    shares = {("PLANNER", "qwen3:4b"): Shares(failing=0.5)}
    policy = rules({"fallback": None, "fallback_timeout_ms": None})
    demands = [plan(float(2 * n), failing=(0.1, 1.0)) for n in range(5)]
    demands += [plan(9.1), plan(11.0)]
    assert [each.partition(" ")[2] for each in fates(replayed(policy, demands, shares=shares))] == [
        *["status"] * 5,
        "breaker_open",
        "ok",
    ]


def test_budgets_run_out_and_open_again() -> None:
    budget = {"name": "few", "role": "PLANNER", "calls": 2, "window": "1m"}
    demands = [plan(float(n)) for n in (0, 10, 20, 61)]
    fate = [each.partition(" ")[2] for each in fates(replayed(rules(budgets=[budget]), demands))]
    assert fate == ["ok", "ok", "calls", "ok"]


def test_a_client_that_leaves_frees_its_seat() -> None:
    demands = [plan(0.0, 2000, patience_s=3.0), plan(0.5)]
    assert fates(replayed(one_at_a_time(), demands)) == ["3.00 left", "4.00 ok"]


def test_clients_have_limits_of_their_own() -> None:
    together = {"max_concurrent": 6, "parallel": 6}
    models = {"qwen3:4b": {"parallel": 6}}
    own = {"rate_per_s": 1.0, "burst": 2, "max_concurrent": 3}
    policy = rules({"max_concurrent": 6}, models=models, clients=own, **{"global": together})
    demands = [plan(at, client="a") for at in (0.0, 0.0, 0.1, 1.2)] + [plan(0.1, client="b")]
    assert fates(replayed(policy, demands)) == [
        "1.00 ok",
        "1.00 ok",
        "0.10 client_rate",
        "1.10 ok",
        "2.20 ok",
    ]
    crowd = [plan(0.0, client="a") for _ in range(4)]
    own = {"max_concurrent": 3}
    policy = rules({"max_concurrent": 6}, models=models, clients=own, **{"global": together})
    assert fates(replayed(policy, crowd))[3] == "0.00 client_concurrency"


def test_a_stream_that_is_late_is_broken_off_and_no_second_model_speaks() -> None:
    played = replayed(rules(), [plan(0.0, 2000, stream=True)])
    assert fates(played) == ["15.00 role_timeout"]
    assert len(played.calls[0].attempts) == 1


def test_a_role_is_asked_for_by_a_header_with_a_model_of_the_clients_own() -> None:
    demand = Demand(0.0, "llama3.2:1b", 100, role="EXECUTOR")
    [call] = replayed(rules(), [demand]).calls
    assert (call.route.role, call.attempts[0].model) == ("EXECUTOR", "llama3.2:1b")


def test_the_cloud_computes_elsewhere() -> None:
    played = replayed(rules(), [Demand(0.0, "cloud", 1000, prompt_tokens=2000, cloud_s=4.0)])
    assert fates(played) == ["4.00 ok"]
    assert played.calls[0].attempts[0].cost_usd == pytest.approx(0.105)


def test_an_experiments_arms_are_dealt_as_in_production() -> None:
    test: dict[str, Any] = {
        "name": "size",
        "role": "PLANNER",
        "arms": [
            {"name": "a", "model": "qwen3:4b", "weight": 1},
            {"name": "b", "model": "qwen3:8b", "weight": 1},
        ],
        "sticky": "job",
        "enabled": True,
    }
    demands = [plan(3.0 * n, job=f"job-{n % 20}") for n in range(40)]
    calls = replayed(rules(experiments=[test]), demands).calls
    models = {call.demand.job: call.attempts[0].model for call in calls}
    assert set(models.values()) == {"qwen3:4b", "qwen3:8b"}
    assert all(models[call.demand.job] == call.attempts[0].model for call in calls)


def test_many_timeouts_have_the_health_guard_turn_others_away() -> None:
    """Sixteen planners run out of time within a minute: chats find the door shut for a while."""
    policy = rules(
        {"fallback": None, "fallback_timeout_ms": None, "max_concurrent": 20, "reserved": 0},
        **{"global": {"max_concurrent": 20, "parallel": 20}},
        models={"qwen3:4b": {"parallel": 20}},
        breakers={"failures": 1000},
    )
    host = replace(PLAIN, num_parallel=20)
    demands = [plan(0.1 * n, 9000) for n in range(16)]
    demands += [Demand(at, "qwen3:8b", 10) for at in (10.0, 19.0, 100.0)]
    played = replayed(policy, demands, host)
    assert [each.partition(" ")[2] for each in fates(played)[16:]] == ["ok", "shed", "ok"]
    assert 60 <= played.shed_s <= 85


def test_a_full_queue_of_ollamas_is_busy_and_the_library_tries_again() -> None:
    host = replace(PLAIN, max_queue=0, max_loaded=3)
    policy = rules(**{"global": {"max_concurrent": 6, "parallel": 6}})
    demands = [Demand(0.0, "a:1b", 10), Demand(0.1, "b:1b", 10)]
    demands.insert(0, plan(0.0))
    played = replayed(policy, demands, replace(host, max_loaded=1), retries=Retries(2))
    reasons = {call.failure.reason for call in played.calls if call.failure is not None}
    assert reasons == {Reason.UPSTREAM_BUSY}
    assert any(call.retry and call.ok for call in played.calls)


def test_whatever_happens_each_call_ends_once_and_no_seat_is_left_over() -> None:
    shares = {("PLANNER", "qwen3:4b"): Shares(0.2, 0.1), ("PLANNER", "qwen3:8b"): Shares(0.2, 0.1)}
    host = replace(PLAIN, num_parallel=1, max_loaded=1, crash_every_s=20.0, contention=1.0)
    demands = [
        plan(
            0.37 * n,
            50 + 37 * n % 400,
            patience_s=float(2 + n % 30),
            stream=n % 3 == 0,
            unfit=(n % 7 / 7, n % 5 / 5),
            failing=(n % 11 / 11, n % 6 / 6),
        )
        for n in range(300)
    ]
    demands += [Demand(0.53 * n, f"m{n % 3}:1b", 120, patience_s=9.0) for n in range(100)]
    played = replayed(rules(), demands, host, shares=shares, retries=Retries(1))
    assert all(call.ended is not None and call.state.ended for call in played.calls)
    assert {call.number for call in played.calls} == set(range(400))
    assert all(attempt.over for call in played.calls for attempt in call.attempts)
