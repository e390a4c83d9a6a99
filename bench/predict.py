"""A run under one policy, predicted from the records of a run under another one.

    python bench/predict.py FITTED.jsonl RECORDED.jsonl --policy of-recorded.json

Both are traces of the same traffic before the same machine, at different times. The host's figures
and the calls come from the first alone; what the second recorded is laid beside the prediction.
Then what of the difference is the machine's speed, which nobody could know beforehand, and what
the lengths of answers that the first run never saw to their end: the same with the second run's.
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kit import SHIPPED, options, quantile, show, table, traced
from modelsplit_policy.intervals import student
from modelsplit_proxy.config import policy_file
from modelsplit_sim.replay.fit import fit
from modelsplit_sim.replay.from_trace import RecordedTraffic
from modelsplit_sim.replay.run import Contender, play

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.host_shape import HostShape
    from modelsplit_sim.replay.recorded import Recorded
    from modelsplit_sim.replay.run import Traffic

ROLES = ("PLANNER", "EXECUTOR", "CHAT")
HEAD = ["role", "calls", "lost", "mean s", "", "one run", "P50 s", "", "P95 s", ""]


class Figures(NamedTuple):
    """One role's: seconds of those answered.

    ``span``: of several runs, where the mean of one more lies 19 times in 20.
    """

    calls: float
    lost: float
    mean: float
    p50: float
    p95: float
    span: tuple[float, float] | None = None


def of_calls(calls: Iterable[tuple[str, float | None]]) -> dict[str, Figures]:
    """By role. Each call: its role, and its seconds if it was answered."""
    found = {role: list[float | None]() for role in ROLES}
    for role, seconds in calls:
        if role in found:
            found[role].append(seconds)
    figures = {}
    for role, own in found.items():
        well = [seconds for seconds in own if seconds is not None]
        times = (statistics.fmean(well), quantile(well, 0.5), quantile(well, 0.95))
        figures[role] = Figures(len(own), len(own) - len(well), *times)
    return figures


def recorded(calls: Sequence[Recorded]) -> dict[str, Figures]:
    return of_calls(
        (call.role or "", (call.latency_ms or 0.0) / 1000 if call.ok else None) for call in calls
    )


def predicted(policy: Policy, host: HostShape, drawn: Sequence[Traffic]) -> dict[str, Figures]:
    """The mean over the seeds of each figure."""
    runs = []
    for seed, traffic in enumerate(drawn, 1):
        calls = play(Contender("predicted", policy), host, traffic, seed).calls
        runs.append(
            of_calls((str(call.route.role), call.latency_s if call.ok else None) for call in calls)
        )
    return {role: over_seeds([run[role] for run in runs]) for role in ROLES}


def over_seeds(runs: Sequence[Figures]) -> Figures:
    columns = ((run.calls, run.lost, run.mean, run.p50, run.p95) for run in runs)
    calls, lost, mean, p50, p95 = map(statistics.fmean, zip(*columns, strict=True))
    means = Figures(calls, lost, mean, p50, p95)
    if len(runs) < 2:
        return means
    deviation = statistics.stdev(run.mean for run in runs)
    reach = student(0.95, len(runs) - 1) * deviation * math.sqrt(1 + 1 / len(runs))
    return means._replace(span=(max(0.0, means.mean - reach), means.mean + reach))


def rows(real: dict[str, Figures], ours: dict[str, Figures]) -> list[list[str]]:
    found = []
    for role in ROLES:
        own, other = real[role], ours[role]
        cells = [role, f"{own.calls:.0f}", f"{own.lost:.0f}; {other.lost:.1f}"]
        for name in ("mean", "p50", "p95"):
            was, says = getattr(own, name), getattr(other, name)
            cells += [f"{was:.2f}; {says:.2f}", f"{100 * (says / was - 1):+.0f} %"]
            if name == "mean":
                cells.append("" if other.span is None else "{:.1f} to {:.1f}".format(*other.span))
        found.append(cells)
    return found


def with_lengths(drawn: Iterable[Traffic], calls: Sequence[Recorded]) -> list[Traffic]:
    """The same calls with the lengths that those of the other run had, where they are known."""
    return [
        replace(
            traffic,
            demands=[
                replace(demand, output_tokens=call.output_tokens or demand.output_tokens)
                for demand, call in zip(traffic.demands, calls, strict=True)
            ],
        )
        for traffic in drawn
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="One run predicted from another one's records.")
    parser.add_argument("fitted", type=Path, help="the trace that is known")
    parser.add_argument("recorded", type=Path, help="the trace that is predicted")
    parser.add_argument("--policy", type=Path, default=SHIPPED, help="of the predicted one")
    parser.add_argument("--seeds", type=int, default=20)
    given = options(parser)
    policy = policy_file.load(given.policy).policy
    known, other = traced(given.fitted.read_bytes()), traced(given.recorded.read_bytes())
    host = fit(known).shape
    # How fast the machine was is known there.
    other_host = replace(fit(other).shape, drift=0.0)
    source = RecordedTraffic(known, policy, host)
    drawn = [source.drawn(seed)[0] for seed in range(1, given.seeds + 1)]
    real = recorded(other)
    parts = {"by the first run alone": predicted(policy, host, drawn)}
    parts["with the second run's speeds"] = predicted(policy, other_host, drawn)
    if len(known) == len(other):
        told = with_lengths(drawn, other)
        parts["with its speeds and its lengths"] = predicted(policy, other_host, told)
    text = "\n\n".join(f"{name}:\n\n{table(HEAD, rows(real, own))}" for name, own in parts.items())
    show({"recorded": real, "predicted": parts}, text, as_json=given.json)


if __name__ == "__main__":
    main()
