"""Our own traces: what ``modelsplit requests --export`` writes, one finished call an object.

The objects come with the names of trace version 2. A field that is missing is unknown; one that
is there and of the wrong kind is an error with the line's number.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from modelsplit_policy.vocabulary import Role

from .recorded import Recorded, RecordedAttempt, TraceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")

_TIMES: Final = (
    *("asked_ms", "seated_ms", "dispatched_ms", "first_ms", "ended_ms"),
    *("load_ms", "prompt_ms", "eval_ms", "upstream_wait_ms"),
)


def read(objects: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Recorded]:
    """The calls of a trace, in order of arrival. TraceError: what is wrong, and where.

    ``objects``: each with the number of its line.
    """
    calls = [_call(values, line) for line, values in objects]
    if not calls:
        raise TraceError("there is no call in it")
    return sorted(calls, key=_arrived)


def _arrived(call: Recorded) -> float:
    return call.arrived


def _call(values: Mapping[str, Any], line: int) -> Recorded:
    fields = _Fields(values, line)
    arrived = fields.number("arrived")
    if arrived is None:
        raise TraceError("arrived is missing", line)
    started_at = fields.of("started_at", str)
    if started_at is not None and not _is_time(started_at):
        raise TraceError(f'started_at "{started_at[:40]}" is no time', line)
    role = fields.of("llm_role", str)
    if role is not None and role not in Role.__members__:
        raise TraceError(f'llm_role "{role[:40]}" is unknown', line)
    return Recorded(
        arrived=arrived,
        route=fields.of("route", str) or "",
        role=role,
        requested_model=fields.of("requested_model", str) or "",
        outcome=fields.needed("outcome", str),
        reason=fields.of("reason", str),
        model=fields.of("llm_model", str),
        stream=fields.of("stream", bool) or False,
        job=fields.of("job_id", str) or "",
        client=fields.of("client", str) or "",
        prompt_tokens=fields.count("prompt_tokens"),
        output_tokens=fields.count("output_tokens"),
        latency_ms=fields.number("call_e2e_latency_ms"),
        route_reason=fields.of("route_reason", str),
        client_retry=fields.of("client_retry", bool),
        max_wait_ms=fields.count("asked_max_wait_ms"),
        timeout_ms=fields.count("asked_timeout_ms"),
        no_fallback=fields.of("asked_no_fallback", bool) or False,
        retry_level=fields.count("asked_retry_level") or 0,
        schema_asked=fields.of("schema_asked", bool),
        attempts=tuple(_attempts(fields, line)),
    )


def _is_time(text: str) -> bool:
    """Whether it is one as RFC 3339 has it."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _attempts(fields: _Fields, line: int) -> Iterable[RecordedAttempt]:
    rows = fields.of("attempts", list) or []
    if len(rows) > 2:
        raise TraceError(f"{len(rows)} attempts; a call makes two at most", line)
    for row in rows:
        if not isinstance(row, dict):
            raise TraceError("an attempt is no object", line)
        own = _Fields(row, line)
        yield RecordedAttempt(
            model=own.needed("model", str),
            outcome=own.needed("outcome", str),
            prompt_tokens=own.count("prompt_tokens"),
            output_tokens=own.count("output_tokens"),
            reason=own.of("reason", str),
            **{name: own.number(name) for name in _TIMES},
        )


class _Fields:
    """One object of a line. Missing and null are the same: unknown."""

    def __init__(self, values: Mapping[str, Any], line: int) -> None:
        self._values = values
        self._line = line

    def of(self, name: str, kind: type[T]) -> T | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise TraceError(f"{name} is of the wrong kind: {str(value)[:40]}", self._line)
        return value

    def needed(self, name: str, kind: type[T]) -> T:
        value = self.of(name, kind)
        if value is None:
            raise TraceError(f"{name} is missing", self._line)
        return value

    def number(self, name: str) -> float | None:
        """A number of nought or above; a moment that is a hair below it is nought."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TraceError(f"{name} is of the wrong kind: {str(value)[:40]}", self._line)
        if not math.isfinite(value) or value < -1:
            raise TraceError(f"{name} cannot be {value}", self._line)
        return max(0.0, float(value))

    def count(self, name: str) -> int | None:
        value = self.of(name, int)
        if value is not None and value < 0:
            raise TraceError(f"{name} cannot be {value}", self._line)
        return value
