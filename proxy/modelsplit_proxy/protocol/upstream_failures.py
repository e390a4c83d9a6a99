"""What a broken, refused or late exchange with the upstream amounts to."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import (
    ErrorCode,
    Failure,
    Reason,
    fitted,
    for_provider,
    said_back,
)
from modelsplit_policy.hints import pulling
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.http.upstream import Fault
from modelsplit_proxy.protocol import retry_advice
from modelsplit_proxy.protocol.stream_end import json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from modelsplit_policy.hints import OllamaSteps
    from modelsplit_policy.vocabulary import Role
    from modelsplit_proxy.http.upstream import UpstreamError, UpstreamHead
# Ollama says nothing about when to come back; its queue moves in seconds.
_BUSY_RETRY_S: Final = 2
_NOT_FOUND: Final = "Not Found"
# A model's name of usual length, which may be said twice.
_NAME_MAX: Final = 60
# What was seen of a broken exchange.
_DETAIL_MAX: Final = 60
_TEXT_MAX: Final = 200
_ROLES_TOLD: Final = 3
# An error is told at once or not at all.
_ERROR_BYTES: Final = 64 * 1024


def failure_of_status(
    head: UpstreamHead,
    body: bytes,
    *,
    model: str,
    provider: Provider,
    wall: float,
    is_other: bool = False,
) -> Failure | None:
    """None for 2xx and 3xx; else the failure that the upstream's own answer amounts to.

    What the upstream advises on asking again is part of it. ``wall``: seconds since 1970.
    ``is_other``: what answers there is known to be no Ollama.
    """
    if head.status < 400:
        return None
    if provider is Provider.LOCAL and _is_nobodys_refusal(head.status, body, is_other=is_other):
        text = f'Ollama answered {head.status} with something else than a JSON object with "error"'
        failure = _no_answer(fitted(text, "is --upstream an Ollama?"), provider)
    else:
        failure = _refused(head.status, body, model=model, provider=provider)
    after_s = retry_advice.retry_after_s(head, wall)
    return replace(
        failure,
        retry_after_s=failure.retry_after_s if after_s is None else after_s,
        retry=retry_advice.should_retry(head),
    )


def _refused(status: int, body: bytes, *, model: str, provider: Provider) -> Failure:
    message = _said(body)
    if status == 404 and _names_a_model(body):
        return Failure(
            ErrorCode.MODEL_NOT_FOUND,
            Reason.NOT_INSTALLED,
            f"Ollama does not have {model[:70]}: {message}",
            _NOT_FOUND,
        )
    if status == 503:
        return Failure(
            ErrorCode.OVERLOAD_THROTTLED,
            Reason.UPSTREAM_BUSY,
            f"Ollama is overloaded: {message}",
            "Upstream Busy",
            retry_after_s=_BUSY_RETRY_S,
        )
    if status >= 500:
        code = for_provider(ErrorCode.UPSTREAM_LOCAL, provider)
        reason = _reason_of_500(status, message)
        return Failure(code, reason, f"Ollama answered {status}: {message}", "Upstream Failed")
    return _rejected(status, message)


def not_installed(
    model: str, *, role: Role, chosen_as: str, provider: Provider, pulled_at: str = ""
) -> Failure:
    """What a 404 amounts to for a model that the policy chose, not the client.

    ``chosen_as``: what it is to the role, as in: fallback. ``pulled_at``: as for
    ``hints.pulling``.
    """
    name = said_back(model, _NAME_MAX)
    pull = pulling([name], pulled_at)
    text = f"{role}'s {chosen_as} {name} is not installed in Ollama; try `{pull}`"
    if provider is Provider.CLOUD:
        text = (
            f"{role}'s {chosen_as} {name} cannot be served: no cloud provider is configured and "
            "Ollama does not have it; name one of Ollama's cloud models in the policy"
        )
    return Failure(ErrorCode.MODEL_NOT_FOUND, Reason.NOT_INSTALLED, text, _NOT_FOUND)


def none_installed(role: Role, models: Iterable[str], pulled_at: str = "") -> str:
    """Of a role all of whose models Ollama lacks. ``pulled_at``: as for ``hints.pulling``."""
    pull = pulling(models, pulled_at)
    return f"{role} cannot be served: none of its models is installed; try `{pull}`"


def not_found(
    model: str, body: bytes, *, meant: str | None, roles: Sequence[str], pulled_at: str = ""
) -> Failure:
    """What a 404 amounts to for a model that the client named itself.

    ``body``: Ollama's, whose words stand first. ``meant``: a name like it that is known, None if
    there is none. ``roles``: names of roles that a call can be served by. ``pulled_at``: as for
    ``hints.pulling``.
    """
    name, known = said_back(model, _NAME_MAX), ", ".join(roles[:_ROLES_TOLD])
    pull = pulling([name], pulled_at)
    advice = f"; try `{pull}`" + f", or name a role: {known}" * bool(known)
    if meant is not None:
        advice = f'; did you mean "{said_back(meant, _NAME_MAX)}"? Else `{pull}`'
    elif not model:
        advice = ": no model is named; name one" + f", or a role: {known}" * bool(known)
    text = _said(body)[: _TEXT_MAX - len(advice)] + advice
    return Failure(ErrorCode.MODEL_NOT_FOUND, Reason.NOT_INSTALLED, text[:_TEXT_MAX], _NOT_FOUND)


def no_success(status: int, provider: Provider) -> Failure:
    """What a status between 201 and 399 amounts to: no answer of a model has one."""
    text = f"Ollama answered {status} where an answer was due; is --upstream an Ollama?"
    return _no_answer(text, provider)


def no_answer(body: bytes, wanted: str, provider: Provider) -> Failure:
    """What a 200 amounts to whose body is not what was ``wanted`` on its route."""
    if not body.strip():
        return no_byte(provider)
    if b'"error"' in body[:_ERROR_BYTES] and json_object(body).get("error"):
        return _no_answer(f"Ollama answered 200 and an error: {_said(body)}", provider)
    text = f"Ollama answered 200 with something else than {wanted}"
    return _no_answer(fitted(text, "is --upstream an Ollama?"), provider)


def no_byte(provider: Provider) -> Failure:
    """What a 200 without a body amounts to."""
    return _no_answer("Ollama answered 200 with nothing in it", provider)


def _no_answer(text: str, provider: Provider) -> Failure:
    code = for_provider(ErrorCode.UPSTREAM_LOCAL, provider)
    return Failure(code, Reason.NO_ANSWER, text[:200], "No Answer")


# What Ollama says with a 500 and the request alone has caused.
_REQUESTS: Final = re.compile(
    r'^option "[^"]*" must be of type '
    r"|^invalid format: "
    r"|does not support embeddings"
    r"|template error|apply-template error"
    r"|maximum context length"
    r"|only supports one image"
    r"|^(?:decode|encode) WebP image"
)
# The model has answered, and Ollama could not read it.
_UNREADABLE: Final = re.compile(
    r"error parsing tool call|invalid tool call arguments|incomplete GLM tool call"
    r"|expected '\{' in tool call"
)
# The runner died, or did not come up. (Too little memory may be the request's num_ctx.)
_RUNNER: Final = re.compile(
    r"process has terminated|runner has unexpectedly stopped"
    r"|error was encountered while running the model"
    r"|timed out waiting for llama|llama-server startup failed|(?:failed|unable) to load model"
    r"|error loading model|model failed to load"
)


def _reason_of_500(status: int, said: str) -> Reason:
    if status == 501 or _REQUESTS.search(said) is not None:
        return Reason.UPSTREAM_REJECTED
    return reason_of_words(said) or Reason.STATUS


def reason_of_words(said: str) -> Reason | None:
    """What failed, by the upstream's own words, with a status or inside a stream."""
    if _UNREADABLE.search(said) is not None:
        return Reason.UNREADABLE_ANSWER
    return Reason.RUNNER_FAILED if _RUNNER.search(said) is not None else None


