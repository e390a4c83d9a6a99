"""What the installed models can do, and whether one can serve a request at all.

Ollama answers 404 for a model that it does not have, and 400 where a model lacks what the
request needs (tools, thinking, pictures, text after the gap). A fallback that would be turned
away for sure is not worth a seat, nor a load. What is known is advice: of a model that nobody
has told of nothing is assumed, and it is asked.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Capability(StrEnum):
    """What a request may need of a model, as Ollama calls it (``/api/show``)."""

    COMPLETION = "completion"
    TOOLS = "tools"
    INSERT = "insert"
    VISION = "vision"
    THINKING = "thinking"


class ModelFacts(NamedTuple):
    """One model. ``capabilities``: as Ollama names them; None: nobody knows."""

    installed: bool
    capabilities: frozenset[str] | None = None


class Unable(NamedTuple):
    """Why a model is not asked. ``lacks``: what the request needs of it; empty: not installed."""

    model: str
    lacks: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        return "incapable" if self.lacks else "not_installed"


def unable(model: str, facts: ModelFacts | None, needs: Iterable[Capability]) -> Unable | None:
    """Why ``model`` cannot serve a request with these needs; None: it may be able to."""
    if facts is None:
        return None
    if not facts.installed:
        return Unable(model)
    lacks = missing(facts, needs)
    return Unable(model, lacks) if lacks else None


def missing(facts: ModelFacts, needs: Iterable[str]) -> tuple[str, ...]:
    """Which of ``needs`` a model is known to lack, by name."""
    has = facts.capabilities
    return () if has is None else tuple(sorted(set(map(str, needs)) - has))


def gap(better: ModelFacts | None, worse: ModelFacts | None) -> tuple[str, ...]:
    """What requests may need that the one is known to have and the other is known to lack."""
    if better is None or worse is None or better.capabilities is None:
        return ()
    return missing(worse, better.capabilities & set(Capability))
