"""Whether a failed first attempt may be followed by the one fallback.

Only before the client has a byte, only once, and only for a failure that another model may
be spared: it broke off before its answer, answered with a failure or "busy", does not
have the model, took longer than the role allows, gave an answer that does not fit its schema,
or is not asked while its breaker is open.
Never because the line was too long (the second model stands in the same line), never for
what the client did wrong, in whatever words the upstream says so, never for an answer that
the upstream could not read, or that was cut at the length it may have, never for a budget that
says no, never where the upstream is not there, or mute: the second model is behind the same
silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import ErrorCode, Reason

if TYPE_CHECKING:
    from modelsplit_policy.failures import Failure

_CAUSES: Final = frozenset(
    {
        ErrorCode.UNREACHABLE_LOCAL,
        ErrorCode.UNREACHABLE_CLOUD,
        ErrorCode.UPSTREAM_LOCAL,
        ErrorCode.UPSTREAM_CLOUD,
        ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.TIMEOUT_LOCAL,
        ErrorCode.TIMEOUT_CLOUD,
        ErrorCode.SCHEMA_INVALID,
    }
)
_NO_CAUSES: Final = frozenset(
    {
        # The second model is behind the same silence.
        Reason.CONNECT_REFUSED,
        Reason.CONNECT_TIMEOUT,
        Reason.DNS,
        Reason.UPSTREAM_MUTE,
        Reason.CUT,
        Reason.UPSTREAM_REJECTED,
        Reason.UNREADABLE_ANSWER,
    }
)


def is_cause(failure: Failure) -> bool:
    """True if ``failure``, before the first byte, is one the fallback may answer for."""
    if failure.code is ErrorCode.OVERLOAD_THROTTLED:
        return failure.reason in {Reason.UPSTREAM_BUSY, Reason.BREAKER_OPEN}
    return failure.code in _CAUSES and failure.reason not in _NO_CAUSES
