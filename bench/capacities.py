"""How much load each way of running models carries: the last table of docs/scheduling.md.

Every cell is the highest multiple of the workload's own load at which planner P95 stays below 5 s,
fewer than 1 % of planners are lost and fewer than 5 % of every other role; by the figures of a few
runs alone, so that the table can be made in an hour. Its steps are a fifth. All ways meet the
same calls, on the half of the traffic that the search for the advised policy has not seen.
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
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.host_shape import HostShape
    from modelsplit_sim.replay.settings import Candidate
    from modelsplit_sim.replay.traffic import Source

ONE: Final = "qwen3:4b"
SEEDS: Final = 3
CALLS: Final = 200
SEARCH_CALLS: Final = 150
STEP: Final = 2 ** (1 / 4)
MOST: Final = 4.0
RUNS: Final = 40
SLOTS: Final = (1, 2, 4)
WORKLOADS: Final = ("mission", "burst", "chat-heavy", "swap", "overload", "night")
WAYS: Final = ("direct, one model", "direct, split", "document's table", "shipped", "advised")
# The caps alone, first come first served: nothing reserved, nothing learned, nobody refused early.
_PLAIN: Final = {"reserved": 0, "ageing_ms": 0, "max_hold_ms": None}
DOCUMENT: Final = {
    "global": {"parallel": 6, "forecast": False},
    "roles": dict.fromkeys(("PLANNER", "EXECUTOR", "HEAVY", "CHAT"), _PLAIN),
    "models": {name: {"parallel": 6} for name in ("qwen3:4b", "qwen3:8b", "gemma3:12b")},
}
# Of the public hours every so many-th arrival: a data centre's traffic on one card.
AZURE: Final = {"Azure code": ("planner", 40), "Azure conversation": ("qwen3:8b,executor>300", 120)}


class Row(NamedTuple):
    """One workload on one host."""

    workload: str
    host: str
    slots: int
    cells: dict[str, float]
    advice: list[str]
    seconds: float


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


def row(name: str, source: Source, host: HostShape) -> Row:
    began = time.process_time()
    own = policy()
    _, held = source.halves(CALLS)
    found = {
        WAYS[0]: carried(Contender(WAYS[0], own, ONE), host, held),
        WAYS[1]: carried(Contender(WAYS[1], own, ""), host, held),
        WAYS[2]: carried(Contender(WAYS[2], policy(DOCUMENT)), host, held),
        WAYS[3]: carried(Contender(WAYS[3], own), host, held),
    }
    return Row(name, host.name, host.num_parallel, found, [], time.process_time() - began)


def advised(own: Row, source: Source, host: HostShape) -> Row:
    """The row with what the search finds, where that carries more."""
    began = time.process_time()
    shipped_value = own.cells[WAYS[3]]
    limits = Limits(RUNS, ("host",), SEEDS, MOST, calls=SEARCH_CALLS)
    search = Search(Contender("shipped", policy()), host, source, overlaid, limits)
    best = search.find(shipped_value)
    cells, told = {**own.cells, WAYS[4]: shipped_value}, list[str]()
    if best is not None:
        changed = overlaid(best.overlay)
        assert changed is not None
        value = carried(Contender(WAYS[4], changed), host, source.halves(CALLS)[1])
        if value > shipped_value:
            cells, told = {**own.cells, WAYS[4]: value}, changes(best)
    seconds = own.seconds + time.process_time() - began
    return own._replace(cells=cells, advice=told, seconds=seconds)


def carried(contender: Contender, host: HostShape, source: Source) -> float:
    runner = Runner(contender, host, source, range(1, SEEDS + 1), by_value=True)
    found = capacity(
        lambda load: runner.at(load, Runner.run), MOST, start=0.5, fine=STEP, careful=False
    )
    return found.value


def overlaid(overlay: Mapping[str, Any]) -> Policy | None:
    document = json.loads(SHIPPED.read_bytes())
    document.pop("$schema", None)
    try:
        return parse(merged(document, dict(overlay)))
    except PolicyError:
        return None


def changes(best: Candidate) -> list[str]:
    return [
        f"{'.'.join(path).removeprefix('roles.')} {json.dumps(value)}"
        for path, value in best.changes.items()
        if not path[-1].startswith("fallback")
    ]


def cell(value: float | None) -> str:
    if value is None:
        return "="
    return f"≥ {MOST:g}" if value >= MOST else f"{value:.2f}" if value else "none"


def text(rows: list[Row]) -> str:
    head = ["workload", "card", "`NUM_PARALLEL`", *WAYS]
    lines = [
        [r.workload, r.host.removeprefix("gpu-"), r.slots, *(cell(r.cells.get(w)) for w in WAYS)]
        for r in rows
    ]
    told = [[r.workload, r.host.removeprefix("gpu-"), r.slots, "; ".join(r.advice)] for r in rows]
    told = [line for line in told if line[-1]]
    second = table(["workload", "card", "`NUM_PARALLEL`", "advised, beside the shipped"], told)
    return f"{table(head, lines)}\n\n{second}"


def main() -> None:
    parser = argparse.ArgumentParser(description="What load each way of running models carries.")
    parser.add_argument("--code", type=Path, help="the Azure hour of code: azure-llm-2023-code")
    parser.add_argument("--conversation", type=Path, help="the Azure hour of conversation")
    parser.add_argument(
        "--kept", type=Path, help="rows so far, one JSON a line: goes on from there"
    )
    parser.add_argument("--only", help="one workload")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    given = parser.parse_args()
    files = {"Azure code": given.code, "Azure conversation": given.conversation}
    rows = kept(given.kept)
    for again in (False, True):
        for name, source in sources(files, policy()):
            for host in hosts():
                key = name, host.name, host.num_parallel
                if given.only not in (None, name) or (again and WAYS[4] in rows[key].cells):
                    continue
                if again:
                    rows[key] = advised(rows[key], source, host)
                elif key not in rows:
                    rows[key] = row(name, source, host)
                else:
                    continue
                keep(given.kept, rows[key])
    shown = list(rows.values())
    show({"rows": [r._asdict() for r in shown]}, text(shown), as_json=given.json)


def hosts() -> list[HostShape]:
    cards = [shipped.host(name) for name in ("gpu-12gb", "gpu-24gb")]
    return [card.with_slots(slots) for card in cards for slots in SLOTS]


def kept(path: Path | None) -> dict[tuple[str, str, int], Row]:
    """The rows of a file; of two for the same the later one."""
    if path is None or not path.exists():
        return {}
    rows = [Row(**json.loads(line)) for line in path.read_text().splitlines()]
    return {(r.workload, r.host, r.slots): r for r in rows}


def keep(path: Path | None, new: Row) -> None:
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(new._asdict()) + "\n")


if __name__ == "__main__":
    main()
