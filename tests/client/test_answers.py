"""What a call gives."""

from __future__ import annotations

import pytest

from modelsplit_client import Answer, Piece, Telemetry, ToolCall


def test_an_answer_and_a_piece_print_as_their_text() -> None:
    assert str(Answer(text="Plan: …", parsed=None, telemetry=Telemetry())) == "Plan: …"
    assert str(Piece("Plan")) == "Plan"


def test_arguments_of_a_tool_call_are_read_when_they_are_asked_for() -> None:
    assert ToolCall("grep", '{"word": "if"}').arguments == {"word": "if"}
    assert ToolCall("now", "").arguments == {}
    for raw in ('{"word', "[1]", "null"):
        with pytest.raises(ValueError, match=r"."):
            _ = ToolCall("grep", raw).arguments
