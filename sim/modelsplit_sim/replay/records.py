"""A run as records would tell it: what ``fit`` and a replay read of a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .recorded import Recorded, RecordedAttempt

if TYPE_CHECKING:
    from .attempt import AttemptRun, CallRun
    from .run import Played


def recorded(played: Played, began: float = 0.0) -> list[Recorded]:
    """Every call of a run, in order of arrival. ``began``: when it did, in seconds since 1970."""
    return [_call(call, began) for call in played.calls]


def _call(call: CallRun, began: float) -> Recorded:
    demand = call.demand
    outcome = "ok" if call.ok else "client_gone" if call.gone else ""
    if call.failure is not None:
        outcome = str(call.failure.code)
    last = call.attempts[-1] if call.attempts else None
    return Recorded(
        arrived=began + call.arrived,
        route="/api/chat",
        role=str(call.route.role) if last is not None else None,
        requested_model=demand.model,
        outcome=outcome,
        reason=None if call.failure is None else str(call.failure.reason),
        model=None if last is None else last.model,
        stream=demand.stream,
        job=demand.job,
        client=demand.client,
        prompt_tokens=demand.prompt_tokens if call.ok else None,
        output_tokens=demand.output_tokens if call.ok else None,
        latency_ms=1000 * call.latency_s,
        client_retry=call.retry > 0,
        max_wait_ms=_ms(demand.max_wait_s),
        timeout_ms=_ms(demand.timeout_s),
        no_fallback=demand.no_fallback,
        retry_level=demand.retry_level,
        schema_asked=demand.schema,
        attempts=tuple(_attempt(attempt, outcome) for attempt in call.attempts),
    )


def _attempt(attempt: AttemptRun, outcome: str) -> RecordedAttempt:
    """``outcome``: what became of the call, where nothing else became of the attempt."""
    came, answered = attempt.call.arrived, attempt.answered
    moments = {
        name: None if at is None else 1000 * (at - came)
        for name, at in (
            ("asked_ms", attempt.asked),
            ("seated_ms", attempt.seated),
            ("dispatched_ms", attempt.dispatched),
            ("first_ms", attempt.begun),
            ("ended_ms", attempt.ended),
        )
    }
    wait_s = attempt.upstream_wait_s
    return RecordedAttempt(
        model=attempt.model,
        outcome=outcome if attempt.failure is None else str(attempt.failure.code),
        load_ms=None if answered is None else 1000 * answered.load_s,
        prompt_ms=None if answered is None else 1000 * answered.prompt_s,
        eval_ms=None if answered is None else 1000 * answered.eval_s,
        upstream_wait_ms=None if wait_s is None else 1000 * wait_s,
        prompt_tokens=None if answered is None else attempt.call.demand.prompt_tokens,
        output_tokens=None if answered is None else answered.tokens,
        reason=None if attempt.failure is None else str(attempt.failure.reason),
        **moments,
    )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(1000 * seconds)
