"""What the gates say of runs: the same code that judges real calls."""

from __future__ import annotations

from modelsplit_policy.slo.report import Verdict
from modelsplit_sim.replay.demand import Demand, Shares
from modelsplit_sim.replay.gates import Judged, breached, gate_fields, judged
from support.replays import one_at_a_time, plan, replayed, rules


def by_name(found: list[Judged]) -> dict[tuple[int, str], Judged]:
    return {(each.gate, each.objective): each for each in found}


def test_a_run_that_holds_everything_passes_what_calls_decide() -> None:
    demands = [plan(3.0 * n, job=f"job-{n}") for n in range(1300)]
    found = by_name(judged(replayed(rules(), demands), rules()))
    assert found[2, "planner_latency_ms"].verdict is Verdict.PASS
    assert found[2, "planner_latency_ms"].value == 1000.0
    assert found[2, "planner_latency_ms"].limit == 5000
    assert found[1, "planner_failure_rate"].value == 0.0
    assert found[1, "timeouts"].verdict is Verdict.PASS
    assert found[3, "executor_job_rate"].value == 0.0


def test_refusals_and_timeouts_breach() -> None:
    demands = [plan(3.0 * (n // 6), 300) for n in range(300)]
    played = replayed(one_at_a_time(max_queue=2), demands)
    found = by_name(judged(played, rules()))
    assert found[1, "planner_failure_rate"].verdict is Verdict.BREACH
    assert (found[1, "planner_failure_rate"].value or 0) > 0.3
    assert found[1, "llm_queue_wait_ms"].verdict is Verdict.BREACH


def test_without_a_proxy_a_planner_that_leaves_has_timed_out() -> None:
    demands = [plan(20.0 * n, 2000 if n % 10 == 0 else 100, patience_s=15.0) for n in range(900)]
    played = replayed(rules(), demands, direct="")
    found = by_name(judged(played, rules()))
    assert found[1, "timeouts"].verdict is Verdict.BREACH
    assert found[2, "planner_failure_rate"].value == 0.1


def test_answers_that_did_not_fit_are_counted_of_those_that_were_held_to_a_schema() -> None:
    shares = {("PLANNER", "qwen3:4b"): Shares(unfit=0.5)}
    demands = [plan(3.0 * n, unfit=(n % 10 / 10, 0.9)) for n in range(300)]
    found = by_name(judged(replayed(rules(), demands, shares=shares), rules()))
    assert found[2, "schema_error_rate"].value == 0.5
    assert found[2, "fallback_rate"].value == 0.5
    plain = by_name(judged(replayed(rules(), demands), rules()))
    assert plain[2, "schema_error_rate"].verdict is Verdict.NOT_ENOUGH_DATA


def test_jobs_are_told_by_their_calls() -> None:
    demands = []
    for n in range(40):
        demands.append(plan(20.0 * n, job=f"job-{n}"))
        if n % 4 == 0:
            demands.append(Demand(20.0 * n + 5, "executor", 100, job=f"job-{n}"))
    found = by_name(judged(replayed(rules(), demands), rules()))
    assert found[3, "executor_job_rate"].value == 0.25
    assert found[3, "executor_job_rate"].verdict is Verdict.BREACH


def test_over_several_runs_a_gate_has_the_verdict_of_most() -> None:
    good = Judged(1, "timeouts", "of_baseline", 0.5, "<=", 0.1, Verdict.PASS)
    bad = good._replace(value=0.9, verdict=Verdict.BREACH)
    [gate] = gate_fields([[good], [good], [bad]])
    assert (gate["verdict"], gate["runs"]) == ("pass", {"pass": 2, "breach": 1})
    [row] = gate["objectives"]
    assert round(row["value"], 3) == 0.367
    assert breached([gate]) == []
    [even] = gate_fields([[good], [bad]])
    assert even["verdict"] == "breach", "of two as frequent the worse"
    assert breached([even]) == [1]
