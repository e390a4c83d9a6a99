"""The tables of a run, in Markdown."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from kit import table
from speed.figures import DISTURBED, NOTHING, UNSURE, WIDE, Figure, Figures, number, show
from speed.peers import PEERS
from speed.watch import Lag

if TYPE_CHECKING:
    from speed.cells import Row

OURS, BASE, DIRECT = "modelsplit", "nginx", "direct"
_STREAMS = ("streams64", "streams256")
_TELLING = (
    *("per_s", "cpu_us_each", "latency_p50_us", "direct_p50_us", "delay_p50_us", "delay_p99_us"),
    *("first_p50_us", "cpu_s_per_1m", "mb_per_s", "rss_mib", "waited_s", "foreign_cores"),
)
_READING = f"""\
Mock and load generator share one core, the proxy under test has the other to itself, with one
worker. Figures are medians over the rounds; ratios and differences are formed within a round.
{UNSURE}: the rounds lie more than ±{WIDE:.0%} apart. {DISTURBED}: others were at work on the two
cores. modelsplit has everything on: roles, admission, tags, a log line and a record for each call,
metrics, and its statistics asked for once a second; the others log nothing. direct is the mock
without a proxy."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is kept of a run; ``rows`` as dictionaries, so that it goes through JSON."""

    began: str
    took_s: float
    machine: str
    versions: dict[str, str]
    missing: dict[str, str]
    rows: list[dict[str, Any]]


def tell_line(row: Row, out: TextIO) -> None:
    """One row while it runs: the figures that say whether all is well."""
    told = " ".join(f"{name}={number(row.told[name])}" for name in _TELLING if name in row.told)
    faults = f" faults={row.told['faults']}" if row.told.get("faults") else ""
    out.write(f"  {row.round + 1} {row.cell:10} {row.target:10} {told}{faults}\n")
    out.flush()


def text(run: Run) -> str:
    figures = Figures(run.rows)
    seen = {row["target"] for row in run.rows}
    names = [name for name in (DIRECT, *(peer.name for peer in PEERS)) if name in seen]
    sections = [
        "# Speed: what was measured",
        f"{run.began}, by `bench/run_speed.py`, in {run.took_s:.0f} s.",
        _machine(run),
        _READING,
        "## Requests\n\n" + _requests(figures, names),
        "## Streams of 50 tokens a second\n\n" + _streams(figures, names),
        "## Streams as fast as they go, 16 at once\n\n" + _unpaced(figures, names),
        "## Memory and rest\n\n" + _rest(figures, names),
        "## Clients that leave\n\n" + _aborts(figures, names),
    ]
    if OURS in names:
        sections.append("## Lag of modelsplit's event loop\n\n" + _lag(figures, run.rows))
        sections.append("## Against the goals\n\n" + _goals(figures))
    sections.append("## Noise of the machine itself\n\n" + _noise(figures))
    sections.append("## What went wrong\n\n" + _faults(run.rows))
    return "\n\n".join(sections) + "\n"


def _machine(run: Run) -> str:
    versions = [f"- {name}: {version}" for name, version in run.versions.items()]
    missing = [f"- without {name}: {reason}" for name, reason in run.missing.items()]
    return "\n".join((run.machine, *versions, *missing))


def _table(head: list[str], lines: dict[str, list[str]]) -> str:
    """A proxy a line; those of which nothing is known are left out."""
    known = [[name, *line] for name, line in lines.items() if set(line) != {NOTHING}]
    return table(["proxy", *head], known) if known else "Not measured."


def _requests(f: Figures, names: list[str]) -> str:
    head = [
        *("requests/s, 32 at once", "÷ nginx", "CPU µs a request", "÷ nginx", "p50 µs"),
        *("50/s: added p50 µs", "added p99 µs"),
    ]
    lines = {
        name: [
            show(f.plain("requests", name, "per_s")),
            show(f.ratio("requests", name, "per_s", BASE)),
            show(f.plain("requests", name, "cpu_us_each")),
            show(f.ratio("requests", name, "cpu_us_each", BASE)),
            show(f.plain("requests", name, "latency_p50_us")),
            show(_open(f, name, "p50")),
            show(_open(f, name, "p99")),
        ]
        for name in names
    }
    return _table(head, lines) + (
        "\n\nWhole answers of 656 bytes. The fast ones are bounded by the load side at 32 at once: "
        "compare CPU. Added: against direct calls in the same seconds."
    )


