"""From a request body to what is asked for, with the refusals observed on the way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import gojson
from .errors import ApiError
from .models import Catalogue, ModelSpec, is_valid_name
from .text import count_tokens
from .tools import ToolCall, tool_call

if TYPE_CHECKING:
    from .config import SimConfig
    from .gojson import Fields

_DURATION = re.compile(r"([+-]?)((?:[0-9]*\.?[0-9]+(?:ns|us|µs|ms|s|m|h))+|0)")
_UNIT = re.compile(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_INTEGER_OPTIONS = ("num_ctx", "num_predict", "seed", "top_k", "num_keep", "num_batch", "num_gpu")
_GO_MAX = 2**63 - 1
_NUMBER_OPTIONS = ("temperature", "top_p", "min_p", "repeat_penalty")


@dataclass(slots=True)
class Ask:
    """One generation, load or embedding request, whatever the API it came by.

    name: the model as the client wrote it. limit: tokens at most, None for the model's own length.
    form: None, "json" or a JSON schema. empty: no prompt, so load or unload. call: what a model
    that was offered tools answers with.
    """

    spec: ModelSpec
    name: str
    chat: bool
    stream: bool
    limit: int | None
    prompt: str
    prompt_tokens: int
    num_ctx: int
    keep_alive_s: float | None = None
    form: Any = None
    empty: bool = False
    raw: bool = False
    usage: bool = False
    pictures: bool = False
    call: ToolCall | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What Go's decoder knows of a request: its type; of its fields name, kind and Go's type."""

    type: str
    fields: tuple[tuple[str, str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.type.rpartition(".")[2]


def _strings(*names: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((name, "string", "string") for name in names)


def _list(name: str, of: str) -> tuple[str, str, str]:
    return (name, "array", f"[]{of}")


_MODEL = _strings("model")
_BASE = (*_MODEL, ("stream", "bool", "bool"))
_OPTIONS = ("options", "object", "map[string]interface {}")
_STREAM_OPTIONS = ("stream_options", "object", "openai.StreamOptions")
_MAX_TOKENS = ("max_tokens", "number", "int")
GENERATE = Shape(
    "api.GenerateRequest",
    (
        *_BASE,
        *_strings("prompt", "suffix", "system"),
        ("raw", "bool", "bool"),
        _list("images", "api.ImageData"),
        _OPTIONS,
    ),
)
CHAT = Shape(
    "api.ChatRequest",
    (*_BASE, _list("messages", "api.Message"), ("tools", "array", "api.Tools"), _OPTIONS),
)
EMBED = Shape("api.EmbedRequest", (*_MODEL, _OPTIONS))
EMBEDDINGS = Shape("api.EmbeddingRequest", (*_strings("model", "prompt"), _OPTIONS))
SHOW = Shape("api.ShowRequest", _strings("model", "name"))
OPENAI_CHAT = Shape(
    "openai.ChatCompletionRequest",
    (
        *_BASE,
        _list("messages", "openai.Message"),
        _list("tools", "api.Tool"),
        ("response_format", "object", "openai.ResponseFormat"),
        _STREAM_OPTIONS,
        _MAX_TOKENS,
    ),
)
OPENAI_COMPLETION = Shape(
    "openai.CompletionRequest", (*_BASE, *_strings("prompt"), _STREAM_OPTIONS, _MAX_TOKENS)
)
OPENAI_EMBED = Shape("openai.EmbedRequest", _MODEL)
OPENAI_RESPONSES = Shape(
    "openai.ResponsesRequest",
    (
        *_BASE,
        _list("tools", "openai.ResponsesTool"),
        ("text", "object", "openai.ResponsesText"),
        ("max_output_tokens", "number", "int"),
    ),
)
ANTHROPIC = Shape(
    "anthropic.MessagesRequest",
    (
        *_BASE,
        _list("messages", "anthropic.MessageParam"),
        _list("tools", "anthropic.Tool"),
        _MAX_TOKENS,
    ),
)


def decode(body: bytes, shape: Shape, *, native: bool) -> Fields:
    """The body's fields by lower-case name. Raises ApiError 400."""
    try:
        value = gojson.fold(gojson.loads(body))
    except gojson.GoJsonError as error:
        missing = native and str(error) == "EOF"
        message = "missing request body" if missing else str(error)
        raise ApiError(400, message, early=True) from error
    if not isinstance(value, dict):
        what = f"json: cannot unmarshal {gojson.kind(value)} into Go value of type {shape.type}"
        raise ApiError(400, what, early=True)
    for field, wanted, go_type in shape.fields:
        found = gojson.kind(value.get(field))
        if found not in (wanted, "null"):
            where = f"{shape.name}.{field} of type {go_type}"
            message = f"json: cannot unmarshal {found} into Go struct field {where}"
            raise ApiError(400, message, early=True)
    return value


def find(catalogue: Catalogue, name: str, *, pull_first: bool = False) -> ModelSpec:
    """Raises ApiError 400 or 404 with the words observed."""
    if name and not is_valid_name(name):
        raise ApiError(400, "invalid model name")
    spec = catalogue.find(name) if name else None
    if spec is not None:
        return spec
    if pull_first and name:
        raise ApiError(404, f'model "{name}" not found, try pulling it first')
    raise ApiError(404, f"model '{name}' not found")


def keep_alive(value: Any) -> float | None:
    """Seconds; negative for ever; None when the request leaves it open."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ApiError(400, f'time: invalid duration "{value}"', early=True)
    total = sum(float(n) * _SECONDS[unit] for n, unit in _UNIT.findall(match[2]))
    return -total if match[1] == "-" else total


def _options(fields: Fields) -> Fields:
    """Observed: a known option of the wrong type is a 500, an unknown one is ignored."""
    options: Fields = fields.get("options") or {}
    for names, wanted, types in (
        (_INTEGER_OPTIONS, "integer", (int, float)),
        (_NUMBER_OPTIONS, "float32", (int, float)),
    ):
        for name in names:
            value = options.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, types)):
                raise ApiError(500, f'option "{name}" must be of type {wanted}')
    return options


def _is_text(value: Any) -> bool:
    """Whether it is a string, a list of them, or nothing."""
    texts = value if isinstance(value, list) else [value or ""]
    return all(isinstance(text, str) for text in texts)


def _content_text(content: Any) -> str:
    """The text of a message: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _messages_text(messages: Any) -> str:
    items = [gojson.fold(item) for item in messages if isinstance(item, dict)]
    return "\n".join(_content_text(item.get("content")) for item in items)


def _capable(spec: ModelSpec, fields: Fields, name: str) -> None:
    """Refuse what the model cannot do, in the words observed."""
    full = f"registry.ollama.ai/library/{name}"
    if fields.get("tools") and "tools" not in spec.capabilities:
        raise ApiError(400, f"{full} does not support tools")
    if fields.get("suffix") and "insert" not in spec.capabilities:
        raise ApiError(400, f"{full} does not support insert")
    if fields.get("think") and "thinking" not in spec.capabilities:
        raise ApiError(400, f'"{name}" does not support thinking')


@dataclass(slots=True)
class Reader:
    """Turns decoded fields into an Ask, one method per API."""

    config: SimConfig
    catalogue: Catalogue

    def generate(self, fields: Fields) -> Ask:
        wait = keep_alive(fields.get("keep_alive"))
        ask = self._native(fields, chat=False, prompt=fields.get("prompt") or "")
        ask.keep_alive_s = wait
        ask.raw = bool(fields.get("raw"))
        ask.pictures = bool(fields.get("images"))
        return ask

    def chat(self, fields: Fields) -> Ask:
        wait = keep_alive(fields.get("keep_alive"))
        if not fields.get("model"):
            raise ApiError(400, "model is required")
        messages = fields.get("messages") or []
        ask = self._native(fields, chat=True, prompt=_messages_text(messages))
        ask.keep_alive_s = wait
        ask.empty = not messages
        ask.call = tool_call(fields)
        ask.pictures = any(isinstance(item, dict) and item.get("images") for item in messages)
        return ask

    def openai_chat(self, fields: Fields) -> Ask:
        messages = fields.get("messages")
        if not messages:
            raise ApiError(400, "[] is too short - 'messages'", early=True)
        if not fields.get("model"):
            raise ApiError(400, "model is required")
        limit = fields.get("max_completion_tokens") or fields.get("max_tokens")
        ask = self._compatible(fields, chat=True, prompt=_messages_text(messages), limit=limit)
        ask.form = _response_format(fields.get("response_format"))
        ask.call = tool_call(fields)
        return ask

    def openai_completion(self, fields: Fields) -> Ask:
        prompt = _content_text(fields.get("prompt"))
        return self._compatible(fields, chat=False, prompt=prompt, limit=fields.get("max_tokens"))

    def responses(self, fields: Fields) -> Ask:
        if not fields.get("model"):
            raise ApiError(400, "model is required")
        given = fields.get("input")
        prompt = _messages_text(given) if isinstance(given, list) else _content_text(given)
        limit = fields.get("max_output_tokens")
        ask = self._compatible(fields, chat=True, prompt=prompt, limit=limit)
        ask.form = _response_format((fields.get("text") or {}).get("format"))
        ask.call = tool_call(fields)
        return ask

    def anthropic(self, fields: Fields) -> Ask:
        if not fields.get("model"):
            raise ApiError(400, "model is required", early=True)
        limit = fields.get("max_tokens") or 0
        if limit <= 0:
            raise ApiError(400, "max_tokens is required and must be positive", early=True)
        messages = fields.get("messages") or []
        if not messages:
            raise ApiError(400, "messages is required", early=True)
        ask = self._compatible(fields, chat=True, prompt=_messages_text(messages), limit=limit)
        ask.call = tool_call(fields)
        return ask

    def embed(self, fields: Fields) -> Ask:
        wait = keep_alive(fields.get("keep_alive"))
        name = fields.get("model") or ""
        inputs = fields.get("input", fields.get("prompt"))
        if not _is_text(inputs):
            raise ApiError(400, "invalid input type")
        spec = find(self.catalogue, name, pull_first=True)
        text = inputs if isinstance(inputs, str) else "\n".join(map(str, inputs or []))
        ask = self._ask(spec, name, chat=False, prompt=text)
        ask.keep_alive_s = wait
        return ask

    def _native(self, fields: Fields, *, chat: bool, prompt: str) -> Ask:
        name = fields.get("model") or ""
        spec = find(self.catalogue, name)
        _capable(spec, fields, name)
        options = _options(fields)
        ask = self._ask(spec, name, chat=chat, prompt=prompt)
        ask.stream = fields.get("stream") is not False
        ask.limit = _limit(options.get("num_predict"))
        ask.num_ctx = int(options.get("num_ctx") or self.config.num_ctx)
        ask.form = fields.get("format") or None
        ask.empty = not prompt
        return ask

    def _compatible(self, fields: Fields, *, chat: bool, prompt: str, limit: Any) -> Ask:
        name = fields.get("model") or ""
        spec = find(self.catalogue, name)
        _capable(spec, fields, name)
        ask = self._ask(spec, name, chat=chat, prompt=prompt)
        ask.stream = bool(fields.get("stream"))
        ask.limit = _limit(limit)
        ask.usage = bool(gojson.fold(fields.get("stream_options") or {}).get("include_usage"))
        return ask

    def _ask(self, spec: ModelSpec, name: str, *, chat: bool, prompt: str) -> Ask:
        tokens = count_tokens(prompt)
        return Ask(spec, name, chat, False, None, prompt, tokens, self.config.num_ctx)


def _limit(value: Any) -> int | None:
    """Observed: 0 is not "nothing", and negative is "until the model stops".

    What is beyond Go's int becomes negative in it (on amd64).
    """
    return int(value) if isinstance(value, int | float) and 0 < value <= _GO_MAX else None


def _response_format(value: Any) -> Any:
    """OpenAI's response_format as native `format`."""
    if not isinstance(value, dict):
        return None
    if value.get("type") == "json_object":
        return "json"
    inner = value.get("json_schema") or value
    return inner.get("schema") if value.get("type") == "json_schema" else None
