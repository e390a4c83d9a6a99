"""The no of those who ration: no seat, a stopped model, a restart; told with its numbers.

Whoever decides so says it as the ``Failure`` that the client is told, so nothing between the
two has to translate.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import (
    MESSAGE_MAX,
    ErrorCode,
    Failure,
    Reason,
    fitted,
    said_back,
)
from modelsplit_policy.hints import asking
from modelsplit_policy.tickets import Hold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.tickets import Seats
    from modelsplit_policy.vocabulary import Role

# The longest a client is ever told to stay away: SDKs sleep whatever they are sent.
RETRY_AFTER_MAX_S: Final = 30
# Of a client whose hosts are drained: somebody works on them.
_DRAINED_RETRY_S: Final = 10
# A provider and a model's name of usual length.
_NAME_MAX: Final = 60
_STOPPED_MAX: Final = 150
# Of the Health Guard's cause.
_HEALTH_MAX: Final = 100
_NO_SEAT: Final = MappingProxyType(
    {
        Reason.QUEUE_FULL: ("role {role} is overloaded: its queue is full", "Queue Full"),
        Reason.QUEUE_TIMEOUT: (
            "role {role} is overloaded: no seat came free in {waited}",
            "Queue Timeout",
        ),
        Reason.SHED: ("role {role} is shed: the service is overloaded", "Shed"),
        Reason.DRAINING: ("modelsplit is restarting", "Draining"),
    }
)
_BEHIND_A_HANG: Final = MappingProxyType(
    {
        Reason.QUEUE_FULL: "the queue of role {role} is full",
        Reason.SHED: "role {role} is shed",
    }
)


def retry_after(seconds: float) -> int:
    """Whole seconds that a client is told to wait: never too few, 1 to 30."""
    return max(1, math.ceil(min(RETRY_AFTER_MAX_S, seconds)))


def no_seat(
    reason: Reason,
    role: str,
    *,
    held: str,
    waiting: tuple[int, int],
    retry_after_s: int,
    waited_s: float,
    expected: tuple[float, float] | None = None,
    health: str = "",
) -> Failure:
    """A place in line that was not to be had, with the numbers to believe it.

    ``held``: the limit that kept it from a seat (``held_by``), empty: none did. ``waiting``: so
    many of how many at most. ``expected``: the wait that was foreseen and the longest that is
    allowed, where that is why it was refused at once. ``health``: why calls are shed.
    """
    what, phrase = _NO_SEAT[reason]
    text = what.format(role=role, waited=_time(waited_s))
    if expected is not None:
        wait, allowed = map(_wait, expected)
        text = f"role {role} is overloaded: expected wait {wait}, at most {allowed}"
    if reason is Reason.SHED and health:
        held = said_back(health, _HEALTH_MAX)
    numbers = f"{held}, {waiting[0]}/{waiting[1]} waiting".removeprefix(", ")
    return Failure(
        ErrorCode.OVERLOAD_THROTTLED,
        reason,
        f"{text} ({numbers}); retry in {retry_after_s} s",
        phrase,
        retry_after_s=retry_after_s,
    )


def behind_a_hang(refusal: Failure, role: Role, waited_s: float, upstream: str) -> Failure:
    """The refusal of a call that found no seat while Ollama answered nothing: that is why."""
    what = _BEHIND_A_HANG.get(refusal.reason, "no seat came free for role {role}")
    text = what.format(role=role)
    if refusal.reason is Reason.QUEUE_TIMEOUT and waited_s > 0:
        text += f" in {_time(waited_s)}"
    text = f"{text}, because Ollama at {upstream}"
    end = f"answers nothing: it hangs; restart it; retry in {refusal.retry_after_s} s"
    return replace(refusal, message=f"{text[:120]} {end}")


def after_an_outage(refusal: Failure, away_s: float) -> Failure:
    """The refusal of a call for whose wait Ollama was away, or hung, for so many seconds."""
    text, retry, when = refusal.message.rpartition("; retry in ")
    away = f"; Ollama was away for {_time(away_s)} of that"
    most = MESSAGE_MAX - len(f"{away}{retry}{when}")
    return replace(refusal, message=f"{text[:most]}{away}{retry}{when}")


def held_by(
    hold: Hold, seats: Seats, *, model: str, slots: int, host: int, kept_for: Iterable[Role]
) -> str:
    """The limit that keeps a call from a seat, with its numbers, as in: 2/2 running.

    ``slots``: how many calls of its model at once are worth running; ``host``: how many calls
    run on the host. ``kept_for``: the roles for which seats are kept free.
    """
    name = said_back(model, _NAME_MAX)
    if hold is Hold.PARALLELISM and host < seats.useful:
        return f"{seats.model}/{slots} of {name} running"
    words = {
        Hold.ROLE_CAP: f"{seats.role}/{seats.role_cap} running",
        Hold.GLOBAL_CAP: f"{seats.local}/{seats.local_cap} of all roles running",
        Hold.RESERVED: f"free seats are kept for {', '.join(kept_for)}",
        Hold.MODEL_CAP: f"{seats.model}/{seats.model_cap} of {name} running",
        Hold.PARALLELISM: f"{seats.useful} at once known to be worth running, {host} running",
        Hold.TURN: "others were before it",
        Hold.AWAY: "Ollama is away",
        Hold.MUTE: "Ollama hangs",
        Hold.DRAINED: f"every host that may run {name} is drained",
    }
    return words[hold]


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _wait(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def stopped(key: str, why: str, wait_s: float) -> Failure:
    """Calls that a breaker refuses for now. ``key``: whose it is; a client may have named it."""
    retry_after_s = retry_after(wait_s)
    text = f"calls to {said_back(key, _NAME_MAX)} are stopped for now: {why}"[:_STOPPED_MAX]
    return Failure(
        ErrorCode.OVERLOAD_THROTTLED,
        Reason.BREAKER_OPEN,
        f"{text}; retry in {retry_after_s} s",
        "Breaker Open",
        retry_after_s=retry_after_s,
    )


def still_failing(last: Failure, wait_s: float) -> Failure:
    """Calls to a provider that are refused for now, being told what the ``last`` one failed of."""
    retry_after_s = retry_after(wait_s)
    again = f"; asked again in {retry_after_s} s"
    return replace(
        last,
        message=last.message[: MESSAGE_MAX - len(again)] + again,
        retry_after_s=retry_after_s,
        unsent=True,
    )


def drained(model: str, asked_at: str = "") -> Failure:
    """A call whose hosts are all drained. ``asked_at``: where our commands ask, if not at ours."""
    name = said_back(model, _NAME_MAX)
    look = asking("modelsplit host list", asked_at)
    undrain = asking("modelsplit host undrain NAME", asked_at)
    return Failure(
        ErrorCode.OVERLOAD_THROTTLED,
        Reason.DRAINING,
        fitted(f"every host that may run {name} is drained", f"see `{look}`, then `{undrain}`"),
        "Draining",
        retry_after_s=_DRAINED_RETRY_S,
    )


def no_host(role: Role, model: str) -> Failure:
    """A call to a model that the policy lets run nowhere."""
    name = said_back(model, _NAME_MAX)
    return Failure(
        ErrorCode.MODEL_NOT_FOUND,
        Reason.NOT_INSTALLED,
        f"no host takes {name} for role {role}; see `hosts` in the policy",
        "Model Not Found",
    )


def draining() -> Failure:
    return _restarting("takes no new calls")


def cut_short() -> Failure:
    """An answer that took longer than the drain of a restart."""
    return _restarting("could not wait longer for this answer")


def _restarting(what: str) -> Failure:
    text = f"modelsplit is restarting and {what}; retry in 2 s"
    return Failure(ErrorCode.OVERLOAD_THROTTLED, Reason.DRAINING, text, "Draining", retry_after_s=2)
