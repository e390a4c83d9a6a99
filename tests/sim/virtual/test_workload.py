"""Made-up traffic: as often as the file says, in the order that jobs have."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_sim.replay.traffic import DrawnWorkload
from modelsplit_sim.replay.workload import workload_of

PLAN = {"model": "planner", "output": [100, 300], "prompt": [10, 20]}
RAW: dict[str, Any] = {
    "about": "a test",
    "seconds": 10_000,
    "calls": {"plan": PLAN, "do": PLAN | {"model": "executor"}},
    "streams": [{"call": "plan", "every_s": 10}],
}


def test_calls_come_as_often_as_it_says_and_as_long() -> None:
    demands = workload_of(RAW, "x").drawn(1).demands
    assert len(demands) == pytest.approx(1000, rel=0.1)
    lengths = sorted(demand.output_tokens for demand in demands)
    assert lengths[500] == pytest.approx(100, rel=0.15)
    assert lengths[int(0.95 * len(lengths))] == pytest.approx(300, rel=0.2)
    assert len(workload_of(RAW, "x").drawn(1, load=2.0).demands) == pytest.approx(2000, rel=0.1)


def test_the_rate_may_change_over_the_run() -> None:
    raw = RAW | {"rate": [[0, 0], [5000, 2], [7500, 0.5]]}
    times = [demand.at for demand in workload_of(raw, "x").drawn(1).demands]
    counts = [sum(a <= at < b for at in times) for a, b in ((0, 5000), (5000, 7500), (7500, 1e9))]
    assert counts[0] == 0
    assert counts[1] == pytest.approx(500, rel=0.2)
    assert counts[2] == pytest.approx(125, rel=0.3)


def test_at_less_load_it_lasts_longer_and_has_as_many_calls() -> None:
    raw = RAW | {"rate": [[0, 1], [5000, 3]]}
    source = DrawnWorkload(workload_of(raw, "x"))
    (whole, _), (thin, coverage) = source.drawn(1), source.drawn(1, load=0.25)
    assert len(thin.demands) == pytest.approx(len(whole.demands), rel=0.1)
    assert coverage.seconds == 40_000
    late = sum(demand.at >= 20_000 for demand in thin.demands)
    assert late == pytest.approx(0.75 * len(thin.demands), rel=0.1)


def test_bursts_are_calls_close_together() -> None:
    stream = {"call": "plan", "every_s": 100, "burst_share": 1.0, "burst_most": 2, "burst_gap_s": 1}
    times = [demand.at for demand in workload_of(RAW | {"streams": [stream]}, "x").drawn(1).demands]
    pairs = list(zip(times[::2], times[1::2], strict=True))
    assert all(second - first == pytest.approx(1.0) for first, second in pairs)


def test_the_steps_of_a_job_follow_one_another_and_those_together_do_not() -> None:
    steps = [
        {"call": "plan", "think_s": 1},
        {"call": "do", "think_s": 1, "least": 3, "most": 3, "together": True},
        {"call": "plan", "think_s": 1},
    ]
    raw = RAW | {"streams": [], "jobs": [{"every_s": 1000, "steps": steps}]}
    demands = workload_of(raw, "x").drawn(1).demands
    assert [demand.after for demand in demands[:6]] == [None, 0, 0, 0, 3, None]
    assert demands[0].job == demands[4].job != demands[5].job


def test_workers_begin_again_as_they_end() -> None:
    jobs = {"workers": 2, "steps": [{"call": "plan", "think_s": 100}]}
    traffic = workload_of(RAW | {"streams": [], "jobs": [jobs]}, "x").drawn(1)
    assert traffic.until == 10_000
    assert [demand.after for demand in traffic.demands].count(None) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"about": None, "streams": [{"call": "nobody", "every_s": 1}]},
        {"calls": {"plan": {"model": "planner"}}},
        {"streams": [{"call": "plan", "every": 1}]},
        {"seconds": "long"},
    ],
)
def test_what_is_no_workload_is_said_to_be_none(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="x is no workload"):
        workload_of(RAW | change, "x")
