"""``modelsplit jobs``: what became of jobs, from the running proxy or from its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from modelsplit_proxy.cli.command import JSON, Argument, Command
from modelsplit_proxy.cli.output import CommandError, ExitCode, talk
from modelsplit_proxy.cli.record_source import (
    LIMIT,
    STATE,
    AdminSource,
    opened,
    read_limit,
    show_kept,
    with_list,
)
from modelsplit_proxy.config.settings import read_settings
from modelsplit_proxy.records import job_reader, job_text
from modelsplit_proxy.records.job_reader import JobReader
from modelsplit_proxy.records.job_story import story
from modelsplit_proxy.records.query import read_job_query
from modelsplit_proxy.records.query_error import QueryError
from modelsplit_proxy.runtime import local_time
from modelsplit_proxy.runtime.clock import SystemClock

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from pathlib import Path

    from modelsplit_proxy.config.settings import Address
    from modelsplit_proxy.runtime.clock import Clock

_NO_JOBS: Final = "no jobs are kept: a call belongs to one by its header X-LLM-Job-Id"

_EXAMPLES: Final = """\
examples:
  modelsplit jobs                                the last jobs
  modelsplit jobs --job-state failed --since 1d
  modelsplit jobs nightly-42                     one job and where its time went
  modelsplit jobs --state /var/lib/modelsplit    without a running proxy
"""


@dataclass(frozen=True, slots=True)
class JobsArguments:
    """What the command line asks. ``words``: those of ``query.JOB_WORDS`` that were said."""

    job_id: str | None
    words: dict[str, str]
    limit: int
    as_json: bool


def read_arguments(args: argparse.Namespace) -> JobsArguments:
    """Raises QueryError where the flags contradict each other."""
    said = {"state": args.job_state, "since": args.since, "until": args.until}
    words = {word: value for word, value in said.items() if value}
    if args.id == "":
        raise QueryError("the ID is empty; give a job's, or none for a list")
    if args.id is not None and (words or args.limit is not None):
        raise QueryError("an ID names one job: it goes with --json and --state only")
    limit = read_limit(args.limit)
    return JobsArguments(args.id, words, limit, args.json)


def run(asked: JobsArguments, admin: Address, state: Path | None, clock: Clock) -> int:
    """Ask, print, and return the exit code. Raises StoreError for a file that cannot be read."""
    source = _Proxy(admin) if state is None else _File(state, clock)
    told_by = admin if state is None else None
    try:
        if asked.job_id is not None:
            try:
                job = source.one(asked.job_id)
            except CommandError as error:
                raise with_list(error, "modelsplit jobs", admin, state) from None
            show_kept(job, job_text.text, as_json=asked.as_json, told_by=told_by)
        else:
            jobs = source.latest(asked.words, asked.limit)
            show_kept(jobs, job_text.listing, as_json=asked.as_json, told_by=told_by)
            if not jobs and not asked.as_json:
                talk("no job matches" if asked.words else _NO_JOBS)
    except QueryError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    return ExitCode.OK


class _Proxy:
    """The running proxy's admin listener."""

    def __init__(self, admin: Address) -> None:
        self._source = AdminSource(admin)

    def one(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self._source.json(f"/jobs/{quote(job_id, safe='')}")
        return job

    def latest(self, words: dict[str, str], limit: int) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = self._source.json(
            f"/jobs?{urlencode({**words, 'limit': limit})}"
        )
        return jobs


class _File:
    """The state file itself: all but the calls that run."""

    def __init__(self, state: Path, clock: Clock) -> None:
        self._clock = clock
        self._reader = JobReader(opened(state, clock))

    def one(self, job_id: str) -> dict[str, Any]:
        kept = self._reader.find(job_id)
        if kept is None:
            raise CommandError(f'no job has the id "{job_id[:128]}"', ExitCode.FAILED)
        calls, tools = self._reader.calls(job_id), self._reader.tools(job_id)
        # Of one that is open, nothing is known since its last event.
        return story(kept, calls, tools, kept.job.last_us)

    def latest(self, words: dict[str, str], limit: int) -> list[dict[str, Any]]:
        query = read_job_query(words, self._clock.wall())
        return [job_reader.fields(kept) for kept in self._reader.latest(query, limit)]


def _command(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    asked = read_arguments(args)
    # Only the flag asks for the file: the variable says where the proxy keeps it.
    admin = read_settings({"admin": args.admin}, environ).admin
    return run(asked, admin, args.state, SystemClock())


COMMAND: Final = Command(
    "jobs",
    "what became of jobs: a list, or one of them and where its time went",
    "Jobs, the one last heard of last; with ID, one job: its calls, tools and gaps. "
    "Exit 0: found; 1: no such job; 2: wrong usage; 3: not running.",
    _command,
    (
        Argument("id", nargs="?", metavar="ID", help="one job, by its whole id"),
        Argument("--job-state", help="jobs that are so: open, ok, failed or expired"),
        Argument(
            "--since",
            type=local_time.zoned,
            metavar="WHEN",
            help="heard of since 30m, 1h, 7d ago, or a time",
        ),
        Argument(
            "--until", type=local_time.zoned, metavar="WHEN", help="last heard of before this"
        ),
        LIMIT,
        JSON,
        STATE,
    ),
    settings=("admin",),
    example=_EXAMPLES,
)
