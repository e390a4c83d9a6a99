"""Requests of OpenAI's chat completions and completions, in the form of the Messages API."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.providers import openai_parts
from modelsplit_proxy.providers.question import (
    Draft,
    UntranslatableError,
    in_their_order,
    leave_out_but,
    leave_out_rest,
    objects,
    text_block,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.providers.question import Question, Terms

_SAMPLING: Final = frozenset(
    {"stop", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"}
)
# More than one answer, the odds of each token, sound, what somebody else looks up or judges:
# what is asked for would be missing.
_REFUSED_CHAT: Final = MappingProxyType(
    {
        "n": (1,),
        "logprobs": (False,),
        "top_logprobs": (0,),
        "audio": (),
        "functions": ([],),
        "function_call": ("none",),
        "modalities": (["text"], []),
        "moderation": (),
        "web_search_options": (),
        "_debug_render_only": (False,),
    }
)
_REFUSED_COMPLETION: Final = MappingProxyType(
    {
        "n": (1,),
        "best_of": (1,),
        "logprobs": (False,),
        "echo": (False,),
        "suffix": ("",),
        "_debug_render_only": (False,),
    }
)
# What only chat completions have a word for.
_ASIDE_COMPLETION: Final = ("logit_bias", "user")
_ASIDE_CHAT: Final = (
    *(*_ASIDE_COMPLETION, "metadata", "prediction", "prompt_cache_key", "safety_identifier"),
    *("service_tier", "verbosity"),
)
_KNOWN_CHAT: Final = frozenset(
    {
        *("model", "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
        *("max_tokens", "max_completion_tokens", "stream", "stream_options"),
        *("reasoning_effort", "reasoning", "store"),
        *(*_SAMPLING, *_REFUSED_CHAT, *_ASIDE_CHAT),
    }
)
_KNOWN_COMPLETION: Final = frozenset(
    {
        *("model", "prompt", "max_tokens", "stream", "stream_options"),
        *(*_SAMPLING, *_REFUSED_COMPLETION, *_ASIDE_COMPLETION),
    }
)
_MESSAGE: Final = frozenset({"role", "content", "refusal", "tool_calls", "tool_call_id"})


def of_chat_completions(fields: Mapping[str, Any], terms: Terms) -> Question:
    """The question of ``/v1/chat/completions``; UntranslatableError if it cannot be asked."""
    openai_parts.refuse_but(fields, _REFUSED_CHAT)
    draft = Draft(terms)
    for message in objects(fields.get("messages"), "messages"):
        _message(draft, message)
    for tool in objects(fields.get("tools"), "tools"):
        if tool.get("type") not in (None, "function"):
            raise UntranslatableError("a tool is not a function")
        openai_parts.function_tool(draft, tool.get("function"), "tools.function")
        leave_out_rest(draft, tool, {"type", "function"}, "tools.")
    openai_parts.choose(draft, fields.get("tool_choice"))
    if fields.get("parallel_tool_calls") is False:
        draft.one_call_at_once()
    wanted = fields.get("response_format")
    openai_parts.want_form(draft, wanted, "response_format", "json_schema")
    _think(draft, fields)
    leave_out_but(draft, fields.get("store"), (False,), "store")
    for name in _ASIDE_CHAT:
        draft.put_aside(name, fields.get(name), name)
    return _asked(draft, fields, _KNOWN_CHAT)


def of_completions(fields: Mapping[str, Any], terms: Terms) -> Question:
    """The question of ``/v1/completions``: the prompt is what a user says."""
    openai_parts.refuse_but(fields, _REFUSED_COMPLETION)
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if prompt is not None and not isinstance(prompt, str):
        raise UntranslatableError("prompt is not one text; the provider gives one answer to words")
    draft = Draft(terms)
    draft.say("user", text_block(prompt or ""))
    for name in _ASIDE_COMPLETION:
        draft.put_aside(name, fields.get(name), name)
    return _asked(draft, fields, _KNOWN_COMPLETION)


def _asked(draft: Draft, fields: Mapping[str, Any], known: frozenset[str]) -> Question:
    """The question, with what the two routes call alike."""
    openai_parts.sample(draft, fields)
    draft.stop(fields.get("stop"), "stop")
    options = fields.get("stream_options")
    if isinstance(options, dict):
        leave_out_but(
            draft,
            options.get("include_obfuscation"),
            (False,),
            "stream_options.include_obfuscation",
        )
        known_options = {"include_usage", "include_obfuscation"}
        leave_out_rest(draft, options, known_options, "stream_options.")
    leave_out_rest(draft, fields, known, "")
    return draft.question(stream=fields.get("stream") is True)


def _message(draft: Draft, message: Mapping[str, Any]) -> None:
    role, content = message.get("role"), message.get("content")
    match role:
        case "system" | "developer":
            draft.system(openai_parts.joined(draft, content, "messages.content"))
        case "user":
            draft.say("user", openai_parts.parts(draft, content, "messages.content"))
        case "assistant":
            blocks = openai_parts.parts(draft, content, "messages.content")
            refusal = message.get("refusal")
            blocks += text_block(refusal if isinstance(refusal, str) else "")
            draft.say("assistant", blocks + _calls(draft, message.get("tool_calls")))
        case "tool":
            blocks = openai_parts.parts(draft, content, "messages.content")
            draft.tool_result(message.get("tool_call_id"), None, blocks)
        case _:
            raise UntranslatableError(
                "the role of a message is none of system, developer, user, assistant, tool"
            )
    if message.get("function_call") or message.get("audio"):
        raise UntranslatableError(
            "a message is a call or a sound of a kind that has no counterpart"
        )
    leave_out_rest(draft, message, _MESSAGE, "messages.")


def _calls(draft: Draft, calls: object) -> list[dict[str, Any]]:
    blocks = []
    for call in in_their_order(objects(calls, "tool_calls")):
        function = call.get("function")
        if call.get("type") not in (None, "function") or not isinstance(function, dict):
            raise UntranslatableError("a tool call is not one of a function")
        blocks.append(draft.call(call.get("id"), function.get("name"), function.get("arguments")))
        at = "messages.tool_calls."
        leave_out_rest(draft, call, {"id", "type", "index", "function"}, at)
        leave_out_rest(draft, function, {"name", "arguments"}, f"{at}function.")
    return blocks


def _think(draft: Draft, fields: Mapping[str, Any]) -> None:
    newer = fields.get("reasoning")
    given = newer.get("effort") if isinstance(newer, dict) else None
    field = "reasoning_effort" if given is None else "reasoning.effort"
    effort = fields.get("reasoning_effort") if given is None else given
    if effort not in openai_parts.LITTLE_THOUGHT:
        draft.think(field, effort)
    if isinstance(newer, dict):
        leave_out_rest(draft, newer, {"effort"}, "reasoning.")
