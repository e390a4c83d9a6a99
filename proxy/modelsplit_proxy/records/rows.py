"""A finished call as rows of the state file, and back as the fields of its log line.

What queries ask for has a column; the rest, rare in a call that went well, is one JSON text,
``more``, without what is as usual. So a field that only some log lines have is kept without a
change here. Times are whole microseconds: SQLite stores small integers in few bytes.
"""

from __future__ import annotations

from itertools import zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.vocabulary import Context, Role
from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.records import decisions
from modelsplit_proxy.records.record import NAME_MAX
from modelsplit_proxy.records.values import ALWAYS, SELDOM, USUAL, finished, microseconds
from modelsplit_proxy.runtime.clock import rfc3339_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from modelsplit_proxy.records.record import Attempt, CallRecord

Row = tuple[Any, ...]
# A statement and its values.
Insert = tuple[str, Row]


def _same(value: Any) -> Any:
    return value


def _ms(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


# Column, field of the log line, how it is read; in the order in which calls are shown.
_SHOWN: Final[tuple[tuple[str, str, Callable[[Any], Any]], ...]] = (
    ("total_us", "call_e2e_latency_ms", _ms),
    ("wait_us", "llm_queue_wait_ms", _ms),
    ("upstream_wait_us", "upstream_wait_ms", _ms),
    ("llm_us", "llm_latency_ms", _ms),
    ("first_us", "ttfb_ms", _ms),
    ("load_us", "load_ms", _ms),
    ("request_id", "request_id", _same),
    ("job_id", "job_id", _same),
    ("purpose", "purpose", _same),
    ("client", "client", _same),
    ("route", "route", _same),
    ("dialect", "dialect", _same),
    ("role", "llm_role", _same),
    ("context", "llm_context", _same),
    ("provider", "llm_provider", _same),
    ("requested_model", "requested_model", _same),
    ("model", "llm_model", _same),
    ("route_reason", "route_reason", _same),
    ("outcome", "outcome", _same),
    ("reason", "reason", _same),
    ("status", "status", _same),
    ("attempts", "llm_attempt", _same),
    ("fallback", "fallback_used", _flag),
    ("stream", "stream", _flag),
    ("prompt_tokens", "prompt_tokens", _same),
    ("output_tokens", "output_tokens", _same),
    ("finish_reason", "finish_reason", _same),
    ("schema_asked", "schema_asked", _flag),
    ("cost_usd", "cost_usd", _same),
    ("experiment", "experiment", _same),
    ("variant", "variant", _same),
)
# Fields that a line has only if there is something to say.
_SOMETIMES: Final = ("experiment", "variant", "reason")
_COLUMN: Final = MappingProxyType({field: column for column, field, _ in _SHOWN})
# In the order of a row; behind the id in ``CALL``.
_COLUMNS: Final = ("started_us", *(_COLUMN[field] for field in (*ALWAYS[1:], *SELDOM)), "more")
# What no column says begins as it usually is.
_BLANK: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "ts": None,
        "planner_latency_ms": None,
        **{field: USUAL[field] for field in ("event", "state", "client_retry")},
        **{field: USUAL[field] for field in ("applied", "budgets", "fallback_cause", "redacted")},
        **{
            field: USUAL[field] for field in ("loading", "schema", "budget_refused", "untranslated")
        },
        "tokens_estimated": USUAL["tokens_estimated"],
    }
)
_NOTHING: Final = (None,) * len(SELDOM)
_READ: Final = tuple((field, 1 + _COLUMNS.index(column), read) for column, field, read in _SHOWN)

_ATTEMPT_SHOWN: Final = (
    *("number", "model", "outcome", "reason", "upstream_status", "ahead"),
    *("asked_us", "seated_us", "dispatched_us", "first_us", "ended_us"),
    *("load_us", "prompt_us", "eval_us", "upstream_wait_us"),
    *("prompt_tokens", "output_tokens", "cost_usd", "seats"),
)
# The order of a row, as above.
_ATTEMPT_COLUMNS: Final = (
    *("number", "outcome", "model", "upstream_status", "ahead"),
    *("asked_us", "seated_us", "dispatched_us", "first_us", "ended_us", "seats", "cost_usd"),
    *("prompt_tokens", "output_tokens", "load_us", "prompt_us", "eval_us", "upstream_wait_us"),
    *("more", "reason"),
)

CALL: Final = ", ".join(("id", *_COLUMNS))
ATTEMPT: Final = ", ".join(_ATTEMPT_COLUMNS)


def _inserts(table: str, columns: Sequence[str]) -> tuple[str, ...]:
    """By number: the statement that writes so many of the columns; the others are NULL."""
    return tuple(
        f"INSERT INTO {table} ({', '.join(columns[:count])}) VALUES ({', '.join('?' * count)})"
        for count in range(len(columns) + 1)
    )


_INSERT_CALL: Final = _inserts("calls", _COLUMNS)
_INSERT_ATTEMPT: Final = _inserts("attempts", ("call_id", *_ATTEMPT_COLUMNS))
UPSERT_JOB: Final = """
INSERT INTO jobs (
    job_id, first_us, last_us, calls, failures, planner, executor, heavy, cloud, chat,
    executor_calls, prompt_tokens, output_tokens, cost_usd, cost_unknown
) VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (job_id) DO UPDATE SET
    first_us = min(first_us, excluded.first_us),
    last_us = max(last_us, excluded.last_us),
    calls = calls + 1,
    failures = failures + excluded.failures,
    planner = planner + excluded.planner,
    executor = executor + excluded.executor,
    heavy = heavy + excluded.heavy,
    cloud = cloud + excluded.cloud,
    chat = chat + excluded.chat,
    executor_calls = executor_calls + excluded.executor_calls,
    late = late + (excluded.first_us > coalesce(finished_us, ended_us, excluded.first_us)),
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    cost_usd = cost_usd + excluded.cost_usd,
    cost_unknown = cost_unknown + excluded.cost_unknown
"""
_JOB_ROLES: Final = (Role.PLANNER, Role.EXECUTOR, Role.HEAVY, Role.CLOUD, Role.CHAT)


