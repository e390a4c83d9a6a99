"""The report of a simulation in words and tables, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.quantity import in_digits
from modelsplit_proxy.runtime.text_table import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_HEAD: Final = (
    *("role", "policy", "calls", "failed", "P50", "P95", "P99"),
    *("wait P50", "P95", "P99", "fallback", "goodput", "cost"),
)
_ALIGNED: Final = "<<" + ">" * 11
SAID: Final = {
    "failed": "failed",
    "latency_p50_s": "latency P50",
    "latency_p95_s": "latency P95",
    "latency_p99_s": "latency P99",
    "llm_queue_wait_p50_s": "wait P50",
    "llm_queue_wait_p95_s": "wait P95",
    "llm_queue_wait_p99_s": "wait P99",
    "upstream_wait_p95_s": "wait in Ollama P95",
    "fallback": "fallbacks",
    "goodput": "goodput",
    "cost_usd": "cost",
}


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The whole report: warnings first, then the sentence, then the figures."""
    for warning in report["warnings"]:
        yield f"warning: {warning}"
    yield report["summary"]
    yield ""
    policies = report["policies"]
    yield from table([_HEAD, *_role_rows(policies)], _ALIGNED)
    yield f"seconds; means of {report['seeds']} runs; latency and wait of answered calls"
    for policy in policies:
        for role, row in policy["roles"].items():
            if row["objective_s"] is not None:
                yield (
                    f"goodput of {role} under {policy['name']}: "
                    f"answered within {row['objective_s']:g} s"
                )
    yield ""
    yield from _failures(policies)
    yield from _host(policies)
    yield ""
    yield from _gates(policies)
    if report["differences"]:
        yield ""
        yield from _differences(report)
    yield ""
    yield from _coverage(report["coverage"])
    if report["drift"] > 0:
        drift = 100 * report["drift"]
        yield f"  the machine's own speed: drawn for each run, standard deviation {drift:.0f} %"


def fit_lines(figures: Sequence[Mapping[str, Any]], warnings: Sequence[str]) -> Iterator[str]:
    """What is known of a host that was fitted: its figures with intervals, and what is not."""
    rows = [
        [row["name"], f"{row['value']:.4g}", _span(row), f"{row['calls']} calls"] for row in figures
    ]
    yield from table([("figure", "value", "95 % interval", "from"), *rows], "<>>>")
    for warning in warnings:
        yield f"warning: {warning}"


def _span(row: Mapping[str, Any]) -> str:
    return "-" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}"


def _role_rows(policies: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    roles = dict.fromkeys(role for policy in policies for role in policy["roles"])
    for role in roles:
        for policy in policies:
            row = policy["roles"].get(role)
            if row is not None:
                yield [role, policy["name"], f"{row['calls']:.0f}", *_figures(row)]


def _figures(row: Mapping[str, Any]) -> Iterator[str]:
    yield _value(row["failed"], ".1f", " %")
    for name in ("latency_p50_s", "latency_p95_s", "latency_p99_s"):
        yield _value(row[name], ".2f")
    for name in ("llm_queue_wait_p50_s", "llm_queue_wait_p95_s", "llm_queue_wait_p99_s"):
        yield _value(row[name], ".2f")
    yield _value(row["fallback"], ".1f", " %")
    yield _value(row["goodput"], ".1f", " %")
    yield _value(row["cost_usd"], ".2f", " $")


def _value(value: Mapping[str, float] | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value['value']:{form}}{unit}"


def _failures(policies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        [role, policy["name"], failure["code"], failure["reason"], f"{failure['calls']:.1f}"]
        for policy in policies
        for role, row in policy["roles"].items()
        for failure in row["failures"]
    ]
    if rows:
        yield from table([("role", "policy", "failed with", "because", "calls"), *rows], "<<<<>")
        yield ""
    again = [
        f"{role} {row['retries']:.1f} ({policy['name']})"
        for policy in policies
        for role, row in policy["roles"].items()
        if row["retries"]
    ]
    if again:
        yield f"tried again by clients' libraries: {', '.join(again)}"


def _host(policies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = []
    for policy in policies:
        loads = policy["model_loads"]
        listed = ", ".join(f"{model} {count:.1f}" for model, count in loads.items()) or "none"
        seats = f"{policy['seats_held']['value']:.2f} of {policy['seats']}"
        busy = f"{policy['host_busy']['value']:.0f} %"
        shed = f"{policy['shed_s']['value']:.0f} s"
        rows.append([policy["name"], seats, busy, shed, listed])
    yield from table([("policy", "seats held", "host busy", "shedding", "loads"), *rows], "<>>><")


def _gates(policies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        [
            str(gate["gate"]),
            policy["name"],
            f"{row['name']} {row['bound']}",
            "-" if row["limit"] is None else f"{row['holds']} {in_digits(row['limit'])}",
            "-" if row["value"] is None else f"{row['value']:.4g}",
            _verdict(row),
        ]
        for policy in policies
        for gate in policy["gates"]
        for row in gate["objectives"]
    ]
    if rows:
        head = ("gate", "policy", "objective", "bound", "value", "verdict")
        yield from table([head, *sorted(rows, key=_gate_of)], "<<<>><")
    for policy in policies:
        said = ", ".join(f"{gate['gate']} {gate['verdict']}" for gate in policy["gates"])
        yield f"gates of {policy['name']}: {said}"


def _gate_of(row: Sequence[str]) -> tuple[str, str]:
    """The same objective of both policies stands together."""
    return row[0], row[2]


def _verdict(row: Mapping[str, Any]) -> str:
    """With in how many runs it was so, where they differ."""
    runs, verdict = row["runs"], row["verdict"]
    whole = sum(runs.values())
    return verdict if runs[verdict] == whole else f"{verdict} ({runs[verdict]} of {whole})"


def _differences(report: Mapping[str, Any]) -> Iterator[str]:
    before, after = (policy["name"] for policy in report["policies"])
    rows = [
        [
            "*" if gap["told"] else "",
            gap["role"],
            SAID[gap["measure"]],
            f"{gap['before']:.2f} {gap['unit']}",
            f"{gap['after']:.2f} {gap['unit']}",
            _gap(gap),
        ]
        for gap in report["differences"]
        if gap["leads"] and gap["before"] != gap["after"]
    ]
    if not rows:
        return
    yield from table([("", "role", "what", before, after, "difference"), *rows], "<<<>>>")
    yield "with the 95 % interval; * is beyond chance with all of them looked at together"


def _gap(gap: Mapping[str, Any]) -> str:
    if gap["low"] is None:
        return f"{gap['difference']:+.2f}"
    return f"{gap['difference']:+.2f} ± {(gap['high'] - gap['low']) / 2:.2f}"


def _coverage(coverage: Mapping[str, Any]) -> Iterator[str]:
    yield f"replayed: {coverage['calls']:.0f} calls of {coverage['seconds'] / 3600:.2f} h"
    for part, sources in coverage["parts"].items():
        whole = sum(sources.values())
        told = ", ".join(
            f"{100 * count / whole:.0f} % {source}" for source, count in sources.items()
        )
        yield f"  {part}: {told}"
    for why, count in coverage["left_out"].items():
        yield f"  left out: {count} {why}"
