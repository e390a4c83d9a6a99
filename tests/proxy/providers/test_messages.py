"""Clients that speak the provider's own dialect."""

from __future__ import annotations

import pytest

from modelsplit_proxy.providers.answer import Answer, ToolCall
from modelsplit_proxy.providers.messages import SilentWriter, of_messages
from modelsplit_proxy.providers.question import Terms, UntranslatableError

TERMS = Terms("claude-x", 1000)


def test_all_but_the_model_is_the_clients_own() -> None:
    fields = {"model": "cloud", "max_tokens": 5, "messages": [{"role": "user"}], "new_field": 1}
    question = of_messages(fields, TERMS)
    assert question.body == fields | {"model": "claude-x"}
    assert question.untranslated == ()


def test_a_bound_that_the_client_did_not_name_is_filled_in() -> None:
    assert of_messages({"messages": [1]}, TERMS).body["max_tokens"] == 1000


def test_a_request_that_asks_nothing_is_refused() -> None:
    with pytest.raises(UntranslatableError):
        of_messages({"messages": []}, TERMS)


def test_nothing_is_written_of_what_passes() -> None:
    writer, call = SilentWriter(), ToolCall("t", "f")
    pieces = [
        writer.began(Answer()),
        writer.text("a"),
        writer.thinking("a"),
        writer.sealed("a"),
        writer.call_began(0, call),
        writer.call_arguments(0, "a"),
        writer.call_ended(0, call),
        writer.ended(Answer()),
        writer.whole(Answer()),
    ]
    assert set(pieces) == {b""}
