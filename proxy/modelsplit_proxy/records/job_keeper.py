"""Jobs as clients tell of them: on disk before they are told so, ended when they are over.

How a job stands is in the state file alone (``job_store``), which the record writer adds calls
to; what runs at the moment is known to ``LiveCalls``. A job that is told to be finished while
calls of it run is closed behind the last of them. What nobody finishes, or a process that was
killed left open, is found by looking every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.records import job_store
from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from typing import TypeVar

    from modelsplit_policy.jobs import Job
    from modelsplit_proxy.records.job_store import EndedJob, Tool
    from modelsplit_proxy.records.live import LiveCalls
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.records.recorder import Recorder
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.runtime.tasks import Tasks
    from modelsplit_proxy.storage.writer import Store

    T = TypeVar("T")

logger = logging.getLogger("modelsplit")

_LOOK_EVERY_S: Final = 10.0
# How long a client that finishes its job waits to have it ended, too.
_CLOSING_S: Final = 0.5


class JobListener(Protocol):
    """Who counts jobs."""

    def job_ended(self, job: EndedJob) -> None: ...
    def tool_ran(self, tool: Tool) -> None: ...


class JobKeeper:
    """All jobs of the process. What writes raises StoreError where the disk does not take it."""

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        live: LiveCalls,
        tasks: Tasks,
        clock: Clock,
        expire_after_s: float,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._live = live
        self._tasks = tasks
        self._clock = clock
        self._expire_after_us = round(expire_after_s * 1e6)
        # When those were told to be finished of which calls still run.
        self._finishing: dict[str, int] = {}
        self._listeners: list[JobListener] = []
        # As counted at the last look; how many events were heard of jobs, and until then.
        self.open = 0
        self._heard = 1
        self._looked = 0

    def __repr__(self) -> str:
        return f"<JobKeeper {self.open} open, {len(self._finishing)} ending>"

    def listen(self, listener: JobListener) -> None:
        self._listeners.append(listener)

    # 1. What clients tell.

    async def start(self, job_id: str) -> Job:
        """Raises job_store.TooManyJobsError."""
        at_us = self._now_us()
        return await self._commit(lambda db: job_store.start(db, job_id, at_us))

    async def tool(self, job_id: str, tool: Tool) -> bool:
        """Whether the job was over by then. Raises job_store.TooManyJobsError."""
        at_us = self._now_us()
        late = await self._commit(lambda db: job_store.add_tool(db, job_id, at_us, tool))
        for listener in self._listeners:
            listener.tool_ran(tool)
        return late

    async def finish(self, job_id: str, verdict: JobState, why: str | None) -> Job:
        """Raises job_store.TooManyJobsError, jobs.VerdictError."""
        at_us = self._now_us()
        job = await self._commit(lambda db: job_store.finish(db, job_id, at_us, verdict, why))
        if job.state is JobState.OPEN and job.finished_us is not None:
            self._finishing[job_id] = job.finished_us
            if (closing := self._close_if_over(job_id)) is not None:
                # The job ends, whether or not its client stays to hear of it, or the disk is slow.
                await asyncio.wait([closing], timeout=_CLOSING_S)
        return job

    # 2. How jobs end.

    def call_ended(self, record: CallRecord) -> None:
        """A call of a job has ended, and is known to the recorder."""
        self._heard += 1
        if record.job_id in self._finishing:
            self._close_if_over(record.job_id)

    async def watch(self) -> None:
        """End what nobody else ends; a task of the process."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                logger.debug("jobs are not looked through: %s", error)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """End jobs of which nothing was heard for too long, and those that have to be closed.

        Where nobody has jobs, the file is not locked for it.
        """
        heard = self._heard
        if self.open or heard != self._looked:
            await self._look()
            self._looked = heard

    async def _look(self) -> None:
        running, now_us, after_us = self._live.by_job(), self._now_us(), self._expire_after_us
        # A call that has ended since is still one that runs; all others are on disk now.
        await self._catch_up()

        def work(db: sqlite3.Connection) -> tuple[list[EndedJob], list[str], int]:
            ended = job_store.expire(db, now_us, after_us, running)
            return ended, job_store.finishing(db, running), job_store.count_open(db)

        more = True
        while more:
            ended, finishing, self.open = await self._write(work)
            for job in ended:
                self._tell(job)
            for job_id in finishing:
                await self._close(job_id)
            more = bool(ended or finishing)

    def _close_if_over(self, job_id: str) -> asyncio.Task[None] | None:
        """Close a job that is told to be finished, in the background; None: a call still runs."""
        if self._runs(job_id, self._finishing[job_id]):
            return None
        del self._finishing[job_id]
        return self._tasks.start(self._closed(job_id), "closing a job")

    async def _closed(self, job_id: str) -> None:
        try:
            await self._close(job_id)
        except StoreError as error:
            logger.debug("a job is closed later: %s", error)  # by ``look``

    async def _close(self, job_id: str) -> None:
        await self._catch_up()
        closing = self._store.submit(lambda db: job_store.close(db, job_id))
        self._store.hurry()
        ended = await asyncio.wrap_future(closing)
        if ended is not None:
            self._tell(ended)

    def _tell(self, ended: EndedJob) -> None:
        for listener in self._listeners:
            listener.job_ended(ended)

    def _runs(self, job_id: str, by_us: int) -> bool:
        """Whether a call of it runs that had begun by then."""
        return any(round(r.started_wall * 1e6) <= by_us for r in self._live.of_job(job_id))

    async def _catch_up(self) -> None:
        """Have the calls that ended so far on disk, if the disk takes them."""
        if self._recorder.waiting:
            await asyncio.to_thread(self._recorder.catch_up)

    async def _commit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What a client tells: on disk, or StoreError."""
        try:
            return await self._store.commit(work)
        finally:
            # Counted behind it, lest a look between is taken for one at it.
            self._heard += 1

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._store.submit(work))

    def _now_us(self) -> int:
        return round(self._clock.wall() * 1e6)
