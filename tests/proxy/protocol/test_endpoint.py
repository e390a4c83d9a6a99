"""A row of the table of inference routes."""

from __future__ import annotations

from modelsplit_policy.endpoints import NO_FACTS
from modelsplit_proxy.protocol.endpoint import Endpoint
from modelsplit_proxy.protocol.wire_formats import OPENAI


def test_a_row_without_more_is_json_answered_whole() -> None:
    row = Endpoint("/v2/say", OPENAI)
    assert (row.facts, row.streams, row.read_form) == (NO_FACTS, None, None)
    assert (row.wanted_format, row.texts, row.unfinished, row.waiting_piece) == (None,) * 4
    assert (row.is_held, row.counts) == (False, True)
