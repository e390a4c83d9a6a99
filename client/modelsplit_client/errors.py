"""What goes wrong, as exceptions: one class for each family of modelsplit's error codes.

``E_TIMEOUT_LOCAL`` and ``E_TIMEOUT_CLOUD`` are one family. Only ``E_CLIENT_GONE`` has no class:
nobody is left to be told. What each code and reason means is in docs/errors.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class ModelsplitError(Exception):
    """Everything that this package raises on its own account."""


class ProxyConnectionError(ModelsplitError):
    """Nobody answered at modelsplit's address, or the connection broke before an answer."""


class ProxyTimeoutError(ProxyConnectionError):
    """modelsplit said nothing within the client's own ``read_timeout``, or could not be reached."""


@dataclass(frozen=True, slots=True)
class Told:
    """All that is known of one failed call. None: not told.

    The eleven fields are those of every error of modelsplit's. ``status``: of the response, 200 in
    a stream that had begun. ``retry_after``: seconds. ``should_retry``: False where the same
    request fails again. ``text``: what of the answer had come.
    """

    error_code: str | None = None
    error_context: str | None = None
    error_provider: str | None = None
    llm_context: str | None = None
    llm_role: str | None = None
    llm_provider: str | None = None
    llm_model: str | None = None
    llm_attempt: int | None = None
    fallback_used: bool | None = None
    request_id: str | None = None
    reason: str | None = None
    status: int | None = None
    retry_after: float | None = None
    should_retry: bool | None = None
    text: str = ""


class CallError(ModelsplitError):
    """A call was refused or failed. ``str()`` is the sentence that modelsplit, or Ollama, said.

    Itself raised only where no code was told, or one that this version does not know. Its
    attributes are the fields of :class:`Told`.
    """

    def __init__(self, message: str, told: Told) -> None:
        super().__init__(message, told)
        self.message = message
        self.told = told
        self.error_code = told.error_code
        self.error_context = told.error_context
        self.error_provider = told.error_provider
        self.llm_context = told.llm_context
        self.llm_role = told.llm_role
        self.llm_provider = told.llm_provider
        self.llm_model = told.llm_model
        self.llm_attempt = told.llm_attempt
        self.fallback_used = told.fallback_used
        self.request_id = told.request_id
        self.reason = told.reason
        self.status = told.status
        self.retry_after = told.retry_after
        self.should_retry = told.should_retry
        self.text = told.text

    def __str__(self) -> str:
        return self.message


class BadRequestError(CallError):
    """``E_BAD_REQUEST``: malformed, or an unknown role. The same request fails again."""


class UnauthorizedError(CallError):
    """``E_UNAUTHORIZED``: no key, or a wrong one."""


class ForbiddenError(CallError):
    """``E_FORBIDDEN``: the host, the role or the model is denied to this client."""


class EscalationDeniedError(CallError):
    """``E_ESCALATION_DENIED``: no allowed condition, or a role that cannot escalate."""


class BudgetNotApprovedError(CallError):
    """``E_BUDGET_NOT_APPROVED``: a call of the cloud without an approval in force."""


class ModelNotFoundError(CallError):
    """``E_MODEL_NOT_FOUND``: Ollama does not have the model."""


class RequestTooLargeError(CallError):
    """``E_REQUEST_TOO_LARGE``: the body is over the limit."""


class RateLimitedError(CallError):
    """``E_RATE_LIMITED``: this client asks too often. ``retry_after`` says when to try again."""


class BudgetExhaustedError(CallError):
    """``E_BUDGET_EXHAUSTED``: a budget of calls or money is used up; seconds do not help."""


class OverloadThrottledError(CallError):
    """``E_OVERLOAD_THROTTLED``: no seat, or none in time; ``retry_after`` says when again."""


class UnreachableError(CallError):
    """``E_UNREACHABLE_LOCAL``, ``…_CLOUD``: modelsplit could not reach the model's server."""


class UpstreamError(CallError):
    """``E_UPSTREAM_LOCAL``, ``…_CLOUD``: the model's server answered with a failure."""


class StreamBrokenError(CallError):
    """``E_STREAM_BROKEN_LOCAL``, ``…_CLOUD``: the answer broke off; ``text`` has what came."""


class CallTimeoutError(CallError):
    """``E_TIMEOUT_LOCAL``, ``…_CLOUD``: a bound of the call was over: the sentence says which."""


class SchemaInvalidError(CallError):
    """``E_SCHEMA_INVALID``: the answer does not fit the schema. ``text`` has it, where it came."""


class LoopError(CallError):
    """``E_LOOP``: modelsplit's upstream is modelsplit."""


class InternalError(CallError):
    """``E_INTERNAL``: a fault of modelsplit's."""


FAMILIES: Final = MappingProxyType(
    {
        "E_BAD_REQUEST": BadRequestError,
        "E_UNAUTHORIZED": UnauthorizedError,
        "E_FORBIDDEN": ForbiddenError,
        "E_ESCALATION_DENIED": EscalationDeniedError,
        "E_BUDGET_NOT_APPROVED": BudgetNotApprovedError,
        "E_MODEL_NOT_FOUND": ModelNotFoundError,
        "E_REQUEST_TOO_LARGE": RequestTooLargeError,
        "E_RATE_LIMITED": RateLimitedError,
        "E_BUDGET_EXHAUSTED": BudgetExhaustedError,
        "E_OVERLOAD_THROTTLED": OverloadThrottledError,
        "E_UNREACHABLE": UnreachableError,
        "E_UPSTREAM": UpstreamError,
        "E_STREAM_BROKEN": StreamBrokenError,
        "E_TIMEOUT": CallTimeoutError,
        "E_SCHEMA_INVALID": SchemaInvalidError,
        "E_LOOP": LoopError,
        "E_INTERNAL": InternalError,
    }
)


