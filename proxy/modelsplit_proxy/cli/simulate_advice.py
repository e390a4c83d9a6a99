"""``modelsplit simulate --capacity`` and ``--advise``: what is carried, what would carry more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.config.parser import parse
from modelsplit_policy.config.problems import PolicyError
from modelsplit_proxy.cli.output import show
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.runtime.text_table import table
from modelsplit_sim.replay.advise import Ground, Search
from modelsplit_sim.replay.capacity import capacity, goals_of
from modelsplit_sim.replay.from_trace import RecordedTraffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from modelsplit_policy.config.model import Policy
    from modelsplit_proxy.cli.simulate_inputs import Task
    from modelsplit_sim.replay.advise import Advice, Judged
    from modelsplit_sim.replay.capacity import Attained, Goals

    Tell = Callable[[str], None]

# Made-up traffic that the search does not see is that of other seeds.
_HELD: Final = 1000


def show_capacity(task: Task, *, as_json: bool, tell: Tell) -> None:
    """Of each contender the highest load at which the goals hold, and what was tried."""
    rows: list[dict[str, Any]] = []
    found = {}
    for contender in task.contenders:

        def told(load: float, result: Attained, name: str = contender.name) -> None:
            tell(f"{name}, load {load:.2f}")
            rows.append({"policy": name, "load": load, **_attained(result)})

        seeds = list(range(1, task.seeds + 1))
        found[contender.name] = capacity(contender, task.host, task.source, seeds, told)
    goals = goals_of(task.contenders[-1].policy)
    fields = {"capacity": found, "goals": _goals(goals), "tried": rows}
    show(fields, _capacity_lines(found, rows, goals), as_json=as_json)


def _goals(goals: Goals) -> dict[str, float]:
    return {
        "planner_p95_s": goals.planner_p95_s,
        "planner_lost": goals.planner_lost,
        "others_served": goals.others_served,
    }


def _attained(result: Attained) -> dict[str, float | None]:
    return {
        "planner_p95_s": result.planner_p95_s,
        "planner_lost": result.planner_lost,
        "others_served": result.others,
    }


def _capacity_lines(
    found: Mapping[str, float], rows: list[dict[str, Any]], goals: Goals
) -> Iterator[str]:
    for name, load in found.items():
        yield f"{name} carries {load:.2f} times this load" if load else f"{name} carries no load"
    yield (
        f"goals: planner P95 below {goals.planner_p95_s:g} s, at most "
        f"{100 * goals.planner_lost:g} % of planners not served, at least "
        f"{100 * goals.others_served:g} % of every other role"
    )
    yield ""
    head = ("policy", "load", "planner P95", "planners lost", "others served")
    cells = [
        [
            row["policy"],
            f"{row['load']:.2f}",
            _said(row["planner_p95_s"], 1, " s"),
            _said(row["planner_lost"], 100, " %"),
            _said(row["others_served"], 100, " %"),
        ]
        for row in sorted(rows, key=lambda row: (row["policy"], row["load"]))
    ]
    yield from table([head, *cells], "<>>>>")


def _said(value: float | None, times: float, unit: str) -> str:
    return "-" if value is None else f"{times * value:.2f}{unit}"


def show_advice(task: Task, path: Path | None, *, as_json: bool, tell: Tell) -> None:
    """Search, and print the change as a policy to lay over the one in force.

    ``path``: the policy's file; None: it is the shipped one.
    """
    document = policy_file.shipped() if path is None else policy_file.resolve(path.read_bytes())

    def overlaid(overlay: Mapping[str, Any]) -> Policy | None:
        try:
            return parse(policy_file.merge(document, overlay))
        except PolicyError:
            return None

    today = task.contenders[-1]
    advice = Search(today, task.host, _ground(task), overlaid, tell).advise()
    show(_advice_fields(advice), _advice_lines(advice), as_json=as_json)


def _ground(task: Task) -> Ground:
    seeds = list(range(1, min(4, task.seeds) + 1))
    if isinstance(task.source, RecordedTraffic):
        first, second = task.source.halves()
        return Ground(first, seeds, second, seeds)
    held = [_HELD + seed for seed in seeds]
    return Ground(task.source, seeds, task.source, held)


def _advice_fields(advice: Advice) -> dict[str, Any]:
    return {
        "change": None if advice.best is None else advice.best.overlay,
        "ollama": [] if advice.best is None else advice.best.unit_lines,
        "today": _judged(advice.today),
        "advised": None if advice.advised is None else _judged(advice.advised),
        "tried": advice.tried,
    }


def _judged(judged: Judged) -> dict[str, Any]:
    return {"load": judged.load, **_attained(judged.attained)}


def _advice_lines(advice: Advice) -> Iterator[str]:
    if advice.best is None or advice.advised is None:
        yield f"nothing of {advice.tried} changes that were tried carries more"
        yield from _evidence(advice)
        return
    yield f"of {advice.tried} changes that were tried this carries most:"
    yield ""
    if advice.best.overlay:
        yield "lay over the policy:"
        text = orjson.dumps(advice.best.overlay, option=orjson.OPT_INDENT_2).decode()
        yield from (f"  {line}" for line in text.splitlines())
    if advice.best.unit_lines:
        yield "put into Ollama's unit ([Service], then restart it):"
        yield from (f"  {line}" for line in advice.best.unit_lines)
    yield ""
    yield from _evidence(advice)


def _evidence(advice: Advice) -> Iterator[str]:
    head = ("on traffic not searched", "carries", "planner P95", "planners lost", "others served")
    rows = [
        [
            name,
            f"{judged.load:.2f}",
            _said(judged.attained.planner_p95_s, 1, " s"),
            _said(judged.attained.planner_lost, 100, " %"),
            _said(judged.attained.others, 100, " %"),
        ]
        for name, judged in (("today", advice.today), ("advised", advice.advised))
        if judged is not None
    ]
    yield from table([head, *rows], "<>>>>")
    yield "carries: times this load; the other figures at this load"
