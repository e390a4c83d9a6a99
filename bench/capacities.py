"""How much load each way of running models carries: the last table of docs/scheduling.md.

Every cell is the highest multiple of the workload's own load at which planner P95 stays below 5 s,
fewer than 1 % of planners are lost and fewer than 5 % of every other role; by the figures of a few
runs alone, so that the table can be made in an hour. Its steps are a fifth. Beside it stands what
ends it: the goal that the next load tried misses most, by role and code. All ways meet the
same calls, on the half of the traffic that the search for the advised policy has not seen. Three
seeds say little of a goal that is nearly met: ``--again --first 4 --seeds 6`` measures what is
kept, and what was found, on six others.

``--workload``, ``--card``, ``--slots`` and ``--way`` say which cells; all may be given again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kit import SHIPPED, merged, policy, show, table
from modelsplit_policy.config.parser import parse
from modelsplit_policy.config.problems import PolicyError
from modelsplit_sim import shipped
from modelsplit_sim.replay import azure
from modelsplit_sim.replay.advise import Limits, Search
from modelsplit_sim.replay.capacity import Runner, capacity
from modelsplit_sim.replay.run import Contender
from modelsplit_sim.replay.traffic import DrawnWorkload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.host_shape import HostShape
    from modelsplit_sim.replay.capacity import Capacity, Missed
    from modelsplit_sim.replay.settings import Candidate
    from modelsplit_sim.replay.traffic import Source

ONE: Final = "qwen3:4b"
SEEDS: Final = 3
CALLS: Final = 200
SEARCH_CALLS: Final = 150
STEP: Final = 2 ** (1 / 4)
MOST: Final = 4.0
# With fewer a search tries only some of the changes to one model for several roles, by chance.
RUNS: Final = 200
SLOTS: Final = (1, 2, 4)
CARDS: Final = ("gpu-12gb", "gpu-24gb")
WORKLOADS: Final = ("mission", "burst", "chat-heavy", "swap", "overload", "night")
# By the name on the command line: what stands over the column.
WAYS: Final = {
    "one": "direct, one model",
    "split": "direct, split",
    "document": "document's table",
    "shipped": "shipped",
    "single": "shipped, one model",
    "patient": "shipped, one model, and patience",
    "advised": "advised",
}
# The caps alone, first come first served: nothing reserved, nothing learned, nobody refused early.
_PLAIN: Final = {"reserved": 0, "ageing_ms": 0, "max_hold_ms": None}
DOCUMENT: Final = {
    "global": {"parallel": 6, "forecast": False},
    "roles": dict.fromkeys(("PLANNER", "EXECUTOR", "HEAVY", "CHAT"), _PLAIN),
    "models": {name: {"parallel": 6} for name in ("qwen3:4b", "qwen3:8b", "gemma3:12b")},
}
# Two changes that a search often comes to.
_ALONE: Final = {"primary": ONE, "fallback": None, "fallback_timeout_ms": None}
_LONG: Final = {"max_wait_ms": 20_000, "allow_long_wait": True}
OVERLAYS: Final[dict[str, dict[str, Any]]] = {
    "document": DOCUMENT,
    "single": {"roles": dict.fromkeys(("PLANNER", "EXECUTOR", "HEAVY"), _ALONE)},
    "patient": {
        "roles": {
            "PLANNER": _ALONE,
            "EXECUTOR": _ALONE | {"max_concurrent": 3, "when_late": "start"},
            "HEAVY": _ALONE | _LONG,
        }
    },
}
# Of the public hours every so many-th arrival: a data centre's traffic on one card.
AZURE: Final = {"Azure code": ("planner", 40), "Azure conversation": ("qwen3:8b,executor>300", 120)}


class Key(NamedTuple):
    """One cell's place in the table."""

    workload: str
    card: str
    slots: int
    way: str


class Cell(NamedTuple):
    """One way on one host. ``ends``: the goal that is missed most at the next load, in a word.

    ``ended_by``: every goal missed there, in words. ``change`` and ``overlay``: what is advised, in
    words and as keys of a policy; empty: nothing that was found carries more than the shipped
    policy, whose cell it repeats.
    """

    carried: float
    ends: str
    ended_by: list[str]
    change: list[str]
    overlay: dict[str, Any]
    seconds: float


