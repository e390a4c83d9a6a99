"""A scenario in real time, ten times over, beside the same calls in virtual time.

    python bench/real_time.py moderate        ten runs of 150 s, five side by side, after 60 s
    python bench/real_time.py fierce --runs 1 --seconds 60

The stand-in Ollama plays the scenario's host, the proxy in front of it has the shipped policy, both
are processes of their own, and the clients are the trace's. What is compared is what the proxy
records. How long a token and a call's way take in virtual time, and how late clients send, is taken
from runs with other calls, on the same machine; the lateness of each call is another draw in each
run. All clients are of one process, whose loop wakes them in their order: so do they send, however
late.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from kit import machine, options, policy, quantile, show, table, traced
from modelsplit_sim.replay.fit import fit
from modelsplit_sim.replay.fit_samples import evidence
from modelsplit_sim.replay.records import recorded
from modelsplit_sim.replay.run import Contender, Run, Traffic
from modelsplit_sim.virtual_traffic import read_scenario
from support.process import ollama, serving
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from modelsplit_sim.host_shape import HostShape
    from modelsplit_sim.replay.recorded import Recorded
    from modelsplit_sim.virtual_traffic import Arrival
    from support.process import Process

CHAT = "qwen3:8b"
MODELS = ("qwen3:4b", CHAT, "gemma3:12b")
# Quantiles agree within this, relative, or within so many seconds.
WITHIN = 0.09
NEAR_S = 0.02
_EVERY = 10_000


@dataclass(slots=True)
class Seen:
    """One run. ``late_s``: by how much each call was sent later than it should have been."""

    calls: list[Recorded]
    late_s: list[float]
    lag_ms: float = 0.0


async def call(port: int, arrival: Arrival, began: float, prompt: str = "go", **more: Any) -> float:
    """Send it at its moment; how late that was. ``more``: options beside ``num_predict``."""
    await asyncio.sleep(max(0.0, began + arrival.at - time.monotonic()))
    late_s = time.monotonic() - began - arrival.at
    model = CHAT if arrival.role == "CHAT" else arrival.role.lower()
    body: dict[str, Any] = {"model": model, "prompt": prompt, "stream": False}
    body["options"] = {"num_predict": arrival.tokens, **more}
    client = Client(port)
    try:
        async with asyncio.timeout(arrival.patience_s):
            await client.request("POST", "/api/generate", body)
    except TimeoutError:
        client.reset()
    finally:
        await client.close()
    return late_s


async def real(host: HostShape, arrivals: Sequence[Arrival], gate: asyncio.Semaphore) -> Seen:
    with tempfile.TemporaryDirectory() as state:
        async with (
            gate,
            ollama(*standing_in(host)) as (upstream, _),
            serving(upstream, Path(state)) as process,
        ):
            for model in MODELS:
                async with Client(upstream) as client:
                    await client.request("POST", "/api/generate", {"model": model})
            began = time.monotonic()
            late_s = await asyncio.gather(
                *(call(process.port, arrival, began) for arrival in arrivals)
            )
            async with process.admin() as admin:
                stats = (await admin.request("GET", "/stats")).json
            calls = traced(await written(process, len(arrivals)))
    return Seen(calls, late_s, stats["event_loop_lag_p99_ms"])


def standing_in(host: HostShape) -> Iterator[str]:
    """The host as options of the stand-in; prompts take no time."""
    yield from ("--shared-compute", "--token-rate", str(1000 / host.ms_per_token))
    yield from ("--contention", str(host.contention), "--free", str(host.free))
    yield from ("--num-parallel", str(host.num_parallel), "--max-loaded", str(host.max_loaded))
    for model in MODELS:
        yield from ("--model", model)


async def written(process: Process, count: int) -> bytes:
    """What the proxy recorded, as a trace, once all of it is on disk."""
    while True:
        async with process.admin() as admin:
            answer = await admin.request("GET", f"/requests?format=trace&limit={_EVERY}")
        if len(answer.body.splitlines()) >= count:
            return answer.body
        await asyncio.sleep(0.2)


def fitted(host: HostShape, runs: Sequence[Seen]) -> HostShape:
    """The host with the times that its calls took in fact, by those that were alone.

    A line through them: what each call takes besides, a timer that is late for one, is no matter
    of its tokens.
    """
    samples = [sample for run in runs for sample in evidence(run.calls).samples]
    alone = [each for each in samples if each.is_alone and each.rest_ms is not None]
    token_ms, call_ms = statistics.linear_regression(
        [each.tokens for each in alone], [each.span_ms + (each.rest_ms or 0.0) for each in alone]
    )
    spread = statistics.fmean(fit(run.calls).shape.spread for run in runs)
    return replace(host, ms_per_token=token_ms, prompt_ms=max(0.0, call_ms), spread=spread)


def virtual(
    host: HostShape, arrivals: Sequence[Arrival], late_s: Sequence[float], seed: int
) -> list[Recorded]:
    chance = random.Random(seed)
    sent = itertools.accumulate((arrival.at + chance.choice(late_s) for arrival in arrivals), max)
    demands = [
        replace(arrival.demand(CHAT), at=at, pace=max(0.5, chance.gauss(1.0, host.spread)))
        for arrival, at in zip(arrivals, sent, strict=True)
    ]
    run = Run(Contender("virtual", policy()), host, Traffic(demands), seed, loaded=MODELS)
    return recorded(run.play())


# What is compared.


def fate(call: Recorded) -> str:
    return "left" if call.left else "ok" if call.ok else f"{call.outcome} {call.reason}"


def wait_s(call: Recorded) -> float:
    """In line and inside Ollama together."""
    waited = 0.0
    for attempt in call.attempts:
        until = attempt.ended_ms if attempt.seated_ms is None else attempt.seated_ms
        waited += (until or 0.0) - (attempt.asked_ms or 0.0)
    return (waited + (call.attempts[-1].upstream_wait_ms or 0.0)) / 1000


def counts(runs: Sequence[Sequence[Recorded]]) -> dict[tuple[str, str], list[int]]:
    """By role and fate: how often in each run."""
    each = [Counter((call.role or "", fate(call)) for call in run) for run in runs]
    return {key: [own[key] for own in each] for key in sorted({key for own in each for key in own})}


def quantiles(runs: Sequence[Sequence[Recorded]]) -> dict[tuple[str, str], list[float]]:
    """By role and figure: of each run."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for role in sorted({call.role or "" for call in run}):
            well = [call for call in run if call.role == role and call.ok]
            for name, values in (
                ("latency", [(call.latency_ms or 0.0) / 1000 for call in well]),
                ("wait", [wait_s(call) for call in well]),
            ):
                for share in (0.5, 0.95):
                    key = role, f"{name} P{100 * share:.0f}"
                    found.setdefault(key, []).append(quantile(values, share))
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where one more run of the kind lies, 19 times in 20."""
    middle = statistics.fmean(values)
    if len(values) < 2:
        return middle, middle
    reach = 2.26 * statistics.stdev(values) * math.sqrt(1 + 1 / len(values))
    return middle - reach, middle + reach


def outcomes(
    seen: Sequence[Sequence[Recorded]], ours: Sequence[Sequence[Recorded]]
) -> list[list[str]]:
    real_counts, our_counts = counts(seen), counts(ours)
    found = []
    for role, what in sorted({*real_counts, *our_counts}):
        own = real_counts.get((role, what), [0] * len(seen))
        other = statistics.fmean(our_counts.get((role, what), [0]))
        low, high = interval(own)
        agrees = low - 0.5 <= other <= high + 0.5
        span = f"{max(0.0, low):.1f} to {high:.1f}"
        row = [role, what, f"{statistics.fmean(own):.1f}", span, f"{other:.1f}"]
        found.append([*row, "yes" if agrees else "**no**"])
    return found


def times(
    seen: Sequence[Sequence[Recorded]], ours: Sequence[Sequence[Recorded]]
) -> list[list[str]]:
    our_times = quantiles(ours)
    found = []
    for (role, name), values in sorted(quantiles(seen).items()):
        own, other = statistics.fmean(values), statistics.fmean(our_times[role, name])
        agrees = abs(other - own) <= max(NEAR_S, WITHIN * own)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        apart = f"{100 * (other / own - 1):+.1f} %" if own > NEAR_S else f"{other - own:+.3f} s"
        row = [role, name, f"{own:.3f} ± {spread:.3f}", f"{other:.3f}", apart]
        found.append([*row, "yes" if agrees else "**no**"])
    return found


def text(
    given: argparse.Namespace, host: HostShape, seen: Sequence[Seen], ours: list[list[Recorded]]
) -> str:
    calls = [run.calls for run in seen]
    late_ms = [1000 * late_s for run in seen for late_s in run.late_s]
    middle, most = quantile(late_ms, 0.5), quantile(late_ms, 0.99)
    late = f"Calls were sent {middle:.1f} ms late (P99 {most:.1f}, at most {max(late_ms):.0f}); "
    lag_ms = max(run.lag_ms for run in seen)
    late += f"the proxies' event loops lagged by {lag_ms:.1f} ms at most (P99 of the last minute)."
    what = (
        f"`{given.scenario}`, seed {given.seed}, {given.seconds:g} s at {given.rate:g} times its "
        f"rate: {len(calls[0])} calls; {len(seen)} runs in real time, {given.together} side by side"
    )
    on = (
        f"{len(ours)} in virtual time, on a host of {host.ms_per_token:.2f} ms a token and "
        f"{host.prompt_ms:.1f} ms for a call's way"
    )
    parts = [
        f"{what}; {on}.",
        late,
        table(["role", "became", "real", "95 %", "virtual", "agrees"], outcomes(calls, ours)),
        table(["role", "seconds", "real", "virtual", "apart", "agrees"], times(calls, ours)),
    ]
    return "\n\n".join(parts)


async def every(
    host: HostShape, arrivals: Sequence[Arrival], runs: int, at_once: int
) -> list[Seen]:
    gate = asyncio.Semaphore(at_once)
    return list(await asyncio.gather(*(real(host, arrivals, gate) for _ in range(runs))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("scenario", help="a shipped one, or a file")
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--rate", type=float, default=1.0, help="so many times as often")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument(
        "--calibrate", type=float, default=60.0, help="seconds of other calls first"
    )
    parser.add_argument("--together", type=int, default=5, help="so many at once")
    given = options(parser)
    scenario = read_scenario(given.scenario)
    host = replace(scenario.host, prompt_ms=0.0, spread=0.0, mute_while_loading=False)
    drawn = scenario.traffic.trace
    others = sorted(drawn(given.calibrate, given.seed + 1000, given.rate))
    known = uvloop.run(every(host, others, given.together, given.together))
    ours_on = fitted(host, known)
    arrivals = sorted(drawn(given.seconds, given.seed, given.rate))
    seen = uvloop.run(every(host, arrivals, given.runs, given.together))
    late_s = [moment for run in known for moment in run.late_s]
    ours = [virtual(ours_on, arrivals, late_s, seed) for seed in range(1, given.runs + 1)]
    shown = f"{machine()}\n\n{text(given, ours_on, seen, ours)}"
    found = {
        "outcomes": outcomes([run.calls for run in seen], ours),
        "times": times([run.calls for run in seen], ours),
    }
    show(found, shown, as_json=given.json)


if __name__ == "__main__":
    main()
