"""Rows of the table of inference routes, by path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.endpoints import NO_FACTS
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.wire_formats import BY_DIALECT

if TYPE_CHECKING:
    from modelsplit_policy.endpoints import EndpointFacts
    from modelsplit_policy.vocabulary import Dialect
    from modelsplit_proxy.protocol.endpoint import Endpoint, WireFormat


def endpoint(label: str) -> Endpoint:
    """The row of a path."""
    return next(row for row in ENDPOINTS if row.label == label)


def facts(label: str) -> EndpointFacts:
    """What the policy knows of a path: nothing of one that is no inference route."""
    return next((row.facts for row in ENDPOINTS if row.label == label), NO_FACTS)


def wire(dialect: Dialect) -> WireFormat:
    """How a dialect writes."""
    return BY_DIALECT[dialect]
