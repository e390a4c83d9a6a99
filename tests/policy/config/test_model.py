"""The policy as values: the shipped one, and what has a default."""

from __future__ import annotations

import copy
import json
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import ValidationError

from modelsplit_policy.config.model import seconds
from modelsplit_policy.config.parser import parse
from modelsplit_policy.vocabulary import Context, Provider, Role
from support.policies import DELETE, SHIPPED, at, document


def test_the_shipped_policy_is_the_table_of_roles() -> None:
    policy = parse(SHIPPED)
    table = {
        role.value: (
            row.primary,
            row.fallback,
            row.timeout_ms,
            row.fallback_timeout_ms,
            row.max_concurrent,
            row.max_wait_ms,
            row.context.value,
        )
        for role, row in policy.roles.items()
    }
    assert table == {
        "PLANNER": ("qwen3:4b", "qwen3:8b", 15_000, 30_000, 2, 8_000, "PLANNER"),
        "EXECUTOR": ("qwen3:8b", "gemma3:12b", 60_000, 60_000, 5, 8_000, "EXECUTOR"),
        "HEAVY": ("gemma3:12b", "gpt-oss:20b", 120_000, 120_000, 1, 10_000, "EXECUTOR"),
        "CLOUD": ("claude-3-opus", None, 30_000, None, None, 5_000, "EXECUTOR"),
        "CHAT": (None, None, None, None, None, 10_000, "CHAT"),
    }
    assert policy.global_.max_concurrent == 6
    assert policy.load_timeout_ms == 120_000
    assert policy.roles[Role.PLANNER].reserved == 1
    assert {r for r, row in policy.roles.items() if row.validate_output} == {Role.PLANNER}
    assert {r.value.lower() for r, row in policy.roles.items() if row.aliases} == {
        alias for row in policy.roles.values() for alias in row.aliases
    }


def test_the_shipped_budgets_and_objectives_are_the_published_numbers() -> None:
    policy = parse(SHIPPED)
    heavy, cloud = policy.budgets
    assert (heavy.models, heavy.calls, heavy.window_s) == (("gpt-oss:20b",), 10, 3_600)
    assert (cloud.provider, cloud.calls, cloud.usd) == (Provider.CLOUD, 9, 5.0)
    assert cloud.window_s == 86_400
    bounds = {name: slo.model_dump(exclude_none=True) for name, slo in policy.slo.items() if slo}
    assert bounds == {
        "job_e2e_latency_ms": {"p95": 60_000, "p99": 70_000, "window": "5h"},
        "planner_latency_ms": {"p95": 5_000, "window": "5h"},
        "llm_latency_ms": {"p95": 3_000, "window": "5h"},
        "llm_queue_wait_ms": {"p95": 2_000, "window": "5h"},
        "event_loop_lag_p99": {"max": 100, "window": "5h"},
        "timeouts": {"max": 5, "of_baseline": 0.5, "window": "5h"},
        "planner_failure_rate": {"max": 0.01, "window": "5h"},
        "fallback_rate": {"max": 0.1, "window": "5h"},
        "schema_error_rate": {"max": 0.01, "window": "5h"},
        "error_classification": {"min": 1, "window": "5h"},
        "executor_job_rate": {"max": 0.1, "window": "5h"},
        "job_success_rate": {"of_baseline": 1, "window": "5h"},
        "hallucination_rate": {"of_baseline": 0.5, "window": "7d"},
        "cloud_calls": {"max": 10, "window": "1d"},
        "uptime": {"min": 0.99, "window": "7d"},
        "covered_hours": {"min": 12, "window": "12h"},
        "covered_days": {"min": 6, "window": "7d"},
        "telemetry_fields": {"min": 1, "window": "12h"},
        "memory_growth": {"max": 0.1, "window": "12h"},
        "descriptor_growth": {"max": 0.1, "window": "12h"},
        "task_growth": {"max": 0.1, "window": "12h"},
        "state_file_share": {"max": 1.1, "window": "12h"},
    }


