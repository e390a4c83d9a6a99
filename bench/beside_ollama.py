"""The same calls before a real Ollama, before the stand-in in real time, and in virtual time.

    python bench/beside_ollama.py 11434 --kept DIR           16 minutes of Ollama, 8 of the stand-in

Two policies have a proxy each before the one Ollama, and take turns at it, piece by piece, the
first one of a piece last in the next: so both meet the same calls on a machine that is as fast
for the one as for the other. From the records of one run alone come the host's figures, for the
stand-in as for virtual time, and both play the calls of both: under the policy that was recorded,
and under the one that was not. What is in ``DIR`` already is not run again.

Ollama needs the three models of ``MODELS``, loaded beside each other; one small model under three
names will do, as long as its files differ.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from kit import machine, options, policy, show, table, traced, write_policy
from modelsplit_sim.replay.fit import fit
from modelsplit_sim.replay.from_trace import RecordedTraffic
from modelsplit_sim.text import count_tokens
from modelsplit_sim.virtual_traffic import read_scenario
from predict import Figures, predicted, recorded
from real_time import MODELS, call, written
from support.process import ollama, serving
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from modelsplit_sim.host_shape import HostShape
    from modelsplit_sim.replay.recorded import Recorded
    from modelsplit_sim.virtual_traffic import Arrival
    from support.process import Process

PROMPT = "Plan the next three steps for job {}."
# One call at a time, and waits that fit it.
_LONG: dict[str, Any] = {"max_wait_ms": 30_000, "allow_long_wait": True}
ONE_AT_A_TIME: dict[str, Any] = {
    "global": {"max_concurrent": 1},
    "roles": {
        "PLANNER": {"reserved": 0},
        "EXECUTOR": {**_LONG, "max_wait_ms": 15_000},
        "CHAT": _LONG,
        "HEAVY": _LONG,
    },
}
POLICIES: dict[str, dict[str, Any] | None] = {"shipped": None, "one-at-a-time": ONE_AT_A_TIME}
HEAD = ["role", "", "Ollama", "stand-in", "", "virtual", "", "one run"]


# What is run in real time.


async def piece(process: Process, arrivals: Sequence[Arrival], first: int) -> None:
    """One piece's calls; each has a prompt and a seed of its own, the same for every policy."""
    began = time.monotonic()
    await asyncio.gather(
        *(
            call(process.port, arrival, began, PROMPT.format(number), seed=number)
            for number, arrival in enumerate(arrivals, first)
        )
    )


async def loaded(upstream: int) -> None:
    for model in MODELS:
        async with Client(upstream) as client:
            body = {"model": model, "prompt": PROMPT, "options": {"num_predict": 1}}
            answer = await client.request("POST", "/api/generate", body)
            assert answer.status == 200, answer.body


async def before_ollama(
    upstream: int, pieces: Sequence[Sequence[Arrival]]
) -> tuple[dict[str, bytes], list[float]]:
    """Both policies in turn: the trace of each; and the load average after each piece."""
    load = []
    async with contextlib.AsyncExitStack() as stack:
        proxies = {
            name: await stack.enter_async_context(served(upstream, name)) for name in POLICIES
        }
        await loaded(upstream)
        first = 1
        for number, arrivals in enumerate(pieces):
            for name in list(proxies)[:: 1 if number % 2 else -1]:
                await piece(proxies[name], arrivals, first)
                load.append(os.getloadavg()[0])
            first += len(arrivals)
        traces = {name: await written(process, first - 1) for name, process in proxies.items()}
    return traces, load


async def before_stand_in(host: HostShape, name: str, pieces: Sequence[Sequence[Arrival]]) -> bytes:
    """One policy alone; the trace of it."""
    async with (
        ollama(*standing_in(host)) as (upstream, _),
        served(upstream, name) as process,
    ):
        await loaded(upstream)
        first = 1
        for arrivals in pieces:
            await piece(process, arrivals, first)
            first += len(arrivals)
        return await written(process, first - 1)


def standing_in(host: HostShape) -> Iterator[str]:
    """The host as options of the stand-in, where a prompt takes so long by its tokens."""
    models = [host.of(model) for model in MODELS]
    prompt_ms = statistics.fmean(each.prompt_ms for each in models)
    yield from ("--shared-compute", "--prefill-ms", str(prompt_ms / count_tokens(PROMPT)))
    yield from ("--contention", str(host.contention), "--free", str(host.free))
    yield from ("--num-parallel", str(host.num_parallel), "--max-loaded", str(host.max_loaded))
    for name, model in zip(MODELS, models, strict=True):
        yield from ("--model", f"{name}:rate={1000 / model.ms_per_token:.4f}")


