"""Jobs in the state file: what clients tell of them, written and read in one transaction each.

Everything here is a job for the store: a function of its connection. The calls of a job are in
``calls``, and are summed up in its row as they end (``rows``); the row is the one place that says
how a job stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.jobs import MOST_OPEN, Job, begun
from modelsplit_policy.vocabulary import JobState

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

COLUMNS: Final = "first_us, last_us, started_us, finished_us, verdict, why, state, ended_us"
_FIND: Final = f"SELECT {COLUMNS} FROM jobs WHERE job_id = ?"
_SAVE: Final = f"""
INSERT INTO jobs (
    job_id, {COLUMNS}, calls, failures, planner, executor, heavy, cloud, chat,
    prompt_tokens, output_tokens, cost_usd, cost_unknown
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
ON CONFLICT (job_id) DO UPDATE SET
    first_us = excluded.first_us,
    last_us = excluded.last_us,
    started_us = excluded.started_us,
    finished_us = excluded.finished_us,
    verdict = excluded.verdict,
    why = excluded.why,
    state = excluded.state,
    ended_us = excluded.ended_us
"""
_ADD_TOOL: Final = """
INSERT INTO job_tools (job_id, at_us, duration_us, name, ok) VALUES (?, ?, ?, ?, ?)
"""
_COUNT_TOOL: Final = "UPDATE jobs SET tools = tools + 1, late = late + ? WHERE job_id = ?"
_CALLS: Final = "SELECT started_us, started_us + total_us FROM calls WHERE job_id = ?"
_TOOLS: Final = "SELECT at_us FROM job_tools WHERE job_id = ?"
_OPEN: Final = "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'open' LIMIT ?)"
_SILENT: Final = f"""
SELECT job_id, {COLUMNS} FROM jobs
WHERE state = 'open' AND finished_us IS NULL AND last_us <= ? ORDER BY last_us LIMIT ?
"""
_FINISHING: Final = """
SELECT job_id FROM jobs WHERE state = 'open' AND finished_us IS NOT NULL LIMIT ?
"""
# Jobs that end in one transaction.
_AT_ONCE: Final = 200


class TooManyJobsError(Exception):
    """So many jobs are open that none is begun."""


class Tool(NamedTuple):
    """One run of a tool, as a client reports it when it has ended."""

    name: str
    duration_us: int
    ok: bool


class EndedJob(NamedTuple):
    """A job that has just ended. ``executor``: it had a call of the context EXECUTOR."""

    job_id: str
    state: JobState
    e2e_us: int | None
    executor: bool


def find(db: sqlite3.Connection, job_id: str) -> Job | None:
    row = db.execute(_FIND, (job_id,)).fetchone()
    return None if row is None else job_of(row)


def job_of(row: tuple[int, int, int | None, int | None, str | None, str | None, str, int]) -> Job:
    """The values of ``COLUMNS``."""
    first_us, last_us, started_us, finished_us, verdict, why, state, ended_us = row
    return Job(
        first_us,
        last_us,
        started_us,
        finished_us,
        None if verdict is None else JobState(verdict),
        why,
        JobState(state),
        ended_us,
    )


def start(db: sqlite3.Connection, job_id: str, at_us: int) -> Job:
    """Its start is told. Raises TooManyJobsError."""
    job = _found_or_begun(db, job_id, at_us).start(at_us)
    _save(db, job_id, job)
    return job


def add_tool(db: sqlite3.Connection, job_id: str, at_us: int, tool: Tool) -> bool:
    """A tool has run; whether the job was over by then. Raises TooManyJobsError."""
    job = _found_or_begun(db, job_id, at_us)
    late = job.is_late(at_us)
    _save(db, job_id, job.seen(at_us))
    db.execute(_ADD_TOOL, (job_id, at_us, tool.duration_us, tool.name, int(tool.ok)))
    db.execute(_COUNT_TOOL, (int(late), job_id))
    return late


def finish(
    db: sqlite3.Connection, job_id: str, at_us: int, verdict: JobState, why: str | None
) -> Job:
    """It is told to be finished. Raises TooManyJobsError, VerdictError."""
    job = _found_or_begun(db, job_id, at_us).finish(at_us, verdict, why)
    _save(db, job_id, job)
    return job


def close(db: sqlite3.Connection, job_id: str) -> EndedJob | None:
    """End a job that was told to be finished, none of whose calls runs; None: it is not that."""
    job = find(db, job_id)
    if job is None or job.verdict is None or job.state is not JobState.OPEN:
        return None
    calls = db.execute(_CALLS, (job_id,)).fetchall()
    late = sum(job.is_late(began_us) for began_us, _ in calls)
    late += sum(job.is_late(at_us) for (at_us,) in db.execute(_TOOLS, (job_id,)))
    # One that ended before the finish was written could not be known to be late.
    db.execute("UPDATE jobs SET late = ? WHERE job_id = ?", (late, job_id))
    return _end(db, job_id, job.ended(calls))


def expire(
    db: sqlite3.Connection, now_us: int, after_us: int, running: Collection[str]
) -> list[EndedJob]:
    """End some of the jobs of which nothing was heard for so long; empty: there are no more.

    ``running``: jobs that have a call that runs.
    """
    limit = _AT_ONCE + len(running)
    silent = db.execute(_SILENT, (now_us - after_us, limit)).fetchall()
    return [
        _end(db, job_id, job_of(row).expired(now_us, after_us))
        for job_id, *row in silent
        if job_id not in running
    ]


def finishing(db: sqlite3.Connection, running: Collection[str]) -> list[str]:
    """Some of the jobs that only have to be closed."""
    found = db.execute(_FINISHING, (_AT_ONCE + len(running),)).fetchall()
    return [job_id for (job_id,) in found if job_id not in running]


def count_open(db: sqlite3.Connection) -> int:
    """How many jobs have not ended; ``MOST_OPEN`` at most."""
    (count,) = db.execute(_OPEN, (MOST_OPEN,)).fetchone()
    return int(count)


def _found_or_begun(db: sqlite3.Connection, job_id: str, at_us: int) -> Job:
    job = find(db, job_id)
    if job is not None:
        return job
    if count_open(db) >= MOST_OPEN:
        raise TooManyJobsError
    return begun(at_us)


def _save(db: sqlite3.Connection, job_id: str, job: Job) -> None:
    # SQLite's driver looks for an adapter of every string of a class of its own: hence ``str``.
    verdict = None if job.verdict is None else str(job.verdict)
    values = (
        *(job_id, job.first_us, job.last_us, job.started_us, job.finished_us),
        *(verdict, job.why, str(job.state), job.ended_us),
    )
    db.execute(_SAVE, values)


def _end(db: sqlite3.Connection, job_id: str, job: Job) -> EndedJob:
    _save(db, job_id, job)
    query = "SELECT executor_calls FROM jobs WHERE job_id = ?"
    (executor_calls,) = db.execute(query, (job_id,)).fetchone()
    return EndedJob(job_id, job.state, job.e2e_us, executor_calls > 0)
