"""What is different between the two ways to speak to modelsplit: Ollama's and OpenAI's."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelsplit_client.answers import Piece, Said
    from modelsplit_client.calls import Call

    Object = Mapping[str, Any]


def part(sent: Object, name: str) -> Object:
    """An object inside an object; an empty one where there is none."""
    value = sent.get(name)
    return value if isinstance(value, dict) else {}


def parts(sent: Object, name: str) -> list[Object]:
    """The objects of a list inside an object."""
    value = sent.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def word(sent: Object, name: str) -> str:
    """A text inside an object; empty where there is none."""
    value = sent.get(name)
    return value if isinstance(value, str) else ""


class Dialect(StrEnum):
    OLLAMA = "ollama"
    OPENAI = "openai"


class Speaks(Protocol):
    """A dialect: JSON objects out of calls, and what a model said out of JSON objects."""

    def path(self, call: Call) -> str:
        """The route, under the base address."""

    def body(self, call: Call) -> dict[str, Any]:
        """The request's JSON. Raises ValueError for what the dialect cannot say."""

    def whole(self, body: Object) -> Said | None:
        """What an answer in one piece says. None: it is no answer of this dialect's."""

    def payload(self, line: bytes) -> bytes:
        """The JSON that one line of a stream carries; empty: none."""

    def piece(self, sent: Object) -> Piece | None:
        """The text that one object of a stream brings. None: it brings none."""

    def tells_more(self, sent: Object) -> bool:
        """Whether an object of a stream brings more than text, so that it must be kept."""

    def ends(self, payload: bytes, sent: Object) -> bool:
        """Whether this is a stream's end marker."""

    def collected(self, objects: Sequence[Object], text: str, thinking: str) -> Said:
        """What a whole stream said: those of its objects that tell more, and its text."""
