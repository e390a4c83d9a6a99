"""Whose fault a failure is: one row for every code and reason, and nothing is guessed.

What counts against a provider or a model must be its doing. A client that sends an option of
the wrong type gets a 500 each time, and its five calls say nothing of the model that others
use. So a failure is one of these:

- OUTAGE, RUNNER: no request can cause it. Nobody listens; the runner died, or did not load.
- CUT, BROKEN: it may be the provider's or the model's doing, and it may be the request's: a
  body that makes Ollama give up does so every time. It counts once others fail as well.
- REQUEST, ANSWER: the upstream was there, and said no to this request, or computed an answer
  that this client cannot use. Another client's call fares better.
- BUSY: the upstream was there and has enough to do.
- NOBODY: it never came to the upstream, or the call's own circumstances ended it.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.failures import ErrorCode, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.failures import Failure


class Blame(StrEnum):
    OUTAGE = "outage"
    CUT = "cut"
    RUNNER = "runner"
    BROKEN = "broken"
    REQUEST = "request"
    ANSWER = "answer"
    BUSY = "busy"
    NOBODY = "nobody"


class Circumstances(NamedTuple):
    """What else decides whose fault an ending is.

    ``deadline_was_clients``: it had shortened the role's time. ``holds_back``: the request
    makes Ollama hold an answer back while it parses it, so that silence is no stall.
    """

    deadline_was_clients: bool = False
    holds_back: bool = False


USUAL: Final = Circumstances()

_OURS = Blame.NOBODY
_UNREACHABLE: Final = {
    Reason.CONNECT_REFUSED: Blame.OUTAGE,
    Reason.DNS: Blame.OUTAGE,
    # A port forwarder in front of a stopped Ollama accepts each connection and resets it; so
    # does an Ollama that gives up on one request.
    Reason.RESET: Blame.CUT,
    Reason.TRUNCATED: Blame.BROKEN,
    Reason.PROTOCOL: Blame.BROKEN,
}
_UPSTREAM: Final = {
    Reason.STATUS: Blame.BROKEN,
    Reason.NO_ANSWER: Blame.BROKEN,
    Reason.UNTERMINATED: Blame.BROKEN,
    Reason.NOT_INSTALLED: Blame.REQUEST,
    Reason.UPSTREAM_REJECTED: Blame.REQUEST,
    Reason.UNREADABLE_ANSWER: Blame.ANSWER,
    Reason.RUNNER_FAILED: Blame.RUNNER,
}
_STREAM: Final = {
    Reason.RESET: Blame.BROKEN,
    Reason.PROTOCOL: Blame.BROKEN,
    Reason.TRUNCATED: Blame.BROKEN,
    Reason.UNTERMINATED: Blame.BROKEN,
    Reason.ERROR_LINE: Blame.BROKEN,
    Reason.UNREADABLE_ANSWER: Blame.ANSWER,
    Reason.RUNNER_FAILED: Blame.RUNNER,
}
_TIMEOUT: Final = {
    Reason.CONNECT_TIMEOUT: Blame.OUTAGE,
    Reason.UPSTREAM_MUTE: Blame.OUTAGE,
    Reason.LOAD_TIMEOUT: Blame.RUNNER,
    Reason.ROLE_TIMEOUT: Blame.BROKEN,
    Reason.FIRST_BYTE_TIMEOUT: Blame.BROKEN,
    Reason.STALL: Blame.BROKEN,
    # The line and another model may have had most of it.
    Reason.TOTAL_TIMEOUT: Blame.NOBODY,
}

WHOSE: Final[Mapping[ErrorCode, Mapping[Reason, Blame]]] = MappingProxyType(
    {
        ErrorCode.BAD_REQUEST: {
            Reason.BAD_JSON: _OURS,
            Reason.BAD_FORM: _OURS,
            Reason.BAD_HEADER: _OURS,
            Reason.BAD_HTTP: _OURS,
            Reason.UNKNOWN_ROLE: _OURS,
            Reason.AMBIGUOUS_MODEL: _OURS,
            Reason.BAD_MODEL_NAME: _OURS,
            Reason.UNTRANSLATABLE: _OURS,
            Reason.COMPRESSED_BODY: _OURS,
            Reason.BODY_TIMEOUT: _OURS,
            Reason.UPSTREAM_REJECTED: Blame.REQUEST,
        },
        ErrorCode.UNAUTHORIZED: {
            Reason.NO_KEY: _OURS,
            Reason.WRONG_KEY: _OURS,
            Reason.UPSTREAM_REJECTED: Blame.REQUEST,
        },
        ErrorCode.FORBIDDEN: {
            Reason.HOST_DENIED: _OURS,
            Reason.ORIGIN_DENIED: _OURS,
            Reason.METHOD_DENIED: _OURS,
            Reason.ROLE_DENIED: _OURS,
            Reason.EGRESS_DENIED: _OURS,
            Reason.MANAGEMENT_DENIED: _OURS,
            Reason.IS_ALIAS: _OURS,
            Reason.UPSTREAM_REJECTED: Blame.REQUEST,
        },
        ErrorCode.ESCALATION_DENIED: {
            Reason.UNKNOWN_CONDITION: _OURS,
            Reason.ROLE_CANNOT_ESCALATE: _OURS,
        },
        ErrorCode.BUDGET_NOT_APPROVED: {
            Reason.NO_APPROVAL: _OURS,
            Reason.APPROVAL_EXPIRED: _OURS,
            Reason.APPROVAL_REVOKED: _OURS,
            Reason.APPROVAL_SPENT: _OURS,
            Reason.PRICE_UNKNOWN: _OURS,
        },
        ErrorCode.MODEL_NOT_FOUND: {
            Reason.NOT_INSTALLED: Blame.REQUEST,
            Reason.NO_PROVIDER: _OURS,
        },
        ErrorCode.REQUEST_TOO_LARGE: {
            Reason.BODY_LIMIT: _OURS,
            Reason.UPSTREAM_REJECTED: Blame.REQUEST,
        },
        ErrorCode.RATE_LIMITED: {
            Reason.CLIENT_RATE: _OURS,
            Reason.CLIENT_CONCURRENCY: _OURS,
            Reason.UPSTREAM_REJECTED: Blame.BUSY,
        },
        ErrorCode.BUDGET_EXHAUSTED: {
            Reason.CALLS: _OURS,
            Reason.USD: _OURS,
            Reason.COUNTS_LOST: _OURS,
            Reason.LEDGER_UNAVAILABLE: _OURS,
        },
        ErrorCode.OVERLOAD_THROTTLED: {
            Reason.QUEUE_FULL: _OURS,
            Reason.QUEUE_TIMEOUT: _OURS,
            Reason.SHED: _OURS,
            Reason.UPSTREAM_BUSY: Blame.BUSY,
            Reason.BREAKER_OPEN: _OURS,
            Reason.DRAINING: _OURS,
            Reason.CONNECTIONS: _OURS,
            Reason.REQUEST_MEMORY: _OURS,
        },
        ErrorCode.UNREACHABLE_LOCAL: _UNREACHABLE,
        ErrorCode.UNREACHABLE_CLOUD: _UNREACHABLE,
        ErrorCode.UPSTREAM_LOCAL: _UPSTREAM,
        # One who may not be asked is no worse to ask for those who may.
        ErrorCode.UPSTREAM_CLOUD: {**_UPSTREAM, Reason.PROVIDER_CREDENTIAL: Blame.NOBODY},
        ErrorCode.STREAM_BROKEN_LOCAL: _STREAM,
        ErrorCode.STREAM_BROKEN_CLOUD: _STREAM,
        ErrorCode.TIMEOUT_LOCAL: _TIMEOUT,
        ErrorCode.TIMEOUT_CLOUD: _TIMEOUT,
        ErrorCode.SCHEMA_INVALID: {
            Reason.SCHEMA: Blame.ANSWER,
            Reason.CUT: Blame.ANSWER,
        },
        ErrorCode.LOOP: {Reason.VIA: _OURS},
        ErrorCode.CLIENT_GONE: {
            Reason.QUEUED: _OURS,
            Reason.BEFORE_FIRST_BYTE: _OURS,
            Reason.STREAMING: _OURS,
            Reason.CLIENT_STALLED: _OURS,
        },
        ErrorCode.INTERNAL: {Reason.BUG: _OURS},
    }
)

# No request can cause these.
CERTAIN: Final = frozenset({Blame.OUTAGE, Blame.RUNNER})


def blame(failure: Failure, circumstances: Circumstances = USUAL) -> Blame:
    """Whose fault ``failure`` is.

    Nobody's where the client had shortened the deadline that fired: one that asks for a
    millisecond must not shut the model off for others. Nor is it a stall where the answer was
    being held back.
    """
    if failure.unsent:
        return Blame.NOBODY
    if failure.reason is Reason.ROLE_TIMEOUT and circumstances.deadline_was_clients:
        return Blame.NOBODY
    if failure.reason is Reason.STALL and circumstances.holds_back:
        return Blame.NOBODY
    return WHOSE[failure.code][failure.reason]


def pair_of(client: str, body: bytes) -> int:
    """A cheap digest of who asked what; ``body`` may be a part of it, always the same one.

    The boundary of a form is drawn anew each time, and is left out.
    """
    if body.startswith(b"--"):
        body = body.replace(body.partition(b"\r\n")[0], b"")
    return hash((client, body))
