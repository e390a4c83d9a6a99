"""The closed vocabularies as they go out: header values, labels and log fields."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.vocabulary import (
    Context,
    Dialect,
    JobState,
    Provider,
    Purpose,
    Role,
    RouteReason,
)

if TYPE_CHECKING:
    from enum import StrEnum


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Role, "PLANNER EXECUTOR HEAVY CLOUD CHAT"),
        (Context, "PLANNER EXECUTOR CHAT"),
        (Provider, "LOCAL CLOUD"),
        (Dialect, "ollama openai anthropic"),
        (Purpose, "failure_analysis complex_output"),
        (JobState, "open ok failed expired"),
        (RouteReason, "header alias claim default fallback escalation experiment"),
    ],
)
def test_the_words_are_these_and_no_others(kind: type[StrEnum], words: str) -> None:
    assert list(kind) == words.split()


def test_a_word_is_its_own_text_in_a_header_in_a_key_and_in_json() -> None:
    assert f"X-LLM-Role: {Role.HEAVY}" == "X-LLM-Role: HEAVY"
    assert {Role.HEAVY: 1}["HEAVY"] == 1  # type: ignore[index]
    assert json.dumps({"llm_role": Role.HEAVY}) == '{"llm_role": "HEAVY"}'