def _names_a_model(body: bytes) -> bool:
    """Ollama's 404 for a model speaks of it in JSON; for an unknown path it is plain text."""
    return bool(json_object(body).get("error"))


_CLIENT_CODES: Final = {
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    413: ErrorCode.REQUEST_TOO_LARGE,
    429: ErrorCode.RATE_LIMITED,
}


def _is_nobodys_refusal(status: int, body: bytes, *, is_other: bool) -> bool:
    """Whether a 4xx or 501 is none of Ollama's: it explains itself in JSON, or in plain text.

    What a web server in front of it may say in its place (a key, a size, a rate) is none such;
    nor is a 503, unless nothing but another program is there.
    """
    refuses = 400 <= status < 500 or status == 501 or (is_other and status == 503)
    if status in _CLIENT_CODES or not refuses:
        return False
    fields = json_object(body)
    if fields:
        return "error" not in fields
    return is_other or body.lstrip().startswith(b"<")


def _rejected(status: int, message: str) -> Failure:
    code = _CLIENT_CODES.get(status, ErrorCode.BAD_REQUEST)
    text = f"Ollama refused the request with {status}: {message}"
    return Failure(code, Reason.UPSTREAM_REJECTED, text, "Refused")


def failure_of_error(
    error: UpstreamError,
    *,
    upstream: str,
    steps: OllamaSteps,
    provider: Provider,
    gone: bool = False,
) -> Failure:
    """What a broken exchange amounts to while the client has not seen a byte.

    ``steps``: what to type about that upstream. ``gone``: nobody has answered there since.
    """
    reason = Reason(error.fault.value)
    if error.fault is Fault.CONNECT_TIMEOUT:
        late = for_provider(ErrorCode.TIMEOUT_LOCAL, provider)
        text = f"Ollama at {upstream} is not answering ({error})"
        return Failure(late, reason, fitted(text, f"try `{steps.look}`"), "Connect Timeout")
    code = for_provider(ErrorCode.UNREACHABLE_LOCAL, provider)
    # What is no stream is held until it is whole, and may break off inside.
    what = "its answer" if error.fault is Fault.TRUNCATED else "before its answer"
    message = f"Ollama at {upstream} broke off {what}: {str(error)[:_DETAIL_MAX]}"
    step = _next_step(error, steps, gone=gone)
    if error.fault in {Fault.REFUSED, Fault.DNS}:
        message = f"Ollama at {upstream} is not answering ({error})"
        step = f"is it running? try `{steps.start}`"
    return Failure(code, reason, fitted(message, step), "Ollama Unreachable")


