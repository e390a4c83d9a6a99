"""Calls that only load or unload a model: they have nothing to answer.

Ollama's own command line sends them: before an interactive session, for ``ollama stop`` and
before ``ollama rm``. A call without content computes nothing, so what it needs of the queue
is what loading needs: an unload and a load of what is loaded already go at once, a cold load
takes a seat in its role's line like any call, because it evicts and slows down others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.failures import ErrorCode
from modelsplit_policy.shaping import merged_options, unloads
from modelsplit_policy.vocabulary import Loading

if TYPE_CHECKING:
    from modelsplit_policy.endpoints import EndpointFacts
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.go_json import Fields

_KEEP_ALIVE = "keep_alive"
_OPTIONS = "options"


def loading_of(facts: EndpointFacts, fields: Fields) -> Loading | None:
    """What a call on the route of ``facts`` does to its model; None if it asks it something.

    Content that comes twice may be kept by Ollama though the last is empty: such a call is
    one like any other.
    """
    content = facts.content
    if content is None or fields.plain.get(content) or any(fields.all(content)):
        return None
    return Loading.UNLOAD if unloads(fields.all(_KEEP_ALIVE)) else Loading.LOAD


def needs_seat(loading: Loading | None, fields: Fields, *, resident: bool) -> bool:
    """Whether a call may only go when it has a seat. ``resident``: its model is loaded.

    Options can differ from those it was loaded with, which makes Ollama load it again.
    """
    if loading is None:
        return True
    if loading is Loading.UNLOAD:
        return False
    return not resident or bool(merged_options(fields.all(_OPTIONS)))


def may_fall_back(loading: Loading | None, failure: Failure) -> bool:
    """Whether a call of this kind may go to the fallback at all.

    To unload another model than the one that was named helps nobody, unless that other one
    is what the name stands for: the first is not installed.
    """
    return loading is not Loading.UNLOAD or failure.code is ErrorCode.MODEL_NOT_FOUND
