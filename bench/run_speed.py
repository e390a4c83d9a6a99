"""Speed: modelsplit beside other proxies, each on one core of its own, in front of one mock.

Builds its load generator and its mock (Go), starts the proxies that this host has, measures
every cell against all of them in turn, round after round, and writes bench/RESULTS.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import machine
from speed import report
from speed.cells import FULL, QUICK, Row
from speed.peers import PEERS, Absent, versions
from speed.stage import DIRECT, load_side, proxy
from speed.watch import Lag, watching

if TYPE_CHECKING:
    from collections.abc import Iterable

    from speed.cells import Bench, Cell, Target

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"


def say(text: str) -> None:
    sys.stderr.write(f"run_speed: {text}\n")


def everyone(
    stack: contextlib.ExitStack, bench: Bench, folder: Path, only: set[str], *, quick: bool
) -> tuple[list[Target], dict[str, str]]:
    """Whoever can be measured, the upstream itself first; and who cannot, with reasons."""
    targets, missing = [], {}
    if not only or DIRECT in only:
        targets.append(bench.direct)
    for peer in PEERS:
        if only and peer.name not in only:
            continue
        if quick and peer.slow and not only:
            missing[peer.name] = "it is slow; a quick run measures it only if it is named"
            continue
        try:
            beside = proxy(bench, peer.name, peer.start, folder / peer.name)
            targets.append(stack.enter_context(beside))
        except Absent as absent:
            missing[peer.name] = str(absent)
            say(f"without {peer.name}: {absent}")
    return targets, missing


def measured(
    bench: Bench, cells: Iterable[Cell], targets: list[Target], rounds: int, tries: int
) -> list[Row]:
    """Every cell against everyone, one after the other, in an order that turns by the round."""
    rows: list[Row] = []
    for turn in range(rounds):
        for cell in cells:
            if cell.once and turn:
                continue
            for index in range(len(targets)):
                target = targets[(index + turn) % len(targets)]
                if target.pid == 0 and cell.mode in {"rest", "crowd", "open", "aborts"}:
                    continue
                rows.append(Row(cell.name, target.name, turn, one(bench, cell, target, tries)))
                report.tell_line(rows[-1], sys.stderr)
    return rows


def one(bench: Bench, cell: Cell, target: Target, tries: int) -> dict[str, Any]:
    if target.admin_port is None:
        return bench.cleanest(cell, target, tries)
    before, by_reading = Lag.before(target.admin_port)
    told = bench.cleanest(cell, target, tries)
    told["lag"] = Lag.read(target.admin_port).since(before).since(by_reading).counts
    return told


def chosen(modes: str, cells: tuple[Cell, ...]) -> list[Cell]:
    """Cells whose name begins with one of the words: streams means streams64 and streams256."""
    words = tuple(filter(None, modes.split(",")))
    found = [cell for cell in cells if not words or cell.name.startswith(words)]
    if not found:
        raise SystemExit(f"run_speed: no such mode; known: {', '.join(c.name for c in cells)}")
    return found


def install() -> None:
    for peer in PEERS:
        if peer.install is not None:
            say(f"installing {peer.name}")
            peer.install()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="short cells, one round, no file")
    parser.add_argument("--rounds", type=int, help="default 3; with --quick 1")
    parser.add_argument("--only", default="", help="direct,modelsplit,nginx,...")
    parser.add_argument(
        "--modes", default="", help="requests,open,streams,unpaced,aborts,crowd,rest"
    )
    parser.add_argument(
        "--install", action="store_true", help="fetch peers into the cache, and end"
    )
    parser.add_argument("--save", type=Path, help="keep what was measured, as JSON")
    parser.add_argument("--render", type=Path, help="measure nothing: tables of what was kept")
    return parser.parse_args()


def run(given: argparse.Namespace) -> report.Run:
    began, host = time.time(), machine()
    only = set(filter(None, given.only.split(",")))
    cells = chosen(given.modes, QUICK if given.quick else FULL)
    rounds = given.rounds or (1 if given.quick else 3)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        bench = stack.enter_context(load_side(folder))
        targets, missing = everyone(stack, bench, folder, only, quick=given.quick)
        stack.enter_context(watching(targets))
        rows = measured(bench, cells, targets, rounds, tries=1 if given.quick else 2)
    return report.Run(
        began=time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(began)),
        took_s=time.time() - began,
        machine=host,
        versions=versions([target.name for target in targets]),
        missing=missing,
        rows=[asdict(row) for row in rows],
    )


def main() -> None:
    given = options()
    if given.install:
        install()
        return
    found = report.Run(**json.loads(given.render.read_text())) if given.render else run(given)
    if given.save:
        given.save.write_text(json.dumps(asdict(found)))
    text = report.text(found)
    partial = given.quick or given.only or given.modes or given.render
    if partial:
        sys.stdout.write(text)
        return
    RESULTS.write_text(text)
    say(f"wrote bench/{RESULTS.name} after {found.took_s:.0f} s")


if __name__ == "__main__":
    main()
