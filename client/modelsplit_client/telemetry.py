"""What modelsplit did for one call, as it told it: in the response headers and in the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Everything that is known of one answered call. None: not told.

    Times are milliseconds. ``attempt`` is 1 or 2. ``queue_wait_ms``: in modelsplit's line, both
    attempts together; ``upstream_wait_ms``: inside Ollama. ``llm_latency_ms``: from dispatch to the
    end; ``total_ms``: the whole call. ``cost_usd`` is an estimate. ``error_code``: of an answer
    that went out although something is wrong with it. Answers of an Ollama that no modelsplit
    stands in front of tell ``model`` and the tokens, if anything.
    """

    request_id: str | None = None
    role: str | None = None
    context: str | None = None
    provider: str | None = None
    requested_model: str | None = None
    model: str | None = None
    attempt: int | None = None
    fallback_used: bool | None = None
    route_reason: str | None = None
    variant: str | None = None
    queue_wait_ms: float | None = None
    upstream_wait_ms: float | None = None
    ttfb_ms: float | None = None
    llm_latency_ms: float | None = None
    total_ms: float | None = None
    load_ms: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    tokens_per_second: float | None = None
    cost_usd: float | None = None
    host: str | None = None
    error_code: str | None = None


def read(
    headers: Mapping[str, str], body: Mapping[str, Any], usage: tuple[int | None, int | None]
) -> Telemetry:
    """Of an answer: its headers (names in lower case), its last object, its dialect's tokens.

    The object's key ``llm`` is newer than the headers, which left before the answer did.
    """
    told = body.get("llm")
    llm: Mapping[str, Any] = told if isinstance(told, dict) else {}
    return Telemetry(
        request_id=_text(llm, "request_id") or headers.get("x-request-id"),
        role=_text(llm, "role") or headers.get("x-llm-role"),
        context=_text(llm, "context") or headers.get("x-llm-context"),
        provider=_text(llm, "provider") or headers.get("x-llm-provider"),
        requested_model=_text(llm, "requested_model") or headers.get("x-llm-requested-model"),
        model=_text(llm, "model") or headers.get("x-llm-model") or _text(body, "model"),
        attempt=_whole(llm.get("attempt", headers.get("x-llm-attempt"))),
        fallback_used=_flag(llm.get("fallback_used", headers.get("x-llm-fallback-used"))),
        route_reason=_text(llm, "route_reason") or headers.get("x-llm-route-reason"),
        variant=_text(llm, "variant") or headers.get("x-llm-variant"),
        queue_wait_ms=_number(llm.get("queue_wait_ms", headers.get("x-llm-queue-wait-ms"))),
        upstream_wait_ms=_number(llm.get("upstream_wait_ms")),
        ttfb_ms=_number(llm.get("ttfb_ms")),
        llm_latency_ms=_number(llm.get("llm_latency_ms")),
        total_ms=_number(llm.get("total_ms")),
        load_ms=_number(llm.get("load_ms")),
        prompt_tokens=_whole(llm.get("prompt_tokens", usage[0])),
        output_tokens=_whole(llm.get("output_tokens", usage[1])),
        tokens_per_second=_number(llm.get("tokens_per_second")),
        cost_usd=_number(llm.get("cost_usd")),
        host=headers.get("x-llm-host"),
        error_code=headers.get("x-llm-error-code"),
    )


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None or not math.isfinite(number) else int(number)


def _flag(value: Any) -> bool | None:
    return {"true": True, "false": False}.get(str(value).lower())
