"""Which routes a provider of the Messages API can answer, and how each is translated."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.providers import ollama_request, openai_request, responses_request
from modelsplit_proxy.providers.messages import of_messages
from modelsplit_proxy.providers.messages_answer import MessagesWriter
from modelsplit_proxy.providers.ollama_answer import OllamaWriter
from modelsplit_proxy.providers.openai_answer import CompletionWriter, OpenAIWriter
from modelsplit_proxy.providers.responses_answer import ResponsesWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modelsplit_proxy.providers.answer import Writer
    from modelsplit_proxy.providers.question import Question, Terms
    from modelsplit_proxy.runtime.clock import Clock

# Where a provider of the Messages API answers.
MESSAGES_PATH: Final = "/v1/messages"
# Where one of chat completions does.
CHAT_PATH: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Translation:
    """One route. ``ask`` makes the provider's request of the client's; UntranslatableError.

    ``writer`` is made of the model's name, the clock and the client's request.
    """

    ask: Callable[[Mapping[str, Any], Terms], Question]
    writer: Callable[[str, Clock, Mapping[str, Any]], Writer]


def _chat(model: str, clock: Clock, fields: Mapping[str, Any]) -> Writer:
    del fields
    return OllamaWriter(model, clock, chats=True)


def _generate(model: str, clock: Clock, fields: Mapping[str, Any]) -> Writer:
    del fields
    return OllamaWriter(model, clock, chats=False)


def _chat_completions(model: str, clock: Clock, fields: Mapping[str, Any]) -> Writer:
    return OpenAIWriter(model, clock, tells_usage=_tells_usage(fields))


def _completions(model: str, clock: Clock, fields: Mapping[str, Any]) -> Writer:
    return CompletionWriter(model, clock, tells_usage=_tells_usage(fields))


def _tells_usage(fields: Mapping[str, Any]) -> bool:
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _messages(model: str, clock: Clock, fields: Mapping[str, Any]) -> Writer:
    del clock, fields
    return MessagesWriter(model)


TRANSLATIONS: Final = MappingProxyType(
    {
        "/api/chat": Translation(ollama_request.of_chat, _chat),
        "/api/generate": Translation(ollama_request.of_generate, _generate),
        CHAT_PATH: Translation(openai_request.of_chat_completions, _chat_completions),
        "/v1/completions": Translation(openai_request.of_completions, _completions),
        "/v1/responses": Translation(responses_request.of_responses, ResponsesWriter),
        MESSAGES_PATH: Translation(of_messages, _messages),
    }
)
