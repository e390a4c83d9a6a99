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

    @property
    def programs(self) -> tuple[str, ...]:
        """What has to be installed on the machine for it, besides Python."""
        return ("node", "npm") if self is Language.NODE else ()


class Shows(StrEnum):
    """How much of a failure reaches the user."""

    SENTENCE = "our sentence"
    PHRASE = "the reason phrase"
    LISTING = "what a listing says"  # it looks the model up first, and goes no further
    NOTHING = "nothing"  # the answer looks whole


CALLS: Final = ("chat", "stream", "tools", "structured", "embed", "list", "alias", "early")
# Case -> the model that gets into that trouble.
TROUBLE: Final = MappingProxyType(
    {
        "throttled": "heavy",
        "spent": "spent:1b",
        "cloud": "cloud",
        "cloud stream": "cloud",
        "broken": "breaks:1b",
        "late": "late:1b",
        "responses cloud": "cloud",
        "responses broken": "breaks:1b",
    }
)
_ALL: Final = ("throttled", "spent", "cloud", "cloud stream", "broken", "late")
RESPONSES: Final = ("responses", "responses stream")
_RESPONSES_TROUBLE: Final = ("responses cloud", "responses broken")
_ANTHROPIC: Final = ("chat", "stream", "tools", "list", "alias", "early")
_BY_LISTING: Final = MappingProxyType({"cloud": Shows.LISTING, "cloud stream": Shows.LISTING})


@dataclass(frozen=True)
class Client:
    """One row of the matrix.

    title: as the README names it above its snippet. packages: whose versions matter, none
    for a program of the system and for our own. own: whether it stands in this tree. script:
    run for it. alias: what it finds out about `planner` before or besides a call. calls, trouble:
    the cases it is put through. shows: where it does not show our sentence. tries: how often its
    own retries make it ask for a throttled call, the first time included. heeds: whether
    `x-should-retry: false` keeps it from that.
    """

    title: str
    packages: tuple[str, ...]
    script: str
    alias: str | int | None = None
    calls: tuple[str, ...] = CALLS
    trouble: tuple[str, ...] = _ALL
    shows: Mapping[str, Shows] = field(default_factory=dict)
    tries: int = 1
    heeds: bool = True
    own: bool = False

    @property
    def programs(self) -> tuple[str, ...]:
        """What has to be installed on the machine for it, besides Python."""
        return self.language.programs if self.packages or self.own else (self.title,)

    @property
    def streams(self) -> bool:
        return "stream" in self.calls

    @property
    def language(self) -> Language:
        return Language(self.script.partition("/")[0])

    def asks(self, case: str) -> int:
        """How many calls a case in trouble should make."""
        if self.shows.get(case) is Shows.LISTING:
            return 0
        again = case == "throttled" or (case == "spent" and not self.heeds)
        return self.tries if again else 1


def _without(*cases: str) -> tuple[str, ...]:
    return tuple(case for case in CALLS if case not in cases)


CLIENTS: Final = (
    Client(
        "modelsplit_client",
        (),
        "python/modelsplit_python.py",
        calls=_without("embed", "list", "alias"),
        own=True,
    ),
    Client(
        "llm-client.mjs",
        (),
        "node/llm_client.mjs",
        calls=("chat", "structured"),
        trouble=("throttled", "spent", "cloud"),
        own=True,
    ),
    Client("curl", (), "python/curl.py", "qwen3"),
    Client("ollama (Python)", ("ollama",), "python/ollama_python.py", "qwen3"),
    Client(
        "openai (Python)",
        ("openai",),
        "python/openai_python.py",
        "planner",
        calls=(*CALLS, *RESPONSES),
        trouble=(*_ALL, *_RESPONSES_TROUBLE),
        tries=3,
    ),
    Client(
        "anthropic (Python)",
        ("anthropic",),
        "python/anthropic_python.py",
        "planner",
        calls=_ANTHROPIC,
        tries=3,
    ),
    Client(
        "langchain-ollama",
        ("langchain-ollama",),
        "python/langchain_python.py",
        "planner",
        calls=_without("list"),
    ),
    Client(
        "llama-index-llms-ollama",
        ("llama-index-llms-ollama",),
        "python/llama_index_python.py",
        262_144,
        calls=_without("embed", "list"),
        shows=_BY_LISTING,
    ),
    Client("litellm", ("litellm",), "python/litellm_python.py", 262_144, calls=_without("list")),
    Client(
        "llm-ollama",
        ("llm-ollama", "llm"),
        "python/llm_python.py",
        "planner:latest",
        shows=_BY_LISTING,
    ),
    Client("ollama (npm)", ("ollama",), "node/ollama.mjs", "qwen3"),
    Client(
        "openai (npm)",
        ("openai",),
        "node/openai.mjs",
        "planner",
        calls=(*CALLS, *RESPONSES),
        trouble=(*_ALL, *_RESPONSES_TROUBLE),
        tries=3,
    ),
    Client(
        "@anthropic-ai/sdk",
        ("@anthropic-ai/sdk",),
        "node/anthropic.mjs",
        "planner",
        calls=_ANTHROPIC,
        tries=3,
    ),
    Client(
        "ollama-ai-provider-v2",
        ("ollama-ai-provider-v2", "ai"),
        "node/ai_ollama.mjs",
        calls=_without("list", "alias"),
        shows={
            "throttled": Shows.PHRASE,
            "spent": Shows.PHRASE,
            "cloud": Shows.PHRASE,
            "cloud stream": Shows.PHRASE,
            "broken": Shows.NOTHING,
            "late": Shows.NOTHING,
        },
        tries=3,
        heeds=False,
    ),
    Client(
        "@ai-sdk/openai-compatible",
        ("@ai-sdk/openai-compatible", "ai"),
        "node/ai_compatible.mjs",
        calls=_without("list", "alias"),
        tries=3,
        heeds=False,
    ),
)
