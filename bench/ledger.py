"""What the state file costs: the event loop's lag while it is written, rows, bytes, questions.

Lag is measured on uvloop, in this process, by a timer of 2 ms that notes how late it was:
with nothing to do, while 1 000 finished calls a second are noted, while another process
holds the file's lock, and while the disk does not answer at all (a job of the writer that
hangs in a system call). Then a file of a million calls, spread over 30 days, is filled
through the same code that serves, and asked what people ask.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import math
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from kit import machine, options, quantile, show, table
from modelsplit_policy.call import Event
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.prices import Price
from modelsplit_policy.roles import Candidate, Route
from modelsplit_policy.tickets import Crowd, Hold, Seats
from modelsplit_policy.vocabulary import Context, Provider, Role, RouteReason
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.records.query import Query
from modelsplit_proxy.records.record import CallRecord
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.storage import state_file
from modelsplit_proxy.storage.retention import Retention, RetentionLimits
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_proxy.storage.writer import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAYS = 30
RATE = 1000
TICK_S = 0.002
_SEED = 5
_CHAT = next(row for row in ENDPOINTS if row.label == "/api/chat")
_TIMED = 50_000
_MODELS = {
    Role.PLANNER: ("qwen3:4b", "qwen3:8b"),
    Role.EXECUTOR: ("qwen3:8b", "gemma3:12b"),
    Role.CHAT: ("gemma3:12b",),
}
_SHARES = {Role.PLANNER: 0.5, Role.EXECUTOR: 0.3, Role.CHAT: 0.2}
_LATE = Failure(
    ErrorCode.OVERLOAD_THROTTLED,
    Reason.QUEUE_TIMEOUT,
    "role PLANNER is overloaded: no seat came free in 8 s (2/2 running, 5/64 waiting)",
    "Queue Timeout",
    retry_after_s=4,
)
_BROKEN = Failure(
    ErrorCode.UPSTREAM_LOCAL, Reason.STATUS, "Ollama answered 500: it failed", "Upstream Failed"
)
_HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


class Calls:
    """Finished calls as they might come: 90 % served at once or after a wait, 6 % on the
    fallback, 4 % refused; every fifth belongs to a job."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(_SEED + seed)
        self._price = Price(0.0, 0.0)

    def one(self, started_wall: float) -> CallRecord:
        rng = self._rng
        role = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
        record = CallRecord(
            request_id=f"{rng.getrandbits(128):032x}",
            endpoint=_CHAT,
            client=f"10.0.0.{rng.randrange(20)}",
            started=1000.0,
            started_wall=started_wall,
            job_id=f"job-{rng.randrange(100_000)}" if rng.random() < 0.2 else None,
        )
        candidates = tuple(Candidate(model, 15.0) for model in _MODELS[role])
        named = role.lower() if role is not Role.CHAT else candidates[0].model
        reason = RouteReason.ALIAS if role is not Role.CHAT else RouteReason.DEFAULT
        context = Context.PLANNER if role is Role.PLANNER else Context.EXECUTOR
        record.routed(Route(role, context, Provider.LOCAL, named, candidates, reason))
        kind = rng.random()
        if kind < 0.04:
            self._refused(record, candidates[0])
        elif kind < 0.10 and len(candidates) > 1:
            self._fallen_back(record, candidates)
        else:
            self._served(record, candidates[0], 0.0 if kind < 0.6 else rng.expovariate(1.0))
        return record

    def _served(self, record: CallRecord, candidate: Candidate, wait_s: float) -> None:
        self._attempt(record, candidate, 1000.0, wait_s)
        _walk(record, *([Event.ENQUEUE] if wait_s else []), Event.ADMIT, Event.DISPATCH)
        _walk(record, Event.COMMIT, Event.FINISH)
        record.status, record.streamed = 200, True
        record.ended = record.attempts[-1].ended

    def _fallen_back(self, record: CallRecord, candidates: tuple[Candidate, ...]) -> None:
        first = record.attempt(candidates[0], 1000.0, self._price)
        first.seated = first.dispatched = 1000.0
        first.seats, first.ended, first.failure = _seats(), 1000.2, _BROKEN
        first.upstream_status = 500
        self._attempt(record, candidates[1], 1000.2, 0.0)
        _walk(record, Event.ADMIT, Event.DISPATCH, Event.FALL_BACK, Event.ADMIT)
        _walk(record, Event.DISPATCH, Event.COMMIT, Event.FINISH)
        record.status, record.streamed = 200, True
        record.ended = record.attempts[-1].ended

    def _refused(self, record: CallRecord, candidate: Candidate) -> None:
        assert record.routing is not None
        attempt = record.attempt(candidate, 1000.0, self._price)
        attempt.crowd = attempt.crowd_at_end = _crowd(record.routing.role)
        attempt.seats, attempt.ahead = _seats(), 5
        attempt.ended, attempt.failure = 1008.0, _LATE
        _walk(record, Event.ENQUEUE, Event.REJECT)
        record.failure, record.status, record.ended = _LATE, 503, 1008.0

    def _attempt(
        self, record: CallRecord, candidate: Candidate, asked: float, wait_s: float
    ) -> None:
        assert record.routing is not None
        rng = self._rng
        attempt = record.attempt(candidate, asked, self._price)
        if wait_s:
            attempt.crowd, attempt.ahead = _crowd(record.routing.role), rng.randrange(8)
        attempt.seats, attempt.sent = _seats(), True
        attempt.seated = attempt.dispatched = asked + wait_s
        attempt.first_byte = attempt.dispatched + rng.expovariate(2.0)
        eval_s = rng.expovariate(0.3)
        attempt.ended = attempt.first_byte + eval_s
        attempt.upstream_status = 200
        attempt.usage = Usage(
            prompt_tokens=rng.randrange(4000),
            output_tokens=rng.randrange(800),
            load_s=0.02,
            prompt_eval_s=0.2,
            eval_s=eval_s,
            total_s=eval_s + 0.3,
            finish_reason="stop",
        )


