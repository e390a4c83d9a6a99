"""What goes wrong by itself: which of an attempt's chances mean a failure, and which one.

``Demand.failing`` and ``Demand.unfit`` are the chances, ``Shares`` how often each comes true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import ErrorCode, Failure, Reason, for_provider

if TYPE_CHECKING:
    from modelsplit_policy.vocabulary import Provider

    from .demand import Shares

# Of these nothing has been sent.
UNSENT: Final = frozenset({Reason.CONNECT_REFUSED, Reason.DNS})
_UNFIT: Final = Failure(
    ErrorCode.SCHEMA_INVALID, Reason.SCHEMA, "the answer does not fit its schema", "Schema Invalid"
)
_CUT: Final = Failure(
    ErrorCode.SCHEMA_INVALID,
    Reason.CUT,
    "the answer was cut before it fitted the schema",
    "Answer Cut",
    retry=False,
)


def failing(shares: Shares, chance: float, provider: Provider) -> Failure | None:
    """How the upstream fails the attempt; None: it does not."""
    if chance >= shares.failing:
        return None
    code, reason = ErrorCode.UPSTREAM_LOCAL, Reason.STATUS
    for kind in shares.kinds:
        code, reason = kind.code, kind.reason
        if chance < shares.failing * kind.share:
            break
    return Failure(for_provider(code, provider), reason, "the upstream failed", "Upstream Failed")


def unfit(shares: Shares, chance: float) -> Failure | None:
    """Why an answer does not fit its schema; None: it does."""
    if chance < shares.unfit:
        return _UNFIT
    return _CUT if chance < shares.unfit + shares.cut else None
