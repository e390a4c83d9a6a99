"""An ended call as spans: one of the call, one of each attempt, as plain values.

Names are OpenTelemetry's: its conventions for generative AI, for HTTP and for errors; what
they have no name for is ``modelsplit.`` and the name of the log line's field. Never a prompt,
an answer, a key or the sentence of an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.records.record import NAME_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.records.record import Attempt, CallRecord

Value = str | int | float | bool | tuple[str, ...]
# Whatever the dialect, Ollama is asked.
PROVIDER: Final = "ollama"


@dataclass(frozen=True, slots=True)
class Span:
    """``started``, ``ended``: nanoseconds since 1970, as are moments of ``events``.

    ``error``: the code and the reason where it counts as one, else None.
    """

    name: str
    started: int
    ended: int
    attributes: Mapping[str, Value]
    error: str | None = None
    events: tuple[tuple[str, int], ...] = ()


def of_call(record: CallRecord) -> Span:
    """The call as its client saw it."""
    failure, routing = record.failure, record.routing
    model = record.requested_model[:NAME_MAX]
    attributes: dict[str, Value | None] = {
        **_operation(record, model),
        "gen_ai.response.model": record.model[:NAME_MAX] if failure is None else None,
        "error.type": None if failure is None else str(failure.code),
        "http.request.method": "POST",
        "http.route": record.endpoint.label,
        "http.response.status_code": record.status,
        "modelsplit.request_id": record.request_id,
        "modelsplit.job_id": record.job_id,
        "modelsplit.client": record.client,
        "modelsplit.outcome": record.outcome,
        "modelsplit.reason": None if failure is None else str(failure.reason),
        "modelsplit.state": str(record.call.state),
        "modelsplit.loading": None if record.loading is None else str(record.loading),
        "modelsplit.llm_attempt": record.attempt_number,
        "modelsplit.fallback_used": record.fallback_used,
        "modelsplit.llm_queue_wait_ms": round(record.queue_wait_s * 1000, 3),
        "modelsplit.cost_usd": record.cost_usd,
    }
    if routing is not None:
        attributes |= {
            "modelsplit.llm_role": str(routing.role),
            "modelsplit.llm_context": str(routing.context),
            "modelsplit.llm_provider": str(routing.provider),
            "modelsplit.route_reason": str(routing.reason),
        }
        if routing.variant is not None:
            attributes["modelsplit.experiment"] = routing.variant.experiment
            attributes["modelsplit.variant"] = routing.variant.arm
    return Span(
        name=_name(record, model),
        started=_moment(record, record.started),
        ended=_moment(record, record.started + record.total_s),
        attributes=_known(attributes),
        # Of a server's span an answer of 4xx is none: the client asked what it should not.
        error=_words(failure) if not 400 <= (record.status or 0) < 500 else None,
    )


def of_attempts(record: CallRecord) -> list[Span]:
    """Each model asked, from when it was its turn to be asked until its answer had ended."""
    return [
        _of_attempt(record, number, attempt) for number, attempt in enumerate(record.attempts, 1)
    ]


def _of_attempt(record: CallRecord, number: int, attempt: Attempt) -> Span:
    failure, usage = attempt.failure, attempt.usage
    if failure is None and attempt is record.attempts[-1]:
        failure = record.failure  # the client's leaving is no attempt's own failure
    model = attempt.model[:NAME_MAX]
    ended = attempt.ended if attempt.ended is not None else record.started + record.total_s
    seated = ended if attempt.seated is None else attempt.seated
    finish = usage.finish_reason
    attributes: dict[str, Value | None] = {
        **_operation(record, model),
        "gen_ai.response.model": model if failure is None else None,
        "gen_ai.response.finish_reasons": None if finish is None else (finish[:NAME_MAX],),
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.output.type": None if record.schema is None else "json",
        "error.type": None if failure is None else str(failure.code),
        "http.response.status_code": attempt.upstream_status,
        "modelsplit.llm_attempt": number,
        "modelsplit.reason": None if failure is None else str(failure.reason),
        "modelsplit.sent": attempt.sent,
        "modelsplit.llm_queue_wait_ms": round((seated - attempt.asked) * 1000, 3),
        "modelsplit.load_ms": _milliseconds(usage.load_s),
        "modelsplit.upstream_wait_ms": _milliseconds(usage.upstream_wait_s),
    }
    moments = (
        ("seated", attempt.seated),
        ("dispatched", attempt.dispatched),
        ("first_byte", attempt.first_byte),
    )
    return Span(
        name=_name(record, model),
        started=_moment(record, attempt.asked),
        ended=_moment(record, ended),
        attributes=_known(attributes),
        error=_words(failure),
        events=tuple((name, _moment(record, at)) for name, at in moments if at is not None),
    )


def _operation(record: CallRecord, model: str) -> dict[str, Value | None]:
    return {
        "gen_ai.operation.name": record.endpoint.operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model or None,
    }


def _name(record: CallRecord, model: str) -> str:
    return f"{record.endpoint.operation} {model}".rstrip()


def _known(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in attributes.items() if value is not None}


def _moment(record: CallRecord, at: float) -> int:
    # A float of seconds since 1970 is no finer than a microsecond.
    return round(record.started_wall * 1e6) * 1000 + round((at - record.started) * 1e9)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _words(failure: Failure | None) -> str | None:
    return None if failure is None else f"{failure.code} {failure.reason}"
