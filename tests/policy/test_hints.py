"""Commands as people are told to type them."""

from __future__ import annotations

from modelsplit_policy.hints import asking, pulling


def test_a_command_is_told_whom_to_ask_only_where_it_would_ask_somebody_else() -> None:
    assert asking("modelsplit status", "") == "modelsplit status"
    assert asking("modelsplit status", "[::1]:9") == "modelsplit status --admin [::1]:9"


def test_all_that_is_missing_is_pulled_where_the_proxy_asks() -> None:
    assert pulling(["a", "b:1"]) == "ollama pull a && ollama pull b:1"
    elsewhere = pulling(["a", "b"], "http://gpu:9")
    assert (
        elsewhere
        == "OLLAMA_HOST=http://gpu:9 ollama pull a && OLLAMA_HOST=http://gpu:9 ollama pull b"
    )