def insert_call(record: CallRecord) -> Insert:
    return _insert(_INSERT_CALL, call_row(record))


def insert_attempt(row: Row) -> Insert:
    """``row``: one of ``attempt_rows``."""
    return _insert(_INSERT_ATTEMPT, row)


def _insert(statements: Sequence[str], row: Row) -> Insert:
    """Without the NULLs at its end: to bind one takes longer than to bind ten numbers."""
    if row[-1] is None:
        count = len(row) - 1
        while row[count - 1] is None:
            count -= 1
        row = row[:count]
    return statements[len(row)], row


def call_row(record: CallRecord) -> Row:
    """The values of ``CALL`` behind the id; those that are missing at the end are NULL."""
    always, seldom, unusual = finished(record)
    if not seldom and not unusual and not record.fallback_used:
        return always
    return (*always, *(seldom or _NOTHING), _more(record, unusual))


def _more(record: CallRecord, unusual: Mapping[str, Any]) -> str | None:
    rest = decisions.of_call(record) | {
        field: value
        for field, value in unusual.items()
        if field not in _COLUMN and value is not None
    }
    return _json(rest)


def _json(values: Mapping[str, Any]) -> str | None:
    # Roles and the like are strings of a class of their own.
    return tellable.dumps(values, orjson.OPT_NON_STR_KEYS).decode() if values else None


def attempt_rows(call_id: int, record: CallRecord) -> Iterator[Row]:
    """The values of ``ATTEMPT``, behind the call's id; those missing at the end are NULL."""
    ended_as = "running" if record.ended is None else record.outcome
    for number, attempt in enumerate(record.attempts, 1):
        failure, unusual = attempt.failure, decisions.of_attempt(attempt, record.started)
        # Its own failure; of the last one, what became of the call.
        outcome = ended_as if failure is None else str(failure.code)
        row = (call_id, number, outcome, *_always_of(attempt, record.started))
        if unusual:
            row = (*row, _json(unusual), None if failure is None else str(failure.reason))
        yield row


def _always_of(attempt: Attempt, started: float) -> Row:
    prompt_tokens, output_tokens, load_s, prompt_s, eval_s, _, _, _, _ = attempt.usage
    return (
        attempt.model[:NAME_MAX],
        attempt.upstream_status,
        attempt.ahead,
        microseconds(attempt.asked, started),
        microseconds(attempt.seated, started),
        microseconds(attempt.dispatched, started),
        microseconds(attempt.first_byte, started),
        microseconds(attempt.ended, started),
        decisions.seats_text(attempt.seats),
        attempt.cost_usd_by(attempt.ended),
        prompt_tokens,
        output_tokens,
        microseconds(load_s),
        microseconds(prompt_s),
        microseconds(eval_s),
        microseconds(attempt.usage.upstream_wait_s),
    )


def attempts_fields(record: CallRecord) -> list[dict[str, Any]]:
    """The attempts of a call as they would be read back."""
    return [attempt_fields(row[1:]) for row in attempt_rows(0, record)]


def job_row(record: CallRecord) -> Row:
    """The values of UPSERT_JOB for one more call of the job."""
    started_us = round(record.started_wall * 1e6)
    usage, cost, routing = record.usage, record.cost_usd, record.routing
    # To load a model is no call that was for something.
    context = None if routing is None or record.loading is not None else routing.context
    return (
        record.job_id,
        started_us,
        started_us + round(record.total_s * 1e6),
        int(record.outcome != "ok"),
        *(int(routing is not None and routing.role is role) for role in _JOB_ROLES),
        int(context is Context.EXECUTOR),
        usage.prompt_tokens or 0,
        usage.output_tokens or 0,
        cost or 0.0,
        int(cost is None),
    )


def call_fields(row: Row) -> dict[str, Any]:
    """The fields of the log line of a row of ``CALL``."""
    started_us, more = row[1], row[-1]
    out = dict(_BLANK)
    for field, position, read in _READ:
        value = row[position]
        if value is not None or field not in _SOMETIMES:
            out[field] = read(value)
    if more is not None:
        out |= orjson.loads(more)
    if out["llm_role"] == Role.PLANNER and out["loading"] is None:
        out["planner_latency_ms"] = out["call_e2e_latency_ms"]
    out["started_at"] = rfc3339_us(started_us)
    out["ts"] = rfc3339_us(started_us + row[2])
    return out


def attempt_fields(row: Row) -> dict[str, Any]:
    """One row of ``ATTEMPT`` as plain values; moments are milliseconds since the call came."""
    values = dict(zip_longest(_ATTEMPT_COLUMNS, row))
    more = values["more"]
    values["seats"] = decisions.read_seats(values["seats"])
    out = {
        f"{name.removesuffix('_us')}_ms" if name.endswith("_us") else name: (
            _ms(values[name]) if name.endswith("_us") else values[name]
        )
        for name in _ATTEMPT_SHOWN
    }
    return out | (orjson.loads(more) if more is not None else {})
