"""Requests whose answer Ollama may hold back while it computes it, and be silent so long.

A tool call is collected until it is whole; with a schema a model that thinks is run a second
time, from the prompt on, when it has thought; and what a thinking model writes may be parsed
for long before any of it is sent. Silence inside such an answer is no sign of anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from modelsplit_policy.go_json import Fields

# In any dialect. That a value asks for nothing after all costs a longer wait, and no more.
_ASKING: Final = (
    "tools",
    "format",
    "think",
    "response_format",
    "text",
    "output_config",
    "output_format",
    "thinking",
    "reasoning",
    "reasoning_effort",
)


def may_hold_back(fields: Fields) -> bool:
    """Whether a request with these fields asks for such an answer."""
    plain = fields.plain
    if plain:  # with the keys spelled as here
        return any(map(plain.get, _ASKING))
    return any(map(fields.get, _ASKING))
