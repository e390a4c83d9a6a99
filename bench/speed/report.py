"""The tables of a run, in Markdown."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from kit import table

from speed.figures import DISTURBED, NOTHING, UNSURE, WIDE, Figures, number, show
from speed.watch import Lag

if TYPE_CHECKING:
    from collections.abc import Callable

    from speed.cells import Row

OURS, BASE, DIRECT = "modelsplit", "nginx", "direct"
_STREAMS = ("streams64", "streams256")
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
    names = ("per_s", "cpu_us_each", "latency_p50_us", "direct_p50_us", "delay_p50_us")
    names += (
        "delay_p99_us",
        "first_p50_us",
        "cpu_s_per_1m",
        "mb_per_s",
        "rss_mib",
        "foreign_cores",
    )
    told = " ".join(f"{name}={number(row.told[name])}" for name in names if name in row.told)
    faults = f" faults={row.told['faults']}" if row.told.get("faults") else ""
    out.write(f"  {row.round + 1} {row.cell:10} {row.target:10} {told}{faults}\n")
    out.flush()


def text(run: Run) -> str:
    figures = Figures(run.rows)
    names = list(dict.fromkeys(row["target"] for row in run.rows))
    sections = [
        "# Speed: what was measured",
        f"{run.began}, by `bench/run_speed.py`, in {run.took_s:.0f} s.",
        _machine(run),
        _READING,
        "## Requests\n\n" + _requests(figures, names),
        "## Streams of 50 tokens a second\n\n" + _streams(figures, names),
        "## Memory, rest, and clients that leave\n\n" + _rest(figures, names),
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


def _rows(
    names: list[str], columns: list[tuple[str, Callable[[str], str]]], *, skip: str = ""
) -> str:
    """A table with a proxy a line; lines and columns of which nothing is known are left out."""
    filled = {name: [column(name) for _, column in columns] for name in names if name != skip}
    filled = {name: line for name, line in filled.items() if set(line) != {NOTHING}}
    if not filled:
        return "Not measured."
    return table(["proxy", *(title for title, _ in columns)], [[n, *c] for n, c in filled.items()])


def _requests(f: Figures, names: list[str]) -> str:
    columns: list[tuple[str, Callable[[str], str]]] = [
        ("requests/s, 32 at once", lambda n: show(f.plain("requests", n, "per_s"))),
        ("÷ nginx", lambda n: show(f.ratio("requests", n, "per_s", BASE))),
        ("CPU µs a request", lambda n: show(f.plain("requests", n, "cpu_us_each"))),
        ("÷ nginx", lambda n: show(f.ratio("requests", n, "cpu_us_each", BASE))),
        ("p50 µs", lambda n: show(f.plain("requests", n, "latency_p50_us"))),
        ("50/s: added p50 µs", lambda n: show(_open(f, n, "p50"))),
        ("added p99 µs", lambda n: show(_open(f, n, "p99"))),
    ]
    return _rows(names, columns) + (
        "\n\nWhole answers of 656 bytes. The fast ones are bounded by the load side at 32 at once: "
        "compare CPU. Added: against direct calls in the same seconds."
    )


def _open(f: Figures, name: str, share: str) -> Any:
    return f.beside("open", name, f"latency_{share}_us", f"direct_{share}_us")


def _streams(f: Figures, names: list[str]) -> str:
    columns: list[tuple[str, Callable[[str], str]]] = []
    for cell in _STREAMS:
        count = cell.removeprefix("streams")
        columns += [
            (f"delay p50 µs @{count}", lambda n, c=cell: show(f.plain(c, n, "delay_p50_us"))),
            ("p99", lambda n, c=cell: show(f.plain(c, n, "delay_p99_us"))),
            ("first token added p50 µs", lambda n, c=cell: show(_first(f, c, n))),
            ("CPU-s per 1M tokens", lambda n, c=cell: show(f.plain(c, n, "cpu_s_per_1m"))),
            ("÷ nginx", lambda n, c=cell: show(f.ratio(c, n, "cpu_s_per_1m", BASE))),
        ]
    unpaced: list[tuple[str, Callable[[str], str]]] = [
        ("tokens/s", lambda n: show(f.plain("unpaced", n, "tokens_per_s"))),
        ("÷ nginx", lambda n: show(f.ratio("unpaced", n, "tokens_per_s", BASE))),
        ("MB/s", lambda n: show(f.plain("unpaced", n, "mb_per_s"))),
        ("CPU-s per 1M tokens", lambda n: show(f.plain("unpaced", n, "cpu_s_per_1m"))),
    ]
    return (
        f"{_rows(names, columns)}\n\n"
        "Delay: from the mock's write of a token to the client's read of it. First token added: "
        "against direct streams of the same round.\n\n"
        "### As fast as they go, 16 at once\n\n"
        f"{_rows(names, unpaced)}"
    )


def _first(f: Figures, cell: str, name: str) -> Any:
    return None if name == DIRECT else f.added(cell, name, "first_p50_us", DIRECT)


def _rest(f: Figures, names: list[str]) -> str:
    def gone(name: str, phase: str) -> str:
        told = f.told("aborts", name)
        if not told:
            return NOTHING
        never = sum(one[f"never_{phase}"] for one in told)
        found = f.plain("aborts", name, f"gone_{phase}_p50_us")
        if found is None:
            return "**never**"
        return f"{found.times(1e-3)}" + (f" (never: {never})" if never else "")

    columns: list[tuple[str, Callable[[str], str]]] = [
        ("RSS MiB fresh", lambda n: show(f.plain("rest", n, "rss_mib"))),
        ("500 idle connections", lambda n: show(f.plain("crowd", n, "rss_idle_mib"))),
        ("500 slow streams", lambda n: show(f.plain("crowd", n, "rss_slow_mib"))),
        ("CPU ms/s at rest", lambda n: show(_at_rest(f, n))),
        ("upstream sees it, ms: mid-stream", lambda n: gone(n, "stream")),
        ("before the first byte", lambda n: gone(n, "prefill")),
        ("not streamed", lambda n: gone(n, "whole")),
    ]
    return _rows(names, columns, skip=DIRECT)


def _at_rest(f: Figures, name: str) -> Any:
    spent, span = f.plain("rest", name, "cpu_s"), f.plain("rest", name, "seconds")
    return None if spent is None or span is None else spent.times(1000 / span.value)


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
    def value(figure: Any, factor: float = 1.0) -> float:
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
