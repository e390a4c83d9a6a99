"""The table of objectives, gates and windows."""

from __future__ import annotations

import json
from pathlib import Path

from modelsplit_policy.slo.names import OBJECTIVES
from modelsplit_policy.slo.objectives import GATES, TABLE, UNSHIPPED, Holds

SHIPPED = json.loads((Path(__file__).parents[3] / "config" / "model-policy.json").read_text())


def test_every_bound_that_an_objective_may_have_is_judged_somewhere() -> None:
    may = {(name, bound) for name, (_, bounds) in OBJECTIVES.items() for bound in bounds}
    assert {(row.name, row.bound) for row in TABLE} == may


def test_every_shipped_bound_is_in_a_row_and_all_others_are_said_to_be_unshipped() -> None:
    shipped = {
        (name, bound)
        for name, keys in SHIPPED["slo"].items()
        for bound in keys
        if bound != "window"
    }
    assert shipped == {(row.name, row.bound) for row in TABLE} - UNSHIPPED


def test_every_gate_bounds_what_the_planners_calls_come_to() -> None:
    """A scheduler must not pass by refusing."""
    gates = [row.gate for row in TABLE if row.name == "planner_failure_rate"]
    assert gates == [*GATES]


def test_no_row_is_there_twice() -> None:
    rows = [(row.name, row.bound, row.gate) for row in TABLE]
    assert len(rows) == len(set(rows))


def test_what_must_be_reached_is_at_least_and_everything_else_at_most() -> None:
    for row in TABLE:
        least = row.bound == "min" or (row.name, row.bound) == ("job_success_rate", "of_baseline")
        assert (row.holds is Holds.AT_LEAST) is least, row
