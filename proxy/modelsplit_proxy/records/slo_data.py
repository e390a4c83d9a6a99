"""What objectives are judged by, as it is kept in the state file.

Calls are read by time, a page at a time, each page a query of its own along an index. So
nothing grows with their number, and a proxy that writes meanwhile is in nobody's way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.failures import NEVER_LEFT
from modelsplit_policy.slo.heartbeat import Heartbeat
from modelsplit_policy.slo.samples import (
    DOCUMENT_BASELINE,
    OK,
    Baseline,
    CallSample,
    JobSample,
    Opinion,
    Review,
    Samples,
)
from modelsplit_policy.vocabulary import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modelsplit_proxy.records.reader import Read

_PAGE: Final = 5_000
# A page is read in one go: of so many rows, in a few milliseconds.
_GENTLE_PAGE: Final = 500
# After so many rows, a quarter of a millisecond of work, whoever else wants the interpreter
# has it (see ``recorder``).
_YIELD_EVERY: Final = 32
_YIELD_S: Final = 0.00002
_MINUTE_US: Final = 60_000_000

# A client that named no model has none in its error. What most calls have nothing of is not
# looked for in them: an answer of the first attempt has no other outcome, and no error.
# ``first``: how the first attempt ended. The last: it was to leave for a cloud, and did not.
_CALLS: Final = """
SELECT id, request_id, started_us, total_us, role, outcome, reason, attempts,
    CASE WHEN outcome = 'ok' AND attempts = 1 THEN 'ok' ELSE (
        SELECT outcome FROM attempts AS first WHERE first.call_id = calls.id AND first.number = 1
    ) END,
    llm_us, wait_us, upstream_wait_us, load_us, first_us, context, provider,
    CASE WHEN model IS NULL AND requested_model = '' THEN '' ELSE model END, fallback,
    json_extract(more, '$.schema'), json_extract(more, '$.loading'),
    CASE WHEN outcome = 'ok' THEN NULL ELSE
        json_extract(more, '$.error_code', '$.error_context', '$.error_provider')
    END, job_id,
    CASE WHEN provider = 'CLOUD' AND outcome != 'ok' THEN EXISTS (
        SELECT 1 FROM egress WHERE egress.request_id = calls.request_id AND egress.status = 0
    ) ELSE 0 END
FROM calls WHERE (started_us, id) > (?, ?) AND started_us <= ?
ORDER BY started_us, id LIMIT ?
"""
_JOBS: Final = """
SELECT job_id, first_us, ended_us, state, executor_calls FROM jobs
WHERE (ended_us, job_id) > (?, ?) AND ended_us <= ? ORDER BY ended_us, job_id LIMIT ?
"""
_TOOLS: Final = """
SELECT job_id, duration_us FROM job_tools
WHERE job_id IN (SELECT value FROM json_each(?)) ORDER BY id
"""
_HEARTBEATS: Final = """
SELECT at_us, run, drained, rss_bytes, descriptors, tasks, state_bytes, state_limit_bytes,
    lag_p99_us
