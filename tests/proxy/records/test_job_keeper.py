"""Jobs as they run: on disk before they are told so, ended behind the last of their calls."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.jobs import VerdictError
from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.records.job_keeper import JobKeeper
from modelsplit_proxy.records.job_store import EndedJob, Tool
from modelsplit_proxy.records.live import LiveCalls
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_proxy.runtime.tasks import Tasks
from modelsplit_proxy.storage.state_file import StoreError
from support.records import answered, begun
from support.stores import execute, locked_out, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.storage.writer import Store

OK, FAILED, EXPIRED, OPEN = JobState.OK, JobState.FAILED, JobState.EXPIRED, JobState.OPEN
START = 1795393743.0


@dataclass
class Clock:
    at: float = START

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at


@dataclass
class Counted:
    """A listener, and what it was told."""

    ended: list[EndedJob] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def job_ended(self, job: EndedJob) -> None:
        self.ended.append(job)
        self.changed.set()

    def tool_ran(self, tool: Tool) -> None:
        self.tools.append(tool)


@dataclass
class Kept:
    keeper: JobKeeper
    store: Store
    recorder: Recorder
    live: LiveCalls
    clock: Clock
    counted: Counted

    def begin(self, job_id: str, at: float) -> CallRecord:
        record = begun(request_id=f"r{at}", job_id=job_id, started_wall=START + at, started=at)
        self.live.enter(record)
        return record

    def end(self, record: CallRecord, took_s: float) -> None:
        """As a call does: it leaves, then everybody is told."""
        record.ended = record.started + took_s
        self.live.leave(record)
        self.recorder.call_ended(record)
        self.keeper.call_ended(record)


@contextlib.asynccontextmanager
async def kept(directory: Path) -> AsyncIterator[Kept]:
    with opened(directory) as store:
        clock, tasks, counted = Clock(), Tasks(), Counted()
        recorder, live = Recorder(store), LiveCalls(clock)
        keeper = JobKeeper(store, recorder, live, tasks, clock, 3600.0)
        keeper.listen(counted)
        yield Kept(keeper, store, recorder, live, clock, counted)
        await tasks.close()


def states(directory: Path) -> list[tuple[object, ...]]:
    return execute(directory, "SELECT job_id, state, ended_us - first_us FROM jobs ORDER BY job_id")


async def test_a_start_is_on_disk_when_it_is_told(tmp_path: Path) -> None:
    async with kept(tmp_path) as up:
        await up.keeper.start("j")
        assert execute(tmp_path, "SELECT job_id, started_us FROM jobs") == [("j", int(START * 1e6))]


async def test_a_job_that_is_finished_ends_at_once_with_all_its_calls_known(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path) as up:
        up.recorder.call_ended(answered(job_id="j", started_wall=START - 7))
        assert (await up.keeper.finish("j", OK, None)).verdict is OK
        assert up.counted.ended == [EndedJob("j", OK, 7_000_000, executor=False)]
        await up.keeper.finish("j", OK, None)
        with pytest.raises(VerdictError):
            await up.keeper.finish("j", FAILED, None)
        assert len(up.counted.ended) == 1
        assert repr(up.keeper) == "<JobKeeper 0 open, 0 ending>"


async def test_one_whose_calls_run_ends_behind_the_last_of_them(tmp_path: Path) -> None:
    async with kept(tmp_path) as up:
        await up.keeper.start("j")
        first, second = up.begin("j", 1), up.begin("j", 2)
        up.clock.at = START + 5
        job = await up.keeper.finish("j", FAILED, "no luck")
        assert (job.state, states(tmp_path)) == (OPEN, [("j", "open", None)])
        late = up.begin("j", 6)
        up.end(first, 7.0)
        up.end(second, 10.0)
        await up.counted.changed.wait()
        assert up.counted.ended == [EndedJob("j", FAILED, 12_000_000, executor=False)]
        up.end(late, 60.0)
        await up.keeper.look()
        assert states(tmp_path) == [("j", "failed", 12_000_000)]
        assert execute(tmp_path, "SELECT calls, late FROM jobs") == [(3, 1)]
        assert len(up.counted.ended) == 1


async def test_a_job_expires_an_hour_after_its_last_event_unless_a_call_runs(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path) as up:
        await up.keeper.start("silent")
        await up.keeper.start("running")
        up.clock.at = START + 10
        await up.keeper.tool("silent", Tool("grep", 5, ok=True))
        record = up.begin("running", 20)
        up.clock.at = START + 3609
        await up.keeper.look()
        assert (up.counted.ended, up.keeper.open) == ([], 2)
        up.clock.at = START + 3610
        await up.keeper.look()
        assert up.counted.ended == [EndedJob("silent", EXPIRED, None, executor=False)]
        assert up.keeper.open == 1
        up.end(record, 5000.0)
        up.clock.at = START + 5020 + 3600
        await up.keeper.look()
        assert [job.job_id for job in up.counted.ended] == ["silent", "running"]


async def test_what_a_killed_process_left_open_is_ended_by_the_next(tmp_path: Path) -> None:
    async with kept(tmp_path) as up:
        await up.keeper.start("finished")
        await up.keeper.start("open")
        up.begin("finished", 1)
        up.clock.at = START + 5
        await up.keeper.finish("finished", OK, None)
    async with kept(tmp_path) as up:
        up.clock.at = START + 60
        await up.keeper.look()
        assert up.counted.ended == [EndedJob("finished", OK, 5_000_000, executor=False)]
        await up.keeper.finish("open", OK, None)
        assert up.counted.ended[1:] == [EndedJob("open", OK, 60_000_000, executor=False)]


async def test_tools_are_counted_and_told_whether_they_come_too_late(tmp_path: Path) -> None:
    async with kept(tmp_path) as up:
        tool = Tool("grep", 5, ok=False)
        assert await up.keeper.tool("j", tool) is False
        await up.keeper.finish("j", OK, None)
        up.clock.at = START + 1
        assert await up.keeper.tool("j", tool) is True
        assert up.counted.tools == [tool, tool]


async def test_a_disk_that_takes_nothing_is_told_and_looking_goes_on(tmp_path: Path) -> None:
    async with kept(tmp_path) as up:
        await up.keeper.start("j")
        with locked_out(up.store):
            with pytest.raises(StoreError):
                await up.keeper.start("k")
            with pytest.raises(StoreError):
                await up.keeper.finish("j", OK, None)
        assert states(tmp_path) == [("j", "open", None)]
        await up.keeper.finish("j", OK, None)
        assert states(tmp_path) == [("j", "ok", 0)]


async def test_where_nobody_has_jobs_the_file_is_left_alone(tmp_path: Path) -> None:
    async with kept(tmp_path) as up:
        await up.keeper.look()
        before = up.store.commits
        for _ in range(3):
            await up.keeper.look()
        assert up.store.commits == before
        await up.keeper.finish("j", OK, None)
        await up.keeper.look()
        before = up.store.commits
        await up.keeper.look()
        assert (up.store.commits, up.keeper.open) == (before, 0)
        up.recorder.call_ended(record := answered(job_id="k"))
        up.keeper.call_ended(record)
        await up.keeper.look()
        assert up.keeper.open == 1


async def test_a_client_that_leaves_while_it_finishes_its_job_has_finished_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(tmp_path) as up:
        await up.keeper.start("j")
        commit, committed = up.store.commit, asyncio.Event()

        async def slow(work: Any) -> Any:
            await commit(work)
            committed.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(up.store, "commit", slow)
        leaving = asyncio.ensure_future(up.keeper.finish("j", OK, None))
        await committed.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await up.keeper.look()
        assert states(tmp_path) == [("j", "ok", 0)]
        assert [job.job_id for job in up.counted.ended] == ["j"]
