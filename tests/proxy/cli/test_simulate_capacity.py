"""``modelsplit simulate --capacity`` from its flags to what it prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.cli.main import run
from modelsplit_proxy.cli.simulate_capacity import (
    _Progress,
    ended_fields,
    ended_lines,
    lines,
    sentence,
)
from modelsplit_sim.replay.capacity import (
    MOST,
    Bounds,
    Capacity,
    Cause,
    Missed,
    Tried,
    Verdict,
)
from support.swapping import write_swapping

if TYPE_CHECKING:
    from pathlib import Path


def row(load: float, verdict: Verdict, p95_s: float = 4.0) -> Tried:
    """Three runs at a load, with a planner P95."""
    p95 = Bounds(p95_s, p95_s - 1, p95_s + 1)
    breaks = verdict is Verdict.BREAKS
    missed = (Missed("planner_p95_s", Role.PLANNER, p95_s, 5.0),) if breaks else ()
    return Tried(load, 3, p95, None, None, None, verdict, missed=missed)


ROWS = (row(0.5, Verdict.HOLDS), row(1.0, Verdict.BREAKS, 7.0))


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (
            Capacity(0.9, 0.92, 1.0, (), ROWS),
            "carries about 0.92 times this load (surely 0.90, surely not 1.00)",
        ),
        (
            Capacity(0.3, 0.5, 1.0, (), ROWS),
            (
                "carries about 0.50 times this load, not determined beyond chance (surely 0.30, "
                "surely not 1.00): more --seeds may tell"
            ),
        ),
        (
            Capacity(0.0, 0.5, None, (), ROWS),
            (
                "carries about 0.50 times this load, not determined beyond chance "
                "(nothing about it is sure): more --seeds may tell"
            ),
        ),
        (
            Capacity(0.0, 0.0, 1.0, (), ROWS[1:]),
            (
                "carries nothing: the goals are missed even at 1 of this load (planner P95 7.0 s "
                "there)"
            ),
        ),
        (
            Capacity(MOST, MOST, None, (), ROWS),
            "carries at least 16 times this load; more was not tried",
        ),
    ],
)
def test_what_can_be_told_and_no_more(own: Capacity, says: str) -> None:
    assert sentence(own) == says


def test_how_far_it_is_is_told_after_each_run() -> None:
    told: list[str] = []
    progress = _Progress("two hosts", told.append)
    progress.ran(1.0, 1, 3)
    progress.judged(row(1.0, Verdict.UNCLEAR))
    progress.judged(row(0.5, Verdict.HOLDS))
    progress.ran(2.0, 2, 3)
    progress.judged(row(2.0, Verdict.BREAKS))
    progress.ran(1.41421, 4, 6)
    assert told == [
        "two hosts: load 1.00, run 1 of 3",
        "two hosts: load 2.00, run 2 of 3; holds at 0.50",
        "two hosts: load 1.41, run 4 of 6; holds at 0.50; breaks at 2.00",
    ]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_each_contender_with_the_loads_that_were_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["simulate", *write_swapping(tmp_path), "--seeds", "1", "--capacity"]
    assert run([*flags, "--against", "direct:qwen3:4b", "--json"], {}) == 0
    out, err = capsys.readouterr()
    assert err == "", "no progress where nobody looks"
    found = orjson.loads(out)
    assert found["goals"] == {"planner_p95_s": 5.0, "planner_lost": 0.01, "others_lost": 0.05}
    one, split = found["policies"]
    assert (one["name"], split["name"]) == ("direct, qwen3:4b", "shipped default")
    assert one["value"] > split["value"], "two models that make room for each other carry less"
    loads = [tried["load"] for tried in one["tried"]]
    assert loads == sorted(set(loads))
    ended_by = split["ended_by"]
    assert ended_by["load"] > split["value"]
    assert {"goal", "role", "value", "bound", "causes", "says"} == ended_by["missed"][0].keys()


def test_what_ends_it_in_words() -> None:
    """By role, with the codes and reasons that its calls were lost with."""
    causes = (
        Cause("E_OVERLOAD_THROTTLED", "queue_timeout", 0.07),
        Cause("E_CLIENT_GONE", "left", 0.003),
    )
    missed = (
        Missed("others_lost", Role.EXECUTOR, 0.073, 0.05, causes),
        Missed("planner_p95_s", Role.PLANNER, 5.66, 5.0),
    )
    row = Tried(0.5, 3, None, None, None, None, Verdict.BREAKS, missed=missed)
    assert list(ended_lines(ended_fields(row))) == [
        (
            "  what ends it, at 0.50: EXECUTOR 7.3 % lost (E_OVERLOAD_THROTTLED queue_timeout "
            "7.0 %, E_CLIENT_GONE left 0.3 %); planner P95 5.7 s"
        )
    ]
    assert list(ended_lines(None)) == []


def report(**more: Any) -> dict[str, Any]:
    tried = {"load": 0.5, "runs": 3, "planner_p95_s": {"value": 4.0, "low": 3.0, "high": 5.0}}
    tried |= {"planner_lost": None, "others_lost": None, "worst_role_lost": {"value": 0.01}}
    tried["worst_role"] = "CHAT"
    policy: dict[str, Any] = {
        "name": "x",
        "says": "carries it",
        "holds_again": [1.5],
        "tried": [tried | more],
    }
    policy["ended_by"] = {"load": 0.7, "missed": [{"says": "planner P95 6.0 s"}]}
    goals = {"planner_p95_s": 5.0, "planner_lost": 0.01, "others_lost": 0.05}
    return {"warnings": ["few"], "policies": [policy], "goals": goals}


def test_in_words() -> None:
    assert list(lines(json.loads(json.dumps(report(verdict="holds"))))) == [
        "warning: few",
        "x carries it",
        "  what ends it, at 0.70: planner P95 6.0 s",
        (
            "goals: planner P95 at most 5 s, at most 1 % of planners and 5 % of every other "
            "role lost (failed, timed out, turned away or left)"
        ),
        "",
        "x",
        "load  runs         planner P95  planners lost  others lost  worst role",
        "0.50     3  4.0 s (3.0 to 5.0)              -            -  CHAT 1.0 %  holds",
        "not counted: they hold at 1.50 too, above one at which they break",
        "",
        "with 95 % intervals; an unclear load was run with all seeds",
    ]
