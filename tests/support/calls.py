"""What tests ask for again and again, in the words of each API."""

from __future__ import annotations

from typing import Any

# Every inference route with the smallest body it takes, not streamed.
BODIES: dict[str, dict[str, Any]] = {
    "/api/generate": {"prompt": "hi", "stream": False},
    "/api/chat": {"messages": [{"role": "user", "content": "hi"}], "stream": False},
    "/api/embed": {"input": "hi"},
    "/api/embeddings": {"prompt": "hi"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/embeddings": {"input": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8},
}
STREAMS = (
    "/api/generate",
    "/api/chat",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
)
# One route of each dialect.
DIALECTS = ("/api/generate", "/v1/chat/completions", "/v1/messages")

ERROR_FIELDS = frozenset(
    {
        "error_code",
        "error_context",
        "error_provider",
        "llm_context",
        "llm_role",
        "llm_provider",
        "llm_model",
        "llm_attempt",
        "fallback_used",
        "request_id",
        "reason",
    }
)


def call(route: str, model: str, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    """A body for ``route``; streams and other fields as asked."""
    body = {"model": model, **BODIES[route], **more}
    if stream:
        body["stream"] = True
    return body
