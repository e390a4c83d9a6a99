"""Cost that must not grow: with calls in line, records kept, model names seen, calls served.

modelsplit alone, on a core of its own, before the mock of the speed bench. What is compared runs
side by side and is measured in turn, so that ratios are formed within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import machine, quantile, table
from speed.cells import Cell, Row
from speed.figures import Figures, number, show
from speed.host import call, fetch
from speed.peers import modelsplit
from speed.stage import load_side, proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from speed.cells import Bench, Target

RESULTS = Path(__file__).resolve().parent / "RESULTS-growth.md"
WAITING = (0, 10, 100, 1000)
AT_ONCE = 32
NAMES = 400
_LONG_MS = 600_000
_SCRAPES = 50
_COPY_CALL = """
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    INSERT INTO calls ({columns}) SELECT {values} FROM calls AS old, n WHERE old.id = ?
"""
_COPY_ATTEMPTS = """
    INSERT INTO attempts ({columns}) SELECT {values} FROM attempts AS old, calls
    WHERE old.call_id = ? AND calls.id > ?
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of each is measured."""

    rounds: int
    seconds: float
    records: int
    served_s: float


FULL = Size(rounds=3, seconds=3, records=1_000_000, served_s=240)
QUICK = Size(rounds=1, seconds=1, records=50_000, served_s=15)


def say(text: str) -> None:
    sys.stderr.write(f"growth: {text}\n")


def closed(conns: int, seconds: float) -> Cell:
    return Cell("requests", "closed", {"conns": conns, "seconds": seconds})


@dataclass(frozen=True, slots=True)
class Stage:
    bench: Bench
    folder: Path
    size: Size

    def proxy(self, name: str, **policy: Any) -> contextlib.AbstractContextManager[Target]:
        return proxy(self.bench, name, partial(modelsplit, **policy), self.folder / name)

    def in_turn(self, cell: str, subjects: list[tuple[str, Target, Cell]]) -> list[Row]:
        """Each subject in each round, in an order that turns."""
        rows = []
        for turn in range(self.size.rounds):
            for index in range(len(subjects)):
                name, target, load = subjects[(index + turn) % len(subjects)]
                told = self.bench.cleanest(load, target, tries=2)
                rows.append(Row(cell, name, turn, told))
                say(f"{cell}, {name}: {number(told.get('cpu_us_each', 0))} µs a call")
        return rows


def figures(rows: list[Row]) -> Figures:
    return Figures([{name: getattr(row, name) for name in Row.__slots__} for row in rows])


def line(stage: Stage) -> str:
    """Calls that share one line with 0 to 1000 others, beside as many that need no line."""
    seconds = stage.size.seconds
    with (
        stage.proxy("narrow", seats=AT_ONCE, most_wait_ms=_LONG_MS) as narrow,
        stage.proxy("wide", most_wait_ms=_LONG_MS) as wide,
    ):
        subjects = [
            (f"{name} {count}", target, closed(AT_ONCE + count, seconds))
            for count in WAITING
            for name, target in (("narrow", narrow), ("wide", wide))
        ]
        found = figures(stage.in_turn("line", subjects))
    lines = []
    for count in WAITING:
        own = f"narrow {count}"
        lines.append(
            [
                str(count),
                show(found.plain("line", own, "cpu_us_each")),
                show(found.ratio("line", own, "cpu_us_each", "narrow 0")),
                show(found.plain("line", f"wide {count}", "cpu_us_each")),
                show(found.ratio("line", own, "cpu_us_each", f"wide {count}")),
                faults(found, "line", own, f"wide {count}"),
            ]
        )
    head = ["in line", "CPU µs a call", "÷ none in line", "as many, seats for all", "÷ that"]
    return (
        f"{AT_ONCE} seats, always taken, and so many more connections that wait for one, ask again "
        "and wait again.\n\n" + table([*head, "faults"], lines)
    )


def faults(found: Figures, cell: str, *names: str) -> str:
    told = [one for name in names for one in found.told(cell, name)]
    return str(sum(sum((one.get("faults") or {}).values()) for one in told))


def records(stage: Stage) -> str:
    """A call's price, and finding records, with nothing and with a million in the state file."""
    with stage.proxy("full") as target:
        assert target.admin_port is not None
    wanted = stage.size.records
    began = time.monotonic()
    size = multiply(stage.folder / "full" / "state" / "modelsplit.sqlite3", wanted)
    say(f"{wanted} records in {time.monotonic() - began:.0f} s")
    with stage.proxy("empty") as empty, stage.proxy("full") as full:
        load = closed(AT_ONCE, stage.size.seconds)
        both = (("empty", empty), ("full", full))
        found = figures(stage.in_turn("records", [(name, t, load) for name, t in both]))
        cpu = [show(found.plain("records", name, "cpu_us_each")) for name, _ in both]
        rss = [show(found.plain("records", name, "rss_mib")) for name, _ in both]
        lookups = [[finding_ms(target, one) for _, target in both] for one in (False, True)]
        lost = [str(recorder(target)["dropped"]) for _, target in both]
    ratio = show(found.ratio("records", "full", "cpu_us_each", "empty"))
    lines = [
        ["CPU µs a call", *cpu, ratio],
        ["start to first answer, s", number(empty.ready_s), number(full.ready_s), ""],
        ["the last 100 records, ms", *map(number, lookups[0]), ""],
        ["one record by its id, ms", *map(number, lookups[1]), ""],
        ["RSS MiB after the calls", *rss, ""],
        ["state file, MB", "", number(size / 1e6), ""],
        ["records lost", *lost, ""],
    ]
    return table(["", "new file", f"{wanted:,} records", "÷"], lines)


