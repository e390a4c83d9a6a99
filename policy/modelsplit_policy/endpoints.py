"""What the policy has to know of an inference route: which keys of its requests mean what.

The proxy has one row for each route, and in it such a value: no decision hangs on a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from modelsplit_policy.go_json import Fields


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """What differs from route to route. The defaults: nothing may be set, nothing is bounded.

    ``content``: the key of what is to be answered, where a call without it loads or unloads
    its model. ``takes_options``: its requests have Ollama's ``options`` and ``keep_alive``.
    ``bounds``: the keys that bound an answer's tokens, the one that Ollama reads first.
    ``needs_bound``: a request without a positive bound is refused by Ollama. ``embeds``: it
    answers with vectors, not with tokens. ``is_web``: no model answers it; Ollama has its own
    cloud do that. ``binding``: the keys that hang on the model they
    were made with, or for.
    """

    content: str | None = None
    takes_options: bool = False
    bounds: tuple[str, ...] = ()
    needs_bound: bool = False
    embeds: bool = False
    is_web: bool = False
    binding: tuple[str, ...] = ()


NO_FACTS: Final = EndpointFacts()


def is_bound(facts: EndpointFacts, fields: Fields) -> bool:
    """Whether another model's answer to this request would be a wrong one.

    A vector means something only beside vectors of the same model. So do the tokens of an
    earlier answer, and a prompt written in the markup of one model. What no model answers,
    none can.
    """
    return facts.embeds or facts.is_web or any(any(fields.all(key)) for key in facts.binding)
