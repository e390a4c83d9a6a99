"""What the policy knows of a route."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_policy.endpoints import NO_FACTS, EndpointFacts, is_bound
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from support.bodies import fields_of
from support.endpoints import facts


def test_of_a_route_that_nothing_is_known_of_nothing_is_shaped() -> None:
    assert EndpointFacts() == NO_FACTS
    assert (NO_FACTS.content, NO_FACTS.takes_options, NO_FACTS.bounds) == (None, False, ())
    assert not NO_FACTS.embeds


def test_a_route_bounds_its_tokens_in_one_place() -> None:
    for row in ENDPOINTS:
        assert not (row.facts.takes_options and row.facts.bounds), row.label
        assert not (row.facts.needs_bound and not row.facts.bounds), row.label


@pytest.mark.parametrize(
    ("label", "fields", "bound"),
    [
        ("/api/embed", {"input": "hi"}, True),
        ("/api/embeddings", {}, True),
        ("/v1/embeddings", {}, True),
        ("/api/generate", {"prompt": "hi"}, False),
        ("/api/generate", {"context": [1]}, True),
        ("/api/generate", {"Context": [1]}, True),
        ("/api/generate", {"context": [1], "CONTEXT": []}, True),
        ("/api/generate", {"context": list(range(300))}, True),
        ("/api/generate", {"context": [], "raw": False, "template": ""}, False),
        ("/api/generate", {"context": None, "raw": None}, False),
        ("/api/generate", {"raw": True}, True),
        ("/api/generate", {"template": "{{ .Prompt }}"}, True),
        ("/api/chat", {"context": [1], "raw": True}, False),
        ("/v1/audio/transcriptions", {"model": "whisper"}, False),
        ("/v1/images/generations", {"prompt": "a cat"}, False),
    ],
)
def test_what_hangs_on_one_model_is_bound_to_it(
    label: str, fields: dict[str, Any], *, bound: bool
) -> None:
    assert is_bound(facts(label), fields_of(fields)) is bound
