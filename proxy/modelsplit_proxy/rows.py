"""A finished call as rows of the state file, and back as the fields of its log line.

What queries ask for has a column; the rest, rare in a call that went well, is one JSON text,
``more``, without what is as usual. So a field added to the log line is kept without a change
here. Times are whole microseconds: SQLite stores small integers in few bytes.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.facts import Role
from modelsplit_proxy import decision
from modelsplit_proxy.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from modelsplit_proxy.record import Attempt, CallRecord

Row = tuple[Any, ...]


def _same(value: Any) -> Any:
    return value


def _us(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1000)


def _ms(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


# Column, field of the log line, how it is written and read.
_COLUMNS: Final[tuple[tuple[str, str, Callable[[Any], Any], Callable[[Any], Any]], ...]] = (
    ("total_us", "job_e2e_latency_ms", _us, _ms),
    ("wait_us", "llm_queue_wait_ms", _us, _ms),
    ("llm_us", "llm_latency_ms", _us, _ms),
    ("first_us", "ttfb_ms", _us, _ms),
    ("load_us", "load_ms", _us, _ms),
    ("request_id", "request_id", _same, _same),
    ("job_id", "job_id", _same, _same),
    ("client", "client", _same, _same),
    ("route", "route", _same, _same),
    ("dialect", "dialect", _same, _same),
    ("role", "llm_role", _same, _same),
    ("context", "llm_context", _same, _same),
    ("provider", "llm_provider", _same, _same),
    ("requested_model", "requested_model", _same, _same),
    ("model", "llm_model", _same, _same),
    ("route_reason", "route_reason", _same, _same),
    ("outcome", "outcome", _same, _same),
    ("reason", "reason", _same, _same),
    ("status", "status", _same, _same),
    ("attempts", "llm_attempt", _same, _same),
    ("fallback", "fallback_used", _same, _flag),
    ("stream", "stream", _same, _flag),
    ("prompt_tokens", "prompt_tokens", _same, _same),
    ("output_tokens", "output_tokens", _same, _same),
    ("finish_reason", "finish_reason", _same, _same),
    ("cost_usd", "cost_usd", _same, _same),
    ("experiment", "experiment", _same, _same),
    ("variant", "variant", _same, _same),
)
_NAMES: Final = tuple(column for column, *_ in _COLUMNS)
# Most values are written as they are; made for every call, so nothing is called for them.
_WRITTEN: Final = tuple(
    (field, None if write is _same else write) for _, field, write, _ in _COLUMNS
)
# Fields that are worked out from others when a row is read.
_DERIVED: Final = frozenset(
    {"ts", "started_at", "planner_latency_ms", *(field for _, field, *_ in _COLUMNS)}
)
# What is left out of ``more`` because it is as usual. Fields that are None are, too.
_USUAL: Final[Mapping[str, Any]] = MappingProxyType(
    {"event": "request", "state": "completed", "client_retry": False, "applied": (), "budgets": ()}
)
# Fields of the log line that are there although nothing is known of them.
_ALWAYS: Final = ("fallback_cause", "loading", "schema", "budget_refused")
# Fields that are only there if there is something to say.
_SOMETIMES: Final = ("reason", "experiment", "variant")

CALL: Final = ", ".join(("id", "started_us", *_NAMES, "more"))
INSERT_CALL: Final = (
    f"INSERT INTO calls (started_us, {', '.join(_NAMES)}, more) "
    f"VALUES ({', '.join('?' * (len(_NAMES) + 2))})"
)
_ATTEMPT_NAMES: Final = (
    *("model", "outcome", "reason", "upstream_status", "ahead"),
    *("asked_us", "seated_us", "dispatched_us", "first_us", "ended_us"),
    *("load_us", "prompt_us", "eval_us", "prompt_tokens", "output_tokens", "cost_usd"),
    *("seats", "more"),
)
ATTEMPT: Final = ", ".join(("number", *_ATTEMPT_NAMES))
INSERT_ATTEMPT: Final = (
    f"INSERT INTO attempts (call_id, {ATTEMPT}) "
    f"VALUES ({', '.join('?' * (len(_ATTEMPT_NAMES) + 2))})"
)
UPSERT_JOB: Final = """
INSERT INTO jobs (
    job_id, first_us, last_us, calls, failures, planner, executor, heavy, cloud, chat,
    prompt_tokens, output_tokens, cost_usd, cost_unknown
) VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
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
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    cost_usd = cost_usd + excluded.cost_usd,
    cost_unknown = cost_unknown + excluded.cost_unknown
