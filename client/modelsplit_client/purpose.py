"""Whether a tool's result needs a model: the executor's selective use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

# Blanks, at most one opening fence with the name of a language, blanks.
_OPENING: Final = re.compile(r"\s*(?:`{3,}[^\S\n]*[\w+-]*[^\S\n]*\n\s*)?")


class Purpose(StrEnum):
    """What an EXECUTOR call is for: the closed set of ``X-LLM-Purpose``."""

    FAILURE_ANALYSIS = "failure_analysis"
    COMPLEX_OUTPUT = "complex_output"


class Result(Protocol):
    """What a tool gave: whether it worked, and what it said."""

    @property
    def ok(self) -> bool: ...

    @property
    def output(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A :class:`Result` for who has none of their own."""

    ok: bool
    output: str


def needs_llm(
    result: Result, *, complex_over: int = 1000, json_shaped: bool = True
) -> Purpose | None:
    """The purpose of asking a model about ``result``; None: it needs no model.

    A failure always needs one (``failure_analysis``). A success needs one only where its output is
    complex (``complex_output``): more than ``complex_over`` characters, and, with ``json_shaped``,
    an opening ``{`` or ``[`` behind blanks and a code fence. With ``json_shaped=False`` the length
    alone decides.
    """
    if not result.ok:
        return Purpose.FAILURE_ANALYSIS
    if len(result.output) > complex_over and (not json_shaped or is_json_shaped(result.output)):
        return Purpose.COMPLEX_OUTPUT
    return None


def is_json_shaped(text: str) -> bool:
    """Whether it begins as JSON does: with ``{`` or ``[``, after blanks and a code fence."""
    opening = _OPENING.match(text)
    return opening is not None and text.startswith(("{", "["), opening.end())
