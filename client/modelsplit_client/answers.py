"""What a call gives: an answer, or its pieces."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_client.telemetry import Telemetry

ParsedT_co = TypeVar("ParsedT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants called. ``id``: of the call, "" where the dialect has none.

    ``raw_arguments``: as JSON, as the model wrote it.
    """

    name: str
    raw_arguments: str
    id: str = ""

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments. Raises ValueError where the model wrote no JSON object."""
        value = json.loads(self.raw_arguments or "{}")
        if not isinstance(value, dict):
            raise ValueError(f"the model's arguments for {self.name} are no JSON object")  # noqa: TRY004
        return value


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a streamed answer. ``thinking``: what the model thought, if it was told to."""

    text: str
    thinking: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said, as a dialect tells it.

    ``finish``: why it stopped, ``stop`` or ``length`` as a rule. ``tokens``: of prompt and answer.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str | None = None
    tokens: tuple[int | None, int | None] = (None, None)
    message: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer(Generic[ParsedT_co]):
    """A whole answer.

    ``parsed``: of a call with a schema, the instance or the JSON value; else None. ``finish``: why
    the model stopped, ``stop`` or ``length`` as a rule. ``message``: the answer as a message for
    the next ``chat``. ``raw``: the answer's JSON object, of a stream the last one.
    """

    text: str
    parsed: ParsedT_co
    telemetry: Telemetry
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str | None = None
    message: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text
