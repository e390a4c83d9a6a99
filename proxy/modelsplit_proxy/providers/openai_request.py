"""Requests of OpenAI's chat completions, in the form of the Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.providers.question import (
    Draft,
    UntranslatableError,
    leave_out_rest,
    objects,
    picture,
    text_block,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.providers.question import Question, Terms

_KNOWN: Final = frozenset(
    {
        *("model", "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
        *("stop", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stream"),
        *("stream_options", "n", "reasoning_effort", "reasoning"),
    }
)
_MESSAGE: Final = frozenset({"role", "content", "tool_calls", "tool_call_id"})
# More than one answer, the odds of each token, sound: what is asked for would be missing.
_REFUSED: Final = ("logprobs", "top_logprobs", "audio", "functions", "function_call")
_LITTLE_THOUGHT: Final = (None, "none", "minimal")


def of_chat_completions(fields: Mapping[str, Any], terms: Terms) -> Question:
    """The question of ``/v1/chat/completions``; UntranslatableError if it cannot be asked."""
    for name in _REFUSED:
        if fields.get(name):
            raise UntranslatableError(f"{name} has no counterpart at the provider")
    if fields.get("n") not in (None, 1):
        raise UntranslatableError("n asks for more than one answer; the provider gives one")
    draft = Draft(terms)
    for message in objects(fields.get("messages"), "messages"):
        _message(draft, message)
    for tool in objects(fields.get("tools"), "tools"):
        function = tool.get("function")
        if tool.get("type", "function") != "function" or not isinstance(function, dict):
            raise UntranslatableError("a tool is not a function")
        draft.tool(function.get("name"), function.get("description"), function.get("parameters"))
    _choice(draft, fields)
    _form(draft, fields.get("response_format"))
    draft.temperature(fields.get("temperature"), "temperature")
    draft.number("top_p", fields.get("top_p"), "top_p", most=1.0)
    draft.stop(fields.get("stop"), "stop")
    if _effort(fields) not in _LITTLE_THOUGHT:
        draft.think()
    leave_out_rest(draft, fields, _KNOWN, "")
    return draft.question(stream=fields.get("stream") is True)


def _message(draft: Draft, message: Mapping[str, Any]) -> None:
    blocks = _parts(message.get("content"))
    match message.get("role"):
        case "system" | "developer":
            draft.system("\n\n".join(text_of(part.get("text"), "a system text") for part in blocks))
        case "user":
            draft.say("user", blocks)
        case "assistant":
            for call in objects(message.get("tool_calls"), "tool_calls"):
                function = call.get("function")
                if not isinstance(function, dict):
                    raise UntranslatableError("a tool call is not one of a function")
                blocks.append(
                    draft.call(call.get("id"), function.get("name"), function.get("arguments"))
                )
            draft.say("assistant", blocks)
        case "tool":
            draft.tool_result(message.get("tool_call_id"), None, blocks)
        case _:
            raise UntranslatableError(
                "the role of a message is none of system, developer, user, assistant, tool"
            )
    leave_out_rest(draft, message, _MESSAGE, "messages.")


def _parts(content: object) -> list[dict[str, Any]]:
    if content is None or isinstance(content, str):
        return text_block(content or "")
    blocks: list[dict[str, Any]] = []
    for part in objects(content, "the content of a message"):
        match part.get("type"):
            case "text" | "refusal":
                text = part.get("text", part.get("refusal"))
                blocks += text_block(text if isinstance(text, str) else "")
            case "image_url":
                blocks.append(_picture(part.get("image_url")))
            case _:
                raise UntranslatableError("a part of a message is neither text nor image")
    return blocks


def _picture(value: object) -> dict[str, Any]:
    """A data URL, or an address that the provider fetches itself."""
    url = text_of(value.get("url") if isinstance(value, dict) else value, "the URL of an image")
    if url.startswith("data:"):
        head, _, data = url.partition(",")
        if not head.endswith(";base64"):
            raise UntranslatableError("an image is not base64")
        return picture(data)
    if not url.startswith(("https://", "http://")):
        raise UntranslatableError("the URL of an image is neither data nor http")
    return {"type": "image", "source": {"type": "url", "url": url}}


def _choice(draft: Draft, fields: Mapping[str, Any]) -> None:
    match fields.get("tool_choice"):
        case None | "auto":
            pass
        case "none":
            draft.choose({"type": "none"})
        case "required":
            draft.choose({"type": "any"})
        case {"type": "function", "function": {"name": str(name)}}:
            draft.choose({"type": "tool", "name": name})
        case _:
            raise UntranslatableError("tool_choice is none of auto, none, required, a function")
    if fields.get("parallel_tool_calls") is False:
        draft.one_call_at_once()


def _form(draft: Draft, wanted: object) -> None:
    match wanted:
        case None | {"type": "text"}:
            pass
        case {"type": "json_object"}:
            draft.want(None)
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            draft.want(schema)
        case _:
            raise UntranslatableError("response_format is none of text, json_object, json_schema")


def _effort(fields: Mapping[str, Any]) -> object:
    newer = fields.get("reasoning")
    given = newer.get("effort") if isinstance(newer, dict) else None
    return given if given is not None else fields.get("reasoning_effort")
