"""Commands as people are told to type them."""

from __future__ import annotations

from modelsplit_policy.hints import asking


def test_a_command_is_told_whom_to_ask_only_where_it_would_ask_somebody_else() -> None:
    assert asking("modelsplit status", "") == "modelsplit status"
    assert asking("modelsplit status", "[::1]:9") == "modelsplit status --admin [::1]:9"
