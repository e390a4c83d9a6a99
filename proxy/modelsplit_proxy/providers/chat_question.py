"""A request in the form of the Messages API, as OpenAI's chat completions take it.

It may be a client's own, so nothing of it is taken on trust: what chat completions have no word
for is named, and refused where leaving it out would change what is asked.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.failures import said_back
from modelsplit_proxy.providers.question import (
    EFFORTS,
    THOUGHTS,
    UntranslatableError,
    objects,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from modelsplit_proxy.providers.question import Question, Terms

Json = dict[str, Any]
_SAME: Final = ("model", "temperature", "top_p")
_CHOICES: Final = MappingProxyType({"auto": "auto", "any": "required", "none": "none"})
# Where a model is to run, what it is to run with and whom it is to ask: not to be left out.
_REFUSED: Final = ("container", "inference_geo", "mcp_servers")
_READ: Final = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "stop_sequences", "stream"),
        *("temperature", "top_p", "tools", "tool_choice", "output_config", "thinking"),
        *_REFUSED,
    }
)
_TOOL: Final = frozenset({"type", "name", "description", "input_schema", "strict"})
_USE: Final = frozenset({"type", "id", "name", "input"})
_RESULT: Final = frozenset({"type", "tool_use_id", "content"})
_TEXT: Final = frozenset({"type", "text"})
_FORM_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# What of a model's thinking_tokens is no more than this effort.
_EFFORTS: Final = ((0.25, "low"), (0.5, "medium"))
_USUAL_EFFORT: Final = "medium"


def of_question(question: Question, terms: Terms) -> tuple[Json, tuple[str, ...]]:
    """The request, and all that of the client's is not in it; UntranslatableError."""
    return _Chat(question, terms).asked()


