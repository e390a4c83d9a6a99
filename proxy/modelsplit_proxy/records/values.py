"""A call as values: what its log line and its row are made of, put together once for both.

What every call has is one tuple, in the order of a row of the state file and as SQLite's
driver takes it without a second look: whole microseconds, plain strings, 0 or 1 for no and
yes. What few calls have is a dict of further fields of the log line; in a call that went well
it is empty. So a field is added to the log line there, and is kept without a change elsewhere.
"""

from __future__ import annotations

from math import floor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.call import State
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.protocol import budget_text, error_body
from modelsplit_proxy.protocol.request_headers import NOTHING
from modelsplit_proxy.records.record import NAME_MAX
from modelsplit_proxy.runtime.clock import rfc3339_us

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.protocol.request_headers import Asked
    from modelsplit_proxy.records.record import CallRecord, Finished

_COMPLETED: Final = State.COMPLETED
_PLANNER: Final = str(Role.PLANNER)

# The fields of every log line, in their order, with the values that they mostly have.
_LINE: Final[MappingProxyType[str, Any]] = MappingProxyType(
    {
        "ts": "",
        "event": "request",
        "request_id": "",
        "job_id": None,
        "purpose": None,
        "client": "",
        "route": "",
        "dialect": "",
        "started_at": "",
        "llm_role": None,
        "llm_context": None,
        "llm_provider": None,
        "requested_model": "",
        "llm_model": "",
        "llm_attempt": 1,
        "fallback_used": False,
        "fallback_cause": None,
        "route_reason": None,
        "status": None,
        "outcome": "",
        "state": "completed",
        "stream": False,
        "client_retry": False,
        "loading": None,
        "applied": (),
        "untranslated": (),
        "redacted": None,
        "budgets": (),
        "budget_refused": None,
        "schema_asked": False,
        "schema": None,
        "llm_queue_wait_ms": None,
        "upstream_wait_ms": None,
        "llm_latency_ms": None,
        "ttfb_ms": None,
        "call_e2e_latency_ms": None,
        "planner_latency_ms": None,
        "load_ms": None,
        "prompt_tokens": None,
        "output_tokens": None,
        "tokens_estimated": False,
        "finish_reason": None,
        "cost_usd": None,
    }
)
# The fields that are values of every call, and those that few calls have: of these, a line has
# all but ``job_id`` and ``purpose`` only if there is something to say.
ALWAYS: Final = (
    *("started_at", "call_e2e_latency_ms", "llm_queue_wait_ms", "llm_latency_ms", "ttfb_ms"),
    *("fallback_used", "stream", "schema_asked", "request_id", "client", "route", "dialect"),
    *("llm_role", "llm_context", "llm_provider", "requested_model", "llm_model"),
    *("route_reason", "outcome", "status", "llm_attempt", "prompt_tokens", "output_tokens"),
    *("cost_usd", "load_ms", "upstream_wait_ms", "finish_reason"),
)
SELDOM: Final = ("job_id", "experiment", "variant", "reason", "purpose")
_DERIVED: Final = frozenset({"ts", "planner_latency_ms", *ALWAYS, *SELDOM})
# Fields of every log line that no value says, as they are where nothing is unusual.
USUAL: Final[Mapping[str, Any]] = MappingProxyType(
    {field: value for field, value in _LINE.items() if field not in _DERIVED}
)


def finished(record: CallRecord) -> Finished:
    """The call as values, as far as it is: by ``ALWAYS``, by ``SELDOM``, and the rest.

    Several readers want them, in threads of their own; once the call has ended they are put
    together once, or twice if they come in the same moment.
    """
    if record.ended is None:
        return put_together(record)
    if record.values is None:
        record.values = put_together(record)
    return record.values


def log_fields(record: CallRecord) -> dict[str, Any]:
    """The call as one flat object (§ Logs in docs/operations.md)."""
    return line(finished(record))


def put_together(record: CallRecord) -> Finished:
    prompt_tokens, output_tokens, load_s, _, _, _, finish_reason, _, _ = record.usage
    endpoint, routing = record.endpoint, record.routing
    cost_usd, model = record.cost_usd_by(None), record.model
    # SQLite's driver looks for an adapter of every string of a class of its own: hence ``str``.
    always = (
        round(record.started_wall * 1e6),
        floor(record.total_s * 1e6 + 0.5),
        floor(record.queue_wait_s * 1e6 + 0.5),
        microseconds(record.llm_latency_s),
        microseconds(record.first_byte_s),
        1 if record.fallback_used else 0,
        1 if record.streamed else 0,
        1 if record.schema_asked else 0,
        record.request_id,
        record.client,
        endpoint.label,
        str(endpoint.wire.dialect),
        None if routing is None else str(routing.role),
        None if routing is None else str(routing.context),
        None if routing is None else str(routing.provider),
        record.requested_model[:NAME_MAX],
        model[:NAME_MAX] if model or record.failure is None else None,
        None if routing is None else str(routing.reason),
        record.outcome,
        record.status,
        record.attempt_number,
        prompt_tokens,
        output_tokens,
        # A token of the cheapest models costs a hundredth of a millionth of a dollar.
        cost_usd and round(cost_usd, 9),
        microseconds(load_s),
        microseconds(record.upstream_wait_s),
        finish_reason and finish_reason[:NAME_MAX],
    )
    unusual = _unusual(record)
    if record.asked is not NOTHING:
        unusual |= _asked(record.asked)
    return always, _seldom(record), unusual


