"""The report on experiments, as plain values (``/experiments``) and as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.comparison import LEVEL, MEASURES, compare
from modelsplit_proxy.records.experiment_data import MOST_CALLS
from modelsplit_proxy.runtime import local_time
from modelsplit_proxy.runtime.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.comparison import Arm, Finding
    from modelsplit_policy.config.model import ExperimentPolicy, Policy
    from modelsplit_policy.intervals import Estimate
    from modelsplit_proxy.records.experiment_data import ExperimentData, KeptCalls

_DEALT: Final = {"job": "jobs", "client": "clients", "request": "calls"}
SHOWN: Final = {
    "p50": ("P50", 1.0, " s"),
    "p95": ("P95", 1.0, " s"),
    "errors": ("errors", 100.0, " %"),
    "schema": ("schema unfit", 100.0, " %"),
    "cost": ("cost a call", 1.0, " USD"),
    "tokens_per_s": ("tokens/s", 1.0, ""),
}
"""Of each measure: its title, the factor it is shown by, and its unit."""
_TITLE: Final = max(len("clients gone"), *(len(title) for title, *_ in SHOWN.values()))


class UnknownExperimentError(Exception):
    """No experiment has this name. The text lists those that are known."""


def report(policy: Policy, data: ExperimentData, name: str | None, since_us: int) -> dict[str, Any]:
    """Compare the arms of one experiment, or of all. Blocks on disk; may raise StoreError."""
    kept = {entry.name: entry for entry in data.kept(since_us)}
    tests = {test.name: test for test in policy.experiments}
    names = [*tests, *(entry for entry in kept if entry not in tests)]
    if name is not None and name not in names:
        known = ", ".join(names)[:100] or "none"
        raise UnknownExperimentError(f'no experiment is named "{name[:64]}"; known: {known}')
    wanted = names if name is None else [name]
    return {
        "level": LEVEL,
        "experiments": [
            _experiment(known_name, tests, kept, data, since_us) for known_name in wanted
        ],
    }


def _experiment(
    name: str,
    tests: Mapping[str, ExperimentPolicy],
    kept: Mapping[str, KeptCalls],
    data: ExperimentData,
    since_us: int,
) -> dict[str, Any]:
    test, entry = tests.get(name), kept.get(name)
    role = entry.role if entry is not None else ""
    sticky = "job" if test is None else test.sticky
    models = {} if test is None else {arm.name: arm.model for arm in test.arms}
    calls = [] if entry is None else data.calls(name, sticky, since_us)
    compared = compare(calls, [*models], _DEALT[sticky])
    return {
        "experiment": name,
        "llm_role": role if test is None else test.role,
        "sticky": sticky,
        "in_policy": test is not None,
        "enabled": test is not None and test.enabled,
        "calls": len(calls),
        "left_out": 0 if entry is None else max(0, entry.calls - MOST_CALLS),
        "first_at": None if entry is None else rfc3339(entry.first_us / 1e6),
        "last_at": None if entry is None else rfc3339(entry.last_us / 1e6),
        "moved": compared.moved,
        "level_of_each": round(compared.level, 6),
        "arms": [_arm(arm, models.get(arm.name)) for arm in compared.arms],
        "findings": [_finding(finding) for finding in compared.findings],
    }


def _arm(arm: Arm, model: str | None) -> dict[str, Any]:
    return {
        "arm": arm.name,
        "model": model,
        "calls": arm.calls,
        "clusters": arm.clusters,
        **{end.value: count for end, count in arm.ends.items()},
        "fallbacks": arm.fallbacks,
        "measures": {name: _estimate(estimate) for name, estimate in arm.measures.items()},
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "effective_n": round(estimate.effective, 1),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "measure": finding.measure,
        "arm": finding.arm,
        "against": finding.against,
        "verdict": finding.verdict,
        "difference": finding.difference.value,
        "low": finding.difference.low,
        "high": finding.difference.high,
        "text": finding.text,
    }


# --- For people ----------------------------------------------------------------------------


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report as text."""
    if not report["experiments"]:
        yield "no experiments: the policy has none, and no call is kept of any"
    for number, entry in enumerate(report["experiments"]):
        if number:
            yield ""
        yield from _lines_of(entry)


def _lines_of(row: Mapping[str, Any]) -> Iterator[str]:
    off = "switched off" if row["in_policy"] else "no longer in the policy"
    state = "running" if row["enabled"] else off
    dealt = _DEALT[row["sticky"]]
    yield f"{row['experiment']}  {row['llm_role']}, by {row['sticky']}, {state}"
    if not row["calls"]:
        yield "  no calls yet"
        return
    first, last = local_time.minute(row["first_at"]), local_time.minute(row["last_at"])
    yield f"  {row['calls']} calls from {first} to {last}"
    if row["left_out"]:
        yield f"  {row['left_out']} older calls are left out"
    if row["moved"]:
        yield f"  {row['moved']} {dealt} changed their arm (a weight was changed) and are left out"
    yield ""
    yield from _table(row, dealt)
    if row["findings"]:
        yield ""
        yield from _findings(row)


def _table(entry: Mapping[str, Any], dealt: str) -> Iterator[str]:
    """A column for each arm: people compare along lines."""
    rows = [*_rows(entry["arms"], dealt)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = _TITLE  # in line with the findings below
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()


def _rows(arms: list[dict[str, Any]], dealt: str) -> Iterator[list[str]]:
    yield ["", *(arm["arm"] for arm in arms)]
    yield ["model", *(arm["model"] or "-" for arm in arms)]
    yield ["calls", *(str(arm["calls"]) for arm in arms)]
    if dealt != "calls":
        yield [dealt, *(str(arm["clusters"]) for arm in arms)]
    if any(arm["fallbacks"] for arm in arms):
        yield ["fell back", *(_of_answered(arm) for arm in arms)]
    for measure in MEASURES:
        title, scale, unit = SHOWN[measure.name]
        estimates = [arm["measures"].get(measure.name) for arm in arms]
        if any(estimates):
            yield [title, *(_cell(estimate, scale, unit) for estimate in estimates)]
    for title, key in (("clients gone", "client_gone"), ("turned away", "turned_away")):
        if any(arm[key] for arm in arms):
            yield [title, *(str(arm[key]) for arm in arms)]


def _of_answered(arm: Mapping[str, Any]) -> str:
    """How many of its answers were the fallback's, not those of the arm's model."""
    told = f"{arm['fallbacks']} of {arm['answered']} answers"
    return f"{told}: all" if arm["answered"] and arm["fallbacks"] == arm["answered"] else told


def _cell(estimate: Mapping[str, Any] | None, scale: float, unit: str) -> str:
    if estimate is None:
        return "-"
    low, high = (
        "?" if estimate[end] is None else f"{estimate[end] * scale:.3g}" for end in ("low", "high")
    )
    return f"{estimate['value'] * scale:.3g}{unit} ({low}..{high})"


def _findings(entry: Mapping[str, Any]) -> Iterator[str]:
    against = ""
    for finding in entry["findings"]:
        pair = f"{finding['arm']} against {finding['against']}"
        if pair != against:
            yield f"  {pair} ({LEVEL:.0%} for all of this together)"
        against = pair
        yield f"  {SHOWN[finding['measure']][0]:{_TITLE}}  {finding['text']}"
