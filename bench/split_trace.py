"""One mixed trace, four ways: does splitting roles over models pay, and what does it take?

55 planners (they leave after 5 s), 25 executors (20 s) and 20 chats (60 s) come within 200 s,
at random moments of a fixed seed. They go

- *direct, one model*: all roles to one model, straight to the upstream;
- *direct, split*: each role to a model of its own, straight to the upstream;
- *modelsplit*: split, with the shipped policy, told nothing about the host;
- *modelsplit, parallel 1*: the same, told that one call at once is what the host is good for.

Two hosts. On the *sharing* one n calls at once run at an n-th of the speed each: the total is
the same whatever runs. On the *contending* one they are slower than that, as runners that
fight for the same cores are: n at once get 1 / (1 + 2.2 (n - 1)) of the speed each. That
number, token counts and rates were fitted once to a trace through real Ollama on two cores,
by its two direct rows, and are frozen.

With --virtual: many seeds on a machine in virtual time, in seconds. Else real processes: a
stand-in Ollama for each row and a proxy where there is one, all at the same time, because
the stand-in only sleeps.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from kit import admission_of, mean, options, policy, quantile, show, table, write_policy
from modelsplit_policy.vocabulary import Role
from support.host import Host, Job, Run
from support.process import ollama, serving
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SPAN_S = 200.0
SEED = 13
SEEDS = 20
# Frozen: see the head comment.
RATE = 20.0  # tokens a second of a call that runs alone, one model for all roles
SPLIT_COST = 1.2  # a token of a model of one's own takes so many times longer
CONTENDING = 2.2
_FOR_EVER_MS = 10**9
SPREAD = 0.6  # answers are this share longer or shorter than the mean


@dataclass(frozen=True, slots=True)
class Kind:
    """One role's calls. ``tokens``: the mean answer; ``patience_s``: then the client leaves."""

    role: Role
    count: int
    tokens: float
    patience_s: float
    model: str


KINDS = (
    Kind(Role.PLANNER, 55, 11, 5.0, "qwen3:4b"),
    Kind(Role.EXECUTOR, 25, 32, 20.0, "qwen3:8b"),
    Kind(Role.CHAT, 20, 48, 60.0, "gemma3:12b"),
)
ONE_MODEL = "one:1b"


@dataclass(frozen=True, slots=True)
class Way:
    """One row. ``contention``: c of the host; ``over``: the policy's overlay, None: no proxy."""

    name: str
    split: bool
    contention: float
    over: dict[str, Any] | None = None


_SHIPPED: dict[str, Any] = {}
_TOLD = {"global": {"parallel": 1}}
WAYS = (
    Way("direct, one model", split=False, contention=1.0),
    Way("direct, split, sharing host", split=True, contention=1.0),
    Way("modelsplit, sharing host", split=True, contention=1.0, over=_SHIPPED),
    Way("modelsplit, parallel 1, sharing host", split=True, contention=1.0, over=_TOLD),
    Way("direct, split, contending host", split=True, contention=CONTENDING),
    Way("modelsplit, contending host", split=True, contention=CONTENDING, over=_SHIPPED),
    Way("modelsplit, parallel 1, contending host", split=True, contention=CONTENDING, over=_TOLD),
)


def trace(seed: int, span_s: float = SPAN_S) -> list[tuple[float, Kind, int]]:
    """When, what and how long, in order. A shorter span keeps the rate and has fewer calls."""
    rng = random.Random(seed)
    calls = [
        (rng.uniform(0, SPAN_S), kind, _tokens(kind, rng))
        for kind in KINDS
        for _ in range(kind.count)
    ]
    return sorted((call for call in calls if call[0] < span_s), key=lambda call: call[0])


def _tokens(kind: Kind, rng: random.Random) -> int:
    # Fewer than eight tokens say nothing about speed, and no answer is that short.
    return max(8, round(kind.tokens * rng.uniform(1 - SPREAD, 1 + SPREAD)))


