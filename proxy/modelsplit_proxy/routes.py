"""What each path is: a call to a model, or anything else Ollama serves.

Only a POST to one of the inference paths is admitted, tagged and counted. Everything else,
known or not yet invented, passes through: never queued, never tagged.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

from modelsplit_policy.facts import Dialect


@dataclass(frozen=True, slots=True)
class Inference:
    """An inference path: its label in metrics and logs, and whose format it speaks."""

    label: str
    dialect: Dialect


INFERENCE: Final = MappingProxyType(
    {
        path: Inference(path, dialect)
        for path, dialect in (
            ("/api/generate", Dialect.OLLAMA),
            ("/api/chat", Dialect.OLLAMA),
            ("/api/embed", Dialect.OLLAMA),
            ("/api/embeddings", Dialect.OLLAMA),
            ("/v1/chat/completions", Dialect.OPENAI),
            ("/v1/completions", Dialect.OPENAI),
            ("/v1/embeddings", Dialect.OPENAI),
            ("/v1/responses", Dialect.OPENAI),
            ("/v1/messages", Dialect.ANTHROPIC),
        )
    }
)


def inference(method: str, target: str) -> Inference | None:
    """The inference route of a request, or None if it only passes through.

    ``target`` is the origin-form request target, query included. The path is compared as
    Ollama's router does: percent-decoded, then exactly, case and slashes included; every
    other spelling is redirected or refused by Ollama itself.
    """
    if method != "POST":
        return None
    path = target.partition("?")[0]
    return INFERENCE.get(unquote(path) if "%" in path else path)


def dialect_of(target: str) -> Dialect:
    """The dialect errors on ``target`` are told in."""
    path = target.partition("?")[0]
    if path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI if path.startswith("/v1/") else Dialect.OLLAMA