def _seldom(record: CallRecord) -> tuple[Any, ...]:
    job_id, routing, failure = record.job_id, record.routing, record.failure
    variant = None if routing is None else routing.variant
    purpose = record.purpose
    if job_id is None and variant is None and failure is None and purpose is None:
        return ()
    return (
        job_id,
        None if variant is None else variant.experiment,
        None if variant is None else variant.arm,
        None if failure is None else str(failure.reason),
        None if purpose is None else str(purpose),
    )


def _unusual(record: CallRecord) -> dict[str, Any]:
    out: dict[str, Any] = {"tokens_estimated": True} if record.usage.estimated else {}
    if record.call.state is not _COMPLETED:
        out["state"] = str(record.call.state)
    if len(record.attempts) > 1 and (cause := record.attempts[0].failure) is not None:
        out["fallback_cause"] = str(cause.code)
    if record.client_retry:
        out["client_retry"] = True
    if record.loading is not None:
        out["loading"] = str(record.loading)
    if record.applied or record.untranslated or record.redacted or record.host is not None:
        out |= _changed(record)
    if record.budgets:
        out["budgets"] = tuple(map(budget_text.fields, record.budgets.values()))
    if record.budget_refused is not None:
        out["budget_refused"] = record.budget_refused
    if record.schema is not None:
        out["schema"] = record.schema
    if record.failure is not None:
        out |= error_body.fields(record.failure, record.scene())
        out["error"] = record.failure.message
    return out


def _asked(asked: Asked) -> dict[str, Any]:
    """Of the headers of a call those that say how long it may take, and which model first."""
    fields = {
        "asked_max_wait_ms": asked.max_wait_ms,
        "asked_timeout_ms": asked.timeout_ms,
        "asked_no_fallback": asked.no_fallback or None,
        "asked_retry_level": asked.retry_level or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _changed(record: CallRecord) -> dict[str, Any]:
    """How the request was sent on otherwise than it came."""
    out: dict[str, Any] = {"applied": record.applied} if record.applied else {}
    if record.untranslated:
        out["untranslated"] = record.untranslated
    if record.redacted:
        out["redacted"] = record.redacted
    if record.host is not None:
        out["host"] = record.host
    return out


def line(finished: Finished) -> dict[str, Any]:
    """The call as one flat object (§ Logs in docs/operations.md)."""
    always, seldom, unusual = finished
    # To copy a dict of so many fields takes a tenth of what it takes to make one.
    out = _LINE.copy()
    (
        started_us,
        total_us,
        wait_us,
        llm_us,
        first_us,
        fallback,
        stream,
        schema_asked,
        out["request_id"],
        out["client"],
        out["route"],
        out["dialect"],
        out["llm_role"],
        out["llm_context"],
        out["llm_provider"],
        out["requested_model"],
        out["llm_model"],
        out["route_reason"],
        out["outcome"],
        out["status"],
        out["llm_attempt"],
        out["prompt_tokens"],
        out["output_tokens"],
        out["cost_usd"],
        load_us,
        inside_us,
        out["finish_reason"],
    ) = always
    out["ts"] = rfc3339_us(started_us + total_us)
    out["started_at"] = rfc3339_us(started_us)
    out["call_e2e_latency_ms"] = total_us / 1000
    out["llm_queue_wait_ms"] = wait_us / 1000
    out["llm_latency_ms"] = None if llm_us is None else llm_us / 1000
    out["ttfb_ms"] = None if first_us is None else first_us / 1000
    out["upstream_wait_ms"] = None if inside_us is None else inside_us / 1000
    out["load_ms"] = None if load_us is None else load_us / 1000
    out["fallback_used"] = fallback == 1
    out["stream"] = stream == 1
    out["schema_asked"] = schema_asked == 1
    if out["llm_role"] == _PLANNER and "loading" not in unusual:
        out["planner_latency_ms"] = out["call_e2e_latency_ms"]
    if seldom:
        out["job_id"], experiment, variant, _, out["purpose"] = seldom
        if experiment is not None:
            out["experiment"], out["variant"] = experiment, variant
    if unusual:
        out |= unusual
    return out


def microseconds(moment: float | None, since: float = 0.0) -> int | None:
    """From one moment to another, both in seconds; None if it never came."""
    # ``round`` takes twice as long, because it rounds a half to the even number.
    return None if moment is None else floor((moment - since) * 1e6 + 0.5)
