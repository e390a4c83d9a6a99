"""What is told of the decisions on one call beside its log line: the part that is unusual.

Made when the record is written, not while the call runs.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy import fallback
from modelsplit_policy.call import State
from modelsplit_policy.failures import BUDGET, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.tickets import Seats
    from modelsplit_proxy.records.record import Attempt, CallRecord, Routing


def of_call(record: CallRecord) -> dict[str, Any]:
    """Who might have answered, and why nobody else did; empty for a call that went well."""
    if record.failure is None and not record.fallback_used:
        return {}
    candidates = () if record.routing is None else record.routing.candidates
    out: dict[str, Any] = {"candidates": [candidate.model for candidate in candidates]}
    why = why_no_fallback(record)
    if why is not None:
        out["no_fallback"] = why
    if record.unseated is not None:
        out["unseated"] = _unseated(record.unseated, record.started)
    if record.unable is not None:
        out["unable"] = {"model": record.unable.model[:256], "lacks": list(record.unable.lacks)}
    return out


def _unseated(attempt: Attempt, started: float) -> dict[str, Any]:
    """The second attempt that does not count: of which model, when, and what came of it."""
    out: dict[str, Any] = {"model": attempt.model[:256]}
    moments = (("asked_ms", attempt.asked), ("seated_ms", attempt.seated))
    for name, moment in (*moments, ("ended_ms", attempt.ended)):
        if moment is not None:
            out[name] = _milliseconds(moment, started)
    if attempt.failure is not None:
        out["reason"] = attempt.failure.reason
    if attempt.upstream_status is not None:
        out["upstream_status"] = attempt.upstream_status
    return out | of_attempt(attempt, started)


# Of a first attempt that no other model was asked after; any other: ``no_cause``.
_NO_CAUSES: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.QUEUE_FULL: "same_line",
        Reason.QUEUE_TIMEOUT: "same_line",
        Reason.SHED: "same_line",
        Reason.DRAINING: "drained",
        Reason.EGRESS_DENIED: "not_allowed",
    }
)
_NOT_ALLOWED: Final = MappingProxyType(dict.fromkeys(BUDGET, "not_allowed"))


def why_no_fallback(record: CallRecord) -> str | None:
    """Why a call that failed had no second attempt, in one word; None: it had, or is well.

    ``not_asked``: it was refused before anybody was asked. ``not_wanted``: the client said so.
    ``bound``: another model's answer would have been a wrong one. ``none_left``: it began with
    the fallback. ``none``: the policy names none. ``begun``: the client had its first bytes.
    ``no_cause``: another model could not have helped. ``same_line``: it would have stood in the
    same line. ``drained``: its hosts are drained, and no other model is asked for that.
    ``not_allowed``: a budget or the policy said no. ``no_seat``: the second model found none.
    ``no_budget``: its budget had no room for it, or could not be counted. ``breaker_open``: calls
    to it, or to its provider, were stopped. ``turned_away``: it was asked, and would not serve such
    a request. ``not_installed``, ``incapable``: it was not asked, being known not to be there, or
    to lack what the request needs. ``client_gone``: nobody was left to answer.
    """
    if record.failure is None or len(record.attempts) > 1:
        return None
    if record.routing is None or not record.attempts:
        return "not_asked"
    if record.unable is not None:
        return record.unable.word
    if record.unseated is not None:
        return _why_unseated(record.unseated)
    ended_as = {State.ABANDONED: "client_gone", State.TRUNCATED: "begun"}.get(record.call.state)
    return ended_as or _why_nobody_else(record, record.routing)


def _why_unseated(attempt: Attempt) -> str:
    if attempt.upstream_status is not None:
        return "turned_away"
    failure = attempt.failure
    if failure is None:
        return "no_seat"
    if failure.unsent or failure.reason is Reason.BREAKER_OPEN:
        return "breaker_open"
    return "no_budget" if failure.code in BUDGET else "no_seat"


def _why_nobody_else(record: CallRecord, routing: Routing) -> str:
    first = record.attempts[0].failure or record.failure
    if first is not None and not fallback.is_cause(first):
        return _NO_CAUSES.get(first.reason) or _NOT_ALLOWED.get(first.code, "no_cause")
    if routing.starts_at_fallback:
        return "none_left"
    if record.asked.no_fallback:
        return "not_wanted"
    if record.bound:
        return "bound"
    return "none" if len(routing.candidates) < 2 else "no_cause"


def of_attempt(attempt: Attempt, started: float) -> dict[str, Any]:
    """How an attempt stood in line and failed; empty for one that did neither.

    ``started``: when its call came.
    """
    out: dict[str, Any] = {}
    if attempt.failure is not None:
        out["error"] = attempt.failure.message
    if attempt.seats is not None and attempt.seats.health:
        out["health"] = attempt.seats.health
    if attempt.trial:
        out["trial"] = True
    if attempt.crowd is not None:
        out["crowd"] = attempt.crowd._asdict()
    if attempt.crowd_at_end is not None:
        out["crowd_at_end"] = attempt.crowd_at_end._asdict()
    if attempt.gone_s:
        out["gone_ms"] = round(attempt.gone_s * 1000, 3)
    if attempt.host is not None:
        out["host"] = attempt.host
    if attempt.placed is not None:
        out["placed"] = attempt.placed
    if attempt.returned:
        out["returned_ms"] = [_milliseconds(moment, started) for moment in attempt.returned]
    return out


def _milliseconds(moment: float, started: float) -> float:
    return round((moment - started) * 1000, 3)


@lru_cache(maxsize=256)
def seats_text(seats: Seats | None) -> str | None:
    """``2/2 5/6 1/- 6``: role, local, model as running/cap; what was worth running.

    Kept, because calls that come one after another mostly find the same.
    """
    if seats is None:
        return None
    role_cap = "-" if seats.role_cap is None else seats.role_cap
    model_cap = "-" if seats.model_cap is None else seats.model_cap
    return (
        f"{seats.role}/{role_cap} {seats.local}/{seats.local_cap} "
        f"{seats.model}/{model_cap} {seats.useful}"
    )


def read_seats(text: str | None) -> dict[str, Any] | None:
    """The same as plain values."""
    if text is None:
        return None
    role, local, model, useful = text.split(" ")
    pools = {"role": role, "local": local, "model": model}
    return {name: _pool(pool) for name, pool in pools.items()} | {"useful": int(useful)}


def _pool(text: str) -> dict[str, int | None]:
    running, _, cap = text.partition("/")
    return {"running": int(running), "cap": None if cap == "-" else int(cap)}