def _open(f: Figures, name: str, share: str) -> Figure | None:
    return f.beside("open", name, f"latency_{share}_us", f"direct_{share}_us")


def _paced(f: Figures, cell: str, name: str) -> list[str]:
    return [
        show(f.plain(cell, name, "delay_p50_us")),
        show(f.plain(cell, name, "delay_p99_us")),
        show(_first(f, cell, name)),
        show(f.plain(cell, name, "cpu_s_per_1m")),
        show(f.ratio(cell, name, "cpu_s_per_1m", BASE)),
    ]


def _first(f: Figures, cell: str, name: str) -> Figure | None:
    return None if name == DIRECT else f.added(cell, name, "first_p50_us", DIRECT)


def _streams(f: Figures, names: list[str]) -> str:
    head = ["delay p50 µs", "p99", "first token added p50 µs", "CPU-s per 1M tokens", "÷ nginx"]
    parts = [
        f"### {cell.removeprefix('streams')} at once\n\n"
        + _table(head, {name: _paced(f, cell, name) for name in names})
        for cell in _STREAMS
    ]
    parts.append(
        "Delay: from the mock's write of a token to the client's read of it. First token added: "
        "against direct streams of the same round."
    )
    return "\n\n".join(parts)


def _unpaced(f: Figures, names: list[str]) -> str:
    lines = {
        name: [
            show(f.plain("unpaced", name, "tokens_per_s")),
            show(f.ratio("unpaced", name, "tokens_per_s", BASE)),
            show(f.plain("unpaced", name, "mb_per_s")),
            show(f.plain("unpaced", name, "cpu_s_per_1m")),
        ]
        for name in names
    }
    return _table(["tokens/s", "÷ nginx", "MB/s", "CPU-s per 1M tokens"], lines)


def _rest(f: Figures, names: list[str]) -> str:
    head = ["RSS MiB fresh", "500 idle connections", "500 slow streams", "CPU ms/s at rest"]
    lines = {
        name: [
            show(f.plain("rest", name, "rss_mib")),
            show(f.plain("crowd", name, "rss_idle_mib")),
            show(f.plain("crowd", name, "rss_slow_mib")),
            show(f.plain("rest", name, "cpu_ms_per_s")),
        ]
        for name in names
    }
    return _table(head, lines)


def _aborts(f: Figures, names: list[str]) -> str:
    phases = ("stream", "prefill", "whole")
    lines = {name: [_gone(f, name, phase) for phase in phases] for name in names}
    return _table(["mid-stream, ms", "before the first byte, ms", "not streamed, ms"], lines) + (
        "\n\nFrom the client's leaving to the upstream's seeing it, p50. Never: the upstream made "
        "the whole answer."
    )


def _gone(f: Figures, name: str, phase: str) -> str:
    told = f.told("aborts", name)
    if not told:
        return NOTHING
    never = sum(one[f"never_{phase}"] for one in told)
    found = f.plain("aborts", name, f"gone_{phase}_p50_us")
    if found is None:
        return "**never**"
    return f"{found.times(1e-3)}" + (f" (never: {never})" if never else "")


def _lags(f: Figures, cell: str) -> Lag:
    """The ticks of all rounds of a cell."""
    whole: Counter[str] = Counter()
    for told in f.told(cell, OURS):
        whole.update(told.get("lag", {}))
    return Lag(dict(whole))


def _lag(f: Figures, rows: list[dict[str, Any]]) -> str:
    lines = []
    for cell in dict.fromkeys(row["cell"] for row in rows):
        lag = _lags(f, cell)
        ticks = lag.counts.get("+Inf", 0.0)
        if ticks:
            bounds = (f"{number(lag.bound_ms(share))}" for share in (0.5, 0.99, 1.0))
            lines.append([cell, f"{ticks:.0f}", *bounds])
    head = ["during", "ticks of 100 ms", "p50 ≤ ms", "p99 ≤ ms", "max ≤ ms"]
    return table(head, lines) if lines else "Not measured."


