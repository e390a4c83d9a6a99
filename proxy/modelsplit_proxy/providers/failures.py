"""What a provider's refusal, its silence or its broken line amounts to, in our own words.

The key is never in a sentence, whatever the provider says back: where it speaks of the key its
own words are left out, and anywhere else the key is struck from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import ErrorCode, Failure, Reason, fitted, said_back
from modelsplit_proxy.http.upstream import Fault, UpstreamError, UpstreamHead
from modelsplit_proxy.protocol import retry_advice
from modelsplit_proxy.protocol.stream_end import json_object

if TYPE_CHECKING:
    from modelsplit_proxy.providers.answer import AnswerError

# What the API's words for an error inside a stream would have been as a status.
_STATUSES: Final = MappingProxyType(
    {
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "overloaded_error": 529,
    }
)
# Nobody says when to come back: its own clients begin with less.
_BUSY_RETRY_S: Final = 2
_BUSY: Final = frozenset({429, 503, 529})
_CREDENTIAL: Final = frozenset({401, 402, 403})
_SAID_MAX: Final = 100
_NAME_MAX: Final = 40
_MESSAGE_MAX: Final = 200
# Under systemd what does not pass the filter is dropped without a word.
_FILTER: Final = "; a unit's address filter may be why: modelsplit print-unit --cloud"
# Shorter ones would be struck out of ordinary words.
_KEY_MIN: Final = 8


@dataclass(frozen=True, slots=True)
class Named:
    """Who is asked, in words. ``key_from`` says where its key is read; ``key`` is that."""

    provider: str
    model: str
    key_from: str
    key: str = field(default="", repr=False)

    def cleared(self, text: str) -> str:
        """A text of the provider's, short, on one line, without the key."""
        if len(self.key) >= _KEY_MIN:
            text = text.replace(self.key, "***")
        return said_back(" ".join(text.split()), _SAID_MAX) or "no explanation"


class ProviderError(UpstreamError):
    """An exchange with a provider failed, and ``failure`` says what that amounts to.

    ``status``: the provider's own; None: it gave none. ``is_sent``: it may have the request.
    """

    def __init__(
        self,
        failure: Failure,
        *,
        fault: Fault = Fault.PROTOCOL,
        status: int | None = None,
        is_sent: bool = True,
    ) -> None:
        super().__init__(fault, failure.message, failure)
        self.status = status
        self.is_sent = is_sent


def of_status(head: UpstreamHead, body: bytes, named: Named, wall: float) -> Failure:
    """What an answer of another status than 200 amounts to. ``wall``: seconds since 1970."""
    error = json_object(body).get("error")
    raw = error.get("message") if isinstance(error, dict) else error
    text = raw if isinstance(raw, str) else body[:_SAID_MAX].decode("utf-8", "replace")
    return _of(head.status, text, named, retry_advice.retry_after_s(head, wall))


def of_error(error: AnswerError, named: Named) -> Failure:
    """What an error amounts to that came with status 200, before anything of an answer."""
    return _of(_STATUSES.get(error.kind, 500), str(error), named, None)


def _of(status: int, text: str, named: Named, after_s: int | None) -> Failure:
    who, what = named.provider[:_NAME_MAX], named.cleared(text)
    if status in _CREDENTIAL:
        return _of_credential(status, named)
    if status == 404:
        message = (
            f"{who} does not know the model {said_back(named.model)}; say its name there in "
            f"cloud.providers.{who}.models"
        )
        return _failure(ErrorCode.MODEL_NOT_FOUND, Reason.NOT_INSTALLED, message, "Not Found")
    if status in _BUSY:
        return Failure(
            ErrorCode.OVERLOAD_THROTTLED,
            Reason.UPSTREAM_BUSY,
            f"{who} is overloaded: {what}"[:_MESSAGE_MAX],
            "Upstream Busy",
            retry_after_s=max(_BUSY_RETRY_S, after_s or 0),
        )
    if status == 413:
        code, phrase = ErrorCode.REQUEST_TOO_LARGE, "Refused"
        return _failure(code, Reason.UPSTREAM_REJECTED, f"{who} refused the size: {what}", phrase)
    if 400 <= status < 500:
        message = f"{who} refused the request with {status}: {what}"
        return Failure(
            ErrorCode.BAD_REQUEST,
            Reason.UPSTREAM_REJECTED,
            message[:_MESSAGE_MAX],
            "Refused",
            own_status=status,
        )
    own_status = status if status >= 500 else None
    return Failure(
        ErrorCode.UPSTREAM_CLOUD,
        Reason.STATUS,
        f"{who} answered {status}: {what}"[:_MESSAGE_MAX],
        "Upstream Failed",
        own_status=own_status,
    )


def _of_credential(status: int, named: Named) -> Failure:
    cannot = "cannot pay for the call" if status == 402 else "may not do this"
    what = "is not accepted" if status == 401 else cannot
    message = (
        f"the key of {named.provider[:_NAME_MAX]} from {said_back(named.key_from, 60)} {what} "
        f"({status}); replace it and restart modelsplit"
    )
    return credential(message)


def credential(message: str) -> Failure:
    """A key is missing or is not taken: no matter of the client's, and none to try again."""
    return Failure(
        ErrorCode.UPSTREAM_CLOUD,
        Reason.PROVIDER_CREDENTIAL,
        message[:_MESSAGE_MAX],
        "Provider Credential",
        retry=False,
    )


def unreachable(fault: Fault, named: Named, what: str) -> Failure:
    """It could not be connected to, or broke off before its answer."""
    who = named.provider[:_NAME_MAX]
    if fault is Fault.CONNECT_TIMEOUT:
        message = f"{who} does not take a connection in time{_FILTER}"
        code = ErrorCode.TIMEOUT_CLOUD
        return _failure(code, Reason.CONNECT_TIMEOUT, message, "Connect Timeout")
    message = f"{who} broke off before its answer: {named.cleared(what)}"
    if fault in {Fault.REFUSED, Fault.DNS}:
        message = f"{who} cannot be reached: {named.cleared(what)}"
    code, text = ErrorCode.UNREACHABLE_CLOUD, fitted(message, "try `modelsplit doctor`")
    return _failure(code, Reason(fault.value), text, "Provider Unreachable")


def broken(reason: Reason, named: Named, what: str) -> Failure:
    """It broke off in the middle of its answer, or said there that it failed."""
    message = f"{named.provider[:_NAME_MAX]} broke off its answer: {named.cleared(what)}"
    text = fitted(message, "it is not whole, ask again")
    return _failure(ErrorCode.STREAM_BROKEN_CLOUD, reason, text, "Stream Broken")


def no_answer(named: Named, what: str) -> Failure:
    message = f"{named.provider[:_NAME_MAX]} answered 200 and {what}"
    return _failure(ErrorCode.UPSTREAM_CLOUD, Reason.NO_ANSWER, message, "No Answer")


def untranslatable(named: Named, what: str) -> Failure:
    message = f"{named.provider[:_NAME_MAX]} cannot be asked this: {what}"
    return _failure(ErrorCode.BAD_REQUEST, Reason.UNTRANSLATABLE, message, "Untranslatable")


def _failure(code: ErrorCode, reason: Reason, message: str, phrase: str) -> Failure:
    return Failure(code, reason, message[:_MESSAGE_MAX], phrase)
