"""A report on objectives as plain values (``/slo``), as lines for people, and as Markdown."""

from __future__ import annotations

from shlex import quote
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.quantity import in_digits
from modelsplit_policy.slo.counting import OF_JOBS
from modelsplit_policy.slo.facts import End
from modelsplit_policy.slo.names import OBJECTIVES, Unit
from modelsplit_policy.slo.report import Verdict
from modelsplit_proxy.runtime import local_time
from modelsplit_proxy.runtime.clock import rfc3339_us

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from modelsplit_policy.slo.objectives import Objective
    from modelsplit_policy.slo.report import Finding, Gate, PlannerCalls, Report

_WIDTH: Final = 80
_ABOUT: Final = MappingProxyType(
    {
        0: "observed, and not growing",
        1: "fewer timeouts, short waits, errors told in full",
        2: "a fast planner, right at once",
        3: "models only where needed, jobs end as well as before",
        4: "all of it for a week",
        None: "targets that no gate asks for",
    }
)
_TITLES: Final = MappingProxyType(
    {
        "job_e2e_latency_ms": "job",
        "planner_latency_ms": "planner",
        "llm_latency_ms": "llm latency",
        "tool_latency_ms": "tool",
        "llm_queue_wait_ms": "queue wait",
        "event_loop_lag_p99": "event loop lag",
        "timeouts": "timeouts",
        "planner_failure_rate": "planner failures",
        "fallback_rate": "fallbacks",
        "schema_error_rate": "schema errors",
        "error_classification": "errors in full",
        "executor_job_rate": "executor jobs",
        "job_success_rate": "job success",
        "hallucination_rate": "hallucinated",
        "cloud_calls": "cloud calls sent",
        "uptime": "uptime",
        "covered_hours": "records cover",
        "covered_days": "records cover",
        "telemetry_fields": "telemetry live",
        "memory_growth": "memory growth",
        "descriptor_growth": "descriptor growth",
        "task_growth": "task growth",
        "state_file_share": "state file",
    }
)
_ENDS: Final = MappingProxyType(
    {
        End.TIMEOUT: "timed out",
        End.REFUSED: "refused",
        End.FAILED: "failed",
        End.CLIENT_GONE: "left",
        End.CLIENTS_OWN: "the client's own fault",
    }
)
_COLUMNS: Final = (
    *("objective", "verdict", "observed", "must be", "interval", "n"),
    *("used", "burn", "window", "note"),
)
_MARKS: Final = MappingProxyType(
    {
        Verdict.PASS: "pass",
        Verdict.BREACH: "BREACH",
        Verdict.NOT_ENOUGH_DATA: "?",
        Verdict.NOT_JUDGED: "-",
    }
)


def fields(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "at": rfc3339_us(report.now_us),
        "verdict": str(report.verdict),
        "window_s": report.window_s,
        "covered_s": report.covered_s,
        "baseline": {
            "source": report.baseline.source,
            "timeouts": report.baseline.timeouts,
            "timeouts_window_s": report.baseline.timeouts_window_s,
            "planner_p95_ms": report.baseline.planner_p95_ms,
            "jobs": report.baseline.jobs,
            "jobs_ok": report.baseline.jobs_ok,
            "reviews": report.baseline.reviews,
            "hallucinated": report.baseline.hallucinated,
        },
        "gates": [_gate(gate) for gate in report.gates],
        "timeouts_window_s": report.timeouts_window_s,
        "timeouts": [
            {
                "llm_role": row.role,
                "calls": row.calls,
                "timeouts": row.timeouts,
                "per_5h": row.per_5h,
                "per_100_calls": 100 * row.timeouts / row.calls,
            }
            for row in report.timeouts
        ],
    }


def _gate(gate: Gate) -> dict[str, Any]:
    return {
        "gate": gate.number,
        "verdict": str(gate.verdict),
        "objectives": [_finding(finding) for finding in gate.findings],
        "planner": None if gate.planner is None else _planner(gate.planner),
    }


def _planner(planner: PlannerCalls) -> dict[str, Any]:
    ends = {str(end): planner.ends.get(end, 0) for end in End}
    return {"window_s": planner.window_s, "calls": sum(ends.values()), **ends}


