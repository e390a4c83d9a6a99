"""Reading the upstream's answers: what a status means, whether a held body is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.facts import Dialect
from modelsplit_policy.failures import ErrorCode, Failure, Reason, for_provider, said_back
from modelsplit_proxy.routes import TRANSCRIPTIONS
from modelsplit_proxy.tail import Usage, ollama_usage, openai_usage
from modelsplit_proxy.upstream import Fault

if TYPE_CHECKING:
    from modelsplit_policy.admission import Refusal
    from modelsplit_policy.facts import Provider
    from modelsplit_proxy.upstream import UpstreamError, UpstreamHead

_STREAM_TYPES: Final = (b"application/x-ndjson", b"text/event-stream")
# Larger JSON answers are embeddings; their counts are not worth the loop's time.
_USAGE_LIMIT_BYTES: Final = 256 * 1024
_EMBEDDINGS: Final = frozenset({"/api/embed", "/api/embeddings"})
# Ollama says nothing about when to come back; its queue moves in seconds.
_BUSY_RETRY_S: Final = 2


def is_stream(head: UpstreamHead, label: str) -> bool:
    """By what the answer is, not by what the request asked: the upstream has the last word.

    But for a transcription: Ollama runs it as a stream, says so in the head, and then gives
    the text at once.
    """
    if label == TRANSCRIPTIONS:
        return False
    return head.get(b"content-type").lower().startswith(_STREAM_TYPES)


def failure_of_status(
    head: UpstreamHead, body: bytes, *, model: str, provider: Provider
) -> Failure | None:
    """None for 2xx and 3xx; else the failure that the upstream's own answer amounts to."""
    status = head.status
    if status < 400:
        return None
    said = _said(body)
    if status == 404 and _names_a_model(body):
        return Failure(
            ErrorCode.MODEL_NOT_FOUND,
            Reason.NOT_INSTALLED,
            f"Ollama does not have {model[:70]}: {said}",
            "Not Found",
        )
    if status == 503:
        return Failure(
            ErrorCode.OVERLOAD_THROTTLED,
            Reason.UPSTREAM_BUSY,
            f"Ollama is overloaded: {said}",
            "Upstream Busy",
            retry_after_s=_BUSY_RETRY_S,
        )
    if status >= 500:
        code = for_provider(ErrorCode.UPSTREAM_LOCAL, provider)
        return Failure(code, Reason.STATUS, f"Ollama answered {status}: {said}", "Upstream Failed")
    return _rejected(status, said)


def _names_a_model(body: bytes) -> bool:
    """Ollama's 404 for a model speaks of it in JSON; for an unknown path it is plain text."""
    return bool(_object(body).get("error"))


_CLIENT_CODES: Final = {
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    413: ErrorCode.REQUEST_TOO_LARGE,
    429: ErrorCode.RATE_LIMITED,
}


def _rejected(status: int, said: str) -> Failure:
    code = _CLIENT_CODES.get(status, ErrorCode.BAD_REQUEST)
    text = f"Ollama refused the request with {status}: {said}"
    return Failure(code, Reason.UPSTREAM_REJECTED, text, "Refused")


def failure_of_error(error: UpstreamError, *, upstream: str, provider: Provider) -> Failure:
    """What a broken exchange amounts to while the client has not seen a byte."""
    reason = Reason(error.fault.value)
    if error.fault is Fault.CONNECT_TIMEOUT:
        late = for_provider(ErrorCode.TIMEOUT_LOCAL, provider)
        text = f"Ollama at {upstream} is not answering ({error})"
        return Failure(late, reason, text[:200], "Connect Timeout")
    code = for_provider(ErrorCode.UNREACHABLE_LOCAL, provider)
    message = f"Ollama at {upstream} broke off before its answer: {error}"
    if error.fault in {Fault.REFUSED, Fault.DNS}:
        message = f"Ollama at {upstream} is not answering ({error}); is it running?"
        message += " try `systemctl status ollama`"
    return Failure(code, reason, message[:200], "Ollama Unreachable")


