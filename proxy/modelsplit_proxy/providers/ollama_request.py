"""Requests of Ollama's own two routes, in the form of the Messages API."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.providers.openai_parts import refuse_but
from modelsplit_proxy.providers.question import (
    Draft,
    UntranslatableError,
    in_their_order,
    leave_out_but,
    leave_out_rest,
    objects,
    picture,
    text_block,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.providers.question import Question, Terms

# The odds of each token, and a prompt as it would be put: what is asked for would be missing.
_REFUSED: Final = MappingProxyType(
    {"logprobs": (False,), "top_logprobs": (0,), "_debug_render_only": (False,)}
)
# They speak of a model's own tokens, which nobody sees here.
_OF_TOKENS: Final = ("raw", "template", "suffix", "context")
_COMMON: Final = frozenset({"model", "stream", "format", "options", "think", *_REFUSED})
_PENALTIES: Final = ("seed", "presence_penalty", "frequency_penalty")
_OPTIONS: Final = frozenset({"temperature", "top_p", "top_k", "stop", "num_predict", *_PENALTIES})
_FUNCTION: Final = frozenset({"name", "description", "parameters"})
_MESSAGE: Final = frozenset(
    {"role", "content", "images", "tool_calls", "tool_name", "name", "tool_call_id"}
)


def of_chat(fields: Mapping[str, Any], terms: Terms) -> Question:
    """The question of ``/api/chat``; UntranslatableError if it cannot be asked."""
    refuse_but(fields, _REFUSED)
    draft = Draft(terms)
    for message in objects(fields.get("messages"), "messages"):
        _message(draft, message)
    for tool in objects(fields.get("tools"), "tools"):
        function = tool.get("function")
        if tool.get("type") not in (None, "function") or not isinstance(function, dict):
            raise UntranslatableError("a tool is not a function")
        draft.tool(function.get("name"), function.get("description"), function.get("parameters"))
        leave_out_rest(draft, function, _FUNCTION, "tools.function.")
        leave_out_rest(draft, tool, {"type", "function"}, "tools.")
    leave_out_rest(draft, fields, _COMMON | {"messages", "tools"}, "")
    return _finished(draft, fields)


def of_generate(fields: Mapping[str, Any], terms: Terms) -> Question:
    """The question of ``/api/generate``; UntranslatableError if it cannot be asked."""
    refuse_but(fields, _REFUSED)
    for name in _OF_TOKENS:
        if fields.get(name):
            raise UntranslatableError(
                f"{name} speaks of a model's own tokens, which nobody sees here"
            )
    draft = Draft(terms)
    draft.system(_text(fields.get("system"), "system"))
    blocks = [picture(data) for data in _pictures(fields.get("images"))]
    draft.say("user", blocks + text_block(_text(fields.get("prompt"), "prompt")))
    known = _COMMON | {"prompt", "system", "images", *_OF_TOKENS}
    leave_out_rest(draft, fields, known, "")
    return _finished(draft, fields)


def _message(draft: Draft, message: Mapping[str, Any]) -> None:
    role, text = message.get("role"), _text(message.get("content"), "the content of a message")
    blocks = [picture(data) for data in _pictures(message.get("images"))] + text_block(text)
    match role:
        case "system":
            draft.system(text)
        case "user":
            draft.say("user", blocks)
        case "assistant":
            blocks = text_block(text)
            calls = objects(message.get("tool_calls"), "tool_calls")
            for call in in_their_order(calls, "function"):
                function = call.get("function")
                if not isinstance(function, dict):
                    raise UntranslatableError("a tool call is not one of a function")
                blocks.append(
                    draft.call(call.get("id"), function.get("name"), function.get("arguments", {}))
                )
                at = "messages.tool_calls."
                leave_out_rest(draft, function, {"index", "name", "arguments"}, f"{at}function.")
                leave_out_but(draft, call.get("type"), ("function",), f"{at}type")
                leave_out_rest(draft, call, {"id", "type", "function"}, at)
            draft.say("assistant", blocks)
        case "tool":
            name = message.get("tool_name") or message.get("name")
            draft.tool_result(message.get("tool_call_id"), name, blocks)
        case _:
            raise UntranslatableError(
                "the role of a message is none of system, user, assistant, tool"
            )
    leave_out_rest(draft, message, _MESSAGE, "messages.")


def _finished(draft: Draft, fields: Mapping[str, Any]) -> Question:
    _options(draft, fields.get("options"))
    wanted = fields.get("format")
    if isinstance(wanted, dict):
        draft.want(wanted)
    elif wanted == "json":
        draft.want(None)
    elif wanted not in (None, ""):
        raise UntranslatableError('format is neither "json" nor a schema')
    # True, or how much: "low", "medium", "high".
    if fields.get("think") not in (None, False, "", "none"):
        draft.think("think", fields.get("think"))
    return draft.question(stream=fields.get("stream") is not False)


def _options(draft: Draft, options: object) -> None:
    if options is None:
        return
    if not isinstance(options, dict):
        raise UntranslatableError("options is not an object")
    draft.temperature(options.get("temperature"), "options.temperature")
    draft.number("top_p", options.get("top_p"), "options.top_p", most=1.0)
    top_k = options.get("top_k")
    if top_k != 0:  # which means all of them, as the API does unasked
        draft.number("top_k", top_k, "options.top_k")
    draft.stop(options.get("stop"), "options.stop")
    if options.get("num_predict") in (-1, -2):  # without end, which the API does not know
        draft.leave_out(f"options.num_predict (sent as {draft.max_tokens})")
    for name in _PENALTIES:
        draft.put_aside(name, options.get(name), f"options.{name}")
    leave_out_rest(draft, options, _OPTIONS, "options.")


def _pictures(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UntranslatableError("images is not a list of texts in base64")
    return value


def _text(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UntranslatableError(f"{what} is not a text")
    return value