class Change(NamedTuple):
    """In words, and as keys of a policy."""

    change: list[str]
    overlay: dict[str, Any]


class Effort(NamedTuple):
    """``seeds``: that cells are judged with. ``runs``: of each search."""

    seeds: range
    runs: int


Table = dict[Key, Cell]


def sources(files: Mapping[str, Path | None], own: Policy) -> Iterator[tuple[str, Source]]:
    for name in WORKLOADS:
        yield name, DrawnWorkload(shipped.workload(name).workload)
    for name, (mapping, thin) in AZURE.items():
        path = files[name]
        if path is None:
            continue
        arrivals = azure.read(path.read_text(encoding="utf-8").splitlines())
        file = (arrivals, azure.mapping_of(mapping))
        yield name, azure.AzureTraffic([file], own, thin=thin, spread=0.08)


def contender(way: str) -> Contender:
    """Of every way but the advised one."""
    direct = {"one": ONE, "split": ""}.get(way)
    return Contender(way, policy(OVERLAYS.get(way)), direct)


def cell_of(contender: Contender, host: HostShape, source: Source, seeds: range) -> Cell:
    began = time.process_time()
    _, held = source.halves(CALLS)
    found = carried(contender, host, held, seeds)
    missed = () if found.ended_by is None else found.ended_by.missed
    return Cell(
        found.value,
        ending(missed[0]) if missed else "",
        [in_words(own) for own in missed],
        [],
        {},
        time.process_time() - began,
    )


def advised(own: Cell, source: Source, host: HostShape, effort: Effort) -> Cell:
    """What the search finds, where that carries more than the shipped policy (``own``)."""
    if own.carried >= MOST:
        return own
    began = time.process_time()
    limits = Limits(effort.runs, ("host",), load=MOST, calls=SEARCH_CALLS)
    search = Search(Contender("shipped", policy()), host, source, overlaid, limits)
    best = search.find(own.carried)
    better = None if best is None else changed(change_of(best), source, host, effort.seeds)
    found = own if better is None or better.carried <= own.carried else better
    return found._replace(seconds=time.process_time() - began)


def changed(change: Change, source: Source, host: HostShape, seeds: range) -> Cell:
    """A change on calls that the search has not seen."""
    own = overlaid(change.overlay)
    assert own is not None, "the search tries none that is not allowed"
    found = cell_of(Contender("advised", own), host, source, seeds)
    return found._replace(**change._asdict())


def carried(contender: Contender, host: HostShape, source: Source, seeds: range) -> Capacity:
    runner = Runner(contender, host, source, seeds, by_value=True)
    return capacity(
        lambda load: runner.at(load, Runner.run), MOST, start=0.5, fine=STEP, careful=False
    )


def ending(own: Missed) -> str:
    """A goal in a word or two."""
    return "P95" if own.goal == "planner_p95_s" else str(own.role).lower()


def in_words(own: Missed) -> str:
    if own.goal == "planner_p95_s":
        return f"planner P95 {own.value:.1f} s"
    causes = ", ".join(f"{c.code} {c.reason} {100 * c.share:.1f} %" for c in own.causes)
    return f"{own.role} {100 * own.value:.1f} % lost: {causes}"


def overlaid(overlay: Mapping[str, Any]) -> Policy | None:
    document = json.loads(SHIPPED.read_bytes())
    document.pop("$schema", None)
    try:
        return parse(merged(document, dict(overlay)))
    except PolicyError:
        return None


def change_of(best: Candidate) -> Change:
    words = [
        f"{'.'.join(path).removeprefix('roles.')} {json.dumps(value)}"
        for path, value in best.changes.items()
        if not path[-1].startswith("fallback")
    ]
    return Change(words, best.overlay)


