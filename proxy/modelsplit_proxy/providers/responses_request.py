"""Requests of OpenAI's responses, in the form of the Messages API."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.providers import openai_parts, proven_thoughts
from modelsplit_proxy.providers.question import (
    Draft,
    UntranslatableError,
    leave_out_but,
    leave_out_rest,
    objects,
    text_block,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modelsplit_proxy.providers.question import Question, Terms

# What lies at OpenAI, what is answered later, what somebody else judges, the odds of each token:
# without it another question would be asked, or less be answered.
_REFUSED: Final = MappingProxyType(
    {
        "background": (False,),
        "conversation": (),
        "previous_response_id": (),
        "prompt": (),
        "moderation": (),
        "top_logprobs": (0,),
    }
)
# What of it the writer of the answer gives back as it came.
_TOLD_AGAIN: Final = frozenset({"metadata"})
_READ: Final = frozenset(
    {
        *("model", "input", "instructions", "stream", "stream_options", "max_output_tokens"),
        *("tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "include"),
        *("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"),
        *("store", "truncation", "service_tier", "prompt_cache_options"),
        *("prompt_cache_key", "safety_identifier", "user"),
    }
)
_KNOWN: Final = _READ | _TOLD_AGAIN | _REFUSED.keys()
# What may be wanted besides, and is given where there is any.
_THOUGHTS_SEALED: Final = "reasoning.encrypted_content"
_ODDS: Final = "message.output_text.logprobs"
_MESSAGE: Final = frozenset({"type", "role", "content", "status"})
_CALL: Final = frozenset({"type", "call_id", "name", "arguments", "status"})
_RESULT: Final = frozenset({"type", "call_id", "output", "status"})
_REASONING: Final = frozenset({"type", "summary", "encrypted_content", "status"})


def of_responses(fields: Mapping[str, Any], terms: Terms) -> Question:
    """The question of ``/v1/responses``; UntranslatableError if it cannot be asked."""
    openai_parts.refuse_but(fields, _REFUSED)
    draft = Draft(terms)
    instructions = fields.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise UntranslatableError("instructions is not a text")
    draft.system(instructions or "")
    given = fields.get("input")
    if isinstance(given, str):
        draft.say("user", text_block(given))
    else:
        for item in objects(given, "input"):
            _item(draft, item)
    _tools(draft, fields)
    _form(draft, fields.get("text"))
    _think(draft, fields.get("reasoning"))
    openai_parts.sample(draft, fields)
    _leave_out(draft, fields)
    return draft.question(stream=fields.get("stream") is True)


def _leave_out(draft: Draft, fields: Mapping[str, Any]) -> None:
    leave_out_but(draft, fields.get("store"), (False,), "store")
    leave_out_but(draft, fields.get("truncation"), ("disabled",), "truncation")
    for name in ("prompt_cache_key", "safety_identifier", "service_tier", "user"):
        draft.put_aside(name, fields.get(name), name)
    options = fields.get("stream_options")
    if isinstance(options, dict):
        at = "stream_options."
        leave_out_but(
            draft, options.get("include_obfuscation"), (False,), f"{at}include_obfuscation"
        )
        leave_out_rest(draft, options, {"include_obfuscation"}, at)
    caching = fields.get("prompt_cache_options")
    if isinstance(caching, dict):
        openai_parts.refuse_but(caching, {"prewarm": (False,)})
        leave_out_rest(draft, caching, {"prewarm"}, "prompt_cache_options.")
    included = fields.get("include") or []
    if not isinstance(included, list):
        raise UntranslatableError("include is not a list")
    for wanted in included:
        if wanted == _ODDS:
            raise UntranslatableError("include asks for the odds of tokens, which nobody gives")
        leave_out_but(draft, wanted, (_THOUGHTS_SEALED,), "include")
    leave_out_rest(draft, fields, _KNOWN, "")


# What has been said.


def _message(draft: Draft, item: Mapping[str, Any]) -> None:
    role, content = item.get("role"), item.get("content")
    match role:
        case "system" | "developer":
            draft.system(openai_parts.joined(draft, content, "input.content"))
        case "user" | "assistant":
            draft.say(role, openai_parts.parts(draft, content, "input.content"))
        case _:
            raise UntranslatableError(
                "the role of a message is none of system, developer, user, assistant"
            )
    leave_out_rest(draft, item, _MESSAGE, "input.")


def _call(draft: Draft, item: Mapping[str, Any]) -> None:
    draft.say(
        "assistant", [draft.call(item.get("call_id"), item.get("name"), item.get("arguments"))]
    )
    leave_out_rest(draft, item, _CALL, "input.")


def _result(draft: Draft, item: Mapping[str, Any]) -> None:
    blocks = openai_parts.parts(draft, item.get("output"), "input.output")
    draft.tool_result(item.get("call_id"), None, blocks)
    leave_out_rest(draft, item, _RESULT, "input.")


def _thoughts(draft: Draft, item: Mapping[str, Any]) -> None:
    """Thoughts go back only where they can be proved to be the provider's own."""
    texts = [part.get("text") for part in objects(item.get("summary"), "a summary")]
    block = proven_thoughts.block_of(
        "".join(text for text in texts if isinstance(text, str)), item.get("encrypted_content")
    )
    if block is None:
        draft.leave_out("input.reasoning")
    else:
        draft.thought(block, "input.reasoning")
    leave_out_rest(draft, item, _REASONING, "input.")


