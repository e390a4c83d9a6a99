"""The table of inference routes, as a table: which rows have what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.protocol.endpoints import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_proxy.protocol.endpoint import Endpoint

CHATS = {"/api/generate", "/api/chat", "/v1/chat/completions", "/v1/responses", "/v1/messages"}
TEXTS = CHATS | {"/v1/completions"}
EMBEDDINGS = {"/api/embed", "/api/embeddings", "/v1/embeddings"}

WEB = {"/api/experimental/web_search", "/api/experimental/web_fetch"}


@pytest.mark.parametrize(
    ("has", "labels"),
    [
        (lambda row: row.streams is True, {"/api/generate", "/api/chat"}),
        (lambda row: row.streams is not None, TEXTS),
        (lambda row: row.waiting_piece is not None, TEXTS),
        (lambda row: row.texts is not None, TEXTS),
        (lambda row: row.wanted_format is not None, CHATS),
        (lambda row: row.facts.embeds, EMBEDDINGS),
        (lambda row: row.facts.is_web, WEB),
        (lambda row: row.searches is not None, {"/v1/messages", "/v1/responses"}),
        (lambda row: not row.counts, (EMBEDDINGS - {"/v1/embeddings"}) | WEB),
        (
            lambda row: row.facts.takes_options,
            {row.label for row in ENDPOINTS if "/api/" in row.label} - WEB,
        ),
        (lambda row: row.facts.content is not None, {"/api/generate", "/api/chat"}),
        (lambda row: row.facts.bounds, TEXTS - {"/api/generate", "/api/chat"}),
        (lambda row: row.facts.needs_bound, {"/v1/messages"}),
        (lambda row: row.read_form is not None, {"/v1/audio/transcriptions"} | WEB),
        (lambda row: row.is_held, {"/v1/audio/transcriptions"} | WEB),
    ],
)
def test_these_rows_have_it_and_no_others(
    has: Callable[[Endpoint], object], labels: set[str]
) -> None:
    assert {row.label for row in ENDPOINTS if has(row)} == labels


def test_no_route_has_two_rows() -> None:
    labels = [row.label for row in ENDPOINTS]
    assert len(labels) == len(set(labels))