def shown(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.carried >= MOST:
        return f"≥ {MOST:g}"
    value = f"{cell.carried:.2f}" if cell.carried else "none"
    return f"{value} ({cell.ends})" if cell.ends else value


def text(cells: Table) -> str:
    """Three tables: what is carried, what ends it, what is advised."""
    rows = dict.fromkeys((key.workload, key.card, key.slots) for key in cells)
    ways = [way for way in WAYS if any(key.way == way for key in cells)]
    places = ["workload", "card", "`NUM_PARALLEL`"]
    carried_rows = [
        [*place(row), *(shown(cells.get(Key(*row, way))) for way in ways)] for row in rows
    ]
    first = table([*places, *(WAYS[way] for way in ways)], carried_rows)
    ended = [
        [*place(key[:3]), WAYS[key.way], "; ".join(cell.ended_by)]
        for key, cell in cells.items()
        if cell.ended_by
    ]
    second = table([*places, "way", "what ends it"], ended)
    told = [
        [*place(key[:3]), shown(cells.get(key._replace(way="shipped"))), shown(cell), change]
        for key, cell in cells.items()
        if key.way == "advised" and (change := "; ".join(cell.change) or "nothing better found")
    ]
    third = table([*places, "shipped", "advised", "what is changed"], told)
    return f"{first}\n\n{second}\n\n{third}"


def place(row: tuple[str, str, int]) -> list[Any]:
    workload, card, slots = row
    return [workload, card.removeprefix("gpu-"), slots]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What load each way of running models carries.")
    parser.add_argument("--code", type=Path, help="the Azure hour of code: azure-llm-2023-code")
    parser.add_argument("--conversation", type=Path, help="the Azure hour of conversation")
    parser.add_argument(
        "--kept", type=Path, help="cells so far, one JSON a line: goes on from there"
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="measure what is kept anew; of what is advised the changes found, better or not",
    )
    again: dict[str, Any] = {"action": "append"}
    parser.add_argument("--workload", choices=(*WORKLOADS, *AZURE), **again)
    parser.add_argument("--card", choices=CARDS, **again)
    parser.add_argument("--slots", type=int, choices=SLOTS, **again)
    parser.add_argument("--way", choices=WAYS, **again)
    parser.add_argument("--runs", type=int, default=RUNS, help="of each search for what is advised")
    parser.add_argument(
        "--first", type=int, default=1, help="the first seed that cells are judged with"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


def main() -> None:
    given = options()
    files = {"Azure code": given.code, "Azure conversation": given.conversation}
    cells = kept(given.kept)
    effort = Effort(range(given.first, given.first + given.seeds), given.runs)
    by_name = dict(sources(files, policy()))
    for key in wanted(given, by_name):
        if given.again or key not in cells:
            cells[key] = made(key, cells, by_name[key.workload], effort)
            keep(given.kept, key, cells[key])
    asked = {key: cells[key] for key in wanted(given, by_name)}
    fields = [key._asdict() | cell._asdict() for key, cell in asked.items()]
    show({"cells": fields}, text(asked), as_json=given.json)


def made(key: Key, cells: Table, source: Source, effort: Effort) -> Cell:
    host = shipped.host(key.card).with_slots(key.slots)
    if key.way != "advised":
        return cell_of(contender(key.way), host, source, effort.seeds)
    today = cells.get(key._replace(way="shipped"))
    if today is None:
        today = cell_of(contender("shipped"), host, source, effort.seeds)
    found = cells.get(key)
    if found is None:
        return advised(today, source, host, effort)
    if not found.overlay:
        return today
    return changed(Change(found.change, found.overlay), source, host, effort.seeds)


def wanted(given: argparse.Namespace, workloads: Iterable[str]) -> list[Key]:
    """The cells asked for: first all that need no search, row by row."""
    keys = [
        Key(workload, card, slots, way)
        for workload in given.workload or workloads
        for card in given.card or CARDS
        for slots in given.slots or SLOTS
        for way in given.way or WAYS
    ]
    return sorted(keys, key=lambda key: key.way == "advised")


def kept(path: Path | None) -> Table:
    """The cells of a file; of two for the same the later one."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        Key(*(row[name] for name in Key._fields)): Cell(*(row[name] for name in Cell._fields))
        for row in rows
    }


def keep(path: Path | None, key: Key, cell: Cell) -> None:
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(key._asdict() | cell._asdict()) + "\n")


if __name__ == "__main__":
    main()