def _walk(record: CallRecord, *events: Event) -> None:
    for event in events:
        record.call.step(event)


def _seats() -> Seats:
    return Seats(2, 2, 4, 6, 2, None, 3, "")


def _crowd(role: Role) -> Crowd:
    return Crowd(
        Hold.ROLE_CAP,
        {Role.PLANNER: 2, Role.EXECUTOR: 2},
        {"qwen3:4b": 2, "qwen3:8b": 2},
        {role: 3, Role.CHAT: 1},
        {"qwen3:4b": 3},
    )


# --- Lag -----------------------------------------------------------------------------------------


async def lag_of(seconds: float, work: Callable[[], None] | None) -> list[float]:
    """How late a timer of ``TICK_S`` was, each time; ``work`` is done every 10 ms."""
    loop = asyncio.get_running_loop()
    late: list[float] = []
    end = time.perf_counter() + seconds
    due = work_due = time.perf_counter()
    done = loop.create_future()

    def tick() -> None:
        nonlocal due, work_due
        now = time.perf_counter()
        late.append(max(0.0, now - due))
        if work is not None and now >= work_due:
            work()
            work_due += 0.01
        if now >= end:
            done.set_result(None)
            return
        due = time.perf_counter() + TICK_S
        loop.call_later(TICK_S, tick)

    loop.call_soon(tick)
    await done
    return late[1:]


