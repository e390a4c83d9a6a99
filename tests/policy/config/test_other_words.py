"""Keys by the words of other programs."""

from __future__ import annotations

import pytest

from modelsplit_policy.config.other_words import OTHER_WORDS, meant_by, unit_hint
from support.policies import SHIPPED, document, problems

PARTS = {
    "role": tuple(SHIPPED["roles"]["PLANNER"]),
    "root": (*SHIPPED, "hosts", "breakers", "extends"),
    "budget": ("name", "models", "role", "provider", "calls", "usd", "window"),
    "host": ("url", "weight", "tier", "memory_gb", "roles", "models", "max_concurrent"),
    "provider": ("dialect", "base_url", "models", "key_file", "key_env"),
    "breakers": ("failures", "pairs", "open_ms", "open_max_ms", "memory_ms"),
}


@pytest.mark.parametrize(
    ("part", "word", "meant"),
    [
        # People.
        ("role", "queue_timeout_s", "max_wait_ms"),
        ("role", "cap", "max_concurrent"),
        ("role", "model", "primary"),
        ("role", "max_wait_seconds", "max_wait_ms"),
        ("role", "queueTimeout", "max_wait_ms"),
        ("role", "request-timeout", "timeout_ms"),
        # nginx, HAProxy, Envoy, LiteLLM, Ollama.
        ("role", "proxy_read_timeout", "timeout_ms"),
        ("role", "timeout_queue", "max_wait_ms"),
        ("role", "maxconn", "max_concurrent"),
        ("role", "max_pending_requests", "max_queue"),
        ("role", "max_parallel_requests", "max_concurrent"),
        ("root", "upstreams", "hosts"),
        ("root", "outlier_detection", "breakers"),
        ("budget", "max_budget", "usd"),
        ("budget", "budget_duration", "window"),
        ("host", "api_base", "url"),
        ("provider", "api_base", "base_url"),
        ("provider", "api_key", "key_env"),
        ("breakers", "max_fails", "failures"),
        ("breakers", "fail_timeout", "open_ms"),
        # A word that means nothing there, and none at all.
        ("breakers", "max_pending_requests", None),
        ("role", "colour", None),
        # A slip of the spelling is not for this table.
        ("role", "MAX_QUEUE", None),
        ("role", "max_wait", None),
    ],
)
def test_a_word_of_another_program_is_the_key_it_means(
    part: str, word: str, meant: str | None
) -> None:
    assert meant_by(word, PARTS[part]) == meant


def test_no_word_is_itself_a_key_that_it_stands_for() -> None:
    for word, ours in OTHER_WORDS.items():
        assert word not in ours
        assert len(ours) == len(set(ours))


def test_milliseconds_are_told_where_the_word_does_not_say_them() -> None:
    assert unit_hint("queue_timeout_s", "max_wait_ms") == " (milliseconds)"
    assert unit_hint("timeout", "timeout_ms") == " (milliseconds)"
    assert unit_hint("max_wiat_ms", "max_wait_ms") == ""
    assert unit_hint("cap", "max_concurrent") == ""


def test_what_a_policy_says_in_such_words_is_told_and_nothing_of_its_values() -> None:
    raw = document((("roles", "PLANNER", "queue_timeout_s"), "8s"))
    del raw["roles"]["PLANNER"]["primary"]
    raw["roles"]["PLANNER"]["modell"] = "qwen3:4b"
    assert problems(raw) == {
        "$.roles.PLANNER.queue_timeout_s": (
            'unknown key; did you mean "max_wait_ms" (milliseconds)?'
        ),
        "$.roles.PLANNER.modell": 'unknown key; did you mean "primary"?',
    }
