"""The report on experiments, as plain values (``/experiments``) and as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.comparison import LEVEL, MEASURES, compare
from modelsplit_proxy.records.experiment_data import MOST_CALLS
from modelsplit_proxy.runtime.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.comparison import Arm, Finding
    from modelsplit_policy.config.model import ExperimentPolicy, Policy
    from modelsplit_policy.intervals import Estimate
    from modelsplit_proxy.records.experiment_data import KeptCalls, TrialData

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


def report(policy: Policy, data: TrialData, name: str | None, since_us: int) -> dict[str, Any]:
    """Compare the arms of one experiment, or of all. Blocks on disk; may raise StoreError."""
    kept = {found.name: found for found in data.kept(since_us)}
    told = {test.name: test for test in policy.experiments}
    names = [*told, *(found for found in kept if found not in told)]
    if name is not None and name not in names:
        known = ", ".join(names)[:100] or "none"
        raise UnknownExperimentError(f'no experiment is named "{name[:64]}"; known: {known}')
    wanted = names if name is None else [name]
    return {
        "level": LEVEL,
        "experiments": [_experiment(one, told, kept, data, since_us) for one in wanted],
    }


def _experiment(
    name: str,
    told: Mapping[str, ExperimentPolicy],
    kept: Mapping[str, KeptCalls],
    data: TrialData,
    since_us: int,
) -> dict[str, Any]:
    test, found = told.get(name), kept.get(name)
    role = found.role if found is not None else ""
    sticky = "job" if test is None else test.sticky
    models = {} if test is None else {arm.name: arm.model for arm in test.arms}
    calls = [] if found is None else data.calls(name, sticky, since_us)
    compared = compare(calls, [*models], _DEALT[sticky])
    return {
        "experiment": name,
        "llm_role": role if test is None else test.role,
        "sticky": sticky,
        "in_policy": test is not None,
        "enabled": test is not None and test.enabled,
        "calls": len(calls),
        "left_out": 0 if found is None else max(0, found.calls - MOST_CALLS),
        "first_at": None if found is None else rfc3339(found.first_us / 1e6),
        "last_at": None if found is None else rfc3339(found.last_us / 1e6),
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
        "measures": {name: _estimate(found) for name, found in arm.measures.items()},
    }


def _estimate(found: Estimate) -> dict[str, Any]:
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "effective_n": round(found.effective, 1),
    }


def _finding(found: Finding) -> dict[str, Any]:
    return {
        "measure": found.measure,
        "arm": found.arm,
        "against": found.against,
        "verdict": found.verdict,
        "difference": found.difference.value,
        "low": found.difference.low,
        "high": found.difference.high,
        "text": found.text,
    }


# --- For people ----------------------------------------------------------------------------


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """The report as text."""
    if not told["experiments"]:
        yield "no experiments: the policy has none, and no call is kept of any"
    for number, one in enumerate(told["experiments"]):
        if number:
            yield ""
        yield from _lines_of(one)


def _lines_of(one: Mapping[str, Any]) -> Iterator[str]:
    off = "switched off" if one["in_policy"] else "no longer in the policy"
    state = "running" if one["enabled"] else off
    dealt = _DEALT[one["sticky"]]
    yield f"{one['experiment']}  {one['llm_role']}, by {one['sticky']}, {state}"
    if not one["calls"]:
        yield "  no calls yet"
        return
    yield f"  {one['calls']} calls from {one['first_at'][:16]}Z to {one['last_at'][:16]}Z"
    if one["left_out"]:
        yield f"  {one['left_out']} older calls are left out"
    if one["moved"]:
        yield f"  {one['moved']} {dealt} changed their arm (a weight was changed) and are left out"
    yield ""
    yield from _table(one, dealt)
    if one["findings"]:
        yield ""
        yield from _findings(one)


def _table(one: Mapping[str, Any], dealt: str) -> Iterator[str]:
    """A column for each arm: people compare along lines."""
    rows = [*_rows(one["arms"], dealt)]
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
    for measure in MEASURES:
        title, scale, unit = SHOWN[measure.name]
        found = [arm["measures"].get(measure.name) for arm in arms]
        if any(found):
            yield [title, *(_cell(one, scale, unit) for one in found)]
    for title, key in (("clients gone", "client_gone"), ("turned away", "turned_away")):
        if any(arm[key] for arm in arms):
            yield [title, *(str(arm[key]) for arm in arms)]


def _cell(found: Mapping[str, Any] | None, scale: float, unit: str) -> str:
    if found is None:
        return "-"
    low, high = (
        "?" if found[end] is None else f"{found[end] * scale:.3g}" for end in ("low", "high")
    )
    return f"{found['value'] * scale:.3g}{unit} ({low}..{high})"


def _findings(one: Mapping[str, Any]) -> Iterator[str]:
    against = ""
    for found in one["findings"]:
        pair = f"{found['arm']} against {found['against']}"
        if pair != against:
            yield f"  {pair} ({LEVEL:.0%} for all of this together)"
        against = pair
        yield f"  {SHOWN[found['measure']][0]:{_TITLE}}  {found['text']}"
