"""Finished calls as a trace: one flat object a call, in order of arrival, to be replayed.

The format is stable (docs/records.md): fields are added, never changed or removed within
one ``trace`` version.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_proxy.protocol import tellable
from modelsplit_proxy.records import rows

if TYPE_CHECKING:
    from modelsplit_proxy.records.rows import Row

VERSION: Final = 2
# What a field of an earlier version is called now, by that version.
_RENAMED: Final = MappingProxyType(
    {1: MappingProxyType({"job_e2e_latency_ms": "call_e2e_latency_ms"}), 2: MappingProxyType({})}
)
# Fields of the log line that are in the trace under the same name.
_KEPT: Final = (
    *("started_at", "request_id", "job_id", "purpose", "client", "route"),
    *("llm_role", "route_reason", "requested_model", "llm_model", "stream", "client_retry"),
    *("outcome", "status", "fallback_used", "prompt_tokens", "output_tokens"),
    *("llm_queue_wait_ms", "llm_latency_ms", "ttfb_ms", "call_e2e_latency_ms", "cost_usd"),
    *("upstream_wait_ms", "schema_asked", "schema"),
)
# Those that a log line has only where the client's headers said so.
_ASKED: Final = (
    *("asked_max_wait_ms", "asked_timeout_ms", "asked_no_fallback", "asked_retry_level"),
)
_OF_ATTEMPT: Final = (
    *(
        "model",
        "outcome",
        "reason",
        "asked_ms",
        "seated_ms",
        "dispatched_ms",
        "first_ms",
        "ended_ms",
    ),
    *("load_ms", "prompt_ms", "eval_ms", "upstream_wait_ms", "prompt_tokens", "output_tokens"),
)


class TraceError(ValueError):
    """A line is none of a trace that can be read here. The text says why."""


def read(raw: bytes | str) -> dict[str, Any]:
    """One line of a trace of any version, its fields named as ``VERSION`` names them.

    Fields that came later are missing. Raises TraceError.
    """
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise TraceError(f"the line is no JSON: {error.msg} (column {error.colno})") from None
    version = fields.get("trace") if isinstance(fields, dict) else None
    if type(version) is not int:
        raise TraceError("the line is no call of a trace: it has no number of a version in `trace`")
    if version not in _RENAMED:
        known = " and ".join(map(str, _RENAMED))
        raise TraceError(f"the line is of trace version {version}; known are {known}")
    names = _RENAMED[version]
    return {names.get(name, name): value for name, value in fields.items()} | {"trace": VERSION}


def lines(page: list[dict[str, Any]]) -> bytes:
    """Calls as JSON Lines."""
    return b"".join(tellable.dumps(fields, orjson.OPT_APPEND_NEWLINE) for fields in page)


def call(row: Row, attempts: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the trace. ``arrived``: seconds since the epoch; ``service_ms``: seat held."""
    fields = rows.call_fields(row)
    held = [
        attempt["ended_ms"] - attempt["seated_ms"]
        for attempt in attempts
        if attempt["seated_ms"] is not None and attempt["ended_ms"] is not None
    ]
    return {
        "trace": VERSION,
        "arrived": row[1] / 1e6,
        **{name: fields[name] for name in _KEPT},
        "reason": fields.get("reason"),
        **{name: fields.get(name) for name in _ASKED},
        "service_ms": round(sum(held), 3) if held else None,
        "attempts": [{name: attempt[name] for name in _OF_ATTEMPT} for attempt in attempts],
    }