def _finding(finding: Finding) -> dict[str, Any]:
    row, budget = finding.objective, finding.budget
    return {
        "objective": row.name,
        "bound": row.bound,
        "title": title(row),
        "unit": str(OBJECTIVES[row.name][0]),
        "window_s": finding.window_s,
        "holds": str(row.holds),
        "bound_value": finding.bound,
        "target": finding.target,
        "verdict": str(finding.verdict),
        "value": finding.value,
        "low": finding.low,
        "high": finding.high,
        "n": finding.n,
        "note": finding.note,
        "worst": list(finding.worst),
        "worst_at": [rfc3339_us(at_us) for at_us in finding.worst_at_us],
        "budget_used": None if budget is None else budget.used,
        "burn_1h": None if budget is None else budget.burn_1h,
        "burn_5h": None if budget is None else budget.burn_5h,
    }


def title(row: Objective) -> str:
    """The objective in few words: ``planner P95``."""
    words = _TITLES[row.name]
    return f"{words} {row.bound.upper()}" if row.bound in {"p95", "p99"} else words


# --- For people ----------------------------------------------------------------------------


def lines(report: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """The report as text of 80 columns: what is wrong first, then every gate.

    A report of several gates is longer than a screen, so its last line is the first one again.
    ``where``: the flag that has commands look where this report comes from; empty: they do.
    """
    yield from _summary(report)
    for gate in report["gates"]:
        yield ""
        yield from _gate_lines(gate)
    if report["timeouts"]:
        yield ""
        yield from _timeout_lines(report)
    found = [found for gate in report["gates"] for found in gate["objectives"]]
    for what, command in _hints(found):
        yield from ("", what, f"  {command} {where}".rstrip())
    if len(report["gates"]) > 1:
        yield ""
        yield from _wrapped("", _in_short(report))


def _in_short(report: Mapping[str, Any]) -> str:
    """``SLO BREACH 1; not enough data 3 4 targets; pass 0 2``: gates by their numbers."""
    told = []
    for verdict in (Verdict.BREACH, Verdict.NOT_ENOUGH_DATA, Verdict.NOT_JUDGED, Verdict.PASS):
        gates = [gate["gate"] for gate in report["gates"] if gate["verdict"] == verdict]
        names = ["targets" if gate is None else str(gate) for gate in gates]
        told += [f"{_loud(verdict)} {' '.join(names)}"] if names else []
    return f"SLO {'; '.join(told)}"


def _hints(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """What a reader may do next, and the command that does it."""
    worst = [(entry["objective"] in OF_JOBS, name) for entry in found for name in entry["worst"]]
    for is_job, what in ((False, "call"), (True, "job")):
        names = [name for of_job, name in worst if of_job is is_job]
        if names:
            command = "jobs" if is_job else "requests"
            yield f"What became of a {what}:", f"modelsplit {command} {quote(names[0])}"
    lacking = [entry for entry in found if entry["verdict"] == Verdict.NOT_ENOUGH_DATA]
    if any(entry["objective"] == "hallucination_rate" for entry in lacking):
        yield "Verdicts on answers are given with:", "modelsplit slo review"
    if any("the baseline has" in entry["note"] for entry in lacking):
        yield "What to compare with is kept with:", "modelsplit baseline record"


def _summary(report: Mapping[str, Any]) -> Iterator[str]:
    """A line for each gate: its verdict, and the objectives that made it so."""
    yield f"SLO {_loud(report['verdict'])}, {local_time.second(report['at'])}"
    for gate in report["gates"]:
        verdict = gate["verdict"]
        names = [found["title"] for found in gate["objectives"] if found["verdict"] == verdict]
        head = f"  {gate_name(gate):<9}{_loud(verdict)}"
        if verdict == Verdict.PASS:
            yield head
        else:
            yield from _wrapped(f"{head:<28}", ", ".join(names), 28)
    covered, window = _duration(report["covered_s"]), _duration(report["window_s"])
    yield from _wrapped("  ", f"records cover {covered} of {window}")
    yield from _wrapped("  ", f"baseline: {_baseline(report['baseline'])}")


def _baseline(baseline: Mapping[str, Any]) -> str:
    timeouts = (
        f"{in_digits(baseline['timeouts'])} timeouts in {_duration(baseline['timeouts_window_s'])}"
    )
    p95 = value_text(baseline["planner_p95_ms"], Unit.MS)
    return f"{baseline['source']} ({timeouts}, planner P95 {p95})"


def _loud(verdict: str) -> str:
    return "BREACH" if verdict == Verdict.BREACH else verdict


def gate_name(gate: Mapping[str, Any]) -> str:
    return "targets" if gate["gate"] is None else f"gate {gate['gate']}"


def _gate_lines(gate: Mapping[str, Any]) -> Iterator[str]:
    yield f"{gate_name(gate)}  {_loud(gate['verdict'])}  {_ABOUT[gate['gate']]}"
    columns = ("", "", "observed", "must be", "interval", "n", "used", "burn")
    yield _row(*columns)
    window_s = _usual_window(gate)
    for found in gate["objectives"]:
        yield from finding_lines(found, window_s)
    if told := planner_text(gate):
        yield from _wrapped("  ", told)


def planner_text(gate: Mapping[str, Any]) -> str:
    """How the planner's calls ended; empty where there were none, and for targets."""
    planner = gate["planner"]
    if planner is None or not planner["calls"]:
        return ""
    # Refusals are told even where there are none: a scheduler must not pass by refusing.
    named = [end for end in _ENDS if planner[end] or end is End.REFUSED]
    ends = [f"{planner[end]} {_ENDS[end]}" for end in named]
    told = f"{planner[End.ANSWERED]} answered" + "".join(f", {end}" for end in ends)
    calls = "1 planner call" if planner["calls"] == 1 else f"{planner['calls']} planner calls"
    return f"{calls} in {_duration(planner['window_s'])}: {told}"


def _usual_window(gate: Mapping[str, Any]) -> int:
    """The window of most rows; those of others say theirs."""
    seconds: list[int] = [found["window_s"] for found in gate["objectives"]]
    return max(seconds, key=seconds.count)


def _row(*cells: str) -> str:
    mark, name, value, wanted, span, n, used, burn = cells
    line = f"  {mark:<8}{name:<18}{value:>8}  {wanted:<9}{span:<13}{n:>6}{used:>6}{burn:>8}"
    return line.rstrip()


def finding_lines(found: Mapping[str, Any], window_s: int) -> Iterator[str]:
    verdict = found["verdict"]
    yield _row(
        _MARKS[Verdict(verdict)],
        found["title"],
        "" if found["value"] is None else value_text(found["value"], found["unit"]),
        wanted_text(found),
        _span(found),
        str(found["n"] or ""),
        _used(found),
        _burn(found),
    )
    notes = [found["note"]] if found["note"] else []
    if found["window_s"] != window_s:
        notes.append(f"in {_duration(found['window_s'])}")
    if verdict == Verdict.NOT_JUDGED or (verdict == Verdict.NOT_ENOUGH_DATA and found["note"]):
        yield from _wrapped(" " * 10, ": ".join((verdict, *filter(None, ["; ".join(notes)]))))
    elif notes and (verdict == Verdict.BREACH or found["n"] == 0):
        yield from _wrapped(" " * 10, "; ".join(notes))
    if found["worst"] or found["worst_at"]:
        moments = ", ".join(map(local_time.minute, found["worst_at"]))
        yield from _wrapped(" " * 10, " ".join(["worst:", *found["worst"], moments]).strip())


def wanted_text(found: Mapping[str, Any]) -> str:
    if found["target"] is None:
        return ""
    return f"{found['holds']} {value_text(found['target'], found['unit'])}"


def _span(found: Mapping[str, Any]) -> str:
    if found["low"] is None and found["high"] is None:
        return ""
    low, high = (
        "?" if found[end] is None else _number(found[end], found["unit"]) for end in ("low", "high")
    )
    return f"{low}..{high}"


def _used(found: Mapping[str, Any]) -> str:
    used = found["budget_used"]
    if used is None:
        return ""
    return f"{_short(100 * used)}%" if used < 10 else ">999%"


def _burn(found: Mapping[str, Any]) -> str:
    """Over the last hour and the last five."""
    burns = [found["burn_1h"], found["burn_5h"]]
    if burns == [None, None]:
        return ""
    return "/".join("-" if burn is None else _short(burn) for burn in burns)


def _short(value: float) -> str:
    """With a digit behind the point where it is small, but for nothing at all."""
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"


def _timeout_lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"timeouts by role in {_duration(report['timeouts_window_s'])}"
    for row in report["timeouts"]:
        per_5h = "" if row["per_5h"] is None else f"{row['per_5h']:.3g} in 5 h, "
        per_100 = f"{row['per_100_calls']:.2g}"
        counted = f"{row['timeouts']} of {row['calls']} calls"
        yield f"  {row['llm_role']:<10}{counted:<22}{per_5h}{per_100} per 100 calls"


def value_text(value: float, unit: str) -> str:
    match Unit(unit):
        case Unit.MS:
            return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms"
        case Unit.SHARE:
            return f"{value * 100:.3g} %"
        case Unit.HOURS:
            return f"{value:.3g} h"
        case Unit.DAYS:
            return f"{value:.2g} d"
        case Unit.COUNT:
            return f"{value:.3g}"


def _number(value: float, unit: str) -> str:
    """In the unit of ``_value``, without it where it is short."""
    if unit == Unit.SHARE:
        return f"{value * 100:.3g}"
    return value_text(value, unit).replace(" ", "") if unit == Unit.MS else f"{value:.3g}"


def _duration(seconds: int) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds} s"


def _wrapped(begin: str, text: str, indent: int | None = None) -> Iterator[str]:
    """Words in at most 80 columns behind ``begin``; ``indent``: of the lines after the first."""
    line = begin
    for word in text.split(" "):
        if len(line) + len(word) > _WIDTH and line.strip():
            yield line.rstrip()
            line = " " * (len(begin) if indent is None else indent)
        line += f"{word} "
    yield line.rstrip()


# --- For other programs --------------------------------------------------------------------


def markdown(report: Mapping[str, Any]) -> Iterator[str]:
    """The report as Markdown: a table for each gate, and one of the timeouts."""
    covered, window = _duration(report["covered_s"]), _duration(report["window_s"])
    yield f"# SLO: {_loud(report['verdict'])}"
    yield ""
    yield f"{report['at'][:19]}Z, records cover {covered} of {window}."
    yield f"Baseline: {_baseline(report['baseline'])}."
    for gate in report["gates"]:
        yield ""
        yield f"## {gate_name(gate)}: {_loud(gate['verdict'])}"
        yield ""
        yield from _markdown_rows(
            _COLUMNS, [_markdown_cells(found) for found in gate["objectives"]]
        )
        if told := planner_text(gate):
            yield ""
            yield f"{told}."
    if report["timeouts"]:
        yield ""
        yield f"## timeouts by role in {_duration(report['timeouts_window_s'])}"
        yield ""
        yield from _markdown_rows(
            ("role", "calls", "timeouts", "in 5 h", "per 100 calls"),
            [
                (
                    *(row["llm_role"], f"{row['calls']}", f"{row['timeouts']}"),
                    "" if row["per_5h"] is None else f"{row['per_5h']:.3g}",
                    f"{row['per_100_calls']:.2g}",
                )
                for row in report["timeouts"]
            ],
        )


def _markdown_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _markdown_cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    moments = [f"worst {moment[:16]}Z" for moment in found["worst_at"]]
    notes = [found["note"], *(f"worst `{name}`" for name in found["worst"]), *moments]
    return (
        *(found["title"], _loud(found["verdict"])),
        "" if found["value"] is None else value_text(found["value"], found["unit"]),
        *(wanted_text(found), _span(found), str(found["n"] or "")),
        *(_used(found), _burn(found), _duration(found["window_s"])),
        "; ".join(filter(None, notes)),
    )


def _cell(text: str) -> str:
    """Text that ends no cell."""
    return text.replace("|", "/")
