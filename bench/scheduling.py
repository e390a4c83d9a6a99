"""When splitting models by role helps: the load that each way of scheduling carries.

Every way meets the same made-up calls on the same virtual hosts. At one load: planner P95,
planners that were not served, and of the role that fares worst of the others the share that
was. Or the load that is carried: the highest at which planners stay below 5 s at the 95th
percentile, at most one in a hundred of them is not served, and 95 of 100 of every other role are.

    python bench/scheduling.py --load 0.5            mission, swap, chat-heavy, burst at half load
    python bench/scheduling.py --seeds 10            the load that is carried
    python bench/scheduling.py --workload mission --azure code.csv=planner --thin 25
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import merged, options, show, table
from modelsplit_policy.config.parser import parse
from modelsplit_sim import shipped
from modelsplit_sim.replay.azure import AzureTraffic, mapping_of, read
from modelsplit_sim.replay.capacity import Runner, capacity
from modelsplit_sim.replay.run import Contender
from modelsplit_sim.replay.traffic import DrawnWorkload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.replay.capacity import Tried
    from modelsplit_sim.replay.traffic import Source

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b")
SMALL = MODELS[0]
WORKLOADS = ("mission", "swap", "chat-heavy", "burst")
HOSTS = ("gpu-12gb", "gpu-24gb")
PARALLEL = (1, 2, 4)


def policy(over: dict[str, Any] | None = None) -> Policy:
    document = json.loads((ROOT / "config" / "model-policy.json").read_bytes())
    document.pop("$schema", None)
    return parse(merged(document, over or {}))


def ways() -> list[Contender]:
    """No proxy with one model and with three; the document's caps alone; ours, both ways."""
    own = policy()
    all_at_once = {"max_concurrent": 6, "parallel": 6, "forecast": False}
    caps = {
        "global": all_at_once,
        "models": {model: {"parallel": 6} for model in MODELS},
        "roles": {"PLANNER": {"reserved": 0}},
    }
    one = {"primary": SMALL, "fallback": None, "fallback_timeout_ms": None}
    roles = dict.fromkeys(("PLANNER", "EXECUTOR", "HEAVY"), one)
    return [
        Contender("direct, one model", own, SMALL),
        Contender("direct, split", own, ""),
        Contender("the document's table", policy(caps)),
        Contender("as shipped", own),
        Contender("as shipped, one model", policy({"roles": roles})),
    ]


def sources(given: argparse.Namespace) -> Iterator[tuple[str, Source]]:
    for name in given.workload or WORKLOADS:
        workload = shipped.workload(name).workload
        seconds = min(workload.seconds, given.hours * 3600)
        yield name, DrawnWorkload(replace(workload, seconds=seconds))
    for text in given.azure or ():
        path, _, mapping = text.partition("=")
        arrivals = read(Path(path).read_text().splitlines())
        yield (
            Path(path).stem,
            AzureTraffic([(arrivals, mapping_of(mapping))], policy(), thin=given.thin, spread=0.08),
        )


def told(
    name: str, source: Source, seeds: Sequence[int], load: float | None
) -> Iterator[dict[str, Any]]:
    for host in HOSTS:
        for parallel in PARALLEL:
            shape = replace(shipped.host(host), num_parallel=parallel)
            for way in ways():
                runner = Runner(way, shape, source, seeds, by_value=True)
                figure = carried(runner) if load is None else said(runner.at(load, Runner.run))
                yield {
                    "traffic": name,
                    "host": host,
                    "num_parallel": parallel,
                    "way": way.name,
                    "figure": figure,
                }


def carried(runner: Runner) -> str:
    found = capacity(lambda load: runner.at(load, Runner.run), careful=False)
    return f"{found.value:.2f}"


def said(found: Tried) -> str:
    p95, lost, others = found.planner_p95_s, found.planner_lost, found.worst
    parts = ["-" if p95 is None else f"{p95.value:.1f} s"]
    parts.append("-" if lost is None else f"{100 * lost.value:.1f} %")
    parts.append("-" if others is None else f"{100 * (1 - others.value):.0f} %")
    return ", ".join(parts)


def text(rows: Sequence[dict[str, Any]]) -> str:
    names = [way.name for way in ways()]
    places = dict.fromkeys((row["traffic"], row["host"], row["num_parallel"]) for row in rows)
    figures = {
        (row["traffic"], row["host"], row["num_parallel"], row["way"]): row["figure"]
        for row in rows
    }
    lines = [[*map(str, place), *(figures[*place, name] for name in names)] for place in places]
    return table(["traffic", "host", "NUM_PARALLEL", *names], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="The load that each way of scheduling carries.")
    parser.add_argument("--workload", action="append", choices=shipped.workloads())
    parser.add_argument("--azure", action="append", metavar="FILE=NAME")
    parser.add_argument("--thin", type=int, default=25)
    parser.add_argument("--hours", type=float, default=2.0, help="of each workload, at most")
    parser.add_argument("--load", type=float, help="at this load; default: the load carried")
    parser.add_argument("--seeds", type=int, default=3)
    given = options(parser)
    seeds = range(1, given.seeds + 1)
    rows = [row for name, source in sources(given) for row in told(name, source, seeds, given.load)]
    show({"told": rows}, text(rows), as_json=given.json)


if __name__ == "__main__":
    main()
