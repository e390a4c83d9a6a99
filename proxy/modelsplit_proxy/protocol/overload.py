"""What a client is told that gets no seat, or comes while we restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import ErrorCode, Failure, Reason

if TYPE_CHECKING:
    from modelsplit_policy.admission import Refusal


def failure_of_refusal(refusal: Refusal, waited_s: float) -> Failure:
    """A place in line that was not to be had, with the numbers to believe it."""
    numbers = (
        f"{refusal.running}/{refusal.seats} running, {refusal.waiting}/{refusal.max_queue} waiting"
    )
    what, phrase = _REFUSALS[refusal.reason]
    if refusal.foreseen_s is not None:
        what = "role {role} is overloaded: a seat is at least {foreseen:.3g} s away"
    text = what.format(role=refusal.role, waited=waited_s, foreseen=refusal.foreseen_s)
    return Failure(
        ErrorCode.OVERLOAD_THROTTLED,
        refusal.reason,
        f"{text} ({numbers}); retry in {refusal.retry_after_s} s",
        phrase,
        retry_after_s=refusal.retry_after_s,
    )


_REFUSALS: Final = {
    Reason.QUEUE_FULL: ("role {role} is overloaded: its queue is full", "Queue Full"),
    Reason.QUEUE_TIMEOUT: (
        "role {role} is overloaded: no seat came free in {waited:.1f} s",
        "Queue Timeout",
    ),
    Reason.SHED: ("role {role} is shed: the service is overloaded", "Shed"),
    Reason.DRAINING: ("modelsplit is restarting", "Draining"),
}


def draining() -> Failure:
    return _restarting("takes no new calls")


def cut_short() -> Failure:
    """An answer that took longer than the drain of a restart."""
    return _restarting("could not wait longer for this answer")


def _restarting(what: str) -> Failure:
    text = f"modelsplit is restarting and {what}; retry in 2 s"
    return Failure(ErrorCode.OVERLOAD_THROTTLED, Reason.DRAINING, text, "Draining", retry_after_s=2)
