"""The no of those who ration: no seat, a stopped model, a restart; told with its numbers.

Whoever decides so says it as the ``Failure`` that the client is told, so nothing between the
two has to translate.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Final

from modelsplit_policy.failures import ErrorCode, Failure, Reason, said_back

# The longest a client is ever told to stay away: SDKs sleep whatever they are sent.
RETRY_AFTER_MAX_S: Final = 30
# A provider and a model's name of usual length.
_NAME_MAX: Final = 60
_STOPPED_MAX: Final = 150
_NO_SEAT: Final = MappingProxyType(
    {
        Reason.QUEUE_FULL: ("role {role} is overloaded: its queue is full", "Queue Full"),
        Reason.QUEUE_TIMEOUT: (
            "role {role} is overloaded: no seat came free in {waited:.1f} s",
            "Queue Timeout",
        ),
        Reason.SHED: ("role {role} is shed: the service is overloaded", "Shed"),
        Reason.DRAINING: ("modelsplit is restarting", "Draining"),
    }
)


def retry_after(seconds: float) -> int:
    """Whole seconds that a client is told to wait: never too few, 1 to 30."""
    return max(1, math.ceil(min(RETRY_AFTER_MAX_S, seconds)))


def no_seat(
    reason: Reason,
    role: str,
    *,
    running: tuple[int, int],
    waiting: tuple[int, int],
    retry_after_s: int,
    waited_s: float,
    expected: tuple[float, float] | None = None,
) -> Failure:
    """A place in line that was not to be had, with the numbers to believe it.

    ``running`` and ``waiting``: so many of how many at most. ``expected``: the wait that was
    foreseen and the longest that is allowed, where that is why it was refused at once.
    """
    what, phrase = _NO_SEAT[reason]
    text = what.format(role=role, waited=waited_s)
    if expected is not None:
        wait, allowed = map(_seconds, expected)
        text = f"role {role} is overloaded: expected wait {wait} s, at most {allowed} s"
    numbers = f"{running[0]}/{running[1]} running, {waiting[0]}/{waiting[1]} waiting"
    return Failure(
        ErrorCode.OVERLOAD_THROTTLED,
        reason,
        f"{text} ({numbers}); retry in {retry_after_s} s",
        phrase,
        retry_after_s=retry_after_s,
    )


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


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


def draining() -> Failure:
    return _restarting("takes no new calls")


def cut_short() -> Failure:
    """An answer that took longer than the drain of a restart."""
    return _restarting("could not wait longer for this answer")


def _restarting(what: str) -> Failure:
    text = f"modelsplit is restarting and {what}; retry in 2 s"
    return Failure(ErrorCode.OVERLOAD_THROTTLED, Reason.DRAINING, text, "Draining", retry_after_s=2)
