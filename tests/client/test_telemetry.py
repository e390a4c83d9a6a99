"""What is known of an answer: its headers, and what its last object adds."""

from __future__ import annotations

from modelsplit_client.telemetry import Telemetry, read

HEADERS = {
    "x-request-id": "r1",
    "x-llm-role": "PLANNER",
    "x-llm-context": "PLANNER",
    "x-llm-provider": "LOCAL",
    "x-llm-requested-model": "planner",
    "x-llm-model": "qwen3:4b",
    "x-llm-attempt": "2",
    "x-llm-fallback-used": "true",
    "x-llm-queue-wait-ms": "12.5",
    "x-llm-route-reason": "fallback",
    "x-llm-error-code": "E_SCHEMA_INVALID",
}
LLM = {
    "request_id": "r1",
    "role": "PLANNER",
    "context": "PLANNER",
    "provider": "LOCAL",
    "requested_model": "planner",
    "model": "qwen3:8b",
    "attempt": 1,
    "fallback_used": False,
    "route_reason": "alias",
    "variant": None,
    "queue_wait_ms": 0.1,
    "upstream_wait_ms": 0.0,
    "ttfb_ms": 802.9,
    "llm_latency_ms": 4211.0,
    "total_ms": 4211.2,
    "load_ms": 400.0,
    "prompt_tokens": 31,
    "output_tokens": 212,
    "tokens_per_second": 62.4,
    "cost_usd": 0.0,
}


def test_the_headers_alone() -> None:
    told = read(HEADERS, {"model": "qwen3:4b"}, (3, 4))
    assert (told.role, told.model, told.attempt, told.fallback_used) == (
        "PLANNER",
        "qwen3:4b",
        2,
        True,
    )
    assert (told.queue_wait_ms, told.prompt_tokens, told.output_tokens) == (12.5, 3, 4)
    assert (told.cost_usd, told.error_code) == (None, "E_SCHEMA_INVALID")


def test_the_answer_knows_better_than_its_head() -> None:
    told = read(HEADERS, {"llm": LLM}, (None, None))
    assert (told.model, told.attempt, told.fallback_used) == ("qwen3:8b", 1, False)
    assert {name: getattr(told, name) for name in LLM} == LLM


def test_an_ollama_alone_tells_its_model_and_its_tokens() -> None:
    assert read({}, {"model": "qwen3:4b"}, (3, None)) == Telemetry(
        model="qwen3:4b", prompt_tokens=3
    )


def test_what_is_no_number_is_not_known() -> None:
    told = read(
        {"x-llm-attempt": "two", "x-llm-queue-wait-ms": "", "x-llm-fallback-used": "?"},
        {"llm": {"cost_usd": True, "prompt_tokens": "nan", "model": 5}, "model": None},
        (None, None),
    )
    assert told == Telemetry()
