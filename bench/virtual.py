"""The shipped policy on hosts it is told nothing of, in virtual time, beside what it competes with.

Every way of letting calls in meets the same calls, seed by seed, on the same hosts (``sim``'s
scenario files). The clients are those of the recorded trace: planners leave after 5 s,
executors after 20, heavy calls after 40, chats after 60. Whoever holds calls back refuses
them after the shipped waits of 8, 8, 10 and 10 s. A refused call counts as failed.

    python bench/virtual.py                          seeds 101 to 120, the tables
    python bench/virtual.py --json >before.json      another policy first (PYTHONPATH, --policy)
    python bench/virtual.py --beside before.json     both in one table
    python bench/virtual.py --first 201 --summary    other seeds; only beside the best setting
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kit import mean, merged, options, quantile, show, table
from modelsplit_policy.config.parser import parse
from modelsplit_policy.vocabulary import Role
from modelsplit_sim.host_shape import Neighbour
from modelsplit_sim.replay.line import PlainCaps
from modelsplit_sim.replay.run import Contender, Run, Traffic
from modelsplit_sim.virtual_traffic import Arrival, read_scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.parallelism import Parallelism
    from modelsplit_sim.host_shape import HostShape
    from modelsplit_sim.replay.attempt import CallRun
    from modelsplit_sim.replay.run import Played

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b")
# Whom chats ask, and, with one model, everybody.
CHAT = "qwen3:8b"
# What is loaded from the beginning: each role's model.
LOADED = MODELS[:3]
# Half a core of a machine of two, in turns of some seconds.
NEIGHBOUR = Neighbour(busy_s=4.0, idle_s=4.0, slowdown=2.0)
STATIC = (1, 2, 4, 6)
AFTER = 10
SECONDS = 200.0


class Way(NamedTuple):
    """One way of letting calls in. ``again``: after a restart, with what a run before learned."""

    contender: Contender
    again: bool = False

    @property
    def name(self) -> str:
        return self.contender.name


def hosts() -> dict[str, HostShape]:
    found = {}
    for name in ("fierce", "fair", "roomy", "moderate"):
        shape = read_scenario(name).host
        for parallel in (1, 4):
            found[f"{name}, NUM_PARALLEL {parallel}"] = replace(shape, num_parallel=parallel)
    found["fierce, NUM_PARALLEL 1, neighbour"] = replace(
        read_scenario("fierce").host, neighbour=NEIGHBOUR
    )
    return found


def policy(file: Path, over: dict[str, Any] | None = None) -> Policy:
    document = json.loads(file.read_bytes())
    document.pop("$schema", None)
    return parse(merged(document, over or {}))


def pinned(file: Path, n: int) -> Policy:
    """``n`` calls at once and nothing learned, nothing reserved; order and waits as shipped."""
    models = {model: {"parallel": n} for model in MODELS}
    every = {"max_concurrent": n, "parallel": n, "forecast": False}
    return policy(file, {"global": every, "models": models, "roles": {"PLANNER": {"reserved": 0}}})


def patient(file: Path) -> Policy:
    """One call at a time with longer waits, as it was recorded: a bound to show."""
    waits = {"EXECUTOR": 15_000, "CHAT": 30_000, "HEAVY": 30_000}
    roles: dict[str, Any] = {
        role: {"max_wait_ms": wait_ms, "allow_long_wait": True} for role, wait_ms in waits.items()
    }
    roles["PLANNER"] = {"reserved": 0}
    every = {"max_concurrent": 1, "parallel": 1, "forecast": False}
    models = {model: {"parallel": 1} for model in MODELS}
    return policy(file, {"global": every, "models": models, "roles": roles})


def caps() -> PlainCaps:
    return PlainCaps({Role.PLANNER: 2, Role.EXECUTOR: 5, Role.HEAVY: 1}, 6)


def ways(file: Path, label: str) -> list[Way]:
    own = policy(file)
    names = {1: "one", 2: "two", 4: "four", 6: "six"}
    return [
        Way(Contender(label, own)),
        Way(Contender(f"{label}, after a restart", own), again=True),
        *(Way(Contender(f"{names[n]} at a time", pinned(file, n))) for n in STATIC),
        Way(Contender("one by one, waits of 15 and 30 s: a bound", patient(file))),
        Way(Contender("caps 2 / 5 / 1 / 6, first come first served", own, line=caps)),
        Way(Contender("direct, one model", own, direct=CHAT)),
        Way(Contender("direct, split", own, direct="")),
    ]


def run_of(way: Way, shape: HostShape, seed: int, rate: float = 1.0) -> Run:
    """A run, not yet played."""
    traffic = read_scenario("fierce").traffic
    arrivals = traffic.trace(SECONDS, seed, rate, shape.spread)
    run = Run(way.contender, shape, called(arrivals, CHAT), seed, loaded=LOADED)
    if way.again:
        before = run_of(way._replace(again=False), shape, seed + 1000)
        before.play()
        recall(run, before)
    return run


def called(arrivals: Iterable[Arrival], chat_model: str) -> Traffic:
    return Traffic([arrival.demand(chat_model) for arrival in arrivals])


def recall(run: Run, before: Run) -> None:
    """What the process before has learned is known to this one, a minute later."""
    assert run.proxy is not None
    assert before.proxy is not None
    old = before.proxy.admission.host().parallelism
    new = run.proxy.admission.host().parallelism
    host = old.learned(before.now).aged(60.0)
    if host is not None:
        new.recall(host, 0.0)
    for name, model in old.learned_models().items():
        new.recall_model(name, model)


class Figures(NamedTuple):
    """Of one run, the calls that came after the ``AFTER``-th had ended; ``cold``: of all."""

    planners: int
    failed: int
    refused: int
    planner_p95: float
    executors: int
    executor_failed: int
    executor_p95: float
    others_failed: int
    goodput: float
    seat_s: float
    wasted_s: float
    cold_planners: int
    cold_failed: int


def figures(run: Played) -> tuple[Figures, list[float], list[float]]:
    """The figures of one run, and the latencies of its planners and executors."""
    ended = sorted(call.ended or 0.0 for call in run.calls if call.ok)
    begin = ended[AFTER - 1] if len(ended) >= AFTER else math.inf
    calls = [call for call in run.calls if call.arrived >= begin]
    of = {role: [call for call in calls if call.route.role is role] for role in Role}
    planners, executors = (
        [call.latency_s for call in of[role] if call.ok] for role in (Role.PLANNER, Role.EXECUTOR)
    )
    cold = [call for call in run.calls if call.route.role is Role.PLANNER]
    row = Figures(
        len(of[Role.PLANNER]),
        lost(of[Role.PLANNER]),
        sum(was_refused(call) for call in of[Role.PLANNER]),
        quantile(planners, 0.95),
        len(of[Role.EXECUTOR]),
        lost(of[Role.EXECUTOR]),
        quantile(executors, 0.95),
        lost(of[Role.HEAVY]) + lost(of[Role.CHAT]),
        sum(call.demand.output_tokens for call in calls if call.ok),
        sum(call.busy_s for call in run.calls),
        sum(call.wasted_s for call in run.calls),
        len(cold),
        lost(cold),
    )
    return row, planners, executors


def lost(calls: Iterable[CallRun]) -> int:
    return sum(not call.ok for call in calls)


def was_refused(call: CallRun) -> bool:
    """It failed, and its last attempt had no seat."""
    return call.failure is not None and call.attempts[-1].seated is None


def measured(host: str, shape: HostShape, way: Way, seeds: Sequence[int]) -> dict[str, Any]:
    rows, planners, executors = [], [], []
    for seed in seeds:
        row, first, second = figures(run_of(way, shape, seed).play())
        rows.append(row._asdict())
        planners += first
        executors += second
    return {
        "host": host,
        "way": way.name,
        "rows": rows,
        "planner_p95": quantile(planners, 0.95),
        "executor_p95": quantile(executors, 0.95),
    }


# Tables.


def interval(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean, by Student's t for about twenty values."""
    if len(values) < 2:
        return math.nan
    return 2.09 * statistics.stdev(values) / math.sqrt(len(values))