class Noting:
    """Notes ``RATE`` calls a second, ten at a time; they are made beforehand."""

    def __init__(self, recorder: Recorder, seconds: float) -> None:
        calls = Calls()
        self._recorder = recorder
        self._records = [calls.one(time.time()) for _ in range(round(RATE * seconds * 1.2))]

    def __call__(self) -> None:
        for _ in range(RATE // 100):
            if self._records:
                self._recorder.call_ended(self._records.pop())


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process holds the write lock of the file."""
    command = [sys.executable, "-c", _HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            yield
        finally:
            holder.stdin.close()


async def lags(folder: Path, seconds: float) -> list[list[Any]]:
    store = Store(folder, SystemClock())
    recorder = Recorder(store)
    out = [_lag_row("nothing to do", await lag_of(seconds, None), store, recorder)]
    for name, outside in (
        (f"{RATE} calls a second", contextlib.nullcontext()),
        (f"{RATE} calls a second, file locked", held(store.path)),
    ):
        noting = Noting(recorder, seconds)
        with outside:
            late = await lag_of(seconds, noting)
            out.append(_lag_row(name, late, store, recorder))
        await _written(store, recorder)
    noting = Noting(recorder, seconds)
    hang = store.submit(lambda _: time.sleep(seconds), urgent=True)
    late = await lag_of(seconds, noting)
    out.append(_lag_row(f"{RATE} calls a second, disk hangs", late, store, recorder))
    await asyncio.wrap_future(hang)
    await _written(store, recorder)
    [(count,)] = store.read("SELECT count(*) FROM calls")
    out.append(["rows written after all of it", f"{count:,}", "", "", "", f"{recorder.dropped}"])
    store.close()
    return out


async def commits(folder: Path, seconds: float) -> list[list[str]]:
    """How long a call that is counted waits for its place on the disk, up to 100 a second."""
    store = Store(folder, SystemClock())
    recorder = Recorder(store)
    out = []
    for name, noting in (
        ("nothing else", None),
        (f"{RATE} calls a second noted", Noting(recorder, seconds)),
    ):
        took: list[float] = []
        pacing = asyncio.get_running_loop().create_task(lag_of(seconds, noting))
        while not pacing.done():
            start = time.perf_counter()
            await store.commit(_charge)
            took.append(time.perf_counter() - start)
            await asyncio.sleep(0.01)
        await pacing
        shown = [f"{1000 * quantile(took, share):.2f}" for share in (0.5, 0.99)]
        out.append([name, *shown, f"{1000 * max(took):.1f}"])
    await _written(store, recorder)
    store.close()
    return out


def _charge(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO budget_clock VALUES (1, '', 0, 0, 0, '') ON CONFLICT DO NOTHING")
    db.execute("UPDATE budget_clock SET ledger = ledger + 1")


async def _written(store: Store, recorder: Recorder) -> None:
    while not await asyncio.to_thread(store.catch_up, 30.0) or recorder.waiting:
        pass


def _lag_row(name: str, late: list[float], store: Store, recorder: Recorder) -> list[Any]:
    shown = [f"{1000 * quantile(late, share):.2f}" for share in (0.5, 0.99, 0.999)]
    return [name, *shown, f"{1000 * max(late):.1f}", f"{recorder.dropped} / {store.error or '-'}"]


# --- A large file --------------------------------------------------------------------------------


def fill(folder: Path, count: int) -> tuple[float, float]:
    """Have ``count`` calls in the file, written through the recorder.

    Rows a second of the last 50 000, and bytes of file a call. A file that was kept is filled up.
    """
    store = Store(folder, SystemClock())
    recorder = Recorder(store)
    [(there,)] = store.read("SELECT count(*) FROM calls")
    calls, now = Calls(there), time.time()
    spent, timed, chunk = 0.0, 0, 2000
    for begin in range(there, count, chunk):
        share = [
            calls.one(now - DAYS * 86400 * (1 - number / count))
            for number in range(begin, min(count, begin + chunk))
        ]
        start = time.perf_counter()
        for record in share:
            recorder.call_ended(record)
        while not store.catch_up(60.0) or recorder.waiting:
            pass
        if begin >= count - _TIMED:
            spent += time.perf_counter() - start
            timed += len(share)
    store.close()
    assert recorder.dropped == 0
    return timed / spent if spent else math.nan, (folder / FILE_NAME).stat().st_size / count


GATE = """
WITH recent AS MATERIALIZED (
    SELECT role, wait_us, total_us, outcome FROM calls WHERE started_us >= ?
)
SELECT
    (SELECT count(*) FROM recent),
    (SELECT count(*) FROM recent WHERE outcome NOT IN ('ok', 'client_gone')),
    (SELECT wait_us FROM recent ORDER BY wait_us
        LIMIT 1 OFFSET (SELECT count(*) * 95 / 100 FROM recent)),
    (SELECT total_us FROM recent WHERE role = 'PLANNER' ORDER BY total_us
        LIMIT 1 OFFSET (SELECT count(*) * 95 / 100 FROM recent WHERE role = 'PLANNER'))
"""


def questions(folder: Path) -> list[list[str]]:
    start = time.perf_counter()
    store = Store(folder, SystemClock())
    opened_s = time.perf_counter() - start
    reader = Recorder(store).reader
    [(some_id,)] = store.read(
        "SELECT request_id FROM calls WHERE id = (SELECT max(id) * 2 / 5 FROM calls)"
    )
    now = time.time()

    def since(hours: float) -> int:
        return round((now - hours * 3600) * 1e6)

    asked: dict[str, Callable[[], Any]] = {
        "one call, explained": lambda: reader.find(some_id),
        "one call by its first 8 letters": lambda: reader.find(some_id[:8]),
        "an id of nobody": lambda: reader.find("zzzzzzzz"),
        "the last 100": lambda: reader.latest(Query(), 100),
        "the last 100 failed of PLANNER": lambda: reader.latest(
            Query(role=Role.PLANNER, failed=True), 100
        ),
        "the same since 1 h": lambda: reader.latest(
            Query(role=Role.PLANNER, failed=True, since_us=since(1)), 100
        ),
        "failed of HEAVY, of which there are none": lambda: reader.latest(
            Query(role=Role.HEAVY, failed=True), 100
        ),
        "the first 1000 of the trace": lambda: next(reader.in_order(Query())),
        "gate, 5 h": lambda: store.read(GATE, (since(5),)),
        "gate, 24 h": lambda: store.read(GATE, (since(24),)),
        "gate, all 30 days": lambda: store.read(GATE, (0,)),
    }
    out = [["open it, check it (at most 2 s)", f"{1000 * opened_s:.0f}"]]
    for name, ask in asked.items():
        times = []
        for _ in range(5):
            start = time.perf_counter()
            ask()
            times.append(time.perf_counter() - start)
        out.append([name, f"{1000 * sorted(times)[2]:.1f}"])
    out.append(["prune 500 calls", f"{1000 * _prune(store):.1f}"])
    start = time.perf_counter()
    store.close()
    out.append(["close it", f"{1000 * (time.perf_counter() - start):.0f}"])
    return out


def _prune(store: Store) -> float:
    """The median step of the retention, in the writer's thread."""
    retention = Retention(store, SystemClock(), RetentionLimits((DAYS - 1) * 86400, 2**40))
    times = []

    def step(db: sqlite3.Connection) -> None:
        start = time.perf_counter()
        retention.step(db)
        times.append(time.perf_counter() - start)

    for _ in range(11):
        store.submit(step, urgent=True).result(30)
    return sorted(times)[5]


def whole_check(folder: Path) -> float:
    """How long the check would take if it were not bounded, the file in the cache."""
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME)) as db:
        start = time.perf_counter()
        db.execute(state_file._CHECK).fetchone()  # noqa: SLF001 - the one that is measured
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each lag row")
    parser.add_argument("--keep", type=Path, help="a folder for the large file, to be kept")
    args = options(parser)
    logging.getLogger("modelsplit").setLevel(logging.CRITICAL)
    host, now = machine(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
    folder = Path(tempfile.mkdtemp(prefix="modelsplit-ledger-"))
    large = args.keep or folder / "large"
    try:
        lag = uvloop.run(lags(folder / "lag", args.seconds))
        urgent = uvloop.run(commits(folder / "commits", args.seconds))
        rate, size = fill(large, args.calls)
        check_s = whole_check(large)
        times = questions(large)
    finally:
        shutil.rmtree(folder)
    facts = [
        ["calls written a second, with their attempts and jobs", f"{rate:,.0f}"],
        ["bytes of file a call", f"{size:.0f}"],
        [
            f"check of the whole file of {args.calls:,} calls, were it not bounded, ms",
            f"{1000 * check_s:.0f}",
        ],
    ]
    text = "\n\n".join(
        (
            "## The event loop's lag, ms",
            table(["while", "p50", "p99", "p99.9", "max", "dropped / error"], lag),
            "## A durable write, asked for by the event loop, ms",
            table(["while", "p50", "p99", "max"], urgent),
            "## The file",
            table(["figure", ""], facts),
            f"## Questions to a file of {args.calls:,} calls over {DAYS} days, ms",
            table(["question", "median of 5"], times),
        )
    )
    show(
        {"lag": lag, "urgent": urgent, "file": facts, "questions": times},
        f"# The state file: what was measured\n\n{now}, by `bench/ledger.py`.\n\n{host}\n\n{text}",
        as_json=args.json,
    )


if __name__ == "__main__":
    main()