def multiply(path: Path, wanted: int) -> int:
    """Copy the file's last call and its attempts ``wanted`` times; the file's bytes then."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        last, started = db.execute("SELECT id, started_us FROM calls ORDER BY id DESC").fetchone()
        made = {
            "id": "NULL",
            "request_id": "lower(hex(randomblob(16)))",
            # Within the last hour, so that nothing is old enough to be deleted.
            "started_us": f"{started} - 3600000000 + n.i * 3600000000 / {wanted}",
        }
        db.execute(filled(db, _COPY_CALL, "calls", made), (wanted, last))
        made = {"call_id": "calls.id"}
        db.execute(filled(db, _COPY_ATTEMPTS, "attempts", made), (last, last))
    return path.stat().st_size


def filled(db: sqlite3.Connection, text: str, name: str, made: dict[str, str]) -> str:
    """The statement for all columns of a table: those that are made, else copied."""
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({name})")]
    values = [made.get(column, f"old.{column}") for column in columns]
    return text.format(columns=", ".join(columns), values=", ".join(values))


def finding_ms(target: Target, one: bool) -> float:
    """The middle of some look-ups, milliseconds."""
    assert target.admin_port is not None
    path = "/requests?limit=100"
    if one:
        path = f"/requests/{json.loads(fetch(target.admin_port, path))[-1]['request_id']}"
    return quantile([timed(target.admin_port, path)[0] for _ in range(_SCRAPES)], 0.5)


def timed(port: int, path: str) -> tuple[float, int]:
    """Milliseconds and bytes of one page."""
    began = time.perf_counter()
    text = fetch(port, path)
    return (time.perf_counter() - began) * 1000, len(text.encode())


def recorder(target: Target) -> dict[str, Any]:
    assert target.admin_port is not None
    told: dict[str, Any] = json.loads(fetch(target.admin_port, "/stats"))["ledger"]
    return told


def names(stage: Stage) -> str:
    """A call's price, and the pages', after calls of 400 models nobody knows."""
    with stage.proxy("few") as few, stage.proxy("many") as many:
        for count in range(NAMES):
            call(many.port, many.route, f"made-up-{os.urandom(8).hex()}:{count}b")
        load = closed(AT_ONCE, stage.size.seconds)
        both = (("few", few), ("many", many))
        found = figures(stage.in_turn("names", [(name, t, load) for name, t in both]))
        pages = [[page(target, path) for _, target in both] for path in ("/metrics", "/stats")]
        rss = [show(found.plain("names", name, "rss_mib")) for name, _ in both]
    cpu = [show(found.plain("names", name, "cpu_us_each")) for name, _ in both]
    ratio = show(found.ratio("names", "many", "cpu_us_each", "few"))
    lines = [["CPU µs a call", *cpu, ratio], ["RSS MiB after the calls", *rss, ""]]
    for path, costs in zip(("/metrics", "/stats"), pages, strict=True):
        lines.append([f"{path}, bytes", *(f"{cost.size:,}" for cost in costs), ""])
        lines.append([f"{path}, CPU ms", *(number(cost.cpu_ms) for cost in costs), ""])
    return table(["", "one model", f"{NAMES} made-up names", "÷"], lines)


@dataclass(frozen=True, slots=True)
class Page:
    size: int
    cpu_ms: float


def page(target: Target, path: str) -> Page:
    """What one page costs the proxy, of some."""
    assert target.admin_port is not None
    before = spent_s(target.pid)
    sizes = [timed(target.admin_port, path)[1] for _ in range(_SCRAPES)]
    return Page(sizes[-1], (spent_s(target.pid) - before) / _SCRAPES * 1000)


def spent_s(pid: int) -> float:
    """CPU seconds of a process's first thread, which runs the event loop."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def served(stage: Stage) -> str:
    """Memory over as many calls as fit in the time; the first tenth is warming up."""
    slices = 12
    load = closed(AT_ONCE, stage.size.served_s / slices)
    total, points, cpu = 0.0, [], []
    with stage.proxy("served") as target:
        for _ in range(slices):
            told = stage.bench.measure(load, target)
            total += told["requests"]
            points.append((total, told["rss_mib"]))
            cpu.append(told["cpu_us_each"])
            say(f"{total:,.0f} calls, {told['rss_mib']:.1f} MiB, {cpu[-1]:.0f} µs a call")
        lost = recorder(target)["dropped"]
    half = points[slices // 2 :]
    lines = [
        ["calls", f"{total:,.0f}"],
        ["RSS MiB, twelfth by twelfth", " ".join(f"{mib:.1f}" for _, mib in points)],
        ["slope over the second half, MiB per 1M calls", number(slope(half) * 1e6)],
        ["CPU µs a call, twelfth by twelfth", " ".join(f"{value:.0f}" for value in cpu)],
        ["records lost", str(lost)],
    ]
    return table(["", ""], lines)


def slope(points: list[tuple[float, float]]) -> float:
    """Of the straight line through points, by least squares."""
    across = sum(x for x, _ in points) / len(points)
    up = sum(y for _, y in points) / len(points)
    below = sum((x - across) ** 2 for x, _ in points)
    return sum((x - across) * (y - up) for x, y in points) / below if below else 0.0


PARTS: dict[str, tuple[str, Callable[[Stage], str]]] = {
    "line": ("With calls in line", line),
    "records": ("With records in the state file", records),
    "names": ("With model names seen, and what the pages cost", names),
    "served": ("Over many calls", served),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small numbers, printed")
    parser.add_argument("--only", default="", help=f"some of {','.join(PARTS)}")
    given = parser.parse_args()
    chosen = [name for name in PARTS if not given.only or name in given.only.split(",")]
    host, began = machine(), time.time()
    sections = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        bench = stack.enter_context(load_side(Path(folder)))
        stage = Stage(bench, Path(folder), QUICK if given.quick else FULL)
        sections += [f"## {PARTS[name][0]}\n\n{PARTS[name][1](stage)}" for name in chosen]
    when = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(began))
    took = f"{when}, by `bench/growth.py`, in {time.time() - began:.0f} s."
    text = "\n\n".join(("# Cost that must not grow", took, host, *sections)) + "\n"
    if given.quick or given.only:
        sys.stdout.write(text)
    else:
        RESULTS.write_text(text)
        say(f"wrote bench/{RESULTS.name}")


if __name__ == "__main__":
    main()