def spread(values: Sequence[float], digits: int) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{mean(known):.{digits}f} ± {statistics.pstdev(known):.{digits}f}"


def per_100(found: dict[str, Any], what: str, of: str) -> list[float]:
    return [100 * row[what] / row[of] if row[of] else 0.0 for row in found["rows"]]


def line_of(found: dict[str, Any]) -> list[str]:
    rows = found["rows"]
    failed = per_100(found, "failed", "planners")
    refused = sum(row["refused"] for row in rows)
    seat_s = sum(row["seat_s"] for row in rows)
    return [
        found["way"],
        f"{spread(failed, 1)} ({refused})",
        f"{max(row['cold_failed'] for row in rows)}",
        f"{found['planner_p95']:.2f} ({spread([row['planner_p95'] for row in rows], 2)})",
        f"{spread(per_100(found, 'executor_failed', 'executors'), 1)}",
        f"{found['executor_p95']:.2f}",
        str(sum(row["others_failed"] for row in rows)),
        spread([row["goodput"] for row in rows], 0),
        f"{seat_s / len(rows):.0f}",
        f"{100 * sum(row['wasted_s'] for row in rows) / seat_s:.1f}",
    ]


HEAD = [
    "way",
    "planners failed per 100 (of them refused, all seeds)",
    "worst seed, from the start",
    "planner P95 s, pooled (by seed)",
    "executors failed per 100",
    "executor P95 s",
    "others failed",
    "goodput, tokens",
    "seat-seconds",
    "work for clients that left, %",
]


