"""Old records go, in small steps, by age and by size; nothing else does."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.slo.heartbeat import Heartbeat
from modelsplit_proxy.records import rows, slo_store
from modelsplit_proxy.records.query import Query
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_proxy.storage import retention as module
from modelsplit_proxy.storage.retention import Retention, RetentionLimits, Step
from modelsplit_proxy.storage.state_file import FILE_NAME
from support.records import answered
from support.stores import execute, locked, opened

if TYPE_CHECKING:
    from pathlib import Path

    from modelsplit_proxy.storage.writer import Store

START = 1795393743.25
PLENTY = 2**40
AGES = 10 * 365 * 86400.0


class Clock:
    """The wall says ``at`` seconds after ``START``."""

    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return START + self.at


def fill(store: Store, count: int, **changes: Any) -> Recorder:
    """``count`` calls, one a second: r0, r1, …"""
    recorder = Recorder(store)
    for number in range(count):
        recorder.call_ended(
            answered(request_id=f"r{number}", started_wall=START + number, **changes)
        )
    recorder.reader.find("r0")
    return recorder


def ids(recorder: Recorder) -> list[str]:
    return [call["request_id"] for call in recorder.reader.latest(Query(), 10_000)][::-1]


def steps(store: Store, retention: Retention) -> int:
    """How many steps it takes until there is nothing to do."""
    count = 0
    while store.submit(retention.step, urgent=True).result().more:
        count += 1
    return count


def test_calls_go_when_they_are_too_old_and_their_attempts_with_them(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        recorder = fill(store, 10)
        retention = Retention(store, Clock(at=67.0), RetentionLimits(60.0, PLENTY))
        assert store.submit(retention.step).result() == (True, 7)
        assert ids(recorder) == ["r7", "r8", "r9"]
        assert execute(tmp_path, "SELECT count(*) FROM attempts") == [(3,)]
        assert steps(store, retention) == 0


def test_jobs_go_when_their_last_call_is_too_old(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        fill(store, 5, job_id="old")
        Recorder(store).call_ended(answered(job_id="young", started_wall=START + 100))
        Recorder(store).call_ended(answered(job_id="open"))
        assert store.catch_up(3600)
        execute(tmp_path, "UPDATE jobs SET state = 'expired' WHERE job_id != 'open'")
        for at_us in (START * 1e6, (START + 100) * 1e6):
            tool = f"('old', {round(at_us)}, 5, 'grep', 1)"
            columns = "job_id, at_us, duration_us, name, ok"
            execute(tmp_path, f"INSERT INTO job_tools ({columns}) VALUES {tool}")
        steps(store, Retention(store, Clock(at=110.0), RetentionLimits(60.0, PLENTY)))
        assert execute(tmp_path, "SELECT job_id FROM jobs") == [("open",), ("young",)]
        assert execute(tmp_path, "SELECT count(*) FROM job_tools") == [(1,)]


def test_a_file_that_is_too_large_loses_jobs_with_the_calls_of_their_time(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        records = [answered(job_id=f"j{n}", started_wall=START + n) for n in range(1200)]
        jobs = [rows.job_row(record) for record in records]
        store.submit(lambda db: db.executemany(rows.UPSERT_JOB, jobs), urgent=True).result()
        execute(tmp_path, "UPDATE jobs SET state = 'ok' WHERE job_id != 'j0'")
        fill(store, 3)
        execute(tmp_path, "PRAGMA wal_checkpoint(TRUNCATE)")
        retention = Retention(store, Clock(), RetentionLimits(AGES, 1))
        assert store.submit(retention.step, urgent=True).result() == Step(more=True, calls=3)
        while store.submit(retention.step, urgent=True).result().more:
            pass
        assert execute(tmp_path, "SELECT job_id FROM jobs") == [("j0",)], "it is open"


def test_the_oldest_go_until_the_file_is_small_enough_and_shorter(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        recorder = fill(store, 6000)
        execute(tmp_path, "PRAGMA wal_checkpoint(TRUNCATE)")
        before = (tmp_path / FILE_NAME).stat().st_size
        retention = Retention(store, Clock(), RetentionLimits(AGES, before // 2))
        assert steps(store, retention) > 6
        left = ids(recorder)
        assert 1000 < len(left) < 3200
        assert left[-1] == "r5999"
        execute(tmp_path, "PRAGMA wal_checkpoint(TRUNCATE)")
        assert (tmp_path / FILE_NAME).stat().st_size < 0.75 * before
        assert steps(store, retention) == 0
        assert execute(tmp_path, "PRAGMA integrity_check") == [("ok",)]


def test_one_step_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CALLS_AT_ONCE", 3)
    with opened(tmp_path) as store:
        recorder = fill(store, 10)
        retention = Retention(store, Clock(at=1000.0), RetentionLimits(60.0, PLENTY))
        assert store.submit(retention.step).result() == (True, 3)
        assert ids(recorder) == [f"r{number}" for number in range(3, 10)]


async def test_a_step_that_came_to_nothing_counts_for_nothing(tmp_path: Path) -> None:
    """The disk is full at the first try: it is run again, and its calls are counted once."""
    with opened(tmp_path) as store:
        recorder = await asyncio.to_thread(fill, store, 3)
        retention = Retention(store, Clock(at=1000.0), RetentionLimits(60.0, PLENTY))
        counted: list[int] = []

        def step(db: sqlite3.Connection) -> Step:
            counted.append(retention.pruned)
            done = Retention.step(retention, db)
            if len(counted) == 1:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            return done

        retention.step = step  # type: ignore[method-assign]
        await retention.prune()
        assert counted == [0, 0, 3]
        assert repr(retention).endswith("3 calls pruned>")
        assert await asyncio.to_thread(ids, recorder) == []


def test_what_is_no_record_is_never_touched(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        execute(tmp_path, "INSERT INTO facts VALUES ('kept', 1)")
        recorder = fill(store, 20)
        steps(store, Retention(store, Clock(at=AGES * 2), RetentionLimits(0.0, 0)))
        assert ids(recorder) == []
        assert execute(tmp_path, "SELECT name FROM facts") == [("kept",)]


async def test_it_prunes_by_itself_and_goes_on_after_a_disk_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EVERY_S", 0.0)
    with opened(tmp_path) as store:
        recorder = await asyncio.to_thread(fill, store, 3)
        retention = Retention(store, Clock(at=1000.0), RetentionLimits(60.0, PLENTY))
        watching = asyncio.get_running_loop().create_task(retention.watch())
        with locked(tmp_path):
            await asyncio.sleep(0)
        while retention.pruned < 3:  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0)
        watching.cancel()
        assert await asyncio.to_thread(ids, recorder) == []


async def test_a_closed_store_ends_a_round(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        pass
    await Retention(store, Clock(), RetentionLimits(60.0, PLENTY)).prune()


def test_heartbeats_are_kept_as_records_are(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for minute in range(4):
            beat = Heartbeat(round((START + 60 * minute) * 1e6), "run")
            store.submit(partial(keep, beat)).result()
        retention = Retention(store, Clock(at=240.0), RetentionLimits(120.0, PLENTY))
        assert steps(store, retention) == 0
        assert execute(tmp_path, "SELECT at_us FROM heartbeats ORDER BY minute") == [
            (round((START + 60 * minute) * 1e6),) for minute in (2, 3)
        ]


def keep(beat: Heartbeat, db: sqlite3.Connection) -> None:
    slo_store.keep_heartbeat(db, beat)
