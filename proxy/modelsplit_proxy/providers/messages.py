"""Clients that speak the Messages API themselves: all but the model's name passes as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelsplit_proxy.providers.question import Question, UntranslatableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.providers.answer import Answer, ToolCall
    from modelsplit_proxy.providers.question import Terms


def of_messages(fields: Mapping[str, Any], terms: Terms) -> Question:
    """The question of ``/v1/messages``: the client's own, of the provider's model."""
    if not fields.get("messages"):
        raise UntranslatableError("the request asks nothing: it has no message of a user")
    body = dict(fields) | {"model": terms.model}
    body.setdefault("max_tokens", terms.max_tokens)
    return Question(body)


class SilentWriter:
    """Writes nothing: what the provider says is passed on as it came."""

    def began(self, answer: Answer) -> bytes:
        del answer
        return b""

    def text(self, text: str) -> bytes:
        del text
        return b""

    thinking = text
    sealed = text

    def call_began(self, index: int, call: ToolCall) -> bytes:
        del index, call
        return b""

    call_ended = call_began

    def call_arguments(self, index: int, text: str) -> bytes:
        del index, text
        return b""

    ended = began
    whole = began