"""
_JOB_ROLES: Final = (Role.PLANNER, Role.EXECUTOR, Role.HEAVY, Role.CLOUD, Role.CHAT)


def call_row(record: CallRecord) -> Row:
    """The values of INSERT_CALL."""
    fields = record.log_fields()
    get = fields.get
    return (
        round(record.started_wall * 1e6),
        *[get(field) if write is None else write(get(field)) for field, write in _WRITTEN],
        _more(fields, record),
    )


def _more(fields: Mapping[str, Any], record: CallRecord) -> str | None:
    rest = decision.of_call(record) | {
        field: value
        for field, value in fields.items()
        if field not in _DERIVED and value is not None and value != _USUAL.get(field)
    }
    return _json(rest)


def _json(values: Mapping[str, Any]) -> str | None:
    # Roles and the like are strings of a class of their own.
    return orjson.dumps(values, option=orjson.OPT_NON_STR_KEYS).decode() if values else None


def attempt_rows(call_id: int, record: CallRecord) -> list[Row]:
    """The values of INSERT_ATTEMPT for each attempt."""
    return [
        (call_id, number, attempt.model[:256], _outcome(record, attempt), *_rest(record, attempt))
        for number, attempt in enumerate(record.attempts, 1)
    ]


def _outcome(record: CallRecord, attempt: Attempt) -> str:
    """Its own failure; of the last one, what became of the call."""
    if attempt.failure is not None:
        return attempt.failure.code
    return "running" if record.ended is None else record.outcome


def _rest(record: CallRecord, attempt: Attempt) -> Row:
    failure, usage = attempt.failure, attempt.usage
    more = decision.of_attempt(attempt)
    return (
        None if failure is None else failure.reason,
        attempt.upstream_status,
        attempt.ahead,
        *[
            None if moment is None else round((moment - record.started) * 1e6)
            for moment in (
                attempt.asked,
                attempt.seated,
                attempt.dispatched,
                attempt.first_byte,
                attempt.ended,
            )
        ],
        *[
            None if seconds is None else round(seconds * 1e6)
            for seconds in (usage.load_s, usage.prompt_eval_s, usage.eval_s)
        ],
        usage.prompt_tokens,
        usage.output_tokens,
        attempt.cost_usd,
        decision.seats_text(attempt.seats),
        _json(more),
    )


def attempts_fields(record: CallRecord) -> list[dict[str, Any]]:
    """The attempts of a call as they would be read back."""
    return [attempt_fields(row[1:]) for row in attempt_rows(0, record)]


def job_row(record: CallRecord) -> Row:
    """The values of UPSERT_JOB for one more call of the job."""
    started_us = round(record.started_wall * 1e6)
    usage, cost = record.usage, record.cost_usd
    return (
        record.job_id,
        started_us,
        started_us + round(record.total_s * 1e6),
        int(record.outcome != "ok"),
        *(int(record.role is role) for role in _JOB_ROLES),
        usage.prompt_tokens or 0,
        usage.output_tokens or 0,
        cost or 0.0,
        int(cost is None),
    )


def call_fields(row: Row) -> dict[str, Any]:
    """The fields of the log line of a row of ``CALL``."""
    _, started_us, *values, more = row
    out: dict[str, Any] = {"ts": None, **_USUAL, **dict.fromkeys(_ALWAYS)}
    for (_, field, _, read), value in zip(_COLUMNS, values, strict=True):
        if value is not None or field not in _SOMETIMES:
            out[field] = read(value)
    if more is not None:
        out |= orjson.loads(more)
    if out["llm_role"] == Role.PLANNER and out["loading"] is None:
        out["planner_latency_ms"] = out["job_e2e_latency_ms"]
    out["started_at"] = rfc3339(started_us / 1e6)
    out["ts"] = rfc3339((started_us + round(out["job_e2e_latency_ms"] * 1000)) / 1e6)
    return out


def attempt_fields(row: Row) -> dict[str, Any]:
    """One row of ``ATTEMPT`` as plain values; moments are milliseconds since the call came."""
    values = dict(zip(("number", *_ATTEMPT_NAMES), row, strict=True))
    more = values.pop("more")
    values["seats"] = decision.read_seats(values["seats"])
    out = {
        f"{name.removesuffix('_us')}_ms" if name.endswith("_us") else name: (
            _ms(value) if name.endswith("_us") else value
        )
        for name, value in values.items()
    }
    return out | (orjson.loads(more) if more is not None else {})


def job_fields(names: Sequence[str], row: Row) -> dict[str, Any]:
    """One row of ``jobs`` as plain values."""
    values = dict(zip(names, row, strict=True))
    first_us, last_us = values.pop("first_us"), values.pop("last_us")
    return values | {"first_at": rfc3339(first_us / 1e6), "last_at": rfc3339(last_us / 1e6)}
