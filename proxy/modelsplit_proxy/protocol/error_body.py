"""Failures as each client shows them: one line of JSON, in its dialect, never empty.

``/api/*`` gets Ollama's shape with ``error`` a string; ``/v1/*`` gets one body that both
the OpenAI and the Anthropic SDKs parse. Our own fields stand beside it in both. Inside a
stream the same words come as a line or an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.failures import Reason
from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.protocol import tellable

if TYPE_CHECKING:
    from modelsplit_policy.failures import Failure

# What passes through takes any method but those that no proxy may pass.
ALLOW_LINE: Final = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
_DO_NOT: Final = b"x-should-retry: false\r\n"
_WANT_A_KEY: Final = frozenset({Reason.NO_KEY, Reason.WRONG_KEY})


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a failure happened; what every error says beside its sentence."""

    request_id: str
    context: str | None = None
    role: str | None = None
    provider: str | None = None
    model: str | None = None
    attempt: int = 0
    fallback_used: bool = False


def body(dialect: Dialect, failure: Failure, scene: Scene) -> bytes:
    """The response body, ending in a newline."""
    write = ollama_body if dialect is Dialect.OLLAMA else sdk_body
    return write(failure, scene)


def ollama_body(failure: Failure, scene: Scene) -> bytes:
    """What Ollama's clients read, as an answer and as a line of a stream."""
    return tellable.dumps({"error": failure.message, **fields(failure, scene)}) + b"\n"


def sdk_body(failure: Failure, scene: Scene) -> bytes:
    """What OpenAI's and Anthropic's SDKs read, as an answer."""
    return _sdk_line(failure, scene) + b"\n"


def sdk_event(failure: Failure, scene: Scene) -> bytes:
    """The same as an event of a stream."""
    return b"event: error\ndata: " + _sdk_line(failure, scene) + b"\n\n"


def lines(failure: Failure) -> list[bytes]:
    """Header lines that belong to the failure itself, not to the call."""
    out = []
    if failure.retry_after_s is not None:
        out.append(b"Retry-After: %d\r\n" % failure.retry_after_s)
    if failure.should_retry is not None:
        out.append(b"x-should-retry: true\r\n" if failure.should_retry else _DO_NOT)
    if failure.reason in _WANT_A_KEY:
        out.append(b"WWW-Authenticate: Bearer\r\n")
    if failure.own_status == 405:
        out.append(ALLOW_LINE)
    return out


def fields(failure: Failure, scene: Scene) -> dict[str, Any]:
    """The eleven fields that are the same in body, log and record."""
    return {
        "error_code": failure.code,
        "error_context": scene.context,
        "error_provider": scene.provider,
        "llm_context": scene.context,
        "llm_role": scene.role,
        "llm_provider": scene.provider,
        "llm_model": scene.model,
        "llm_attempt": scene.attempt,
        "fallback_used": scene.fallback_used,
        "request_id": scene.request_id,
        "reason": failure.reason,
    }


def _sdk_line(failure: Failure, scene: Scene) -> bytes:
    error = {
        "type": failure.error_type,
        "message": failure.message,
        "code": failure.code,
        "param": None,
        **fields(failure, scene),
    }
    return tellable.dumps({"type": "error", "error": error, "request_id": scene.request_id})