@dataclass(slots=True)
class Outcome:
    """How one call went. Seconds; ``how``: ok, left (patience ended), or refused."""

    role: Role
    latency_s: float
    how: str


def of_role(outcomes: list[Outcome], role: Role) -> dict[str, float]:
    mine = [outcome for outcome in outcomes if outcome.role is role]
    served = [outcome.latency_s for outcome in mine if outcome.how == "ok"]
    return {
        "calls": len(mine),
        "p50_s": quantile(served, 0.5),
        "p95_s": quantile(served, 0.95),
        "left": sum(outcome.how == "left" for outcome in mine),
        "refused": sum(outcome.how not in {"ok", "left"} for outcome in mine),
    }


# In virtual time.


def jobs(way: Way, seed: int) -> list[Job]:
    rows = policy(way.over).roles
    return [
        Job(
            at=at,
            role=kind.role,
            model=kind.model if way.split else ONE_MODEL,
            tokens=tokens * (SPLIT_COST if way.split else 1.0),
            patience_s=kind.patience_s,
            max_wait_s=rows[kind.role].max_wait_ms / 1000,
            max_hold_s=(rows[kind.role].max_hold_ms or _FOR_EVER_MS) / 1000,
        )
        for at, kind, tokens in trace(seed)
    ]


def outcome_of(job: Job) -> Outcome:
    how = "left" if job.gone else "refused" if job.refused is not None else "ok"
    return Outcome(job.role, job.latency, how)


def virtually(way: Way, seeds: int) -> dict[str, Any]:
    """Means over the seeds, of each role's figures."""
    found: dict[Role, list[dict[str, float]]] = {kind.role: [] for kind in KINDS}
    learned: list[dict[str, float]] = []
    for seed in range(seeds):
        under_test = None if way.over is None else admission_of(way.over)
        host = Host(rate=RATE, contention=way.contention, slots=1)
        done = Run(under_test, host, jobs(way, seed)).run()
        for role, rows in found.items():
            rows.append(of_role([outcome_of(job) for job in done], role))
        if under_test is not None:
            estimate = under_test.host().parallelism
            learned.append({"host": estimate.host, "contention": estimate.contention})
    roles = {role: _means(rows) for role, rows in found.items()}
    return {"way": way.name, "roles": roles, "learned": _means(learned) if learned else None}


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: mean([row[key] for row in rows]) for key in rows[0]}


# Real processes.


@dataclass(slots=True)
class Scene:
    """One way's upstream and, where there is one, proxy."""

    way: Way
    port: int
    admin_port: int | None
    outcomes: list[Outcome] = field(default_factory=list)


@contextlib.asynccontextmanager
async def standing(way: Way, state: Path) -> AsyncIterator[Scene]:
    rate = RATE / SPLIT_COST if way.split else RATE
    models = [kind.model for kind in KINDS] if way.split else [ONE_MODEL]
    arguments = ["--shared-compute", "--contention", str(way.contention)]
    arguments += ["--token-rate", f"{rate:.4f}", "--num-parallel", "1", "--max-loaded", "3"]
    for model in models:
        arguments += ["--model", model]
    async with ollama(*arguments) as (upstream, _):
        await warm(upstream, models)
        if way.over is None:
            yield Scene(way, upstream, None)
            return
        given = ("--policy", str(write_policy(state / "policy.json", way.over)))
        async with serving(upstream, state, *given) as process:
            yield Scene(way, process.port, process.admin_port)


async def warm(port: int, models: list[str]) -> None:
    """Load every model, as they are on a host that has been up for a while."""
    for model in models:
        async with Client(port) as client:
            answer = await client.request("POST", "/api/generate", {"model": model})
            assert answer.status == 200, answer.body


