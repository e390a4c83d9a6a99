"""What can go wrong, in a closed vocabulary.

Every failure has a code (whose fault, at which stage), a reason from that code's own
closed set, a status and an advice on retrying. The same words appear in the body, the
record, the log and the metric labels, so a person can follow one word through all four.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from modelsplit_policy.vocabulary import Provider


class ErrorCode(StrEnum):
    BAD_REQUEST = "E_BAD_REQUEST"
    UNAUTHORIZED = "E_UNAUTHORIZED"
    FORBIDDEN = "E_FORBIDDEN"
    ESCALATION_DENIED = "E_ESCALATION_DENIED"
    BUDGET_NOT_APPROVED = "E_BUDGET_NOT_APPROVED"
    MODEL_NOT_FOUND = "E_MODEL_NOT_FOUND"
    REQUEST_TOO_LARGE = "E_REQUEST_TOO_LARGE"
    RATE_LIMITED = "E_RATE_LIMITED"
    BUDGET_EXHAUSTED = "E_BUDGET_EXHAUSTED"
    OVERLOAD_THROTTLED = "E_OVERLOAD_THROTTLED"
    UNREACHABLE_LOCAL = "E_UNREACHABLE_LOCAL"
    UNREACHABLE_CLOUD = "E_UNREACHABLE_CLOUD"
    UPSTREAM_LOCAL = "E_UPSTREAM_LOCAL"
    UPSTREAM_CLOUD = "E_UPSTREAM_CLOUD"
    STREAM_BROKEN_LOCAL = "E_STREAM_BROKEN_LOCAL"
    STREAM_BROKEN_CLOUD = "E_STREAM_BROKEN_CLOUD"
    TIMEOUT_LOCAL = "E_TIMEOUT_LOCAL"
    TIMEOUT_CLOUD = "E_TIMEOUT_CLOUD"
    SCHEMA_INVALID = "E_SCHEMA_INVALID"
    LOOP = "E_LOOP"
    CLIENT_GONE = "E_CLIENT_GONE"
    INTERNAL = "E_INTERNAL"


class Reason(StrEnum):
    BAD_JSON = "bad_json"
    BAD_FORM = "bad_form"
    BAD_HEADER = "bad_header"
    BAD_HTTP = "bad_http"
    BODY_TIMEOUT = "body_timeout"
    UNKNOWN_ROLE = "unknown_role"
    AMBIGUOUS_MODEL = "ambiguous_model"
    BAD_MODEL_NAME = "bad_model_name"
    UNTRANSLATABLE = "untranslatable"
    COMPRESSED_BODY = "compressed_body"
    HOST_DENIED = "host_denied"
    ORIGIN_DENIED = "origin_denied"
    METHOD_DENIED = "method_denied"
    NO_KEY = "no_key"
    WRONG_KEY = "wrong_key"
    ROLE_DENIED = "role_denied"
    EGRESS_DENIED = "egress_denied"
    MANAGEMENT_DENIED = "management_denied"
    IS_ALIAS = "is_alias"
    UNKNOWN_CONDITION = "unknown_condition"
    ROLE_CANNOT_ESCALATE = "role_cannot_escalate"
    NO_APPROVAL = "no_approval"
    APPROVAL_EXPIRED = "approval_expired"
    APPROVAL_REVOKED = "approval_revoked"
    APPROVAL_SPENT = "approval_spent"
    PRICE_UNKNOWN = "price_unknown"
    NOT_INSTALLED = "not_installed"
    NO_PROVIDER = "no_provider"
    BODY_LIMIT = "body_limit"
    CLIENT_RATE = "client_rate"
    CLIENT_CONCURRENCY = "client_concurrency"
    CALLS = "calls"
    USD = "usd"
    COUNTS_LOST = "counts_lost"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    SHED = "shed"
    UPSTREAM_BUSY = "upstream_busy"
    BREAKER_OPEN = "breaker_open"
    DRAINING = "draining"
    REQUEST_MEMORY = "request_memory"
    CONNECTIONS = "connections"
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    DNS = "dns"
    RESET = "reset"
    PROTOCOL = "protocol"
    STATUS = "status"
    TRUNCATED = "truncated"
    NO_ANSWER = "no_answer"
    UNTERMINATED = "unterminated"
    ERROR_LINE = "error_line"
    UNREADABLE_ANSWER = "unreadable_answer"
    RUNNER_FAILED = "runner_failed"
    PROVIDER_CREDENTIAL = "provider_credential"
    ROLE_TIMEOUT = "role_timeout"
    LOAD_TIMEOUT = "load_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    UPSTREAM_MUTE = "upstream_mute"
    STALL = "stall"
    SCHEMA = "schema"
    CUT = "cut"
    VIA = "via"
    QUEUED = "queued"
    BEFORE_FIRST_BYTE = "before_first_byte"
    STREAMING = "streaming"
    CLIENT_STALLED = "client_stalled"
    UPSTREAM_REJECTED = "upstream_rejected"
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """The fixed facts of one code.

    ``retry`` is the ``x-should-retry`` advice: False where trying again cannot help,
    None where the client's own judgement is as good as ours.
    """

    status: int
    error_type: str
    reasons: frozenset[Reason]
    retry: bool | None = None


def _spec(status: int, error_type: str, *reasons: Reason, retry: bool | None = None) -> ErrorSpec:
    return ErrorSpec(status, error_type, frozenset(reasons), retry)


_UNREACHABLE: Final = _spec(
    502,
    "api_error",
    Reason.CONNECT_REFUSED,
    Reason.DNS,
    Reason.RESET,
    Reason.TRUNCATED,
    Reason.PROTOCOL,
)
_UPSTREAM: Final = _spec(
    502,
    "api_error",
    Reason.STATUS,
    Reason.NO_ANSWER,
    Reason.UNTERMINATED,
    Reason.NOT_INSTALLED,
    Reason.UPSTREAM_REJECTED,
    Reason.UNREADABLE_ANSWER,
    Reason.RUNNER_FAILED,
)
_UPSTREAM_CLOUD: Final = _spec(502, "api_error", *_UPSTREAM.reasons, Reason.PROVIDER_CREDENTIAL)
_BROKEN: Final = _spec(
    502,
    "api_error",
    Reason.RESET,
    Reason.PROTOCOL,
    Reason.TRUNCATED,
    Reason.UNTERMINATED,
    Reason.ERROR_LINE,
    Reason.UNREADABLE_ANSWER,
    Reason.RUNNER_FAILED,
)
_TIMEOUT: Final = _spec(
    504,
    "api_error",
    Reason.CONNECT_TIMEOUT,
    Reason.LOAD_TIMEOUT,
    Reason.ROLE_TIMEOUT,
    Reason.TOTAL_TIMEOUT,
    Reason.FIRST_BYTE_TIMEOUT,
    Reason.UPSTREAM_MUTE,
    Reason.STALL,
)

# ``error_type`` follows the SDKs' own tables (OpenAI, Anthropic), which switch on it.
ERRORS: Final = MappingProxyType(
    {
        ErrorCode.BAD_REQUEST: _spec(
            400,
            "invalid_request_error",
            Reason.BAD_JSON,
            Reason.BAD_FORM,
            Reason.BAD_HEADER,
            Reason.BAD_HTTP,
            Reason.BODY_TIMEOUT,
            Reason.UNKNOWN_ROLE,
            Reason.AMBIGUOUS_MODEL,
            Reason.BAD_MODEL_NAME,
            Reason.UNTRANSLATABLE,
            Reason.COMPRESSED_BODY,
            Reason.UPSTREAM_REJECTED,
            retry=False,
        ),
        ErrorCode.UNAUTHORIZED: _spec(
            401,
            "authentication_error",
            Reason.NO_KEY,
            Reason.WRONG_KEY,
            Reason.UPSTREAM_REJECTED,
            retry=False,
        ),
        ErrorCode.FORBIDDEN: _spec(
            403,
            "permission_error",
            Reason.HOST_DENIED,
            Reason.ORIGIN_DENIED,
            Reason.METHOD_DENIED,
            Reason.ROLE_DENIED,
            Reason.EGRESS_DENIED,
            Reason.MANAGEMENT_DENIED,
            Reason.IS_ALIAS,
            Reason.UPSTREAM_REJECTED,
            retry=False,
        ),
        ErrorCode.ESCALATION_DENIED: _spec(
            403,
            "permission_error",
            Reason.UNKNOWN_CONDITION,
            Reason.ROLE_CANNOT_ESCALATE,
            retry=False,
        ),
        ErrorCode.BUDGET_NOT_APPROVED: _spec(
            403,
            "permission_error",
            Reason.NO_APPROVAL,
            Reason.APPROVAL_EXPIRED,
            Reason.APPROVAL_REVOKED,
            Reason.APPROVAL_SPENT,
            Reason.PRICE_UNKNOWN,
            retry=False,
        ),
        ErrorCode.MODEL_NOT_FOUND: _spec(
            404, "not_found_error", Reason.NOT_INSTALLED, Reason.NO_PROVIDER, retry=False
        ),
        ErrorCode.REQUEST_TOO_LARGE: _spec(
            413,
            "request_too_large",
            Reason.BODY_LIMIT,
            Reason.UPSTREAM_REJECTED,
            retry=False,
        ),
        ErrorCode.RATE_LIMITED: _spec(
            429,
            "rate_limit_error",
            Reason.CLIENT_RATE,
            Reason.CLIENT_CONCURRENCY,
            Reason.UPSTREAM_REJECTED,
        ),
        ErrorCode.BUDGET_EXHAUSTED: _spec(
            429,
            "rate_limit_error",
            Reason.CALLS,
            Reason.USD,
            Reason.COUNTS_LOST,
            Reason.LEDGER_UNAVAILABLE,
            retry=False,
        ),
        ErrorCode.OVERLOAD_THROTTLED: _spec(
            503,
            "overloaded_error",
            Reason.QUEUE_FULL,
            Reason.QUEUE_TIMEOUT,
            Reason.SHED,
            Reason.UPSTREAM_BUSY,
            Reason.BREAKER_OPEN,
            Reason.DRAINING,
            Reason.REQUEST_MEMORY,
            Reason.CONNECTIONS,
        ),
        ErrorCode.UNREACHABLE_LOCAL: _UNREACHABLE,
        ErrorCode.UNREACHABLE_CLOUD: _UNREACHABLE,
        ErrorCode.UPSTREAM_LOCAL: _UPSTREAM,
        ErrorCode.UPSTREAM_CLOUD: _UPSTREAM_CLOUD,
        ErrorCode.STREAM_BROKEN_LOCAL: _BROKEN,
        ErrorCode.STREAM_BROKEN_CLOUD: _BROKEN,
        ErrorCode.TIMEOUT_LOCAL: _TIMEOUT,
        ErrorCode.TIMEOUT_CLOUD: _TIMEOUT,
        ErrorCode.SCHEMA_INVALID: _spec(502, "api_error", Reason.SCHEMA, Reason.CUT),
        ErrorCode.LOOP: _spec(508, "api_error", Reason.VIA, retry=False),
        ErrorCode.CLIENT_GONE: _spec(
            499,
            "api_error",
            Reason.QUEUED,
            Reason.BEFORE_FIRST_BYTE,
            Reason.STREAMING,
            Reason.CLIENT_STALLED,
        ),
        ErrorCode.INTERNAL: _spec(500, "api_error", Reason.BUG),
    }
)

_BY_PROVIDER: Final = MappingProxyType(
    {
        ErrorCode.UNREACHABLE_LOCAL: ErrorCode.UNREACHABLE_CLOUD,
        ErrorCode.UPSTREAM_LOCAL: ErrorCode.UPSTREAM_CLOUD,
        ErrorCode.STREAM_BROKEN_LOCAL: ErrorCode.STREAM_BROKEN_CLOUD,
        ErrorCode.TIMEOUT_LOCAL: ErrorCode.TIMEOUT_CLOUD,
    }
)


# The codes of a budget that says no.
BUDGET: Final = frozenset({ErrorCode.BUDGET_EXHAUSTED, ErrorCode.BUDGET_NOT_APPROVED})


# Of a call that was to be sent and never left: nobody took the connection.
NEVER_LEFT: Final = frozenset({Reason.CONNECT_REFUSED, Reason.CONNECT_TIMEOUT, Reason.DNS})


MESSAGE_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that went wrong, said so that a person knows what to do.

    ``message`` is one sentence of at most ``MESSAGE_MAX`` characters: what happened, the numbers,
    what to do. ``retry_after_s`` is whole seconds, 1 to 30 or what the upstream asks for, and
    only where waiting helps. ``phrase`` is the HTTP reason phrase; some clients show nothing
    else. ``own_status``: sent instead of the code's status. ``retry``: the advice on retrying,
    where it is known better than by the code. ``unsent``: the call was not sent, because those
    before it have failed so.
    """

    code: ErrorCode
    reason: Reason
    message: str
    phrase: str
    retry_after_s: int | None = None
    own_status: int | None = None
    retry: bool | None = None
    unsent: bool = False

    def __post_init__(self) -> None:
        if self.reason not in ERRORS[self.code].reasons:
            raise ValueError(f"{self.reason} is not a reason of {self.code}")

    def and_then(self, text: str) -> Failure:
        """The same, said with one thing more; what it said itself may be cut for it."""
        return replace(self, message=fitted(self.message, text))

    def of_host(self, host: str) -> Failure:
        """The same, said of that one of several hosts; what to do next stays, if it is the end."""
        text = self.message
        if f"host {host}" in text:
            return self
        if text.startswith("Ollama "):
            text = f"Ollama on {host} {text.removeprefix('Ollama ')}"
        else:
            text = f"host {host}: {text}"
        what, _, step = text.rpartition("; ")
        if len(text) > MESSAGE_MAX:
            text = fitted(what, step) if what else text[:MESSAGE_MAX]
        return replace(self, message=text)

    @property
    def status(self) -> int:
        return self.own_status or ERRORS[self.code].status

    @property
    def error_type(self) -> str:
        return ERRORS[self.code].error_type

    @property
    def should_retry(self) -> bool | None:
        if self.retry is not None:
            return self.retry
        # What was refused is refused again, whatever status says so; a rate will not.
        if self.reason is Reason.UPSTREAM_REJECTED and self.code is not ErrorCode.RATE_LIMITED:
            return False
        return ERRORS[self.code].retry


def fitted(what: str, step: str) -> str:
    """A message of both: what happened, which is cut where it is too long, and what to do."""
    more = f"; {step}"
    return (what[: max(0, MESSAGE_MAX - len(more))] + more)[:MESSAGE_MAX]


def said_back(text: str, limit: int = 40) -> str:
    """What a client said, short and printable enough to stand in a message or a log line."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else "\ufffd" for c in shown)


def for_provider(code: ErrorCode, provider: Provider) -> ErrorCode:
    """The same code, said of the provider that failed."""
    if provider is Provider.CLOUD:
        return _BY_PROVIDER.get(code, code)
    return code