@contextlib.asynccontextmanager
async def served(upstream: int, name: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = write_policy(Path(folder) / "policy.json", POLICIES[name])
        state = Path(folder) / "state"
        async with serving(upstream, state, "--policy", str(path)) as process:
            yield process


def known_lengths(
    pieces: Sequence[Sequence[Arrival]], calls: Sequence[Recorded]
) -> list[list[Arrival]]:
    """The calls with the lengths that their answers had, where these were seen whole."""
    each = iter(calls)
    return [
        [
            arrival._replace(tokens=seen.output_tokens or arrival.tokens)
            if (seen := next(each)).ok
            else arrival
            for arrival in arrivals
        ]
        for arrivals in pieces
    ]


# What is compared.


def rows(
    real: dict[str, Figures], other: dict[str, Figures], ours: dict[str, Figures]
) -> list[list[str]]:
    found = []
    for role, own in real.items():
        lost = [f"{each[role].lost:.1f}" for each in (real, other, ours)]
        found.append([role, f"lost of {own.calls:.0f}", lost[0], lost[1], "", lost[2], "", ""])
        for name in ("mean", "p50", "p95"):
            was, stood, says = (getattr(each[role], name) for each in (real, other, ours))
            span = ours[role].span if name == "mean" else None
            row = [
                "",
                f"{name} s".replace("p", "P"),
                f"{was:.2f}",
                f"{stood:.2f}",
                apart(stood, was),
            ]
            row += [f"{says:.2f}", apart(says, was)]
            found.append([*row, "" if span is None else "{:.1f} to {:.1f}".format(*span)])
    return found


def apart(value: float, real: float) -> str:
    return f"{100 * (value / real - 1):+.0f} %"


def compared(folder: Path, fitted_to: str, seeds: int) -> dict[str, list[list[str]]]:
    """By the policy that is played; the figures from the run under ``fitted_to`` alone."""
    known = calls_of(folder / f"ollama-{fitted_to}.jsonl")
    host = fit(known).shape
    found = {}
    for name, over in POLICIES.items():
        own = policy(over)
        source = RecordedTraffic(known, own, host)
        drawn = [source.drawn(seed)[0] for seed in range(1, seeds + 1)]
        real = recorded(calls_of(folder / f"ollama-{name}.jsonl"))
        other = recorded(calls_of(folder / stand_in_file(name, fitted_to)))
        found[name] = rows(real, other, predicted(own, host, drawn))
    return found


def calls_of(path: Path) -> list[Recorded]:
    return traced(path.read_bytes())


def stand_in_file(name: str, fitted_to: str) -> str:
    return f"stand-in-{name}-of-{fitted_to}.jsonl"


def all_stand_ins(pieces: Sequence[Sequence[Arrival]], folder: Path) -> None:
    """Those that are missing, side by side."""
    missing = {}
    for fitted_to in POLICIES:
        known = calls_of(folder / f"ollama-{fitted_to}.jsonl")
        host, sent = fit(known).shape, known_lengths(pieces, known)
        for name in POLICIES:
            path = folder / stand_in_file(name, fitted_to)
            if not path.exists():
                missing[path] = before_stand_in(host, name, sent)

    async def every() -> list[bytes]:
        return await asyncio.gather(*missing.values())

    for path, raw in zip(missing, uvloop.run(every()), strict=True):
        path.write_bytes(raw)


def ollama_traces(given: argparse.Namespace, pieces: Sequence[Sequence[Arrival]]) -> str:
    """Those of Ollama, unless they are there; the load average meanwhile, in words."""
    told = given.kept / "load.txt"
    if not told.exists():
        given.kept.mkdir(exist_ok=True)
        traces, load = uvloop.run(before_ollama(given.port, pieces))
        for name, raw in traces.items():
            (given.kept / f"ollama-{name}.jsonl").write_bytes(raw)
        told.write_text(", ".join(f"{each:.1f}" for each in load))
    return f"Load average after each piece: {told.read_text()}."


def main() -> None:
    parser = argparse.ArgumentParser(description="The same calls before Ollama and its likenesses.")
    parser.add_argument("port", type=int, help="where Ollama listens on loopback")
    parser.add_argument("--kept", type=Path, required=True, help="a folder for what was run")
    parser.add_argument("--scenario", default="fair", help="whose traffic: shipped, or a file")
    parser.add_argument("--pieces", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a piece")
    parser.add_argument("--rate", type=float, default=1.0, help="so many times as often")
    parser.add_argument("--first", type=int, default=401, help="the first piece's seed")
    parser.add_argument("--seeds", type=int, default=20, help="runs in virtual time")
    given = options(parser)
    trace = read_scenario(given.scenario).traffic.trace
    pieces = [
        sorted(trace(given.seconds, given.first + number, given.rate))
        for number in range(given.pieces)
    ]
    told = [machine(), ollama_traces(given, pieces)]
    all_stand_ins(pieces, given.kept)
    found = {name: compared(given.kept, name, given.seeds) for name in POLICIES}
    for fitted_to, tables in found.items():
        for name, lines in tables.items():
            told += [f"Figures of the run {fitted_to}; the policy {name}:", table(HEAD, lines)]
    show(found, "\n\n".join(told), as_json=given.json)


if __name__ == "__main__":
    main()
