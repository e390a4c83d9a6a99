"""When a stream is begun early, and with what."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_proxy.calls.early_headers import asks_for_stream
from support.bodies import fields_of
from support.endpoints import endpoint

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("route", "fields", "streams"),
    [
        ("/api/generate", {"prompt": "x"}, True),
        ("/api/generate", {"prompt": "x", "stream": False}, False),
        ("/api/chat", {"messages": MESSAGES}, True),
        ("/v1/chat/completions", {"messages": MESSAGES}, False),
        ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}, True),
        ("/v1/messages", {"messages": MESSAGES, "stream": True}, True),
        ("/v1/responses", {"input": "x", "stream": True}, True),
        ("/api/embed", {"input": "x", "stream": True}, False),
    ],
)
def test_native_routes_stream_unless_told_otherwise_and_v1_if_asked(
    route: str, fields: dict[str, Any], streams: bool
) -> None:
    assert asks_for_stream(endpoint(route), fields_of(fields)) is streams


@pytest.mark.parametrize("fields", [{}, {"prompt": ""}, {"keep_alive": 0}, {"prompt": None}])
def test_a_request_to_load_or_unload_is_answered_whole(fields: dict[str, Any]) -> None:
    assert not asks_for_stream(endpoint("/api/generate"), fields_of(fields))
    assert not asks_for_stream(endpoint("/api/chat"), fields_of({"messages": []}))


@pytest.mark.parametrize("said", ["true", 1, None, "yes"])
def test_what_is_not_plainly_true_is_not_taken_for_it(said: object) -> None:
    fields = fields_of({"messages": MESSAGES, "stream": said})
    assert not asks_for_stream(endpoint("/v1/chat/completions"), fields)


def test_stream_in_another_case_could_be_read_otherwise_by_ollama() -> None:
    fields = {"messages": MESSAGES, "stream": True, "\u017fTREAM": False}
    assert not asks_for_stream(endpoint("/api/chat"), fields_of(fields))
