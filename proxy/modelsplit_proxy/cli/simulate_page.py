"""The report of a simulation as one HTML file: nothing else is needed to read it.

Plots are SVG of our own. The colours hold in light and dark; policies are told apart by line
style as well.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.cli import simulate_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_WIDTH: Final = 640
_HEIGHT: Final = 220
_LEFT: Final = 150
_ROW: Final = 22
_DASHES: Final = ("6 4", "none")
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c1c1e; --faint: #8a8a8e; --line: #d0d0d4;
  --before: #b05a00; --after: #0a62c4; --bad: #b3261e; --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececee; --faint: #9a9aa0;
  --line: #3a3a3e; --before: #ffa64d; --after: #6cb2ff; --bad: #ff8a80; --page: #16161a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.sum { font-size: 1.15rem; } .warn { color: var(--bad); }
svg { max-width: 100%; height: auto; } text { fill: var(--ink); font-size: 12px; }
.faint { fill: var(--faint); } .axis { stroke: var(--line); }
.c0 { stroke: var(--before); } .c1 { stroke: var(--after); }
.f0 { fill: var(--before); } .f1 { fill: var(--after); }
pre { overflow-x: auto; font-size: 12px; line-height: 1.4; }
"""


def page(report: Mapping[str, Any]) -> str:
    """The whole file."""
    return "".join(_parts(report))


def _parts(report: Mapping[str, Any]) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>modelsplit simulate</title><style>{_STYLE}</style></head><body>\n"
    yield "<h1>A policy in virtual time</h1>\n"
    for warning in report["warnings"]:
        yield f'<p class="warn">Warning: {escape(warning)}</p>\n'
    yield f'<p class="sum">{escape(report["summary"])}</p>\n'
    yield from _legend(report["policies"])
    yield "<h2>Latency of answered calls</h2>\n"
    for role in dict.fromkeys(role for policy in report["policies"] for role in policy["roles"]):
        yield from _curves(role, report["policies"])
    if report["differences"]:
        yield "<h2>What changes, with 95 % intervals</h2>\n"
        yield from _forest([gap for gap in report["differences"] if gap["leads"]])
    yield "<h2>All figures</h2>\n<pre>"
    yield escape("\n".join(simulate_text.lines(report)))
    yield "</pre>\n</body></html>\n"


def _legend(policies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f'<svg viewBox="0 0 {_WIDTH} 24" width="{_WIDTH}" height="24" role="img">'
    at = 0
    for number, policy in enumerate(policies):
        kind = _kind(number, policies)
        yield _line(at, 12, at + 32, 12, kind)
        yield f'<text x="{at + 40}" y="16">{escape(policy["name"])}</text>'
        at += 60 + 8 * len(policy["name"])
    yield "</svg>\n"


def _kind(number: int, policies: Sequence[object]) -> int:
    """0: what is compared with; 1: the policy itself."""
    return number if len(policies) > 1 else 1


def _curves(role: str, policies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Which share of the answered calls took at most so long; time by powers of ten."""
    curves = [
        (_kind(number, policies), policy["roles"][role]["latency_curve"])
        for number, policy in enumerate(policies)
        if role in policy["roles"] and policy["roles"][role]["latency_curve"]
    ]
    values = [seconds for _, curve in curves for _, seconds in curve if seconds > 0]
    if not values:
        return
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img">'
    yield f'<text x="0" y="14">{escape(role)}</text>'
    for share in (0.0, 0.5, 0.95):
        y = _y(share)
        yield f'<line class="axis" x1="50" y1="{y:.1f}" x2="{_WIDTH}" y2="{y:.1f}"/>'
        yield f'<text class="faint" x="10" y="{y + 4:.1f}">{100 * share:.0f} %</text>'
    for seconds in _ticks(low, high):
        x = _x(seconds, low, high)
        yield f'<line class="axis" x1="{x:.1f}" y1="24" x2="{x:.1f}" y2="190"/>'
        yield f'<text class="faint" x="{x:.1f}" y="208">{seconds:g} s</text>'
    for kind, curve in curves:
        points = " ".join(
            f"{_x(seconds, low, high):.1f},{_y(share):.1f}"
            for share, seconds in curve
            if seconds > 0
        )
        dash = _DASHES[kind]
        yield f'<polyline class="c{kind}" fill="none" stroke-width="2" stroke-dasharray="{dash}" '
        yield f'points="{points}"/>'
    yield "</svg>\n"


def _ticks(low: float, high: float) -> list[float]:
    ticks = [m * 10.0**power for power in range(-4, 6) for m in (1, 2, 5)]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def _x(seconds: float, low: float, high: float) -> float:
    return 50 + (_WIDTH - 90) * (math.log10(seconds) - low) / (high - low)


def _y(share: float) -> float:
    return 190 - 160 * share


def _forest(gaps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each difference on a scale of its own: the largest reach of its interval."""
    gaps = [gap for gap in gaps if gap["before"] != gap["after"]]
    height = _ROW * len(gaps) + 10
    middle = (_LEFT + _WIDTH - 150) / 2
    yield f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">'
    yield f'<line class="axis" x1="{middle}" y1="0" x2="{middle}" y2="{height}"/>'
    for number, gap in enumerate(gaps):
        yield from _gap(gap, _ROW * number + 14, middle)
    yield "</svg>\n"


def _gap(gap: Mapping[str, Any], y: float, middle: float) -> Iterator[str]:
    value = gap["difference"]
    low, high = (value if gap[side] is None else gap[side] for side in ("low", "high"))
    scale = (middle - _LEFT) / (max(abs(low), abs(high), 1e-9) * 1.05)
    kind = 1 if gap["told"] else 0
    what = f"{gap['role']} {simulate_text.SAID[gap['measure']]}"
    yield f'<text x="0" y="{y + 4}">{escape(what)}</text>'
    yield _line(middle + low * scale, y, middle + high * scale, y, 1)
    yield f'<circle class="f{kind}" cx="{middle + value * scale:.1f}" cy="{y}" r="4"/>'
    told = f"{gap['before']:.2f} → {gap['after']:.2f} {gap['unit']}{' *' if gap['told'] else ''}"
    yield f'<text x="{_WIDTH - 140}" y="{y + 4}">{escape(told)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: int) -> str:
    return (
        f'<line class="c{kind}" stroke-width="2" stroke-dasharray="{_DASHES[kind]}" '
        f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
    )