def family(code: str | None) -> type[CallError]:
    """The class of a code; ``CallError`` where the code is None or unknown."""
    return FAMILIES.get((code or "").removesuffix("_LOCAL").removesuffix("_CLOUD"), CallError)


def of_response(status: int, headers: Mapping[str, str], body: bytes) -> CallError:
    """Of a response that is no success. ``headers``: names in lower case."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, dict) and "error" in told:
        return of_object(told, headers, status=status)
    plain = " ".join(body.decode(errors="replace").split())[:200]
    message = plain if plain and not plain.startswith("<") else f"HTTP status {status}"
    return _made(message, {}, headers, status, "")


def of_object(
    told: Mapping[str, Any], headers: Mapping[str, str], *, status: int = 200, text: str = ""
) -> CallError:
    """Of the JSON object of an error, in either dialect: a body, or a line or event of a stream.

    ``text``: what of the answer had come before. What the object does not say, as where Ollama
    itself refused and its own body was passed on, is taken from the headers.
    """
    error = told.get("error")
    if isinstance(error, dict):
        return _made(str(error.get("message") or "error"), error, headers, status, text)
    return _made(str(error), told, headers, status, text)


def broken(
    message: str,
    reason: str,
    headers: Mapping[str, str],
    text: str,
    *,
    code: str = "E_STREAM_BROKEN",
) -> CallError:
    """Of an answer that began and is none; ``code`` without its provider."""
    provider = headers.get("x-llm-provider") or "LOCAL"
    own = {"error_code": f"{code}_{provider}", "reason": reason}
    return _made(message, own, headers, 200, text)


def unfit(message: str, reason: str, headers: Mapping[str, str], text: str) -> CallError:
    """Of a whole answer that does not fit the schema that this client asked for."""
    own = {"error_code": "E_SCHEMA_INVALID", "reason": reason}
    return _made(message, own, headers, 200, text)


def _made(
    message: str, own: Mapping[str, Any], headers: Mapping[str, str], status: int, text: str
) -> CallError:
    told = {name: own[name] for name in _NAMES if isinstance(own.get(name), str | int)}
    code = str(told["error_code"]) if "error_code" in told else headers.get("x-llm-error-code")
    # Ollama's own line in a stream has no code, and its head left before anybody knew one.
    if code is None and status == 200:
        code = f"E_STREAM_BROKEN_{headers.get('x-llm-provider') or 'LOCAL'}"
        told["reason"] = "error_line"
    advice = _ADVICE.get(headers.get("x-should-retry", ""))
    known = {"reason": _passed_on(code or "", advice), **_of_headers(headers), **told}
    known["error_code"] = code
    error = family(code)(
        message,
        Told(
            **known,
            status=status,
            retry_after=_seconds(headers.get("retry-after")),
            should_retry=advice,
            text=text,
        ),
    )
    if error.request_id is not None and code is not None:
        said = " ".join(filter(None, (code, error.reason)))
        error.add_note(f"{said}: modelsplit requests {error.request_id}")
    return error


_OWN: Final = frozenset({"status", "retry_after", "should_retry", "text"})
_NAMES: Final = tuple(field.name for field in fields(Told) if field.name not in _OWN)
# Why, where Ollama's own body was passed on, so that only the code is told, in a header.
_PASSED_ON: Final = MappingProxyType(
    {
        "E_BAD_REQUEST": "upstream_rejected",
        "E_UNAUTHORIZED": "upstream_rejected",
        "E_FORBIDDEN": "upstream_rejected",
        "E_MODEL_NOT_FOUND": "not_installed",
        "E_REQUEST_TOO_LARGE": "upstream_rejected",
        "E_RATE_LIMITED": "upstream_rejected",
        "E_OVERLOAD_THROTTLED": "upstream_busy",
    }
)
_ADVICE: Final = MappingProxyType({"true": True, "false": False})


def _passed_on(code: str, advice: bool | None) -> str | None:
    """The reason of a code told alone, in a header. None: it may have several."""
    if code.startswith("E_UPSTREAM_") and advice is False:
        return "upstream_rejected"
    return _PASSED_ON.get(code)


def _of_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    attempt = headers.get("x-llm-attempt", "")
    return {
        "error_context": headers.get("x-llm-context"),
        "error_provider": headers.get("x-llm-provider"),
        "llm_context": headers.get("x-llm-context"),
        "llm_role": headers.get("x-llm-role"),
        "llm_provider": headers.get("x-llm-provider"),
        "llm_model": headers.get("x-llm-model"),
        "llm_attempt": int(attempt) if attempt.isdecimal() else None,
        "fallback_used": _ADVICE.get(headers.get("x-llm-fallback-used", "")),
        "request_id": headers.get("x-request-id"),
    }


def _seconds(value: str | None) -> float | None:
    """A ``Retry-After`` in seconds; modelsplit sends whole ones, never a date."""
    return float(value) if value is not None and value.isdecimal() else None
