"""Jobs: what clients report of them, and what became of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.failures import ErrorCode
from modelsplit_policy.jobs import MOST_OPEN, VerdictError, begun
from modelsplit_policy.vocabulary import JobState
from modelsplit_proxy.admin.page import Page, failed, json_page, text_page, wants_text
from modelsplit_proxy.protocol import job_report
from modelsplit_proxy.protocol.job_report import ReportError
from modelsplit_proxy.records import job_reader, job_text
from modelsplit_proxy.records.job_reader import JobReader, KeptJob, ToldCall
from modelsplit_proxy.records.job_store import Tool, TooManyJobsError
from modelsplit_proxy.records.job_story import story
from modelsplit_proxy.records.query import JOB_WORDS, only, read_job_query, read_number
from modelsplit_proxy.runtime.clock import rfc3339_us

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from modelsplit_proxy.admin.page import Handler, PageAsked
    from modelsplit_proxy.admin.parts import JobParts
    from modelsplit_proxy.records.query import JobQuery
    from modelsplit_proxy.records.record import CallRecord

    Report = Callable[[str, bytes], Awaitable[Page]]

_MAX_LATEST: Final = 1000


class JobRoutes:
    """``/jobs``, ``/jobs/{id}``; ``reports`` are posted: ``/jobs/{id}/start|tool|finish``."""

    def __init__(self, parts: JobParts) -> None:
        self._parts = parts
        self._reader = JobReader(parts.recorder.read)
        self.routes: Mapping[str, Handler] = {"/jobs": self._jobs, "/jobs/{id}": self._job}
        self.reports: Mapping[str, Report] = {
            "/jobs/{id}/start": self._start,
            "/jobs/{id}/tool": self._tool,
            "/jobs/{id}/finish": self._finish,
        }

    # 1. What clients report.

    async def report(self, route: str, job_id: str, raw: bytes) -> Page:
        """One report, taken or refused. ``route``: a key of ``reports``. Raises StoreError."""
        try:
            return await self.reports[route](job_report.check_id(job_id), raw)
        except ReportError as error:
            return failed(str(error), ErrorCode.BAD_REQUEST, 400)
        except TooManyJobsError:
            text = f"{MOST_OPEN} jobs are open, no more are begun; finish some"
            return failed(text, ErrorCode.RATE_LIMITED, 429)
        except VerdictError as error:
            text = f'the job "{job_id}" has ended, or is told to end, as {error.state}'
            return failed(text, ErrorCode.BAD_REQUEST, 409)

    async def _start(self, job_id: str, raw: bytes) -> Page:
        job_report.read_start(raw)
        job = await self._parts.keeper.start(job_id)
        told_us = job.first_us if job.started_us is None else job.started_us
        return json_page({"job_id": job_id, "start_told_at": rfc3339_us(told_us)})

    async def _tool(self, job_id: str, raw: bytes) -> Page:
        name, duration_us, ok = job_report.read_tool(raw)
        late = await self._parts.keeper.tool(job_id, Tool(name, duration_us, ok))
        return json_page({"job_id": job_id, "name": name, "late": late})

    async def _finish(self, job_id: str, raw: bytes) -> Page:
        verdict, why = job_report.read_finish(raw)
        job = await self._parts.keeper.finish(job_id, verdict, why)
        finished_us = job.last_us if job.finished_us is None else job.finished_us
        return json_page(
            {
                "job_id": job_id,
                "ok": job.verdict is JobState.OK,
                "why": job.why,
                "finished_at": rfc3339_us(finished_us),
            }
        )

    # 2. What became of them.

    async def _jobs(self, asked: PageAsked) -> Page:
        """Those heard of last, newest first."""
        only(asked.query, (*JOB_WORDS, "limit", "format"))
        query = read_job_query(asked.query, self._parts.clock.wall())
        limit = read_number("limit", asked.query.get("limit"), 100, _MAX_LATEST)
        running = self._parts.live.by_job()
        kept = await asyncio.to_thread(self._latest, query, limit, running)
        jobs = [job_reader.fields(job, len(running.get(job.job_id, ()))) for job in kept]
        return text_page(job_text.listing(jobs)) if wants_text(asked) else json_page(jobs)

    def _latest(
        self, query: JobQuery, limit: int, running: Mapping[str, Sequence[CallRecord]]
    ) -> list[KeptJob]:
        """In a thread. A job whose first call still runs is in no file yet."""
        reader = self._reader
        known = reader.known(tuple(running)) if running else set()
        new = [
            _not_kept(job_id, round(records[0].started_wall * 1e6))
            for job_id, records in running.items()
            if job_id not in known
        ]
        new.sort(key=lambda kept: kept.job.first_us, reverse=True)
        fitting = [kept for kept in new if query.fits(kept.job.state, kept.job.last_us)]
        return [*fitting, *reader.latest(query, limit)][:limit]

    async def _job(self, asked: PageAsked) -> Page:
        """One job: its calls, tools and gaps, and where its time went."""
        as_text = wants_text(asked)
        running = self._running(asked.item)
        return await asyncio.to_thread(self._page, asked.item, running, as_text=as_text)

    def _page(self, job_id: str, running: list[ToldCall], *, as_text: bool) -> Page:
        """In a thread: a job of thousands of calls takes a while to tell."""
        fields = self._told(job_id, running)
        if fields is None:
            text = f'no job has the id "{job_id[:128]}"'
            return failed(text, ErrorCode.BAD_REQUEST, 404)
        return text_page(job_text.text(fields)) if as_text else json_page(fields)

    def _running(self, job_id: str) -> list[ToldCall]:
        live = self._parts.live
        return [
            ToldCall(round(record.started_wall * 1e6), None, live.fields(record))
            for record in live.of_job(job_id)
        ]

    def _told(self, job_id: str, running: list[ToldCall]) -> dict[str, Any] | None:
        """``running``: what is in no file yet. Blocks on disk."""
        reader = self._reader
        kept = reader.find(job_id)
        if kept is None:
            if not running:
                return None
            kept = _not_kept(job_id, running[0].started_us)
        job = kept.job
        for call in running:
            job = job.seen(call.started_us)
        calls, tools = reader.calls(job_id), reader.tools(job_id)
        # One that has ended meanwhile is there already.
        ended = {(call.started_us, call.fields["request_id"]) for call in calls}
        running = [c for c in running if (c.started_us, c.fields["request_id"]) not in ended]
        now_us = round(self._parts.clock.wall() * 1e6)
        return story(kept._replace(job=job), [*calls, *running], tools, now_us)


def _not_kept(job_id: str, began_us: int) -> KeptJob:
    """A job of which nothing is known but that a call of it runs."""
    return KeptJob(job_id, begun(began_us), job_reader.nothing_yet())
