"""What a client is told that named a model which is not installed."""

from __future__ import annotations

from modelsplit_proxy.calls.missing_model import MissingModel
from support.harness import policy

BODY = b'{"error":"model \'x\' not found"}'


def told(model: str, *installed: str) -> str:
    missing = MissingModel(policy().policy, lambda: installed)
    failure = missing.failure(model, BODY)
    assert (failure.status, failure.code, failure.reason) == (
        *(404, "E_MODEL_NOT_FOUND", "not_installed"),
    )
    assert len(failure.message) <= 200
    return failure.message


def test_a_name_like_it_is_told_as_it_would_be_typed() -> None:
    meant = "model 'x' not found; did you mean \"llama3.2\"? Else `ollama pull lama3.2`"
    assert told("lama3.2", "llama3.2:latest", "mistral:7b") == meant


def test_what_was_installed_a_moment_ago_was_not_misspelt() -> None:
    assert "did you mean" not in told("zzz:1", "zzz:1", "ZZZ:1")


def test_very_long_names_leave_room_for_what_to_do() -> None:
    long = "m" * 5000
    served = ("qwen3:4b", "qwen3:8b", "gpt-oss:20b")
    assert told(long, *served).endswith("…`, or name a role: planner, executor, heavy")


def test_only_a_role_that_can_be_served_is_named() -> None:
    assert told("zzz", "qwen3:4b").endswith("`ollama pull zzz`, or name a role: planner")
    assert told("zzz", "other:1b").endswith("; try `ollama pull zzz`")
    assert told("zzz").endswith("; try `ollama pull zzz`")
    assert told("").endswith(": no model is named; name one")