async def send(scene: Scene, kind: Kind, tokens: int) -> None:
    """One call as its client sees it; the client leaves when its patience ends."""
    began = time.monotonic()
    how = "ok"
    client = Client(scene.port)
    try:
        async with asyncio.timeout(kind.patience_s):
            body, said = body_of(scene.way, kind, tokens), headers_of(scene.way, kind)
            answer = await client.request("POST", "/api/generate", body, said)
        if answer.status != 200 or not answer.whole:
            how = str(answer.json.get("reason", answer.status)) if answer.body else "broken"
    except TimeoutError:
        how = "left"
    except (ConnectionError, asyncio.IncompleteReadError):
        how = "broken"
    finally:
        await client.close()
    scene.outcomes.append(Outcome(kind.role, time.monotonic() - began, how))


def body_of(way: Way, kind: Kind, tokens: int) -> dict[str, Any]:
    model = kind.model if way.split else ONE_MODEL
    return {"model": model, "prompt": "go", "stream": True, "options": {"num_predict": tokens}}


def headers_of(way: Way, kind: Kind) -> dict[str, str]:
    return {} if way.over is None else {"X-LLM-Role": str(kind.role)}


async def play(scene: Scene, span_s: float, began: float) -> None:
    """The whole trace onto one scene."""
    async with asyncio.TaskGroup() as group:
        for at, kind, tokens in trace(SEED, span_s):
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            group.create_task(send(scene, kind, tokens))


async def really(span_s: float) -> list[dict[str, Any]]:
    async with contextlib.AsyncExitStack() as stack:
        scenes = []
        for way in WAYS:
            state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            scenes.append(await stack.enter_async_context(standing(way, state)))
        began = time.monotonic()
        await asyncio.gather(*(play(scene, span_s, began) for scene in scenes))
        return [await summed(scene) for scene in scenes]


async def summed(scene: Scene) -> dict[str, Any]:
    learned = None
    if scene.admin_port is not None:
        async with Client(scene.admin_port) as admin:
            stats = (await admin.request("GET", "/stats")).json
        learned = stats["parallelism"]
        assert all(row["running"] == 0 == row["waiting"] for row in stats["roles"].values())
    roles = {kind.role: of_role(scene.outcomes, kind.role) for kind in KINDS}
    refusals = sorted({one.how for one in scene.outcomes} - {"ok", "left"})
    return {"way": scene.way.name, "roles": roles, "learned": learned, "refusals": refusals}


# What is shown.


def text(found: list[dict[str, Any]], note: str) -> str:
    first = found[0]["roles"]
    head = ["", *(_heading(kind, first[kind.role]["calls"]) for kind in KINDS)]
    rows = [
        [row["way"], *(_cell(row["roles"][kind.role]) for kind in KINDS), _learned(row["learned"])]
        for row in found
    ]
    return f"{note}\n\n{table([*head, 'learned at the end'], rows)}"


def _heading(kind: Kind, calls: float) -> str:
    return f"{kind.role.lower()} p50 / p95 s; left, refused of {calls:.0f}"


def _cell(role: dict[str, float]) -> str:
    return f"{role['p50_s']:.1f} / {role['p95_s']:.1f}; {role['left']:.3g}, {role['refused']:.3g}"


def _learned(learned: dict[str, Any] | None) -> str:
    if learned is None:
        return ""
    return ", ".join(
        f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in learned.items()
        if name in {"host", "contention", "slots"}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The split trace: direct and through modelsplit.")
    parser.add_argument("--virtual", action="store_true", help="virtual time, many seeds")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="with --virtual")
    parser.add_argument("--span", type=float, default=SPAN_S, help="seconds of the trace to play")
    given = options(parser)
    if given.virtual:
        found = [virtually(way, given.seeds) for way in WAYS]
        note = f"Virtual time, means over {given.seeds} seeds."
    else:
        found = uvloop.run(really(given.span))
        note = f"Real processes, seed {SEED}, {given.span:.0f} s of the trace."
    show({"ways": found}, text(found, note), as_json=given.json)


if __name__ == "__main__":
    main()
