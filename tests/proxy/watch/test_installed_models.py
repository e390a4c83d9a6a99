"""What Ollama has installed, against what the policy names."""

from __future__ import annotations

import logging

import pytest

from modelsplit_proxy.watch import installed_models
from modelsplit_sim.config import SimConfig
from support.harness import policy, running


def test_names_are_read_without_latest_and_nothing_else_passes_for_a_list() -> None:
    body = b'{"models":[{"name":"qwen3:4b"},{"name":"mine:latest"}]}'
    assert installed_models.names(body) == frozenset({"qwen3:4b", "mine"})
    for other in (b"", b"[]", b'{"models":null}', b'{"models":[{}]}', b"not json"):
        assert installed_models.names(other) is None


def test_a_hidden_model_and_missing_ones_are_told() -> None:
    found = frozenset({"planner", "qwen3:4b", "qwen3:8b", "gemma3:12b"})
    assert list(installed_models.warnings(policy().policy, found)) == [
        'alias "planner" of PLANNER hides the installed model of that name',
        "HEAVY: gpt-oss:20b is not installed; try `ollama pull gpt-oss:20b`",
    ]


async def test_the_start_up_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="modelsplit")
    models = SimConfig(models=("planner", "qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b"))
    async with running(models) as up:
        await up.until(lambda: "hides the installed model" in caplog.text)
