"""Prints the fields that the official SDKs know of a request, by where they stand in it."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Final

from anthropic.types import (
    document_block_param,
    image_block_param,
    message_create_params,
    output_config_param,
    text_block_param,
    tool_param,
    tool_result_block_param,
    tool_use_block_param,
)
from anthropic.types.content_block_param import ContentBlockParam
from anthropic.types.message_param import MessageParam
from anthropic.types.tool_union_param import ToolUnionParam
from openai.types import completion_create_params
from openai.types.chat import (
    chat_completion_content_part_image_param,
    chat_completion_content_part_param,
    chat_completion_content_part_refusal_param,
    chat_completion_content_part_text_param,
    chat_completion_message_function_tool_call_param,
    chat_completion_stream_options_param,
)
from openai.types.chat import completion_create_params as chat_params
from openai.types.chat.chat_completion_function_tool_param import ChatCompletionFunctionToolParam
from openai.types.chat.chat_completion_message_param import ChatCompletionMessageParam
from openai.types.chat.chat_completion_tool_union_param import ChatCompletionToolUnionParam
from openai.types.responses import (
    easy_input_message_param,
    response_create_params,
    response_function_tool_call_param,
    response_input_file_param,
    response_input_image_param,
    response_input_item_param,
    response_input_text_param,
    response_output_message_param,
    response_output_refusal_param,
    response_output_text_param,
    response_reasoning_item_param,
    response_text_config_param,
)
from openai.types.responses.function_tool_param import FunctionToolParam
from openai.types.responses.response_format_text_json_schema_config_param import (
    ResponseFormatTextJSONSchemaConfigParam,
)
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from openai.types.responses.tool_param import ToolParam
from openai.types.shared_params import FunctionDefinition, Reasoning
from openai.types.shared_params.response_format_json_schema import JSONSchema

CHAT: Final = "OpenAI's fields, chat"
RESPONSES: Final = "OpenAI's fields, responses"
MESSAGES: Final = "The Messages API's fields"
_DISCRIMINATORS: Final = {"type"}
_call = chat_completion_message_function_tool_call_param
_result = response_input_item_param.FunctionCallOutput

# Of each table: where a TypedDict's fields stand, and the TypedDicts.
PLACES: Final = (
    (CHAT, "", chat_params.CompletionCreateParamsStreaming),
    (CHAT, "", completion_create_params.CompletionCreateParamsStreaming),
    *((CHAT, "messages.", member) for member in typing.get_args(ChatCompletionMessageParam)),
    (CHAT, "messages.content.", chat_completion_content_part_text_param),
    (CHAT, "messages.content.", chat_completion_content_part_refusal_param),
    (CHAT, "messages.content.", chat_completion_content_part_image_param),
    (CHAT, "messages.content.image_url.", chat_completion_content_part_image_param.ImageURL),
    (CHAT, "messages.content.", chat_completion_content_part_param.File),
    (CHAT, "messages.content.file.", chat_completion_content_part_param.FileFile),
    (CHAT, "messages.tool_calls.", _call.ChatCompletionMessageFunctionToolCallParam),
    (CHAT, "messages.tool_calls.function.", _call.Function),
    (CHAT, "tools.", ChatCompletionFunctionToolParam),
    (CHAT, "tools.function.", FunctionDefinition),
    (CHAT, "response_format.json_schema.", JSONSchema),
    (CHAT, "stream_options.", chat_completion_stream_options_param),
    (RESPONSES, "", response_create_params.ResponseCreateParamsStreaming),
    (RESPONSES, "input.", easy_input_message_param),
    (RESPONSES, "input.", response_input_item_param.Message),
    (RESPONSES, "input.", response_output_message_param),
    (RESPONSES, "input.", response_function_tool_call_param),
    (RESPONSES, "input.", _result),
    (RESPONSES, "input.", response_reasoning_item_param),
    (RESPONSES, "input.content.", response_input_text_param),
    (RESPONSES, "input.content.", response_input_image_param),
    (RESPONSES, "input.content.", response_input_file_param),
    (RESPONSES, "input.content.", response_output_text_param),
    (RESPONSES, "input.content.", response_output_refusal_param),
    (RESPONSES, "tools.", FunctionToolParam),
    (RESPONSES, "text.", response_text_config_param),
    (RESPONSES, "text.format.", ResponseFormatTextJSONSchemaConfigParam),
    (RESPONSES, "reasoning.", Reasoning),
    (RESPONSES, "stream_options.", response_create_params.StreamOptions),
    (RESPONSES, "prompt_cache_options.", response_create_params.PromptCacheOptions),
    (MESSAGES, "", message_create_params.MessageCreateParamsStreaming),
    *((MESSAGES, "messages.", member) for member in typing.get_args(MessageParam)),
    (MESSAGES, "messages.content.", text_block_param),
    (MESSAGES, "messages.content.", image_block_param),
    (MESSAGES, "messages.content.", document_block_param),
    (MESSAGES, "messages.tool_use.", tool_use_block_param),
    (MESSAGES, "messages.tool_result.", tool_result_block_param),
    (MESSAGES, "tools.", tool_param.ToolParam),
    (MESSAGES, "output_config.", output_config_param),
)
# Unions that are told apart by a type: what each may be.
KINDS: Final = {
    "chat tools": ChatCompletionToolUnionParam,
    "chat parts": chat_completion_content_part_param.ChatCompletionContentPartParam,
    "responses input": ResponseInputItemParam,
    "responses tools": ToolParam,
    "messages blocks": ContentBlockParam,
    "messages tools": ToolUnionParam,
}


def fields_of(place: Any) -> Iterable[str]:
    """Of a TypedDict, or of the one that its module is named after."""
    if not hasattr(place, "__total__"):
        bare = place.__name__.rpartition(".")[2].replace("_", "")
        [place] = [member for name, member in vars(place).items() if name.lower() == bare]
    names: dict[str, Any] = place.__annotations__
    return names


def kinds_of(union: Any) -> Iterator[str]:
    for member in typing.get_args(union):
        hint = typing.get_type_hints(member)["type"] if "type" in member.__annotations__ else None
        yield from (word for word in literals(hint) if word is not None)


def literals(hint: Any) -> Iterator[Any]:
    for inner in typing.get_args(hint):
        if isinstance(inner, str):
            yield inner
        else:
            yield from literals(inner)


def main() -> None:
    fields: dict[str, set[str]] = {}
    for table, at, place in PLACES:
        fields.setdefault(table, set()).update(at + name for name in fields_of(place))
    found = {
        "fields": {table: sorted(names) for table, names in fields.items()},
        "kinds": {name: sorted(set(kinds_of(union))) for name, union in KINDS.items()},
    }
    print(json.dumps(found))


main()
