"""Every field of a request that a cloud may be asked with: what saying it changes.

A sample is a request with the field and the same without it, or with another value.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from modelsplit_proxy.providers.answer import Answer
from modelsplit_proxy.providers.chat_question import of_question
from modelsplit_proxy.providers.proven_thoughts import seal_of
from modelsplit_proxy.providers.question import Terms, UntranslatableError
from modelsplit_proxy.providers.translations import TRANSLATIONS
from support import messages as say

Json = dict[str, Any]
Sample = tuple[Json, Json]
Builder = Callable[[Json], Json]

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()
PDF = f"data:application/pdf;base64,{base64.b64encode(b'%PDF-1.7 x').decode()}"
PICTURE = f"data:image/png;base64,{PNG}"
SCHEMA: Json = {"type": "object", "properties": {"x": {"type": "integer"}}}
USER: Json = {"role": "user", "content": "hi"}
# What models may be able to; a field is what it is for any of them.
TERMS: Final = (
    Terms("m", 1000),
    Terms("m", 9000, is_adaptive=True, has_schemas=True),
    Terms("m", 9000, thinking_tokens=8000, samples=False),
)
# What is read before a request is put into a provider's words: whom to ask, and the bound.
BEFORE: Final = frozenset(
    {
        *("model", "max_tokens", "max_completion_tokens", "max_output_tokens"),
        "options.num_predict",
    }
)


@dataclass(frozen=True)
class Table:
    """One table of the page, and what is asked by it.

    ``samples``: of each field. ``builders``: requests with more in one of their objects.
    """

    title: str
    routes: tuple[str, ...]
    samples: dict[str, list[Sample]]
    builders: tuple[tuple[str, Builder], ...]
    by_chat: bool = False

    def base(self, route: str) -> Json:
        return BASES[route]

    def fates(self, field: str) -> set[str]:
        """What becomes of it: said, named, refused; silent, if nothing does."""
        told: set[str] = set()
        for route in self.routes:
            for sample in self.samples[field]:
                told |= self.fates_of(route, field, sample)
        return told or {"silent"}

    def fates_of(self, route: str, field: str, sample: Sample) -> set[str]:
        told: set[str] = set()
        for terms in TERMS:
            with_it, without = (self._asked(route, fields, terms) for fields in sample)
            assert without is not None, (route, field)
            if with_it is None:
                told.add("refused")
                continue
            if with_it[0] != without[0]:
                told.add("said")
            if any(field in name for name in set(with_it[1]) - set(without[1])):
                told.add("named")
        return told

    def _asked(self, route: str, fields: Json, terms: Terms) -> tuple[Any, tuple[str, ...]] | None:
        """All that a request comes to, and what is named; None: it is refused."""
        fields = self.base(route) | fields
        translation = TRANSLATIONS[route]
        try:
            question = translation.ask(fields, terms)
            body, named = question.body, question.untranslated
            if self.by_chat:
                body, named = of_question(question, terms)
        except UntranslatableError:
            return None
        answered = [
            translation.writer("m", say.StoppedClock(), fields).whole(Answer("msg_1", "hi")),
            say.translated(translation.writer("m", say.StoppedClock(), fields), STREAM),
        ]
        if route == "/v1/responses":  # which tells again all that it was asked
            answered = [orjson.dumps(orjson.loads(answered[0])["metadata"])]
        return (body, question.is_strict, answered), named


STREAM = say.start() + say.text("hi") + say.end()
BASES: Final[dict[str, Json]] = {
    "/api/chat": {"model": "cloud", "messages": [USER]},
    "/api/generate": {"model": "cloud", "prompt": "hi"},
    "/v1/chat/completions": {"model": "cloud", "messages": [USER]},
    "/v1/completions": {"model": "cloud", "prompt": "hi"},
    "/v1/responses": {"model": "cloud", "input": "hi"},
    "/v1/messages": {"model": "cloud", "max_tokens": 9, "messages": [USER]},
}


def top(**fields: Any) -> list[Sample]:
    """A field of the request itself: with each of these values, and without."""
    [(name, values)] = fields.items()
    return [({name: value}, {}) for value in values]


def within(build: Builder, name: str, *values: Any) -> list[Sample]:
    """A field of an object in the request."""
    return [(build({name: value}), build({})) for value in values]


def many(build: Builder, at: str, values: Json) -> dict[str, list[Sample]]:
    return {f"{at}{name}": within(build, name, value) for name, value in values.items()}


def tops(values: Json) -> dict[str, list[Sample]]:
    return {name: [({name: value}, {})] for name, value in values.items()}


# Ollama's.


def _ollama_call(more: Json, function: Json | None = None) -> Json:
    first: Json = {"name": "f", "arguments": {}}
    calls: list[Json] = [
        {"id": "a", "function": first | (function or {})} | more,
        {"id": "b", "function": {"name": "g", "arguments": {}, "index": 1}},
    ]
    return {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": calls}]}


def _ollama_result(more: Json) -> Json:
    calls: list[Json] = [
        {"id": name, "function": {"name": name, "arguments": {}}} for name in ("f", "g")
    ]
    turn = {"role": "assistant", "content": "", "tool_calls": calls}
    return {"messages": [USER, turn, {"role": "tool", "content": "2"} | more]}


def _message(more: Json) -> Json:
    return {"messages": [USER | more]}


def _function(more: Json) -> Json:
    return {"tools": [{"type": "function", "function": {"name": "f"} | more}]}


def _function_tool(more: Json) -> Json:
    return {"tools": [{"type": "function", "function": {"name": "f"}} | more]}


def _options(more: Json) -> Json:
    return {"options": more}


_OLLAMA_NAMED: Json = {
    "options.min_p": 0.1,
    "options.typical_p": 0.9,
    "options.repeat_penalty": 1.1,
    "options.repeat_last_n": 3,
    "options.num_ctx": 9,
    "options.num_keep": 9,
    "options.num_batch": 9,
    "options.num_gpu": 1,
    "options.main_gpu": 1,
    "options.use_mmap": False,
    "options.num_thread": 2,
    "options.draft_num_predict": 3,
    "options.seed": 7,
    "options.presence_penalty": 1,
    "options.frequency_penalty": 1,
}
OLLAMA: Final = Table(
    "Ollama's fields",
    ("/api/chat", "/api/generate"),
    {
        **tops({"keep_alive": "5m", "truncate": False, "shift": True, "stream": False}),
        **tops({"logprobs": True, "top_logprobs": 2, "_debug_render_only": True}),
        "format": top(format=["json", SCHEMA, "yaml"]),
        "think": top(think=[True, "high", "low"]),
        **{
            name: within(_options, name.removeprefix("options."), value)
            for name, value in _OLLAMA_NAMED.items()
        },
        "options.temperature": within(_options, "temperature", 0.5, 9),
        "options.top_p": within(_options, "top_p", 0.5, 9),
        "options.top_k": within(_options, "top_k", 40),
        "options.stop": within(_options, "stop", "x", ["x", " "]),
    },
    (("", lambda more: more), ("options.", _options)),
)
OLLAMA_CHAT: Final = Table(
    "Ollama's fields",
    ("/api/chat",),
    {
        "messages": [({"messages": [USER, USER]}, {})],
        "messages.role": within(_message, "role", "assistant"),
        "messages.content": within(_message, "content", "ho"),
        "messages.images": within(_message, "images", [PNG], ["AAAA"]),
        "messages.thinking": within(_message, "thinking", "hm"),
        "messages.tool_calls": [(_ollama_call({}), _message({}))],
        "messages.tool_calls.id": within(_ollama_call, "id", "z"),
        "messages.tool_calls.function.name": [
            (_ollama_call({}, {"name": "h"}), _ollama_call({})),
        ],
        "messages.tool_calls.function.arguments": [
            (_ollama_call({}, {"arguments": {"x": 1}}), _ollama_call({})),
        ],
        "messages.tool_calls.function.index": [
            (_ollama_call({}, {"index": 2}), _ollama_call({})),
        ],
        "messages.tool_name": within(_ollama_result, "tool_name", "g"),
        "messages.tool_call_id": within(_ollama_result, "tool_call_id", "g"),
        "tools": [(_function({}), {})],
        "tools.type": within(_function_tool, "type", "browser"),
        "tools.items": within(_function_tool, "items", {"type": "string"}),
        **many(_function, "tools.function.", {"description": "d", "parameters": SCHEMA}),
        "tools.function.name": within(_function, "name", "g"),
    },
    (
        ("messages.", _message),
        ("messages.tool_calls.", _ollama_call),
        ("messages.tool_calls.function.", lambda more: _ollama_call({}, more)),
        ("messages.", _ollama_result),
        ("tools.", _function_tool),
        ("tools.function.", _function),
    ),
)
OLLAMA_GENERATE: Final = Table(
    "Ollama's fields",
    ("/api/generate",),
    {
        **tops({"prompt": "ho", "system": "s", "raw": True, "template": "t", "suffix": "s"}),
        **tops({"context": [1]}),
        "images": top(images=[[PNG], ["AAAA"]]),
    },
    (),
)

# OpenAI's.


def _choice_of_tools(choice: object) -> Sample:
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    return {"tools": tools, "tool_choice": choice}, {"tools": tools}


def _part(more: Json) -> Json:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"} | more]}]}


def _refusal(more: Json) -> Json:
    part = {"type": "refusal", "refusal": "no"} | more
    return {"messages": [{"role": "assistant", "content": [part]}]}


def _image(more: Json) -> Json:
    part = {"type": "image_url", "image_url": {"url": PICTURE} | more}
    return {"messages": [{"role": "user", "content": [part]}]}


def _file(more: Json) -> Json:
    part = {"type": "file", "file": {"file_data": PDF} | more}
    return {"messages": [{"role": "user", "content": [part]}]}


def _assistant(more: Json) -> Json:
    return {"messages": [USER, {"role": "assistant", "content": "well"} | more]}


def _call(more: Json) -> Json:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    other = {"id": "b", "function": {"name": "g", "arguments": "{}"}, "index": 1}
    return _assistant({"tool_calls": [call | more, other]})


def _called(more: Json) -> Json:
    return _call({"function": {"name": "f", "arguments": "{}"} | more})


def _result(more: Json) -> Json:
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in ("f", "g")]
    turn = {"role": "assistant", "content": None, "tool_calls": calls}
    result = {"role": "tool", "tool_call_id": "f", "content": "2"}
    return {"messages": [USER, turn, result | more]}


def _form(more: Json) -> Json:
    named = {"name": "x", "schema": SCHEMA} | more
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _stream(more: Json) -> Json:
    return {"stream": True, "stream_options": more}


_SAMPLING: Final[dict[str, list[Sample]]] = {
    "temperature": top(temperature=[0.5, 9]),
    "top_p": top(top_p=[0.5, 9]),
    **tops({"seed": 7, "presence_penalty": 1, "frequency_penalty": 1, "stream": True}),
}
_STREAM_OPTIONS: Final[dict[str, list[Sample]]] = {
    "stream_options": [(_stream({"include_usage": True}), {"stream": True})],
    "stream_options.include_obfuscation": within(_stream, "include_obfuscation", True),
}
COMMON: Final = Table(
    "OpenAI's fields, chat",
    ("/v1/chat/completions", "/v1/completions"),
    {
        **_SAMPLING,
        **_STREAM_OPTIONS,
        "stop": top(stop=["x", ["x", " "]]),
        "stream_options.include_usage": within(_stream, "include_usage", True),
        **tops({"logit_bias": {"5": 1}, "user": "me", "n": 2, "_debug_render_only": True}),
        "logprobs": top(logprobs=[True]),
    },
    (("", lambda more: more), ("stream_options.", _stream)),
)
COMPLETIONS: Final = Table(
    "OpenAI's fields, chat",
    ("/v1/completions",),
    {
        "prompt": top(prompt=["ho", ["a", "b"], [1, 2]]),
        **tops({"best_of": 2, "echo": True, "suffix": "s"}),
    },
    (),
)
CHAT: Final = Table(
    "OpenAI's fields, chat",
    ("/v1/chat/completions",),
    {
        "messages": [({"messages": [USER, USER]}, {})],
        "messages.role": within(_message, "role", "assistant"),
        "messages.content": within(_message, "content", "ho"),
        "messages.content.type": [(_image({}), _part({})), *within(_part, "type", "input_audio")],
        "messages.content.text": within(_part, "text", "ho"),
        "messages.content.refusal": within(_refusal, "refusal", "never"),
        "messages.content.prompt_cache_breakpoint": within(
            _part, "prompt_cache_breakpoint", {"mode": "explicit"}
        ),
        "messages.content.image_url": [(_image({}), _part({}))],
        "messages.content.image_url.url": within(_image, "url", "https://example.com/a.png"),
        "messages.content.image_url.detail": within(_image, "detail", "high"),
        "messages.content.file": [(_file({}), _part({}))],
        "messages.content.file.file_data": within(_file, "file_data", "https://example.com/a.pdf"),
        "messages.content.file.filename": within(_file, "filename", "a.pdf"),
        "messages.content.file.file_id": within(_file, "file_id", "f"),
        "messages.name": within(_message, "name", "kim"),
        **many(_assistant, "messages.", {"refusal": "no", "reasoning": "hm"}),
        **many(_assistant, "messages.", {"function_call": {"name": "f"}, "audio": {"id": "a"}}),
        "messages.tool_calls": [(_call({}), _assistant({}))],
        "messages.tool_calls.function": [(_called({"name": "h"}), _call({}))],
        **many(_call, "messages.tool_calls.", {"id": "z", "index": 2, "type": "custom"}),
        **many(_called, "messages.tool_calls.function.", {"name": "h", "arguments": '{"x":1}'}),
        "messages.tool_call_id": within(_result, "tool_call_id", "g"),
        "tools": [(_function({}), {})],
        "tools.type": within(_function_tool, "type", "custom"),
        "tools.function": within(_function_tool, "function", {"name": "g"}),
        **many(_function, "tools.function.", {"name": "g", "description": "d"}),
        **many(_function, "tools.function.", {"parameters": SCHEMA, "strict": True}),
        "tool_choice": [
            _choice_of_tools("required"),
            _choice_of_tools({"type": "custom", "custom": {"name": "f"}}),
        ],
        "parallel_tool_calls": [
            ({"tools": [{"function": {"name": "f"}}], "parallel_tool_calls": False}, {}),
        ],
        "response_format": top(response_format=[{"type": "json_object"}, {"type": "grammar"}]),
        "response_format.json_schema": [
            (_form({}), {}),
            ({"response_format": {"type": "json_schema"}}, {}),
        ],
        "response_format.json_schema.schema": within(_form, "schema", {"type": "object"}, 7),
        **many(_form, "response_format.json_schema.", {"name": "y", "description": "d"}),
        "response_format.json_schema.strict": within(_form, "strict", True),
        "reasoning_effort": top(reasoning_effort=["high"]),
        "reasoning": top(reasoning=[{"effort": "low"}]),
        "reasoning.effort": top(reasoning=[{"effort": "low"}]),
        **tops({"metadata": {"a": "b"}, "store": True, "service_tier": "flex"}),
        **tops({"verbosity": "low", "prediction": {"type": "content", "content": "x"}}),
        **tops({"prompt_cache_key": "k", "prompt_cache_options": {"mode": "explicit"}}),
        **tops({"prompt_cache_retention": "24h", "safety_identifier": "s"}),
        **tops({"top_logprobs": 2, "audio": {"voice": "x"}, "modalities": ["text", "audio"]}),
        **tops({"functions": [{"name": "f"}], "function_call": "auto"}),
        **tops({"moderation": {"model": "m"}, "web_search_options": {}}),
    },
    (
        ("messages.", _message),
        ("messages.", _assistant),
        ("messages.", _result),
        ("messages.content.", _part),
        ("messages.content.", _refusal),
        ("messages.content.image_url.", _image),
        ("messages.content.file.", _file),
        ("messages.tool_calls.", _call),
        ("messages.tool_calls.function.", _called),
        ("tools.", _function_tool),
        ("tools.function.", _function),
        ("response_format.json_schema.", _form),
        ("reasoning.", lambda more: {"reasoning": {"effort": "none"} | more}),
    ),
)


def _items(*items: Json) -> Json:
    return {"input": [USER, *items]}


def _item(more: Json) -> Json:
    return {"input": [{"type": "message", "role": "user", "content": "hi"} | more]}


def _input_part(more: Json) -> Json:
    return _item({"content": [{"type": "input_text", "text": "hi"} | more]})


def _output_part(more: Json) -> Json:
    part = {"type": "output_text", "text": "hi"} | more
    return _item({"role": "assistant", "content": [part]})


def _input_refusal(more: Json) -> Json:
    part = {"type": "refusal", "refusal": "no"} | more
    return _item({"role": "assistant", "content": [part]})


def _input_image(more: Json) -> Json:
    return _item({"content": [{"type": "input_image", "image_url": PICTURE} | more]})


def _input_file(more: Json) -> Json:
    file: Json = {"type": "input_file", "file_data": PDF} | more
    if "file_url" in more:
        del file["file_data"]
    return _item({"content": [file]})


_A_CALL: Final[Json] = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}


def _item_call(more: Json) -> Json:
    return _items(_A_CALL | more)


def _item_result(more: Json) -> Json:
    result = {"type": "function_call_output", "call_id": "a", "output": "2"}
    return _items(_A_CALL, _A_CALL | {"call_id": "b"}, result | more)


def _thoughts(more: Json) -> Json:
    item = {"type": "reasoning", "summary": [], "encrypted_content": seal_of("c2ln")} | more
    return _items(item, _A_CALL) | {"reasoning": {"effort": "high"}}


def _tool(more: Json) -> Json:
    return {"tools": [{"type": "function", "name": "f"} | more]}


def _text_form(more: Json) -> Json:
    form = {"type": "json_schema", "name": "x", "schema": SCHEMA} | more
    return {"text": {"format": form}}


def _caching(more: Json) -> Json:
    return {"prompt_cache_options": more}


RESPONSES: Final = Table(
    "OpenAI's fields, responses",
    ("/v1/responses",),
    {
        **_SAMPLING,
        "stream_options": [({"stream": True}, {})],
        "stream_options.include_obfuscation": within(_stream, "include_obfuscation", True),
        "input": top(input=["ho"]),
        "instructions": top(instructions=["s"]),
        "input.type": [
            (_item_call({}), _items()),
            (_items({"type": "item_reference", "id": "x"}), _items()),
        ],
        "input.role": within(_item, "role", "assistant"),
        "input.content": within(_item, "content", "ho"),
        **many(_item, "input.", {"id": "m", "status": "incomplete", "phase": "commentary"}),
        "input.content.type": [
            (_input_image({}), _input_part({})),
            *within(_input_part, "type", "input_audio"),
        ],
        "input.content.text": [
            *within(_input_part, "text", "ho"),
            *within(_output_part, "text", "ho"),
        ],
        "input.content.refusal": within(_input_refusal, "refusal", "never"),
        "input.content.annotations": within(_output_part, "annotations", [{"type": "x"}]),
        "input.content.logprobs": within(_output_part, "logprobs", [{"token": "x"}]),
        "input.content.prompt_cache_breakpoint": within(
            _input_part, "prompt_cache_breakpoint", {"mode": "explicit"}
        ),
        "input.content.image_url": within(_input_image, "image_url", "https://example.com/a.png"),
        "input.content.detail": within(_input_image, "detail", "high"),
        "input.content.file_data": within(_input_file, "file_data", "data:text/plain;base64,aGk="),
        "input.content.file_url": within(_input_file, "file_url", "https://example.com/a.pdf"),
        "input.content.filename": within(_input_file, "filename", "a.pdf"),
        "input.content.file_id": within(_input_image, "file_id", "f"),
        **many(_item_call, "input.", {"call_id": "z", "name": "h", "arguments": '{"x":1}'}),
        **many(
            _item_call, "input.", {"caller": {"type": "direct"}, "namespace": "n", "async": True}
        ),
        "input.output": within(_item_result, "output", "3"),
        "input.summary": within(_thoughts, "summary", [{"type": "summary_text", "text": "hm"}]),
        "input.encrypted_content": within(_thoughts, "encrypted_content", seal_of("eHl6")),
        "tools": [(_tool({}), {})],
        **many(_tool, "tools.", {"name": "g", "description": "d", "parameters": SCHEMA}),
        **many(_tool, "tools.", {"strict": True, "type": "web_search"}),
        **many(_tool, "tools.", {"allowed_callers": ["direct"], "defer_loading": True}),
        **many(_tool, "tools.", {"output_schema": SCHEMA, "async": True}),
        "tool_choice": [
            (_tool({}) | {"tool_choice": "required"}, _tool({})),
            (_tool({}) | {"tool_choice": {"type": "mcp"}}, _tool({})),
        ],
        "parallel_tool_calls": [(_tool({}) | {"parallel_tool_calls": False}, _tool({}))],
        "text": [(_text_form({}), {}), ({"text": 7}, {})],
        "text.format": [(_text_form({}), {}), ({"text": {"format": 7}}, {})],
        "text.format.type": within(_text_form, "type", "json_object", "grammar"),
        "text.format.schema": within(_text_form, "schema", {"type": "object"}, 7),
        **many(_text_form, "text.format.", {"name": "y", "description": "d", "strict": True}),
        "text.verbosity": top(text=[{"verbosity": "low"}]),
        "reasoning": top(reasoning=[{"effort": "low"}]),
        "reasoning.effort": top(reasoning=[{"effort": "low"}]),
        "reasoning.summary": top(reasoning=[{"summary": "detailed"}]),
        "reasoning.generate_summary": top(reasoning=[{"generate_summary": "concise"}]),
        "reasoning.mode": top(reasoning=[{"mode": "pro"}]),
        "reasoning.context": top(reasoning=[{"context": "all_turns"}]),
        "metadata": top(metadata=[{"a": "b"}]),
        "include": top(include=[["file_search_call.results"], ["message.output_text.logprobs"]]),
        **tops({"store": True, "truncation": "auto", "service_tier": "flex", "user": "me"}),
        **tops({"max_tool_calls": 3, "safety_identifier": "s", "image": {"x": 1}}),
        **tops({"context_management": [{"type": "x"}], "access_programs": {"cyber": "standard"}}),
        **tops({"background_options": {"completion_window": "8h"}, "prompt_cache_key": "k"}),
        **tops({"prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "explicit"}}),
        **many(_caching, "prompt_cache_options.", {"mode": "explicit", "ttl": "12h"}),
        **many(_caching, "prompt_cache_options.", {"comparison_response_id": "r"}),
        "prompt_cache_options.prewarm": within(_caching, "prewarm", True),
        **tops({"background": True, "conversation": "c", "previous_response_id": "r"}),
        **tops({"prompt": {"id": "p"}, "moderation": {"model": "m"}, "top_logprobs": 2}),
    },
    (
        ("", lambda more: more),
        ("input.", _item),
        ("input.", _item_call),
        ("input.", _item_result),
        ("input.", _thoughts),
        ("input.content.", _input_part),
        ("input.content.", _output_part),
        ("input.content.", _input_refusal),
        ("input.content.", _input_image),
        ("input.content.", _input_file),
        ("tools.", _tool),
        ("text.", lambda more: {"text": {"format": {"type": "text"}} | more}),
        ("text.format.", _text_form),
        ("reasoning.", lambda more: {"reasoning": {"effort": "none"} | more}),
        ("stream_options.", _stream),
        ("prompt_cache_options.", _caching),
    ),
)

# The Messages API's.


def _block(block: Json) -> Builder:
    def build(more: Json) -> Json:
        return {"messages": [{"role": "user", "content": [block | more]}]}

    return build


_TEXT: Final = _block({"type": "text", "text": "hi"})
_BASE64: Final = {"type": "base64", "media_type": "image/png", "data": PNG}
_IMAGE: Final = _block({"type": "image", "source": _BASE64})
_WORDS: Final = {"type": "text", "media_type": "text/plain", "data": "words"}
_DOCUMENT: Final = _block({"type": "document", "source": _WORDS})


def _use(more: Json) -> Json:
    use = {"type": "tool_use", "id": "a", "name": "f", "input": {}} | more
    return {"messages": [USER, {"role": "assistant", "content": [use]}]}


def _tool_result(more: Json) -> Json:
    result = {"type": "tool_result", "tool_use_id": "a", "content": "2"} | more
    return {"messages": [*_use({})["messages"], {"role": "user", "content": [result]}]}


def _own_tool(more: Json) -> Json:
    return {"tools": [{"name": "f", "input_schema": {"type": "object"}} | more]}


_EPHEMERAL: Final = {"type": "ephemeral"}
MESSAGES: Final = Table(
    "The Messages API's fields",
    ("/v1/messages",),
    {
        "messages": [({"messages": [USER, USER]}, {})],
        "messages.role": within(_message, "role", "assistant"),
        "messages.content": within(_message, "content", "ho"),
        "system": top(system=["s"]),
        "messages.content.text": within(_TEXT, "text", "ho"),
        "messages.content.source": [
            *within(_IMAGE, "source", {"type": "url", "url": "https://example.com/a.png"}),
            *within(_IMAGE, "source", {"type": "file", "file_id": "f"}),
        ],
        "messages.content.title": [
            *within(_DOCUMENT, "title", "T"),
            (_DOCUMENT({"source": {"type": "url", "url": "https://x"}, "title": "T"}), {}),
        ],
        "messages.content.cache_control": within(_TEXT, "cache_control", _EPHEMERAL),
        "messages.content.citations": [
            *within(_TEXT, "citations", [{"type": "x"}]),
            *within(_DOCUMENT, "citations", {"enabled": True}),
        ],
        "messages.content.context": within(_DOCUMENT, "context", "c"),
        "messages.content.transformations": within(_IMAGE, "transformations", {"x": 1}),
        "messages.content.type": [
            (_IMAGE({}), _TEXT({})),
            (_block({"type": "search_result"})({}), _TEXT({})),
        ],
        **many(_use, "messages.tool_use.", {"id": "z", "name": "g", "input": {"x": 1}}),
        **many(_use, "messages.tool_use.", {"cache_control": _EPHEMERAL, "toolset_name": "t"}),
        "messages.tool_use.caller": within(_use, "caller", {"type": "direct"}),
        "messages.tool_result.tool_use_id": within(_tool_result, "tool_use_id", "z"),
        "messages.tool_result.content": within(_tool_result, "content", "3"),
        **many(_tool_result, "messages.tool_result.", {"is_error": True, "toolset_name": "t"}),
        "messages.tool_result.cache_control": within(_tool_result, "cache_control", _EPHEMERAL),
        "tools": [(_own_tool({}), {})],
        **many(_own_tool, "tools.", {"name": "g", "description": "d", "input_schema": SCHEMA}),
        **many(_own_tool, "tools.", {"strict": True, "type": "web_search_20250305"}),
        **many(_own_tool, "tools.", {"cache_control": _EPHEMERAL, "defer_loading": True}),
        **many(_own_tool, "tools.", {"allowed_callers": ["direct"], "input_examples": [{"x": 1}]}),
        "tools.eager_input_streaming": within(_own_tool, "eager_input_streaming", True),
        "tool_choice": [
            (_own_tool({}) | {"tool_choice": {"type": "any"}}, _own_tool({})),
            (_own_tool({}) | {"tool_choice": {"type": "perhaps"}}, _own_tool({})),
        ],
        "output_config": [
            ({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, {}),
            ({"output_config": 7}, {}),
        ],
        "output_config.format": [
            ({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, {}),
            ({"output_config": {"format": {"type": "grammar"}}}, {}),
        ],
        "output_config.effort": top(output_config=[{"effort": "low"}]),
        "thinking": top(thinking=[{"type": "enabled", "budget_tokens": 2000}]),
        **tops({"stop_sequences": ["x"], "stream": True, "temperature": 0.5, "top_p": 0.5}),
        **tops({"top_k": 3, "metadata": {"user_id": "u"}, "cache_control": _EPHEMERAL}),
        **tops({"service_tier": "auto", "speed": "fast", "diagnostics": {"x": 1}}),
        **tops({"user_profile_id": "u", "workspace_id": "w"}),
        **tops({"container": "c", "inference_geo": "eu", "mcp_servers": [{}]}),
    },
    (
        ("", lambda more: more),
        ("messages.", _message),
        ("messages.content.", _TEXT),
        ("messages.content.", _IMAGE),
        ("messages.content.", _DOCUMENT),
        ("messages.tool_use.", _use),
        ("messages.tool_result.", _tool_result),
        ("tools.", _own_tool),
        ("output_config.", lambda more: {"output_config": {"effort": None} | more}),
    ),
    by_chat=True,
)
TABLES: Final = (
    *(OLLAMA, OLLAMA_CHAT, OLLAMA_GENERATE, COMMON, COMPLETIONS, CHAT, RESPONSES, MESSAGES),
)


def named(builder: Builder, table: Table, at: str, name: str) -> Iterable[set[str]]:
    """What becomes of a field that nobody knows, in one object of a request."""
    for route in table.routes:
        yield table.fates_of(route, f"{at}{name}", (builder({name: 7}), builder({})))