def _searched(draft: Draft, item: Mapping[str, Any]) -> None:
    """What was found stands in the message behind it."""
    del item
    draft.leave_out("input.web_search_call")


_ITEMS: Final[Mapping[object, Callable[[Draft, Mapping[str, Any]], None]]] = MappingProxyType(
    {
        "message": _message,
        None: _message,
        "function_call": _call,
        "function_call_output": _result,
        "reasoning": _thoughts,
        "web_search_call": _searched,
    }
)


def _item(draft: Draft, item: Mapping[str, Any]) -> None:
    kind = item.get("type")
    read = _ITEMS.get(kind) if kind is None or isinstance(kind, str) else None
    if read is None:
        raise UntranslatableError("an item of input has no counterpart at the provider")
    read(draft, item)
    leave_out_but(draft, item.get("status"), ("completed",), "input.status")


# How it is to be answered.


def _tools(draft: Draft, fields: Mapping[str, Any]) -> None:
    for tool in objects(fields.get("tools"), "tools"):
        if tool.get("type") not in (None, "function"):
            raise UntranslatableError("a tool is not a function; the provider has none of its own")
        openai_parts.function_tool(draft, tool, "tools")
    openai_parts.choose(draft, fields.get("tool_choice"))
    if fields.get("parallel_tool_calls") is False:
        draft.one_call_at_once()


def _form(draft: Draft, text: object) -> None:
    if isinstance(text, dict):
        openai_parts.want_form(draft, text.get("format"), "text.format")
        draft.put_aside("verbosity", text.get("verbosity"), "text.verbosity")
        leave_out_rest(draft, text, {"format", "verbosity"}, "text.")
    elif text is not None:
        raise UntranslatableError("text is not an object")


def _think(draft: Draft, reasoning: object) -> None:
    if reasoning is None:
        return
    if not isinstance(reasoning, dict):
        raise UntranslatableError("reasoning is not an object")
    if reasoning.get("effort") not in openai_parts.LITTLE_THOUGHT:
        draft.think("reasoning.effort", reasoning["effort"])
    # What the model thinks is told as the provider tells it.
    for name in ("summary", "generate_summary"):
        leave_out_but(draft, reasoning.get(name), ("auto",), f"reasoning.{name}")
    leave_out_but(draft, reasoning.get("mode"), ("standard",), "reasoning.mode")
    known = {"effort", "summary", "generate_summary", "mode"}
    leave_out_rest(draft, reasoning, known, "reasoning.")