class _Chat:
    """One request being made."""

    def __init__(self, question: Question, terms: Terms) -> None:
        self._question = question
        self._body = question.body
        self._terms = terms
        self._left_out: dict[str, None] = {}

    def asked(self) -> tuple[Json, tuple[str, ...]]:
        body, question = self._body, self._question
        for name in _REFUSED:
            if body.get(name):
                raise UntranslatableError(f"{name} has no counterpart at the provider")
        asked: Json = {name: body[name] for name in _SAME if name in body}
        # Models that think take the bound by its newer name alone.
        bound = "max_completion_tokens" if self._terms.is_adaptive else "max_tokens"
        asked[bound] = body.get("max_tokens")
        asked["messages"] = list(self._messages())
        if "stop_sequences" in body:
            asked["stop"] = body["stop_sequences"]
        asked |= self._tools() | self._form() | self._effort()
        if body.get("stream"):
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        self._leave_out_rest(body, _READ, "")
        carried = {field for field, _ in question.aside.values()}
        asked |= {name: value for name, (_, value) in question.aside.items()}
        told = [name for name in question.untranslated if name not in carried]
        return asked, (*told, *self._left_out)

    def _leave_out_rest(self, given: Mapping[str, Any], read: Iterable[str], at: str) -> None:
        """Name what nobody has read; null and what is empty say nothing."""
        for name in sorted(given.keys() - set(read)):
            if given[name] is not None and given[name] != [] and given[name] != {}:
                self._left_out[at + said_back(name)] = None

    # What has been said.

    def _messages(self) -> Iterator[Json]:
        system = self._joined(self._body.get("system"), "system")
        if system:
            yield {"role": "system", "content": system}
        for turn in objects(self._body.get("messages"), "messages"):
            self._leave_out_rest(turn, {"role", "content"}, "messages.")
            blocks = _blocks(turn.get("content"))
            match turn.get("role"):
                case "assistant":
                    yield from self._assistant(blocks)
                case "user":
                    yield from self._user(blocks)
                case "system":
                    yield {"role": "system", "content": self._joined(blocks, "messages.content")}
                case _:
                    raise UntranslatableError("the role of a message is neither user nor assistant")

    def _user(self, blocks: list[Json]) -> Iterator[Json]:
        """Results of tools are messages of their own, and come first: they answer calls."""
        said: list[Json] = []
        for block in blocks:
            if block.get("type") == "tool_result":
                inner = _blocks(block.get("content"))
                yield self._result(block, [one for one in inner if one.get("type") == "text"])
                # A tool's message is text; its pictures and files come from the user.
                rest = [one for one in inner if one.get("type") != "text"]
                if rest:
                    self._left_out["messages.tool_result (a picture or file sent as a user's)"] = (
                        None
                    )
                said += [self._part(one) for one in rest]
            else:
                said.append(self._part(block))
        if len(said) == 1 and said[0]["type"] == "text":
            yield {"role": "user", "content": said[0]["text"]}
        elif said:
            yield {"role": "user", "content": said}

    def _result(self, block: Json, texts: list[Json]) -> Json:
        self._leave_out_rest(block, _RESULT, "messages.tool_result.")
        call = text_of(block.get("tool_use_id"), "the call that a tool's result answers")
        text = self._joined(texts, "messages.tool_result")
        return {"role": "tool", "tool_call_id": call, "content": text}

    def _part(self, block: Json) -> Json:
        at = "messages.content."
        match block.get("type"):
            case "text":
                self._leave_out_rest(block, _TEXT, at)
                return {"type": "text", "text": text_of(block.get("text"), "a text")}
            case "image":
                self._leave_out_rest(block, {"type", "source"}, at)
                return {"type": "image_url", "image_url": {"url": _url(block.get("source"))}}
            case "document":
                self._leave_out_rest(block, {"type", "source", "title"}, at)
                return self._document(block)
            case _:
                raise UntranslatableError(
                    "a block of a message is neither text, image nor document"
                )

    def _document(self, block: Json) -> Json:
        source, title = _object(block.get("source")), block.get("title")
        match source.get("type"):
            case "text":
                text = text_of(source.get("data"), "the text of a document")
            case "content":
                text = self._joined(source.get("content"), "messages.content.source")
            case "base64":
                name = title if isinstance(title, str) and title else "document.pdf"
                return {"type": "file", "file": {"filename": name, "file_data": _url(source)}}
            case _:
                raise UntranslatableError("a document is neither text nor data")
        return {"type": "text", "text": f"{title}\n\n{text}" if title else text}

    def _assistant(self, blocks: list[Json]) -> Iterator[Json]:
        calls = [self._call(block) for block in blocks if block.get("type") == "tool_use"]
        texts = [block for block in blocks if block.get("type") == "text"]
        thoughts = [block for block in blocks if block.get("type") in THOUGHTS]
        if len(calls) + len(texts) + len(thoughts) < len(blocks):
            raise UntranslatableError("a block of the assistant's is neither text nor call")
        if thoughts:
            self._left_out["messages.thinking"] = None
        if calls or texts:
            text = self._joined(texts, "messages.content")
            message: Json = {"role": "assistant", "content": text or None}
            yield message | ({"tool_calls": calls} if calls else {})

    def _call(self, block: Json) -> Json:
        self._leave_out_rest(block, _USE, "messages.tool_use.")
        arguments = orjson.dumps(_object(block.get("input"))).decode()
        function = {
            "name": text_of(block.get("name"), "the name of a call"),
            "arguments": arguments,
        }
        return {"id": text_of(block.get("id"), "a call's id"), "type": "function"} | {
            "function": function
        }

    def _joined(self, content: object, at: str) -> str:
        """The texts of blocks, or the text that stands in their place."""
        texts = []
        for block in _blocks(content):
            if block.get("type") != "text":
                raise UntranslatableError(f"a block of {at} is no text")
            self._leave_out_rest(block, _TEXT, f"{at}.")
            texts.append(text_of(block.get("text"), "a text"))
        return "\n\n".join(texts) if at == "system" else "".join(texts)

    # How it is to be answered.

    def _tools(self) -> Json:
        tools = [self._tool(tool) for tool in objects(self._body.get("tools"), "tools")]
        if not tools:
            return {}
        choice, asked = _object(self._body.get("tool_choice")), {"tools": tools}
        return asked | _choice(choice)

    def _tool(self, tool: Json) -> Json:
        if tool.get("type") not in (None, "custom"):
            raise UntranslatableError("a tool is the provider's own, and this one has none")
        self._leave_out_rest(tool, _TOOL, "tools.")
        function: Json = {"name": text_of(tool.get("name"), "the name of a tool")}
        function["parameters"] = _object(tool.get("input_schema"))
        if tool.get("description"):
            function["description"] = tool["description"]
        if tool.get("strict") is True:
            function["strict"] = True
        return {"type": "function", "function": function}

    def _form(self) -> Json:
        wanted = _object(self._body.get("output_config"))
        self._leave_out_rest(wanted, {"format", "effort"}, "output_config.")
        form = wanted.get("format")
        if form is None:
            return {}
        schema = _object(form).get("schema")
        if not isinstance(schema, dict):
            raise UntranslatableError("output_config.format is no schema")
        title = schema.get("title")
        is_name = isinstance(title, str) and _FORM_NAME.fullmatch(title) is not None
        named: Json = {"name": title if is_name else "answer", "schema": schema}
        if self._question.is_strict:
            named["strict"] = True
        return {"response_format": {"type": "json_schema", "json_schema": named}}

    def _effort(self) -> Json:
        """How much it is to think: the API says it in tokens, or in the same words."""
        terms, thinking = self._terms, _object(self._body.get("thinking"))
        effort = _object(self._body.get("output_config")).get("effort")
        thinks = thinking.get("type") in {"enabled", "adaptive"}
        if not thinks and effort is None:
            return {}
        if not terms.is_adaptive and not terms.thinking_tokens:
            self._left_out["thinking" if thinks else "output_config.effort"] = None
            return {}
        if isinstance(effort, str) and effort in EFFORTS:
            return {"reasoning_effort": effort}
        return {"reasoning_effort": _effort_of(thinking.get("budget_tokens"), terms)}


def _effort_of(budget: object, terms: Terms) -> str:
    if terms.is_adaptive or type(budget) is not int:
        return _USUAL_EFFORT
    share = budget / terms.thinking_tokens
    return next((effort for most, effort in _EFFORTS if share <= most), "high")


def _choice(choice: Mapping[str, Any]) -> Json:
    asked: Json = {}
    kind = choice.get("type")
    if kind == "tool":
        name = text_of(choice.get("name"), "the name of a tool")
        asked["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif isinstance(kind, str) and kind in _CHOICES:
        asked["tool_choice"] = _CHOICES[kind]
    elif kind is not None:
        raise UntranslatableError("tool_choice is none of auto, any, none, a tool")
    if choice.get("disable_parallel_tool_use"):
        asked["parallel_tool_calls"] = False
    return asked


def _blocks(content: object) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return objects(content, "content")


def _url(source: object) -> str:
    given = _object(source)
    if given.get("type") == "url":
        return text_of(given.get("url"), "the address of an image")
    if given.get("type") != "base64":
        raise UntranslatableError("an image or document lies elsewhere; send its data")
    kind = text_of(given.get("media_type"), "the type of an image")
    return f"data:{kind};base64,{text_of(given.get('data'), 'the data of an image')}"


def _object(value: object) -> Json:
    """An object; null is an empty one."""
    if value is None or isinstance(value, dict):
        return value or {}
    raise UntranslatableError("a field that is to be an object is none")
