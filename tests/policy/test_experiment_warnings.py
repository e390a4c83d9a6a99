"""What would make an experiment measure something else than its models."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_policy.config.parser import parse
from modelsplit_policy.experiment_warnings import warnings
from modelsplit_proxy.config.policy_file import merge, shipped


def told(arms: list[dict[str, Any]], *, enabled: bool = True, **more: Any) -> list[str]:
    named = [{"name": f"arm{number}", "weight": 1} | arm for number, arm in enumerate(arms)]
    test = {"name": "t", "role": "PLANNER", "arms": named, "sticky": "job", "enabled": enabled}
    found = [*warnings(parse(merge(shipped(), {**more, "experiments": [test]})))]
    assert all(len(sentence) <= 200 for sentence in found)
    return found


def test_two_models_of_their_own_are_fine() -> None:
    assert told([{"model": "qwen3:4b"}, {"model": "llama3"}]) == []


def test_an_arm_that_is_the_fallback_has_no_second_attempt() -> None:
    [warning] = told([{"model": "qwen3:4b"}, {"model": "QWEN3:8b"}])
    assert warning == (
        "arm arm1 of t is the fallback of PLANNER: its calls have no second attempt, so more of "
        "them may fail"
    )


def test_one_model_with_two_sizes_of_context_is_loaded_again_and_again() -> None:
    arms = [{"model": "llama3", "options": {"num_ctx": size}} for size in (4096, 8192)]
    assert told(arms) == [
        f"arm {mine} of t and arm {other} of t call llama3 with another num_ctx: Ollama loads it "
        "anew at each change; set it in models instead"
        for mine, other in (("arm0", "arm1"), ("arm1", "arm0"))
    ]


def test_an_arm_that_others_call_otherwise_is_told() -> None:
    arms: list[dict[str, Any]] = [
        {"model": "qwen3:4b"},
        {"model": "gemma3:12b", "options": {"num_gpu": 9}},
    ]
    who = "arm arm1 of t and the fallback of EXECUTOR"
    assert told(arms)[0].startswith(f"{who} call gemma3:12b with another num_gpu")


def test_what_is_pinned_for_the_model_holds_for_everybody() -> None:
    models = {"gemma3:12b": {"options": {"num_ctx": 8192}}}
    arms: list[dict[str, Any]] = [
        {"model": "qwen3:4b"},
        {"model": "gemma3:12b", "options": {"num_ctx": 8192}},
    ]
    assert told(arms, models=models) == []


@pytest.mark.parametrize("option", ["temperature", "num_predict", "seed"])
def test_options_that_load_nothing_anew_are_fine(option: str) -> None:
    arms = [{"model": "llama3", "options": {option: value}} for value in (1, 2)]
    assert told(arms) == []


def test_an_experiment_that_is_switched_off_harms_nobody() -> None:
    assert told([{"model": "qwen3:4b"}, {"model": "qwen3:8b"}], enabled=False) == []
