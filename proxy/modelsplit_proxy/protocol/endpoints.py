"""The inference routes of Ollama: one row for each, and all that a route is stands in its row."""

from __future__ import annotations

from typing import Final

from modelsplit_policy.endpoints import EndpointFacts
from modelsplit_proxy.protocol import (
    answer_check,
    answer_format,
    answer_text,
    request_needs,
    waiting_pieces,
    web_request,
)
from modelsplit_proxy.protocol.endpoint import Endpoint
from modelsplit_proxy.protocol.form_body import read_form
from modelsplit_proxy.protocol.wire_formats import ANTHROPIC, OLLAMA, OPENAI

# Ollama reads the first. OpenAI's newer name for it, the second, is ignored by the versions
# known to us and would win where it is read.
_OPENAI_BOUNDS: Final = ("max_tokens", "max_completion_tokens")

ENDPOINTS: Final = (
    Endpoint(
        "/api/generate",
        OLLAMA,
        EndpointFacts(content="prompt", takes_options=True, binding=("context", "raw", "template")),
        streams=True,
        wanted_format=answer_format.of_format,
        format_names=("format",),
        needs=request_needs.of_generate,
        texts=answer_text.of_generate,
        unfinished=answer_check.not_done,
        waiting_piece=waiting_pieces.of_generate,
        answer_keys=frozenset({"response", "done"}),
        operation="text_completion",
    ),
    Endpoint(
        "/api/chat",
        OLLAMA,
        EndpointFacts(content="messages", takes_options=True),
        streams=True,
        wanted_format=answer_format.of_format,
        format_names=("format",),
        needs=request_needs.of_chat,
        texts=answer_text.of_chat,
        unfinished=answer_check.not_done,
        waiting_piece=waiting_pieces.of_chat,
        answer_keys=frozenset({"message", "done"}),
    ),
    # What the native embeddings say of their cost is not read.
    Endpoint(
        "/api/embed",
        OLLAMA,
        EndpointFacts(takes_options=True, embeds=True),
        counts=False,
        answer_keys=frozenset({"embeddings"}),
        operation="embeddings",
    ),
    Endpoint(
        "/api/embeddings",
        OLLAMA,
        EndpointFacts(takes_options=True, embeds=True),
        counts=False,
        answer_keys=frozenset({"embedding"}),
        operation="embeddings",
    ),
    Endpoint(
        "/v1/chat/completions",
        OPENAI,
        EndpointFacts(bounds=_OPENAI_BOUNDS),
        streams=False,
        wanted_format=answer_format.of_response_format,
        format_names=("response_format",),
        needs=request_needs.of_chat_completions,
        texts=answer_text.of_choices,
        unfinished=answer_check.no_finish_reason,
        waiting_piece=waiting_pieces.comment,
        answer_keys=frozenset({"choices"}),
    ),
    Endpoint(
        "/v1/completions",
        OPENAI,
        EndpointFacts(bounds=_OPENAI_BOUNDS),
        streams=False,
        needs=request_needs.of_completions,
        texts=answer_text.of_choices,
        unfinished=answer_check.no_finish_reason,
        waiting_piece=waiting_pieces.comment,
        answer_keys=frozenset({"choices"}),
        operation="text_completion",
    ),
    Endpoint(
        "/v1/embeddings",
        OPENAI,
        EndpointFacts(embeds=True),
        answer_keys=frozenset({"data"}),
        operation="embeddings",
    ),
    Endpoint(
        "/v1/responses",
        OPENAI,
        EndpointFacts(bounds=("max_output_tokens",)),
        streams=False,
        wanted_format=answer_format.of_text_format,
        format_names=("text",),
        needs=request_needs.of_responses,
        searches=web_request.searches,
        texts=answer_text.of_response,
        waiting_piece=waiting_pieces.comment,
        answer_keys=frozenset({"output"}),
    ),
    # Ollama runs a transcription as a stream, says so in the head, and gives the text at once.
    Endpoint(
        "/v1/audio/transcriptions",
        OPENAI,
        read_form=read_form,
        is_held=True,
        unfinished=answer_check.without_a_word,
        operation="generate_content",
    ),
    Endpoint(
        "/v1/images/generations",
        OPENAI,
        answer_keys=frozenset({"data"}),
        operation="generate_content",
    ),
    Endpoint(
        "/v1/images/edits",
        OPENAI,
        answer_keys=frozenset({"data"}),
        operation="generate_content",
    ),
    Endpoint(
        "/v1/messages",
        ANTHROPIC,
        EndpointFacts(bounds=("max_tokens",), needs_bound=True),
        streams=False,
        wanted_format=answer_format.of_output_format,
        format_names=("output_config", "output_format"),
        needs=request_needs.of_messages,
        searches=web_request.searches,
        texts=answer_text.of_message,
        unfinished=answer_check.no_stop_reason,
        waiting_piece=waiting_pieces.comment,
        answer_keys=frozenset({"content"}),
    ),
    # Not models, but as far from here as one of the cloud, so called as such.
    Endpoint(
        "/api/experimental/web_search",
        OLLAMA,
        EndpointFacts(is_web=True),
        read_form=web_request.read_search,
        is_held=True,
        counts=False,
        operation="execute_tool",
    ),
    Endpoint(
        "/api/experimental/web_fetch",
        OLLAMA,
        EndpointFacts(is_web=True),
        read_form=web_request.read_fetch,
        is_held=True,
        counts=False,
        operation="execute_tool",
    ),
)