def failure_of_break(error: UpstreamError, *, provider: Provider) -> Failure:
    """What a broken exchange amounts to once the answer has begun."""
    code = for_provider(ErrorCode.STREAM_BROKEN_LOCAL, provider)
    message = f"Ollama broke off its answer: {error}; it is not whole, ask again"[:200]
    return Failure(code, Reason(error.fault.value), message, "Stream Broken")


def first_byte_timeout(bound_s: float, target: str) -> Failure:
    message = f"Ollama did not answer {said_back(target, 80)} within {bound_s:g} s"
    return Failure(ErrorCode.TIMEOUT_LOCAL, Reason.FIRST_BYTE_TIMEOUT, message, "Upstream Timeout")


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


class Held:
    """A held answer: its bytes, and what they decode to, at most once and only if asked.

    ``is_large``: too large to be worth decoding for what its ends say as well.
    """

    __slots__ = ("_fields", "body", "is_large")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.is_large = len(body) > _USAGE_LIMIT_BYTES
        self._fields: dict[str, Any] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object it is; empty if it is none."""
        if self._fields is None:
            self._fields = _object(self.body)
        return self._fields


def check_whole(dialect: Dialect, label: str, held: Held, provider: Provider) -> Failure | None:
    """A held 200 that only looks like an answer: half of one, or Ollama gave up."""
    if label == TRANSCRIPTIONS and not held.body.strip():
        text = "Ollama ended the transcription without a word; it does so when it fails midway"
    elif _is_cut(held):
        text = "Ollama's answer stopped in the middle, though it was framed as whole"
    elif _gave_up(dialect, label, held):
        text = "the model was cut off before it was done (Ollama stops a model that repeats itself)"
    else:
        return None
    code = for_provider(ErrorCode.UPSTREAM_LOCAL, provider)
    return Failure(code, Reason.UNTERMINATED, text, "Answer Unterminated")


def _is_cut(held: Held) -> bool:
    """True for a JSON object without its end; large ones are judged by their last byte."""
    if not held.is_large and held.fields:
        return False
    text = held.body.strip()
    if not text.startswith(b"{"):
        return False
    return not text.endswith(b"}") if held.is_large else not _decodes(text)


def _decodes(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _gave_up(dialect: Dialect, label: str, held: Held) -> bool:
    """Whether an answer that is not a stream says, in its dialect, that it is not done."""
    match label:
        case "/api/generate" | "/api/chat":
            ends = held.body[:4096] + held.body[-4096:] if held.is_large else b""
            worth_decoding = not held.is_large or b'"done":false' in ends
            return worth_decoding and held.fields.get("done") is False
        case "/v1/chat/completions" | "/v1/completions" if dialect is Dialect.OPENAI:
            return _says_none(_first_choice(held.fields), "finish_reason")
        case "/v1/messages":
            return _says_none(held.fields, "stop_reason")
        case _:
            return False


def _says_none(fields: dict[str, Any], key: str) -> bool:
    """Ollama leaves the reason out, or null, where a model was cut off."""
    return bool(fields) and fields.get(key) is None


def _first_choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return {}
    return choices[0]


def is_object(body: bytes) -> bool:
    """True if the body is one whole JSON object."""
    return bool(_object(body))


def usage_of(dialect: Dialect, label: str, held: Held) -> Usage:
    """Counts and durations of a held answer."""
    if held.is_large or label in _EMBEDDINGS:
        return Usage()
    return ollama_usage(held.fields) if dialect is Dialect.OLLAMA else openai_usage(held.fields)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def explains(body: bytes) -> bool:
    """Whether an error body is what clients can show: one line, a JSON object, an ``error``.

    An empty one makes Ollama's own client report success.
    """
    return b"\n" not in body.strip() and bool(_object(body).get("error"))


def _said(body: bytes) -> str:
    """The upstream's own sentence, short."""
    error = _object(body).get("error", "")
    if isinstance(error, dict):
        error = error.get("message", "")
    text = str(error) if error else body[:200].decode("utf-8", "replace").strip()
    return " ".join(text.split())[:100] or "no explanation"