FROM heartbeats WHERE minute >= ? AND at_us <= ? ORDER BY minute
"""
_REVIEWS: Final = "SELECT request_id, called_us, opinion FROM reviews WHERE called_us >= ?"
# Both along an index. The first minute that is kept has the first heartbeat.
_KEPT_SINCE: Final = """
SELECT min(at_us) FROM (
    SELECT min(started_us) AS at_us FROM calls
    UNION ALL SELECT at_us FROM heartbeats WHERE minute = (SELECT min(minute) FROM heartbeats)
)
"""
_BASELINE: Final = "SELECT value FROM baselines ORDER BY id DESC LIMIT 1"


class SloData:
    """Reads samples. Everything blocks on disk and may raise StoreError.

    ``check``: called before each page; what it raises ends it.
    ``gently``: let other threads of the process have the interpreter again and again.
    """

    def __init__(
        self, read: Read, check: Callable[[], None] | None = None, *, gently: bool = False
    ) -> None:
        self._read_all = read
        self._check = check
        self._gently = gently
        self._page = _GENTLE_PAGE if gently else _PAGE

    def samples(self, since_us: int, until_us: int) -> Samples:
        """What came in this time; calls and jobs are read while they are looked at."""
        return Samples(
            calls=self.calls(since_us, until_us),
            jobs=self.jobs(since_us, until_us),
            heartbeats=self.heartbeats(since_us, until_us),
            reviews=self.reviews(since_us),
            baseline=self.baseline() or DOCUMENT_BASELINE,
            kept_since_us=self.kept_since_us(),
        )

    def calls(self, since_us: int, until_us: int) -> Iterator[CallSample]:
        """By time."""
        started_us, call_id = since_us, -1
        while page := self._read(_CALLS, (started_us, call_id, until_us, self._page)):
            for number, row in enumerate(page):
                if self._gently and number % _YIELD_EVERY == 0:
                    time.sleep(_YIELD_S)
                # A call that only loads or unloads asked for nothing.
                if row[19] is None:
                    yield _call(row)
            call_id, started_us = page[-1][0], page[-1][2]

    def jobs(self, since_us: int, until_us: int) -> Iterator[JobSample]:
        """Those that ended, by when they did."""
        ended_us, job_id = since_us, ""
        while page := self._read(_JOBS, (ended_us, job_id, until_us, self._page)):
            names = [row[0] for row in page]
            tools: dict[str, list[int]] = {}
            for name, duration_us in self._read(_TOOLS, (orjson.dumps(names).decode(),)):
                tools.setdefault(name, []).append(duration_us)
            for name, started_us, ended_us, state, executor_calls in page:
                used = executor_calls > 0
                durations = tuple(tools.get(name, ()))
                yield JobSample(name, started_us, ended_us, JobState(state), used, durations)
            job_id = names[-1]

    def heartbeats(self, since_us: int, until_us: int) -> list[Heartbeat]:
        """By time."""
        rows = self._read(_HEARTBEATS, (since_us // _MINUTE_US, until_us))
        return [Heartbeat(at_us, run, bool(drained), *rest) for at_us, run, drained, *rest in rows]

    def reviews(self, since_us: int) -> list[Review]:
        rows = self._read(_REVIEWS, (since_us,))
        return [Review(name, called_us, Opinion(word)) for name, called_us, word in rows]

    def baseline(self) -> Baseline | None:
        """The one that was kept last; None: none was."""
        rows = self._read(_BASELINE, ())
        return Baseline(**orjson.loads(rows[0][0])) if rows else None

    def kept_since_us(self) -> int | None:
        """When the first of the calls and heartbeats was that are kept; None: there is none."""
        [(since_us,)] = self._read(_KEPT_SINCE, ())
        return None if since_us is None else int(since_us)

    def _read(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        if self._check is not None:
            self._check()
        return self._read_all(query, values)


def _call(row: tuple[Any, ...]) -> CallSample:
    (
        _,
        request_id,
        started_us,
        total_us,
        role,
        outcome,
        reason,
        attempts,
        first,
        llm_us,
        wait_us,
        upstream_wait_us,
        load_us,
        first_us,
        context,
        provider,
        model,
        fallback,
        schema,
        _,
        error,
        job_id,
        stayed,
    ) = row
    codes: tuple[str, ...] = ()
    if first is not None:
        codes = (first, outcome) if attempts == 2 else (first,)
    ok = outcome == OK
    whose = (context, provider, model)
    return CallSample(
        request_id,
        started_us,
        started_us + total_us,
        role,
        outcome,
        reason,
        codes,
        llm_us is not None and reason not in NEVER_LEFT and not stayed,
        wait_us or 0,
        upstream_wait_us,
        None if llm_us is None else llm_us - (upstream_wait_us or 0) - (load_us or 0),
        context,
        provider,
        model,
        fallback == 1,
        schema in {"valid", "invalid"},
        schema == "invalid",
        ok or _has_error_fields(role, (reason, request_id, attempts, fallback), whose, error),
        not ok or None not in (wait_us, llm_us, first_us, *whose),
        job_id,
    )


def _has_error_fields(
    role: str | None, always: tuple[object, ...], whose: tuple[object, ...], error: str | None
) -> bool:
    """Whether a failed call's record has all that an error says of itself.

    One that was turned away before it had a role has no context, provider and model to tell.
    ``error``: its code, context and provider as JSON; None: there is nothing of it.
    """
    if error is None or None in always:
        return False
    code, *error_whose = orjson.loads(error)
    return code is not None and (role is None or None not in (*whose, *error_whose))