def failure_of_break(
    error: UpstreamError, *, steps: OllamaSteps, provider: Provider, gone: bool = False
) -> Failure:
    """What a broken exchange amounts to once the answer has begun. ``gone``: as above."""
    code = for_provider(ErrorCode.STREAM_BROKEN_LOCAL, provider)
    message = f"Ollama broke off its answer: {str(error)[:_DETAIL_MAX]}; it is not whole, ask again"
    text = fitted(message, _next_step(error, steps, gone=gone))
    return Failure(code, Reason(error.fault.value), text, "Stream Broken")


def _next_step(error: UpstreamError, steps: OllamaSteps, *, gone: bool) -> str:
    if gone:
        return f"it has not answered since; try `{steps.start}`"
    if error.fault is Fault.PROTOCOL:
        return "is --upstream an Ollama?"
    return f"was it stopped? try `{steps.look}`"


def first_byte_timeout(bound_s: float, target: str) -> Failure:
    message = f"Ollama did not answer {said_back(target, 80)} within {bound_s:g} s"
    return Failure(ErrorCode.TIMEOUT_LOCAL, Reason.FIRST_BYTE_TIMEOUT, message, "Upstream Timeout")


def explains(body: bytes) -> bool:
    """Whether an error body is what clients can show: one line, a JSON object, an ``error``.

    An empty one makes Ollama's own client report success.
    """
    return b"\n" not in body.strip() and bool(json_object(body).get("error"))


def _said(body: bytes) -> str:
    """The upstream's own sentence, short."""
    error = json_object(body).get("error", "")
    if isinstance(error, dict):
        error = error.get("message", "")
    text = str(error) if error else body[:200].decode("utf-8", "replace").strip()
    return " ".join(text.split())[:100] or "no explanation"
