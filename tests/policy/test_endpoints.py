"""What the policy knows of a route."""

from __future__ import annotations

from modelsplit_policy.endpoints import NO_FACTS, EndpointFacts
from modelsplit_proxy.protocol.endpoints import ENDPOINTS


def test_of_a_route_that_nothing_is_known_of_nothing_is_shaped() -> None:
    assert EndpointFacts() == NO_FACTS
    assert (NO_FACTS.content, NO_FACTS.takes_options, NO_FACTS.bounds) == (None, False, ())
    assert not NO_FACTS.embeds


def test_a_route_bounds_its_tokens_in_one_place() -> None:
    for row in ENDPOINTS:
        assert not (row.facts.takes_options and row.facts.bounds), row.label
        assert not (row.facts.needs_bound and not row.facts.bounds), row.label