def best_static(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The static setting that loses fewest planners; of equal ones, the quickest."""
    static = [row for row in found if "at a time" in row["way"] or row["way"].startswith("caps")]
    return min(static, key=_loses)


def _loses(found: dict[str, Any]) -> tuple[float, float]:
    return mean(per_100(found, "failed", "planners")), found["planner_p95"]


def paired(one: list[float], other: list[float]) -> str:
    """The mean difference, seed by seed, and its 95 % interval."""
    both = zip(one, other, strict=True)
    gaps = [a - b for a, b in both if not math.isnan(a) and not math.isnan(b)]
    return f"{mean(gaps):+.2f} ± {interval(gaps):.2f}"


def against(found: list[dict[str, Any]], label: str) -> list[str]:
    """One host's line: ours beside the best static setting, seed by seed."""
    ours = next(row for row in found if row["way"] == label)
    best = best_static(found)
    plain = next(row for row in found if row["way"].startswith("caps"))
    cells = []
    for key in ("planner_p95", "executor_p95"):
        gap = paired([row[key] for row in ours["rows"]], [row[key] for row in best["rows"]])
        cells.append(f"{100 * ours[key] / best[key] - 100:+.0f} %; {gap} s")
    goodput = [
        100 * a["goodput"] / b["goodput"] - 100
        for a, b in zip(ours["rows"], best["rows"], strict=True)
    ]
    cold = [per_100(row, "cold_failed", "cold_planners") for row in (ours, plain)]
    return [
        ours["host"],
        ours["way"],
        best["way"],
        paired(*(per_100(row, "failed", "planners") for row in (ours, best))),
        *cells,
        f"{mean(goodput):+.1f} ± {interval(goodput):.1f} %",
        paired(*cold),
        f"{pooled(ours):.2f}; {pooled(best):.2f}",
    ]


def pooled(found: dict[str, Any]) -> float:
    """Planners that failed of 100, from the start, all seeds together."""
    failed: int = sum(row["cold_failed"] for row in found["rows"])
    planners: int = sum(row["cold_planners"] for row in found["rows"])
    return 100 * failed / planners


AGAINST = [
    "host",
    "way",
    "best static setting",
    "planners failed per 100, difference",
    "planner P95: pooled; difference",
    "executor P95: pooled; difference",
    "goodput, difference",
    "from the start, planners failed per 100, beside the caps",
    "from the start, planners failed per 100; by the best static setting",
]


# Learning curves.


def steady(seed: int, calls: int = 120, every_s: float = 0.2) -> list[Arrival]:
    """Executors and chats, more than run one after the other, each a little different."""
    chance = random.Random(seed)
    return [
        Arrival(number * every_s, role, chance.randint(40, 80), 600.0, chance.gauss(1.0, 0.05))
        for number, role in zip(range(calls), itertools.cycle(("EXECUTOR", "CHAT")), strict=False)
    ]


def calls_until(
    own: Policy, shape: HostShape, chat_model: str, seed: int, right: Callable[[Parallelism], bool]
) -> int | None:
    """Finished calls until what is learned is right and stays so; None: it never did."""
    seen: list[bool] = []

    def told(call: CallRun) -> None:
        if call.ok:
            seen.append(right(learned))

    traffic = called(steady(seed), chat_model)
    run = Run(Contender("learning", own), shape, traffic, seed, loaded=LOADED, told=told)
    assert run.proxy is not None
    learned = run.proxy.admission.host().parallelism
    run.play()
    wrong = [number for number, is_right in enumerate(seen, 1) if not is_right]
    return None if wrong and wrong[-1] == len(seen) else (wrong[-1] if wrong else 0) + 1


class Curve(NamedTuple):
    """One thing to learn: on which host, with whose model for chats, and when it is right."""

    name: str
    shape: HostShape
    chat_model: str
    right: Callable[[Parallelism], bool]


def curves() -> list[Curve]:
    base = replace(read_scenario("roomy").host, num_parallel=6)
    found = []
    for slots in (1, 2, 4):
        shape = replace(base, num_parallel=slots, contention=0.05)
        right = partial(_slots_are, slots)
        found.append(Curve(f"NUM_PARALLEL {slots}", shape, MODELS[1], right))
    for contention, least, most in ((0.0, 4, 6), (0.3, 2, 3), (1.0, 1, 1), (2.0, 1, 1)):
        shape = replace(base, contention=contention)
        wanted = f"{least}" if least == most else f"{least} to {most}"
        name = f"contention {contention:g}: {wanted} at once"
        found.append(Curve(name, shape, MODELS[0], partial(_host_is, least, most)))
    return found


def _slots_are(slots: int, learned: Parallelism) -> bool:
    return learned.slots(MODELS[1]) == slots


def _host_is(least: int, most: int, learned: Parallelism) -> bool:
    return least <= learned.host <= most


def learning(own: Policy, seeds: Sequence[int]) -> dict[str, str]:
    """By curve: the calls it took, the median over the seeds, and how often it never was."""
    found = {}
    for curve in curves():
        took = [
            calls_until(own, curve.shape, curve.chat_model, seed, curve.right) for seed in seeds
        ]
        right = sorted(calls for calls in took if calls is not None)
        never = len(took) - len(right)
        middle = f"{statistics.median(right):.0f} ({right[0]} to {right[-1]})" if right else "-"
        found[curve.name] = f"{middle}; never in {never} of {len(took)}" if never else middle
    return found


def hosts_of(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    by_host: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        by_host.setdefault(row["host"], []).append(row)
    return by_host


def summary(found: list[dict[str, Any]]) -> str:
    own = dict.fromkeys(row["way"] for row in found if row["way"].startswith("modelsplit"))
    lines = [against(rows, way) for rows in hosts_of(found).values() for way in own]
    return table(AGAINST, lines)


def text(
    found: list[dict[str, Any]], label: str, learned: dict[str, str], before: dict[str, str]
) -> str:
    parts = ["## Beside the best static setting\n", summary(found)]
    for host, rows in hosts_of(found).items():
        parts.append(f"\n## {host}\n")
        parts.append(table(HEAD, [line_of(row) for row in rows]))
    parts.append("\n## Finished calls until what is learned is right, and stays so\n")
    both = [[name, before.get(name, ""), calls] for name, calls in learned.items()]
    parts.append(table(["what", "before", label], both))
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Policies on virtual hosts, seed by seed.")
    parser.add_argument("--first", type=int, default=101, help="seed")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--policy", type=Path, default=ROOT / "config" / "model-policy.json")
    parser.add_argument("--label", default="modelsplit, as shipped")
    parser.add_argument("--beside", type=Path, help="what --json printed for another policy")
    parser.add_argument("--host", default="", help="only hosts with this in their name")
    parser.add_argument("--summary", action="store_true", help="only beside the best setting")
    given = options(parser)
    seeds = range(given.first, given.first + given.seeds)
    other = json.loads(given.beside.read_bytes()) if given.beside else {}
    found = []
    for host, shape in hosts().items():
        if given.host not in host:
            continue
        found += [
            row
            for row in other.get("found", ())
            if row["host"] == host and row["way"].startswith("modelsplit")
        ]
        found += [measured(host, shape, way, seeds) for way in ways(given.policy, given.label)]
    if given.summary:
        show({"found": found}, summary(found), as_json=given.json)
        return
    learned = learning(policy(given.policy), seeds)
    tables = text(found, given.label, learned, other.get("learned", {}))
    show({"found": found, "learned": learned}, tables, as_json=given.json)


if __name__ == "__main__":
    main()
