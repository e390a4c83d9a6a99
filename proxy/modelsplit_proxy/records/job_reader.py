"""Jobs as they are read from the state file, by the proxy or without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelsplit_proxy.records import job_store, rows
from modelsplit_proxy.runtime.clock import rfc3339_us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelsplit_policy.jobs import Job
    from modelsplit_proxy.records.query import JobQuery
    from modelsplit_proxy.records.reader import Read

_ROLES: Final = ("planner", "executor", "heavy", "cloud", "chat")
_SUMS: Final = (
    *("calls", "failures", "executor_calls", *_ROLES, "tools", "late"),
    *("prompt_tokens", "output_tokens", "cost_usd", "cost_unknown"),
)
_ROW: Final = f"job_id, {job_store.COLUMNS}, {', '.join(_SUMS)}"
_STORED: Final = len(job_store.COLUMNS.split(", "))
# Calls, and runs of tools, of one job that are looked at: its first ones.
MOST: Final = 2000


class KeptJob(NamedTuple):
    """One job's row: how it stands, and what its calls add up to, by name."""

    job_id: str
    job: Job
    sums: dict[str, Any]


class ToldCall(NamedTuple):
    """One call of a job. ``ended_us`` None: it runs. ``fields``: as ``/requests/{id}`` has it."""

    started_us: int
    ended_us: int | None
    fields: dict[str, Any]


class ToldTool(NamedTuple):
    """One run of a tool, reported at ``at_us``."""

    name: str
    at_us: int
    duration_us: int
    ok: bool


class JobReader:
    """Finds jobs. Everything blocks on disk and may raise StoreError."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def find(self, job_id: str) -> KeptJob | None:
        found = self._read(f"SELECT {_ROW} FROM jobs WHERE job_id = ?", (job_id,))
        return _kept(found[0]) if found else None

    def known(self, job_ids: Sequence[str]) -> set[str]:
        """Which of these there are."""
        marks = ", ".join("?" * len(job_ids))
        text = f"SELECT job_id FROM jobs WHERE job_id IN ({marks})"
        return {job_id for (job_id,) in self._read(text, tuple(job_ids))}

    def latest(self, query: JobQuery, limit: int) -> list[KeptJob]:
        """Those heard of last, newest first."""
        where, values = query.where()
        text = f"SELECT {_ROW} FROM jobs WHERE {where} ORDER BY last_us DESC, job_id DESC LIMIT ?"
        return [_kept(row) for row in self._read(text, (*values, limit))]

    def calls(self, job_id: str) -> list[ToldCall]:
        """Its ended calls with their attempts, in the order in which they came; ``MOST``."""
        text = f"SELECT {rows.CALL} FROM calls WHERE job_id = ? ORDER BY started_us, id LIMIT ?"
        found = self._read(text, (job_id, MOST))
        attempts = self._attempts(job_id)
        return [
            ToldCall(
                row[1], row[1] + row[2], rows.call_fields(row) | {"attempts": attempts.get(row[0])}
            )
            for row in found
        ]

    def tools(self, job_id: str) -> list[ToldTool]:
        """In the order in which they were reported; ``MOST``."""
        text = (
            "SELECT name, at_us, duration_us, ok FROM job_tools "
            "WHERE job_id = ? ORDER BY id LIMIT ?"
        )
        found = self._read(text, (job_id, MOST))
        return [ToldTool(name, at_us, took_us, bool(ok)) for name, at_us, took_us, ok in found]

    def _attempts(self, job_id: str) -> dict[int, list[dict[str, Any]]]:
        its_calls = "SELECT id FROM calls WHERE job_id = ? ORDER BY started_us, id LIMIT ?"
        text = (
            f"SELECT call_id, {rows.ATTEMPT} FROM attempts WHERE call_id IN ({its_calls}) "
            "ORDER BY call_id, number"
        )
        out: dict[int, list[dict[str, Any]]] = {}
        for call_id, *row in self._read(text, (job_id, MOST)):
            out.setdefault(call_id, []).append(rows.attempt_fields(tuple(row)))
        return out


def _kept(row: tuple[Any, ...]) -> KeptJob:
    stored, sums = row[1 : 1 + _STORED], row[1 + _STORED :]
    return KeptJob(row[0], job_store.job_of(stored), dict(zip(_SUMS, sums, strict=True)))


def nothing_yet() -> dict[str, Any]:
    """The sums of a job none of whose calls has ended."""
    return dict.fromkeys(_SUMS, 0)


def fields(kept: KeptJob, running: int = 0) -> dict[str, Any]:
    """A job as plain values. ``running``: how many calls of it run."""
    job, sums = kept.job, kept.sums
    e2e_us = job.e2e_us
    return {
        "job_id": kept.job_id,
        "state": job.state,
        "why": job.why,
        "started_at": rfc3339_us(job.first_us),
        "start_told_at": _moment(job.started_us),
        "finished_at": _moment(job.finished_us),
        "ended_at": _moment(job.ended_us),
        "last_event_at": rfc3339_us(job.last_us),
        "job_e2e_latency_ms": None if e2e_us is None else e2e_us / 1000,
        "running": running,
        "calls": sums["calls"],
        "failures": sums["failures"],
        "executor_calls": sums["executor_calls"],
        "roles": {role.upper(): sums[role] for role in _ROLES if sums[role]},
        "tools": sums["tools"],
        "late": sums["late"],
        "prompt_tokens": sums["prompt_tokens"],
        "output_tokens": sums["output_tokens"],
        "cost_usd": round(sums["cost_usd"], 9),
        "cost_unknown": sums["cost_unknown"],
    }


def _moment(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339_us(at_us)
