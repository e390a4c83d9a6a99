"""A call as a trace tells it: when it came, for whom, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Routes whose answers are no tokens.
_EMBEDS: Final = frozenset({"/api/embed", "/api/embeddings", "/v1/embeddings"})


class TraceError(ValueError):
    """What cannot be replayed. ``line``: its number in the file; None: no one line is to blame."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text if line is None else f"line {line}: {text}")
        self.line = line


@dataclass(frozen=True, slots=True)
class RecordedAttempt:
    """One model asked once. Milliseconds since the call came; None: unknown, or it never came."""

    model: str
    outcome: str
    asked_ms: float | None = None
    seated_ms: float | None = None
    dispatched_ms: float | None = None
    first_ms: float | None = None
    ended_ms: float | None = None
    load_ms: float | None = None
    prompt_ms: float | None = None
    eval_ms: float | None = None
    upstream_wait_ms: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    reason: str | None = None

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One call. ``arrived``: seconds since 1970. ``role`` None: it was refused before it had one.

    ``route_reason``, ``client_retry`` and ``schema_asked`` None: the trace does not say.
    ``latency_ms``: the call, as its client saw it. ``max_wait_ms``, ``timeout_ms``,
    ``no_fallback`` and ``retry_level``: what its headers asked for.
    """

    arrived: float
    route: str
    role: str | None
    requested_model: str
    outcome: str
    reason: str | None = None
    model: str | None = None
    stream: bool = False
    job: str = ""
    client: str = ""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: float | None = None
    route_reason: str | None = None
    client_retry: bool | None = None
    max_wait_ms: int | None = None
    timeout_ms: int | None = None
    no_fallback: bool = False
    retry_level: int = 0
    schema_asked: bool | None = None
    attempts: tuple[RecordedAttempt, ...] = ()

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def left(self) -> bool:
        """Its client left before it ended."""
        return self.outcome in {"E_CLIENT_GONE", "client_gone"}

    @property
    def embeds(self) -> bool:
        return self.route in _EMBEDS