def test_a_policy_cannot_be_changed_after_it_was_checked() -> None:
    policy = parse(SHIPPED)
    with pytest.raises(ValidationError, match="frozen"):
        policy.version = 1
    with pytest.raises(TypeError, match="does not support item assignment"):
        policy.roles[Role.CHAT] = policy.roles[Role.HEAVY]  # type: ignore[index]
    with pytest.raises(TypeError, match="does not support item assignment"):
        policy.models["gpt-oss:20b"].options["num_ctx"] = 1  # type: ignore[index]


def test_parsing_does_not_touch_the_document_and_writing_it_back_gives_the_same_policy() -> None:
    raw = document((("roles", "CLOUD", "provider"), DELETE))
    before = copy.deepcopy(raw)
    policy = parse(raw)
    assert raw == before
    written: dict[str, Any] = json.loads(policy.model_dump_json(by_alias=True))
    assert parse(written) == policy


def test_what_has_a_default_may_be_left_out() -> None:
    row = {"provider", "reserved", "allow_long_wait", "claims", "validate", "on_schema_failure"}
    raw = document(*((at("CLOUD", key), DELETE) for key in (*row, "fallback")))
    for key in ("$schema", "models", "load_timeout_ms", "clients"):
        del raw[key]
    policy = parse(raw)
    cloud = policy.roles[Role.CLOUD]
    assert (cloud.provider, cloud.fallback, cloud.reserved) == (Provider.CLOUD, None, 0)
    assert (cloud.claims, cloud.validate_output, cloud.on_schema_failure) == ((), False, "error")
    assert (policy.models, policy.load_timeout_ms) == ({}, 120_000)
    assert (policy.clients.rate_per_s, policy.clients.burst) == (None, 1)


@pytest.mark.parametrize("value", [DELETE, None], ids=["missing", "null"])
def test_the_fallback_has_the_time_of_the_primary_unless_told(value: object) -> None:
    raw = document((at("PLANNER", "fallback_timeout_ms"), value))
    assert parse(raw).roles[Role.PLANNER].fallback_timeout_ms == 15_000


@pytest.mark.parametrize(
    ("window", "length"), [("30s", 30), ("30m", 1_800), ("5h", 18_000), ("1d", 86_400)]
)
def test_a_window_is_a_number_and_a_unit(window: str, length: int) -> None:
    assert seconds(window) == length


def test_what_changes_requests_or_their_course_is_off_by_default() -> None:
    for row in parse(SHIPPED).roles.values():
        assert (row.max_num_ctx, row.max_keep_alive) == (None, None)
        assert (row.num_predict, row.max_num_predict) == (None, None)
        assert (row.total_timeout_ms, row.early_headers_after_ms) == (None, None)
        assert (row.on_stream, row.prefer_resident_fallback) == ("observe", False)


def test_what_changes_requests_can_be_switched_on_for_one_role() -> None:
    keys = {
        "max_num_ctx": 8192,
        "max_keep_alive": "30m",
        "num_predict": 512,
        "max_num_predict": 4096,
        "total_timeout_ms": 90_000,
        "early_headers_after_ms": 5_000,
        "validate_streams": "hold",
        "prefer_resident_fallback": True,
    }
    policy = parse(document(*((at("CHAT", key), value) for key, value in keys.items())))
    written = policy.roles[Role.CHAT].model_dump(by_alias=True)
    assert {key: written[key] for key in keys} == keys
    assert policy.roles[Role.CHAT].on_stream == "hold"


def test_a_model_may_have_any_name_even_that_of_a_key() -> None:
    names = ("extends", "primary", "price", "key")
    raw = document(*((("models", name), {"parallel": 3}) for name in names))
    assert {parse(raw).models[name].parallel for name in names} == {3}


def test_any_mapping_will_do_as_a_document() -> None:
    assert parse(MappingProxyType(SHIPPED)) == parse(SHIPPED)


def test_contexts_are_bounded_to_the_three_activities() -> None:
    assert {row.context for row in parse(SHIPPED).roles.values()} == set(Context)
