"""``simulate --advise``: a change worth making, as a policy diff with its evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.config.parser import parse
from modelsplit_policy.config.problems import PolicyError
from modelsplit_proxy.cli import simulate_capacity
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.runtime.text_table import table
from modelsplit_sim.replay.advise import Search
from modelsplit_sim.replay.capacity import goals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_proxy.cli.simulate_inputs import Task
    from modelsplit_sim.replay.advise import Judged, Limits

    Tell = Callable[[str], None]

_WORDS: Final = (
    "what its answers are worth no simulation knows: try it on your own, as an experiment"
)


def advise(
    task: Task, document: Mapping[str, Any], limits: Limits, seed: int, tell: Tell
) -> dict[str, Any]:
    """Search from the task's last contender, whose policy ``document`` is; as plain values.

    ``file`` is a policy that ``serve`` takes, with the change in it; None: it stays as it is.
    """

    def overlaid(overlay: Mapping[str, Any]) -> Policy | None:
        try:
            return parse(policy_file.merge(document, overlay))
        except PolicyError:
            return None

    today = task.contenders[-1]
    search = Search(today, task.host, task.source, overlaid, limits, seed=seed, told=tell)
    advice = search.advise()
    shown = advice.best or advice.promising
    return {
        "goals": simulate_capacity.goal_fields(goals_of(today.policy)),
        "is_better": advice.best is not None,
        "change": None if shown is None else shown.overlay,
        "diff": [] if shown is None else list(_diff(document, shown.overlay)),
        "ollama": [] if shown is None else shown.unit_lines,
        "file": None
        if shown is None or not shown.overlay
        else changed_policy(document, shown.overlay),
        "models_change": shown is not None and any(s.kind == "models" for s in shown.settings),
        "today": _judged(advice.before),
        "advised": None if advice.after is None else _judged(advice.after),
        "candidates": advice.candidates,
        "runs": advice.runs,
        "was_cut": advice.was_cut,
        "better_runs": advice.better_runs,
        "judged_runs": advice.judged_runs,
        "warnings": list(task.warnings),
    }


def _judged(judged: Judged) -> dict[str, Any]:
    beside = judged.beside
    return {
        "capacity": simulate_capacity.fields(judged.capacity),
        "at_its_load": None if beside is None else simulate_capacity.tried_fields(beside),
    }


def _diff(
    document: Mapping[str, Any], overlay: Mapping[str, Any], at: tuple[str, ...] = ()
) -> Iterator[dict[str, Any]]:
    """Every key that changes, as ``path``, ``before`` and ``after``."""
    for key, after in overlay.items():
        before = document.get(key)
        if isinstance(after, dict) and isinstance(before, dict):
            yield from _diff(before, after, (*at, key))
        elif before != after:
            yield {"path": ".".join((*at, key)), "before": before, "after": after}


def changed_policy(document: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """The changed policy as a file: over the shipped one where that is enough to say it."""
    changed = policy_file.merge(document, overlay)
    shipped = policy_file.shipped()
    short = _over(shipped, changed)
    if policy_file.merge(shipped, short) == changed:
        return {"extends": "default", **short}
    return changed


def _over(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    over: dict[str, Any] = {}
    for key, value in wanted.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            deeper = _over(below, value)
            if deeper:
                over[key] = deeper
        elif key not in base or below != value:
            over[key] = value
    return over


def file_bytes(file: Mapping[str, Any]) -> bytes:
    """What is written as the policy's file."""
    return orjson.dumps(file, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def lines(report: Mapping[str, Any], written: str | None = None) -> Iterator[str]:
    """The report for people. ``written``: where the file is; None: it is printed."""
    for warning in report["warnings"]:
        yield f"warning: {warning}"
    if report["is_better"]:
        yield from _better(report, written)
    else:
        yield from _nothing(report)
    yield ""
    yield from _evidence(report)
    yield simulate_capacity.goal_line(report["goals"])
    cut = "; the budget ended the search early" if report["was_cut"] else ""
    took = f"{report['seconds']:.0f} s"
    yield f"{report['candidates']} candidates, {report['runs']} runs in {took}{cut}"


def _nothing(report: Mapping[str, Any]) -> Iterator[str]:
    yield "nothing better than the current policy beyond chance"
    if report["change"] is not None:
        yield "what looked best on the half that was searched does not hold up on the other one:"
        yield from _changes(report)


def _better(report: Mapping[str, Any], written: str | None) -> Iterator[str]:
    before, after = (report[name]["capacity"]["value"] for name in ("today", "advised"))
    now = f"about {before:.2f} times this load" if before else "nothing of this load"
    yield f"today's policy carries {now}, with this change about {after:.2f} times:"
    yield from _changes(report)
    if report["models_change"]:
        yield f"  it changes models: {_WORDS}"
    if report["file"] is None:
        return
    if written is not None:
        yield f"the policy with this change: {written}"
        return
    yield "the policy with this change (--write FILE writes it):"
    yield from (f"  {line}" for line in file_bytes(report["file"]).decode().splitlines())


def _changes(report: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (f"  {row['path']}", _word(row["before"]), "->", _word(row["after"]))
        for row in report["diff"]
    ]
    if rows:
        yield from table(rows, "<><<")
    if report["ollama"]:
        yield "in Ollama's unit, under [Service] (systemctl edit ollama):"
        yield from (f"  {line}" for line in report["ollama"])


def _word(value: Any) -> str:
    return orjson.dumps(value).decode()


def _evidence(report: Mapping[str, Any]) -> Iterator[str]:
    """Both on traffic that the search has not seen: what they carry, and side by side."""
    head = ("", "load", "runs", "planner P95", "planners lost", "others lost", "worst role", "")
    rows: list[Sequence[str]] = []
    yield "on the half of the traffic that was not searched:"
    for name in ("today", "advised"):
        own = report[name]
        if own is None:
            continue
        yield f"  {name} {own['capacity']['says']}"
        yield from (
            f"  {line}" for line in simulate_capacity.ended_lines(own["capacity"]["ended_by"])
        )
        if own["at_its_load"] is not None:
            rows.append((f"  {name}", *simulate_capacity.row_of(own["at_its_load"])))
    if rows:
        yield from table([head, *rows], "<>>>>>><")
    if report["better_runs"] is not None:
        runs = f"{report['better_runs']} of {report['judged_runs']} runs"
        yield f"in {runs} of the same calls the change does better; --draw N searches anew"