@dataclass(frozen=True, slots=True)
class Goal:
    """``most``: the highest figure that meets it; nan figures were not measured."""

    name: str
    found: float
    most: float
    unit: str = ""

    def line(self) -> list[str]:
        if math.isnan(self.found):
            return [self.name, f"≤ {number(self.most)}{self.unit}", NOTHING, NOTHING]
        met = "yes" if self.found <= self.most else "no"
        return [
            self.name,
            f"≤ {number(self.most)}{self.unit}",
            f"{number(self.found)}{self.unit}",
            met,
        ]


def _goals(f: Figures) -> str:
    def value(figure: Figure | None, factor: float = 1.0) -> float:
        return float("nan") if figure is None else figure.value * factor

    def gone(phase: str) -> float:
        never = sum(told[f"never_{phase}"] for told in f.told("aborts", OURS))
        found = value(f.plain("aborts", OURS, f"gone_{phase}_p50_us"), 1e-3)
        return float("inf") if never else found

    goals = [
        Goal("cancel, mid-stream, p50", gone("stream"), 2, " ms"),
        Goal("cancel, before the first byte, p50", gone("prefill"), 2, " ms"),
        Goal("cancel, not streamed, p50", gone("whole"), 2, " ms"),
        Goal(
            "token delay p50 @64, more than nginx",
            value(f.added("streams64", OURS, "delay_p50_us", BASE), 1e-3),
            0.05,
            " ms",
        ),
        Goal("first token added p50 @64", value(_first(f, "streams64", OURS), 1e-3), 0.6, " ms"),
        Goal("loop lag p99 @256 (bucket)", _lags(f, "streams256").bound_ms(0.99), 5, " ms"),
        Goal(
            "CPU a token @64 ÷ nginx", value(f.ratio("streams64", OURS, "cpu_s_per_1m", BASE)), 1.3
        ),
        Goal(
            "CPU a token @256 ÷ nginx",
            value(f.ratio("streams256", OURS, "cpu_s_per_1m", BASE)),
            1.3,
        ),
        Goal("RSS fresh", value(f.plain("rest", OURS, "rss_mib")), 60, " MiB"),
        Goal(
            "RSS with 500 slow streams", value(f.plain("crowd", OURS, "rss_slow_mib")), 75, " MiB"
        ),
        Goal(
            "50/s: added p50, more than nginx's",
            (value(_open(f, OURS, "p50")) - value(_open(f, BASE, "p50"))) * 1e-3,
            0.3,
            " ms",
        ),
        Goal("CPU a request ÷ nginx", value(f.ratio("requests", OURS, "cpu_us_each", BASE)), 2.9),
        Goal(
            "requests/s: Envoy ÷ modelsplit",
            value(f.ratio("requests", "envoy", "per_s", OURS)),
            1.0,
        ),
    ]
    return table(["quantity", "goal", "found", "met"], [goal.line() for goal in goals])


def _noise(f: Figures) -> str:
    watched = (
        ("direct, requests/s, 32 at once", f.plain("requests", DIRECT, "per_s")),
        ("direct, token delay p50 µs @64", f.plain("streams64", DIRECT, "delay_p50_us")),
        ("direct, token delay p50 µs @256", f.plain("streams256", DIRECT, "delay_p50_us")),
        ("nginx, CPU µs a request", f.plain("requests", BASE, "cpu_us_each")),
        ("nginx, CPU-s per 1M tokens @64", f.plain("streams64", BASE, "cpu_s_per_1m")),
    )
    lines = [
        [name, " ".join(map(number, figure.rounds)), f"±{figure.half_spread:.0%}"]
        for name, figure in watched
        if figure is not None
    ]
    return table(["", "round by round", "half-spread"], lines) if lines else "Not measured."


def _faults(rows: list[dict[str, Any]]) -> str:
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        for words, count in (row["told"].get("faults") or {}).items():
            counts[row["cell"], row["target"], words] += count
    lines = [[cell, name, words, count] for (cell, name, words), count in counts.items()]
    return table(["during", "proxy", "what", "times"], lines) if lines else "Nothing."
