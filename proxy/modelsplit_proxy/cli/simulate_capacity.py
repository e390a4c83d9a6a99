"""``simulate --capacity``: how much of the traffic each contender carries, in words and tables."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.runtime.side_by_side import cores, results
from modelsplit_proxy.runtime.text_table import table
from modelsplit_sim.replay.capacity import MOST, Runner, Verdict, capacity, goals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from modelsplit_proxy.cli.simulate_inputs import Task
    from modelsplit_sim.replay.capacity import Capacity, Goals, Missed, Tried

    Tell = Callable[[str], None]

_HEAD: Final = ("load", "runs", "planner P95", "planners lost", "others lost", "worst role", "")
_ALIGNED: Final = ">>>>>><"


def measure(task: Task, tell: Tell) -> dict[str, Any]:
    """The capacity of every contender, as plain values."""
    seeds, at_once = range(1, task.seeds + 1), cores()
    beside = partial(results, at_once) if at_once > 1 else None
    found: dict[str, Capacity] = {}
    for contender in task.contenders:
        progress = _Progress(contender.name, tell)
        runner = Runner(
            *(contender, task.host, task.source, seeds, progress.judged),
            beside=beside,
            ran=progress.ran,
        )
        found[contender.name] = _capacity(runner)
    return {
        "goals": goal_fields(goals_of(task.contenders[-1].policy)),
        "policies": [{"name": name, **fields(own)} for name, own in found.items()],
        "host": task.host.name,
        "warnings": list(task.warnings),
    }


class _Progress:
    """What is known so far of one contender, told in a line after each run."""

    def __init__(self, name: str, tell: Tell) -> None:
        self._name = name
        self._tell = tell
        self._tried: dict[float, Tried] = {}

    def judged(self, row: Tried) -> None:
        self._tried[row.load] = row

    def ran(self, load: float, ended: int, wanted: int) -> None:
        at: dict[Verdict, list[float]] = {verdict: [] for verdict in Verdict}
        for row in self._tried.values():
            at[row.verdict].append(row.load)
        known = (
            f"holds at {max(at[Verdict.HOLDS]):.2f}" if at[Verdict.HOLDS] else "",
            f"breaks at {min(at[Verdict.BREAKS]):.2f}" if at[Verdict.BREAKS] else "",
        )
        told = "".join(f"; {text}" for text in known if text)
        self._tell(f"{self._name}: load {load:.2f}, run {ended} of {wanted}{told}")


def _capacity(runner: Runner) -> Capacity:
    return capacity(lambda load: runner.at(load, Runner.run))


def goal_fields(goals: Goals) -> dict[str, float]:
    """The goals as plain values."""
    return asdict(goals)


def fields(own: Capacity) -> dict[str, Any]:
    """One capacity as plain values."""
    return {
        "value": own.value,
        "low": own.low,
        "high": own.high,
        "is_determined": own.is_determined,
        "holds_again": list(own.again),
        "says": sentence(own),
        "ended_by": None if own.ended_by is None else ended_fields(own.ended_by),
        "tried": [tried_fields(row) for row in own.tried],
    }


def ended_fields(row: Tried) -> dict[str, Any]:
    """The goals that a load misses, as plain values; ``says``: in words."""
    missed = [
        {
            "goal": own.goal,
            "role": str(own.role),
            "value": own.value,
            "bound": own.bound,
            "causes": [cause._asdict() for cause in own.causes],
            "says": _missed(own),
        }
        for own in row.missed
    ]
    return {"load": row.load, "missed": missed}


def _missed(own: Missed) -> str:
    if own.goal == "planner_p95_s":
        return f"planner P95 {own.value:.1f} s"
    causes = ", ".join(
        f"{cause.code} {cause.reason} {100 * cause.share:.1f} %" for cause in own.causes
    )
    return f"{own.role} {100 * own.value:.1f} % lost ({causes})"


def tried_fields(row: Tried) -> dict[str, Any]:
    """What came of one load, as plain values."""
    return {
        "load": row.load,
        "runs": row.seeds,
        "verdict": str(row.verdict),
        "worst_role": None if row.worst_role is None else str(row.worst_role),
        **{
            name: None if bounds is None else bounds._asdict()
            for name, bounds in (
                ("planner_p95_s", row.planner_p95_s),
                ("planner_lost", row.planner_lost),
                ("others_lost", row.others_lost),
                ("worst_role_lost", row.worst),
            )
        },
    }


def sentence(own: Capacity) -> str:
    """How much is carried, as far as it can be told."""
    if own.low >= MOST:
        return f"carries at least {MOST:g} times this load; more was not tried"
    if own.value == 0 and own.low == 0:
        return _nothing(own)
    ends = [
        f"surely {own.low:.2f}" if own.low else "",
        f"surely not {own.high:.2f}" if own.high is not None else "",
    ]
    about = f"carries about {max(own.value, own.low):.2f} times this load"
    told = ", ".join(filter(None, ends)) or "nothing about it is sure"
    if own.is_determined:
        return f"{about} ({told})"
    return f"{about}, not determined beyond chance ({told}): more --seeds may tell"


def _nothing(own: Capacity) -> str:
    lowest = own.tried[0]
    p95 = lowest.planner_p95_s
    inside = "" if p95 is None else f" (planner P95 {p95.value:.1f} s there)"
    return f"carries nothing: the goals are missed even at {lowest.load:.2g} of this load{inside}"


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for people."""
    for warning in report["warnings"]:
        yield f"warning: {warning}"
    for policy in report["policies"]:
        yield f"{policy['name']} {policy['says']}"
        yield from ended_lines(policy["ended_by"])
    yield goal_line(report["goals"])
    for policy in report["policies"]:
        yield ""
        yield policy["name"]
        yield from table([_HEAD, *map(row_of, policy["tried"])], _ALIGNED)
        if policy["holds_again"]:
            listed = ", ".join(f"{load:.2f}" for load in policy["holds_again"])
            yield f"not counted: they hold at {listed} too, above one at which they break"
    yield ""
    yield "with 95 % intervals; an unclear load was run with all seeds"


def ended_lines(ended_by: Mapping[str, Any] | None) -> Iterator[str]:
    """What ends it, in words: nothing, where no load that was tried misses a goal."""
    if ended_by is not None:
        missed = "; ".join(own["says"] for own in ended_by["missed"])
        yield f"  what ends it, at {ended_by['load']:.2f}: {missed}"


def goal_line(goals: Mapping[str, float]) -> str:
    """The goals in words."""
    return (
        f"goals: planner P95 at most {goals['planner_p95_s']:g} s, at most "
        f"{100 * goals['planner_lost']:g} % of planners and {100 * goals['others_lost']:g} % of "
        "every other role lost (failed, timed out, turned away or left)"
    )


def row_of(row: Mapping[str, Any]) -> Sequence[str]:
    """One load's cells."""
    return (
        f"{row['load']:.2f}",
        str(row["runs"]),
        _cell(row["planner_p95_s"], 1, " s"),
        _cell(row["planner_lost"], 100, " %"),
        _cell(row["others_lost"], 100, " %"),
        _worst(row),
        row["verdict"],
    )


def _worst(row: Mapping[str, Any]) -> str:
    lost = row["worst_role_lost"]
    return "-" if lost is None else f"{row['worst_role']} {100 * lost['value']:.1f} %"


def _cell(bounds: Mapping[str, float] | None, times: float, unit: str) -> str:
    if bounds is None:
        return "-"
    value, low, high = (times * bounds[key] for key in ("value", "low", "high"))
    return f"{value:.1f}{unit} ({low:.1f} to {high:.1f})"
