"""What keys are called by other programs, and by people who have not looked ours up.

A table of meanings, not of spellings: ``queue_timeout_s`` is like ``timeout_ms`` to look at and
means ``max_wait_ms``. Names are those of nginx, HAProxy, Envoy, LiteLLM and Ollama, and plain
words.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Our key, and what else it is called; without a unit at the end.
_CALLED: Final = (
    ("extends", "base inherit inherits include includes parent"),
    ("hosts", "upstreams upstream servers server backends endpoints ollama_hosts"),
    ("slo", "slos objectives targets goals sla"),
    ("experiments", "ab_tests ab_test variants"),
    ("clients", "rate_limit rate_limits limit_req ratelimit users"),
    ("breakers", "circuit_breaker circuit_breakers outlier_detection"),
    ("health", "health_check health_checks healthcheck"),
    ("cloud", "providers"),
    ("roles", "routes model_list"),
    ("load_timeout_ms", "model_load_timeout ollama_load_timeout loading_timeout"),
    ("primary", "model model_name default_model primary_model main first"),
    ("fallback", "fallbacks fallback_model fallback_models backup secondary default_fallbacks"),
    ("fallback", "num_retries max_retries retries retry retry_policy"),
    (
        "max_wait_ms",
        (
            "queue_timeout timeout_queue max_queue_time max_queue_wait queue_wait queue_time "
            "wait_timeout wait max_wait_time pending_timeout acquire_timeout patience"
        ),
    ),
    (
        "max_concurrent",
        (
            "cap concurrency concurrent max_concurrency concurrency_limit max_parallel "
            "max_parallel_requests parallel_requests num_parallel max_connections max_conns "
            "maxconn limit_conn max_requests max_inflight max_in_flight in_flight seats "
            "slots workers limit"
        ),
    ),
    (
        "max_queue",
        (
            "max_pending_requests queue queue_size max_queue_size queue_length queue_limit "
            "queue_depth max_pending backlog"
        ),
    ),
    (
        "timeout_ms",
        (
            "request_timeout proxy_read_timeout timeout_server read_timeout per_try_timeout "
            "llm_timeout model_timeout deadline"
        ),
    ),
    (
        "first_byte_timeout_ms",
        (
            "ttft ttft_timeout first_token_timeout time_to_first_token time_to_first_byte "
            "stream_timeout"
        ),
    ),
    ("total_timeout_ms", "overall_timeout max_time total_time end_to_end_timeout"),
    ("reserved", "reserve reservation min_concurrent guaranteed"),
    ("aliases", "alias names model_group_alias"),
    ("max_num_ctx", "context_window context_length max_context num_ctx"),
    ("max_num_predict", "max_tokens"),
    ("num_predict", "max_tokens"),
    ("max_output_tokens", "max_tokens"),
    ("max_keep_alive", "keep_alive ollama_keep_alive"),
    ("validate", "validate_output schema_validation validate_schema"),
    ("parallel", "num_parallel ollama_num_parallel slots"),
    ("price", "cost pricing model_info"),
    ("input", "prompt input_cost_per_token input_price"),
    ("output", "completion output_cost_per_token output_price"),
    ("calls", "limit max_calls requests max_requests rpm count"),
    ("usd", "max_budget budget cost dollars money"),
    ("window", "period budget_duration per interval duration time_period"),
    ("rate_per_s", "rate rps rpm requests_per_second requests_per_minute"),
    ("url", "base_url address server upstream api_base endpoint"),
    ("tier", "priority order"),
    ("memory_gb", "vram vram_gb memory gpu_memory"),
    ("base_url", "url api_base endpoint address"),
    ("key_env", "api_key api_key_env key auth_token token"),
    ("key_file", "api_key_file token_file"),
    ("dialect", "api type format custom_llm_provider"),
    ("failures", "max_fails allowed_fails consecutive_5xx failure_threshold threshold"),
    ("open_ms", "fail_timeout cooldown cooldown_time base_ejection_time reset_timeout"),
    ("open_max_ms", "max_ejection_time max_cooldown"),
)


def _by_word() -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for ours, words in _CALLED:
        for word in words.split():
            table[word] = (*table.get(word, ()), ours)
    return table


# What somebody may have written -> our keys for it, wherever they belong.
OTHER_WORDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(_by_word())

_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_UNIT: Final = re.compile(r"_(ms|millis|milliseconds|s|sec|secs|seconds|m|min|minutes)$")
_MS: Final = "_ms"


def meant_by(key: str, known: Collection[str]) -> str | None:
    """The known key that somebody means who calls it ``key``, in any unit; None: it is no word."""
    word = _HUMP.sub("_", key).replace("-", "_").casefold()
    if word in known:
        return None  # a slip of the spelling
    base = _UNIT.sub("", word)
    candidates = [*OTHER_WORDS.get(word, ()), *OTHER_WORDS.get(base, ())]
    if base != word:
        candidates.append(f"{base}{_MS}")
    return next((name for name in candidates if name in known), None)


def unit_hint(key: str, meant: str) -> str:
    """What else has to be known of a key that is written as another: its unit; empty: nothing."""
    return " (milliseconds)" if meant.endswith(_MS) and not key.endswith(_MS) else ""
