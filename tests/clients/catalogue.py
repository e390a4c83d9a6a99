"""Which clients there are, what each can do, and how much of an error each one shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Language(StrEnum):
    PYTHON = "python"
    NODE = "node"


class Shows(StrEnum):
    """How much of a failure reaches the user."""

    SENTENCE = "our sentence"
    PHRASE = "the reason phrase"
    CUT = "that the connection broke"
    NOTHING = "nothing: the answer looks whole"


CALLS: Final = ("chat", "stream", "tools", "structured", "embed", "list")
RESPONSES: Final = ("responses", "responses stream")
# Case -> the model that gets into that trouble.
TROUBLE: Final = MappingProxyType(
    {
        "throttled": "heavy",
        "cloud": "cloud",
        "cloud stream": "cloud",
        "broken": "breaks:1b",
        "responses cloud": "cloud",
        "responses broken": "breaks:1b",
    }
)
_ALL: Final = ("throttled", "cloud", "cloud stream", "broken")


@dataclass(frozen=True)
class Client:
    """One row of the matrix.

    title: as the README names it above its snippet. package: what is installed, empty for a
    program of the system. script: run for it. calls, trouble: the cases it is put through.
    shows: where it does not show our sentence. tries: how often its own retries make it ask
    for a throttled call, the first time included.
    """

    title: str
    package: str
    script: str
    calls: tuple[str, ...] = CALLS
    trouble: tuple[str, ...] = _ALL
    shows: Mapping[str, Shows] = field(default_factory=dict)
    tries: int = 1

    @property
    def language(self) -> Language:
        return Language(self.script.partition("/")[0])


CLIENTS: Final = (
    Client("ollama (Python)", "ollama", "python/ollama_python.py"),
    Client(
        "openai (Python)",
        "openai",
        "python/openai_python.py",
        calls=(*CALLS, *RESPONSES),
        trouble=(*_ALL, "responses cloud", "responses broken"),
        tries=3,
    ),
    Client(
        "anthropic (Python)",
        "anthropic",
        "python/anthropic_python.py",
        calls=("chat", "stream", "tools", "list"),
        tries=3,
    ),
)
